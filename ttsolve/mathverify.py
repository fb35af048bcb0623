"""math-verify in a process of its own: from any thread, within a time limit that holds.

math-verify's own limits are signals, which only a main thread can receive and which wait until a
long operation on integers is over. Here the process ends instead, and another takes its place.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path

from ttsolve.errors import MissingExtra

LIMIT = 2.0  # seconds of processor time for one question
PATIENCE = 5.0  # times the limit: the seconds by the clock, on a machine that is busy otherwise
START_LIMIT = 120.0  # seconds by the clock to import math-verify, on the slowest of machines
_SCRIPT = Path(__file__).with_name("mathworker.py")


@lru_cache(maxsize=4096)
def readable(text: str) -> bool:
    """Whether math-verify can make something of the text in time."""
    return _worker.ask(text, text)


@lru_cache(maxsize=65536)
def same(a: str, b: str) -> bool:
    """Whether math-verify takes two texts for one answer; False when it cannot tell in time."""
    return _worker.ask(a, b)


class Worker:
    """Starts at the first question, serves all threads in turn, ends with this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, a: str, b: str, limit: float = LIMIT) -> bool:
        """One question.

        Args:
            limit: seconds of processor time.

        Raises:
            MissingExtra: when math-verify cannot be imported.
        """
        with self._lock:
            try:
                reply = self._exchange(json.dumps([a, b, limit]), PATIENCE * limit)
            except BaseException:  # Ctrl-C: this reply must not be taken for the next one
                self._end()
                raise
            if not reply:
                self._end()
            return reply == b"1"

    def close(self) -> None:
        """End the process; the next question starts another."""
        with self._lock:
            self._end()

    def forget(self) -> None:
        """In a fork, where the process is the parent's: a pipe kept open would keep it alive."""
        process, self._process, self._lock = self._process, None, threading.Lock()
        if process is not None:
            _close_pipes(process)
            process.returncode = 0  # not ours to wait for

    def _exchange(self, question: str, limit: float) -> bytes:
        for _ in range(2):  # that the process was killed from outside shows only now
            process = self._process or self._start()
            try:
                assert process.stdin is not None
                process.stdin.write(question.encode() + b"\n")
                return _reply(process, limit)
            except BrokenPipeError:
                self._end()
        return b""

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = process = subprocess.Popen(
            [sys.executable, "-P", str(_SCRIPT)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if _reply(process, START_LIMIT) != b"r":
            raise MissingExtra(
                "answers cannot be compared because math-verify does not start: "
                "install it with `pip install math-verify`."
            )
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            _close_pipes(process)
            process.wait()


def _reply(process: subprocess.Popen[bytes], limit: float) -> bytes:
    """One byte from the process; b"" when it died, or was killed at the limit (seconds)."""
    timer = threading.Timer(limit, process.kill)
    timer.daemon = True
    timer.start()
    try:
        assert process.stdout is not None
        return process.stdout.read(1)
    finally:
        timer.cancel()


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


_worker = Worker()
atexit.register(_worker.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_worker.forget)
