"""One thread that owns a decode loop, and takes what other threads ask of it."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from ttsolve.engines.cache import Cells, Ints
from ttsolve.engines.decode import DecodeLoop
from ttsolve.engines.request import Request
from ttsolve.errors import TtsolveError


class Call:
    """Where the requests of one call arrive as they end, or the error that ended it."""

    def __init__(self) -> None:
        self.ended: SimpleQueue[Request | Exception] = SimpleQueue()


class Worker:
    """Runs `loop` in a thread of its own until stopped."""

    def __init__(self, loop: DecodeLoop) -> None:
        self._loop = loop
        self._changed = threading.Condition()
        self._inbox: list[Request] = []
        self._calls: set[Call] = set()  # not all of their requests are done
        self._cancelled: list[Call] = []
        self._wanted: list[tuple[Ints, SimpleQueue[Cells | None]]] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="ttsolve-decode", daemon=True)
        self._thread.start()

    @property
    def load(self) -> int:
        """How many requests wait or run, about."""
        return len(self._inbox) + self._loop.load

    def held(self, prefix: Ints) -> int:
        """How many first tokens of a prefix stand in the loop's cache, about.

        What the loop's thread changes meanwhile may be seen or not.
        """
        return self._loop.cache.held(prefix)

    def lend(self, prefix: Ints) -> Cells | None:
        """What the loop holds of a prefix, for another loop; waits for the end of a turn.

        None: the loop breaks or ends meanwhile.
        """
        answer: SimpleQueue[Cells | None] = SimpleQueue()
        with self._changed:
            if self._closing:
                return None
            self._wanted.append((prefix, answer))
            self._changed.notify()
        return answer.get()

    def submit(self, call: Call, requests: list[Request]) -> None:
        """Run requests of a call, which tell by their `done` that they have ended."""
        with self._changed:
            if self._closing:
                raise TtsolveError("The generator is closed: open it again to sample from it.")
            self._calls.add(call)
            self._inbox += requests
            self._changed.notify()

    def cancel(self, call: Call) -> None:
        """End a call's requests as they stand."""
        with self._changed:
            if call not in self._calls:
                return
            self._cancelled.append(call)
            self._loop.model.interrupt()
            self._changed.notify()

    def drop(self, call: Call) -> None:
        """Nobody hears a call any more."""
        with self._changed:
            self._calls.discard(call)

    def stop(self) -> None:
        """Let the thread end: it frees the model, and calls still waiting get an error."""
        with self._changed:
            self._closing = True
            self._loop.model.interrupt()
            self._changed.notify()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._closing or self._asked() or self._loop.load):
                    self._changed.wait()
                if self._closing:
                    break
                self._loop.waiting.extend(self._inbox)
                cancelled, wanted = self._cancelled, self._wanted
                self._inbox, self._cancelled, self._wanted = [], [], []
                self._loop.model.resume()
            try:
                for prefix, answer in wanted:
                    answer.put(self._loop.cache.lend(prefix))
                for call in cancelled:
                    self._loop.cancel(call)
                self._loop.turn()
            except Exception as error:
                self._fail(error)
                self._loop.forget()
                for _, answer in wanted:
                    answer.put(None)
        self._fail(TtsolveError("The generator was closed while it sampled."))
        self._loop.model.close()

    def _asked(self) -> bool:
        return bool(self._inbox or self._cancelled or self._wanted)

    def _fail(self, error: Exception) -> None:
        with self._changed:
            for call in self._calls:
                call.ended.put(error)
            for _, answer in self._wanted:
                answer.put(None)
            self._calls.clear()
            self._inbox.clear()
            self._wanted.clear()
