"""Who rides in which lane of a decode loop: the requests that are the same text so far, as one.

A lane is a sequence of the cache while somebody rides in it. Riders have the same prefix and the
same settings, but for their seeds and steps, and have drawn the same tokens since they met.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ttsolve.engines.cache import Bools, Ints
from ttsolve.engines.draw import Settings
from ttsolve.engines.request import Request


class Lanes:
    """The lanes of one loop, [n] each."""

    def __init__(self, n: int) -> None:
        self.riders: list[list[Request]] = [[] for _ in range(n)]  # none: the lane is free
        self.running: Bools = np.zeros(n, bool)
        self.filling: dict[bytes, int] = {}  # prefixes in the making, by content: their lane
        self.next: Ints = np.zeros(n, np.int32)  # drawn, to be decoded in the next turn
        self.limit: Ints = np.zeros(n, np.int32)  # the length at which all in a lane must end
        self._settings = Settings.empty(n)

    def __len__(self) -> int:
        return len(self.riders)

    @property
    def load(self) -> int:
        """How many ride."""
        return sum(map(len, self.riders))

    @property
    def free(self) -> Bools:
        """The lanes where nobody rides."""
        return ~self.running

    def batch(self, length: Ints, most: int) -> tuple[Ints, Ints, Ints, Bools]:
        """What is decoded next: tokens, positions, lanes and whether their logits are wanted, in
        the order of lanes.

        length: of every lane so far. most: tokens of a batch; prefixes that are longer come in
        parts.
        """
        stepping = self.running.copy()
        stepping[list(self.filling.values())] = False
        lanes = np.flatnonzero(stepping).astype(np.int32)
        parts = [(self.next[lanes], length[lanes], lanes, np.ones(len(lanes), bool))]
        left = most - len(lanes)
        for lane in self.filling.values():
            prefix = self.riders[lane][0].prefix
            tokens = prefix[length[lane] : length[lane] + left]
            left -= len(tokens)
            at = length[lane] + np.arange(len(tokens), dtype=np.int32)
            wanted = at == len(prefix) - 1
            parts.append((tokens, at, np.full(len(tokens), lane, np.int32), wanted))
        if len(parts) == 1:
            return parts[0]
        tokens, at, lanes, wanted = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(lanes, kind="stable")
        return tokens[order], at[order], lanes[order], wanted[order]

    def greedy(self, lanes: Ints) -> list[int]:
        """Which of the `lanes`, by their place, draw greedily."""
        return np.flatnonzero(self._settings.temperature[lanes] == 0).tolist()

    def settings(self, lanes: Ints) -> tuple[Settings, Ints, NDArray[np.uint64]]:
        """Those of the `lanes` [n], how many riders each has [n], and every rider's seed [m], lane
        after lane."""
        riders = [self.riders[lane] for lane in lanes.tolist()]
        each = np.array([len(some) for some in riders], np.int32)
        seed = np.array([request.how.seed for some in riders for request in some], np.uint64)
        return self._settings[lanes], each, seed

    def occupy(self, lane: int, riders: Sequence[Request]) -> None:
        """Let riders into a free lane."""
        self.riders[lane] = list(riders)
        self.running[lane] = True
        self.limit[lane] = len(riders[0].prefix) + riders[0].room
        self._settings.put(lane, riders[0].how)

    def keep(self, lane: int, riders: list[Request]) -> None:
        """Only these ride on; none: the lane is free."""
        first = self.riders[lane][0]
        if not riders and self.is_filling(lane, first):
            del self.filling[first.key]
        self.riders[lane] = riders
        self.running[lane] = bool(riders)

    def move(self, source: int, target: int) -> None:
        """Let all of a lane go on in a free one."""
        riders = self.riders[source]
        self.occupy(target, riders)
        self.next[target] = self.next[source]
        if self.is_filling(source, riders[0]):
            self.filling[riders[0].key] = target
        self.keep(source, [])

    def is_filling(self, lane: int, request: Request) -> bool:
        """Whether the prefix of those in the lane, of whom `request` is one, is in the making."""
        return self.filling.get(request.key) == lane

    def clear(self) -> None:
        """Everybody leaves."""
        self.riders = [[] for _ in self.riders]
        self.running[:] = False
        self.filling.clear()
