"""What greedy requests drew, and from which logits: who agrees with one computes nothing again.

A search looks ahead from a prefix by a greedy rollout, drops it, and samples from the same prefix.
As long as the sample draws what the rollout drew, it draws from logits that are known already.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np

from ttsolve.engines.cache import Floats, Ints
from ttsolve.engines.draw import Drawer, Settings
from ttsolve.engines.request import Request, Steps

MEMORY = 128 << 20  # bytes of logits


class Known:
    """The logits after prefixes that greedy requests of any loop of a model came by; the oldest are
    forgotten first. Several threads may ask and tell."""

    def __init__(self, vocabulary: int) -> None:
        self._most = MEMORY // (4 * vocabulary)
        self._after: OrderedDict[bytes, Floats] = OrderedDict()  # by the prefix's content
        self._lock = threading.Lock()

    def keep(self, prefix: Ints, logits: Floats) -> None:
        """Remember the logits [vocabulary] after a prefix."""
        with self._lock:
            self._after[prefix.tobytes()] = logits.copy()
            if len(self._after) > self._most:
                self._after.popitem(last=False)

    def after(self, key: bytes) -> Floats | None:
        """The logits after the prefix of this content; None: unknown or forgotten."""
        return self._after.get(key)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._after.clear()


class Rollouts:
    """Draws along what is known, for one loop."""

    def __init__(self, drawer: Drawer, steps: Steps, known: Known) -> None:
        self._drawer, self._steps, self.known = drawer, steps, known

    def follow(self, requests: Sequence[Request]) -> list[Request]:
        """Let requests draw along the rollouts they agree with: what they draw joins their prefix.

        Those that come to their end on the way are done; the others come back.
        """
        going = self._going(requests)
        while going:
            logits = np.stack([after for _, after in going])
            settings = Settings.empty(len(going))
            for row, (request, _) in enumerate(going):
                settings.put(row, request.how)
            at = np.array([len(request.prefix) for request, _ in going], np.int32)
            drawn = self._drawer.draw(logits, settings, at)
            agree = np.flatnonzero(drawn == logits.argmax(axis=1)).tolist()
            for row in agree:
                self._grow(going[row][0], int(drawn[row]))
            going = self._going([going[row][0] for row in agree])
        for request in requests:
            if request.over:
                request.found(0)
                request.cells = None
                request.done(request)
        return [request for request in requests if not request.over]

    def _going(self, requests: Iterable[Request]) -> list[tuple[Request, Floats]]:
        """Those from whose prefix a rollout went on to logits that are known too, with the logits
        after the prefix."""
        out = []
        for request in requests:
            logits = None if request.over else self.known.after(request.key)
            if logits is not None:
                further = self.known.after(request.key + _bytes(int(logits.argmax())))
                out += [(request, logits)] if further is not None else []
        return out

    def _grow(self, request: Request, token: int) -> None:
        request.extend(token)
        ids: list[int] = request.prefix[request.begun :].tolist()
        request.over = self._steps.grow(request, ids, request.room == 0)


def _bytes(token: int) -> bytes:
    return np.int32(token).tobytes()
