"""One thread that owns a decode loop, and the calls of all other threads it serves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from ttsolve.engines.decode import DecodeLoop
from ttsolve.engines.request import Request
from ttsolve.errors import TtsolveError

POLL = 0.05  # seconds between two looks at a caller's stop event


class Worker:
    """Runs `loop` in a thread of its own until closed."""

    def __init__(self, loop: DecodeLoop) -> None:
        self._loop = loop
        self._changed = threading.Condition()
        self._inbox: list[Request] = []
        self._calls: set[Call] = set()  # not all of their requests are done
        self._cancelled: list[Call] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="ttsolve-decode", daemon=True)
        self._thread.start()

    def serve(
        self,
        requests: list[Request],
        heard: Callable[[Request], None],
        stop: threading.Event | None = None,
    ) -> None:
        """Run `requests`; call `heard`, in this thread, with each as it ends.

        When `stop` is set the rest ends as it stands. Any exception here, Ctrl-C among them,
        cancels what is left of this call and leaves the other calls alone.
        """
        call = Call()
        for request in requests:
            request.owner, request.done = call, call.ended.put
        self._submit(call, requests)
        left, stopped = len(requests), False
        try:
            while left:
                if stop is not None and stop.is_set() and not stopped:
                    stopped = True
                    self._cancel(call)
                try:
                    ended = call.ended.get(timeout=POLL)
                except Empty:
                    continue
                if isinstance(ended, Exception):
                    raise ended
                left -= 1
                heard(ended)
        except BaseException:
            self._cancel(call)
            raise
        finally:
            with self._changed:
                self._calls.discard(call)

    def close(self) -> None:
        """Stop the thread and free the model; calls still waiting get an error."""
        with self._changed:
            self._closing = True
            self._loop.model.interrupt()
            self._changed.notify()
        self._thread.join()

    def _submit(self, call: Call, requests: list[Request]) -> None:
        with self._changed:
            if self._closing:
                raise TtsolveError("The generator is closed: open it again to sample from it.")
            self._calls.add(call)
            self._inbox += requests
            self._changed.notify()

    def _cancel(self, call: Call) -> None:
        with self._changed:
            self._cancelled.append(call)
            self._loop.model.interrupt()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._inbox or self._cancelled or self._loop.busy or self._closing):
                    self._changed.wait()
                if self._closing:
                    break
                self._loop.waiting.extend(self._inbox)
                cancelled = self._cancelled
                self._inbox, self._cancelled = [], []
                self._loop.model.resume()
            try:
                for call in cancelled:
                    self._loop.cancel(call)
                self._loop.turn()
            except Exception as error:
                self._fail(error)
                self._loop.forget()
        self._fail(TtsolveError("The generator was closed while it sampled."))
        self._loop.model.close()

    def _fail(self, error: Exception) -> None:
        with self._changed:
            for call in self._calls:
                call.ended.put(error)
            self._calls.clear()
            self._inbox.clear()


class Call:
    """One call of `serve`: where its requests arrive as they end, or the error that ended it."""

    def __init__(self) -> None:
        self.ended: SimpleQueue[Request | Exception] = SimpleQueue()
