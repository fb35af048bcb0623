"""What greedy requests drew, and from which logits: who agrees with one computes nothing again.

A search looks ahead from a prefix by a greedy rollout, drops it, and samples from the same prefix.
As long as the sample draws what the rollout drew, it draws from logits that are known already.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from ttsolve.engines.cache import Floats, Ints
from ttsolve.engines.draw import Drawer, Settings
from ttsolve.engines.request import Request, Steps

MEMORY = 128 << 20  # bytes of logits


class Rollouts:
    """The logits after prefixes that greedy requests came by; the oldest are forgotten first."""

    def __init__(self, drawer: Drawer, steps: Steps, vocabulary: int) -> None:
        self._drawer, self._steps = drawer, steps
        self._most = MEMORY // (4 * vocabulary)
        self._after: OrderedDict[bytes, Floats] = OrderedDict()  # by the prefix's content

    def keep(self, prefix: Ints, logits: Floats) -> None:
        """Remember the logits [vocabulary] after a prefix."""
        self._after[prefix.tobytes()] = logits.copy()
        if len(self._after) > self._most:
            self._after.popitem(last=False)

    def after(self, key: bytes) -> Floats | None:
        """The logits after the prefix of this content; None: unknown or forgotten."""
        return self._after.get(key)

    def clear(self) -> None:
        """Forget everything."""
        self._after.clear()

    def follow(self, requests: Sequence[Request]) -> list[Request]:
        """Let requests draw along the rollouts they agree with: what they draw joins their prefix.

        Those that come to their end on the way are done; the others come back.
        """
        going = [request for request in requests if self._goes_on(request)]
        while going:
            logits = np.stack([self._after[request.key] for request in going])
            settings = Settings.empty(len(going))
            for row, request in enumerate(going):
                settings.put(row, request.how)
            at = np.array([len(request.prefix) for request in going], np.int32)
            drawn = self._drawer.draw(logits, settings, at)
            agree = np.flatnonzero(drawn == logits.argmax(axis=1))
            for row in agree.tolist():
                self._grow(going[row], int(drawn[row]))
            going = [r for r in (going[row] for row in agree) if not r.over and self._goes_on(r)]
        for request in requests:
            if request.over:
                request.reused = len(request.prefix)
                request.done(request)
        return [request for request in requests if not request.over]

    def _goes_on(self, request: Request) -> bool:
        """Whether a rollout went on from the request's prefix, to logits that are known as well."""
        logits = self._after.get(request.key)
        return logits is not None and request.key + _bytes(int(logits.argmax())) in self._after

    def _grow(self, request: Request, token: int) -> None:
        request.extend(token)
        ids: list[int] = request.prefix[request.begun :].tolist()
        request.over = self._steps.grow(request, ids, request.room == 0)


def _bytes(token: int) -> bytes:
    return np.int32(token).tobytes()
