"""The process in which math-verify runs. A script: `answers` starts it and talks to it by pipes.

Symbolic mathematics can take for ever and cannot be interrupted from a thread, but a process can be
ended. Each request is one line of JSON, `[a, b, seconds]`; each reply is one byte, `1` (the two
texts are one answer) or `0`. A first byte `r` says that the imports are done.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
from functools import lru_cache
from typing import Any, BinaryIO

MEMORY = 2 * 1024**3  # bytes of address space
FAR = 1e-3  # relative distance beyond which two numbers need no closer look


def main() -> None:
    """Answer requests until the other side closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    replies = sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing that prints may disturb the replies
    _limit_memory()
    same("\\frac{1}{2}", "x = 1")  # the imports, among them those that wait for the first use
    _send(replies, b"r")
    if not hasattr(os, "fork"):
        _serve(replies)
        return
    # A fork serves, so that after a request that ran out of time the next need not import again.
    while (server := os.fork()) and os.waitpid(server, 0)[1]:
        _send(replies, b"0")
    if not server:
        _serve(replies)


def _serve(replies: BinaryIO) -> None:
    for line in sys.stdin.buffer:
        a, b, seconds = json.loads(line)
        _arm(seconds)
        try:
            reply = b"1" if same(a, b) else b"0"
        except Exception:  # whatever a hostile text provokes: it equals nothing
            reply = b"0"
        _arm(0)
        _send(replies, reply)


def _send(replies: BinaryIO, reply: bytes) -> None:
    replies.write(reply)
    replies.flush()


def same(a: str, b: str) -> bool:
    """Whether math-verify takes two texts for one answer; of equal texts, whether it reads them."""
    from math_verify import verify

    (x, near_x), (y, near_y) = _read(a), _read(b)
    if a == b:
        return bool(x)
    if near_x is not None and near_y is not None and not _close(near_x, near_y):
        return False
    # math-verify is not symmetric, equality is
    return any(verify(p, q, timeout_seconds=None) for p, q in ((x, y), (y, x)))


@lru_cache(maxsize=4096)
def _read(text: str) -> tuple[Any, complex | None]:
    """The text as math-verify parses it, and about what number it is (None: it is not a number)."""
    from math_verify import parse

    parsed = parse(text if "$" in text else f"${text}$", parsing_timeout=None)
    first = parsed[0] if parsed else None
    near = complex(first.evalf(15)) if first is not None and _is_number(first) else None
    return parsed, near


def _is_number(expression: Any) -> bool:
    return bool(getattr(expression, "is_number", False))


def _close(x: complex, y: complex) -> bool:
    return abs(x - y) <= FAR * max(1.0, abs(x), abs(y))


def _arm(seconds: float) -> None:
    """End this process after so many seconds of computing (0: never).

    By the kernel or by a thread that needs no interpreter lock, since a long operation on integers
    lets neither a signal handler nor a Python thread run. Processor time, where the system has it:
    a busy machine must not change what is equal to what.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF ends a process that handles it not
    elif seconds:
        faulthandler.dump_traceback_later(seconds, exit=True, file=2)
    else:
        faulthandler.cancel_dump_traceback_later()


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard == resource.RLIM_INFINITY or hard > MEMORY:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))


if __name__ == "__main__":
    main()
