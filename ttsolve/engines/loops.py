"""The decode loops of one model, and the calls of all threads that they serve.

One thread is fastest for a small model, so each core runs a loop of its own: with sequences of its
own, over the same weights. Requests are shared out as `placing` says; a prefix that goes to another
loop than the one it grew in is not decoded again: its keys and values are copied.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import Empty

from ttsolve.engines.decode import DecodeLoop
from ttsolve.engines.placing import Part, place
from ttsolve.engines.request import Request
from ttsolve.engines.worker import Call, Worker

POLL = 0.05  # seconds between two looks at a caller's stop event


class Loops:
    """Runs each loop in a thread of its own until closed."""

    def __init__(self, loops: Sequence[DecodeLoop]) -> None:
        self._workers = [Worker(loop) for loop in loops]
        self._placing = threading.Lock()

    def serve(
        self,
        requests: list[Request],
        heard: Callable[[Request], None],
        stop: threading.Event | None = None,
    ) -> None:
        """Run `requests`; call `heard`, in this thread, with each as it ends.

        When `stop` is set the rest ends as it stands. Any exception here, Ctrl-C among them, or in
        a loop that has a part of this call, cancels what is left of it in all of them; the other
        calls of a loop that broke get its error, those of the others go on.
        """
        call = Call()
        for request in requests:
            request.owner, request.done = call, call.ended.put
        left, stopped = len(requests), False
        try:
            self._submit(call, requests)
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
            for worker in self._workers:
                worker.drop(call)

    def close(self) -> None:
        """Stop the threads and free what they decode with; calls still waiting get an error."""
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.join()

    def _submit(self, call: Call, requests: list[Request]) -> None:
        workers = self._workers
        with self._placing:  # two calls at once would see the same load
            parts = [Part(requests, 0, None)]
            if len(workers) > 1:
                load = [worker.load for worker in workers]
                parts = place(requests, load, lambda prefix: [w.held(prefix) for w in workers])
            for part in parts:  # before anything is submitted: a loop lends between two turns
                if part.source is not None:
                    first = part.requests[0]  # what it brings along the others find there
                    first.cells = workers[part.source].lend(first.prefix)
            for i, worker in enumerate(workers):
                mine = [r for part in parts if part.loop == i for r in part.requests]
                if mine:
                    worker.submit(call, mine)

    def _cancel(self, call: Call) -> None:
        for worker in self._workers:
            worker.cancel(call)
