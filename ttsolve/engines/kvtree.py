"""Which tokens stand in which sequence of the KV cache, and where a new prefix goes.

Prefixes are found by content: a sequence that begins with the same tokens is the one to grow from.
Knows nothing of llama.cpp: its owner mirrors every change in the real cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a prefix goes: copy `source` (None: nothing to copy) and keep `reused` tokens."""

    sequence: int
    source: int | None
    reused: int  # tokens that need no decoding


class KVTree:
    """The tree of token prefixes that the sequences of one cache span.

    `cells` is the size of a cache that all sequences share, in which a forked prefix takes no new
    cell (unified); None: every sequence owns `context` cells, and forks are copies (split).
    """

    def __init__(self, sequences: int, context: int, cells: int | None = None) -> None:
        self.context = context
        self.tokens: Ints = np.zeros((sequences, context), np.int32)
        self.length: Ints = np.zeros(sequences, np.int32)
        self.touched = np.arange(sequences, dtype=np.int64)  # clock of the last use
        self.clock = sequences
        self.cells = cells
        self._cell: Ints = np.zeros((sequences if cells else 0, context), np.int32)
        self._owners: Ints = np.zeros(cells or 0, np.int32)  # sequences that hold each cell
        self._spare = list(range(cells or 0))

    @property
    def spare(self) -> int:
        """Cells that no sequence holds (unified only)."""
        return len(self._spare)

    def common(self, prefix: Ints) -> NDArray[np.intp]:
        """How many first tokens of `prefix` each sequence shares: [sequences]."""
        n = len(prefix)
        differs = np.ones((len(self.length), n + 1), bool)
        np.not_equal(self.tokens[:, :n], prefix, out=differs[:, :n])
        shared: NDArray[np.intp] = np.minimum(differs.argmax(axis=1), self.length)
        return shared

    def place(self, prefix: Ints, free: NDArray[np.bool_]) -> Place:
        """Where `prefix` goes among the sequences that are `free`; changes nothing.

        A free sequence that ends just where the shared part ends is grown in place, so nothing is
        copied and nothing lost; else the least recently used one gives way.
        """
        common = self.common(prefix)
        best = int(common.max(initial=0))
        fitting = np.flatnonzero(free & (common == best) & (self.length == best))
        if best and len(fitting):
            return Place(int(fitting[0]), None, best)
        choices = np.flatnonzero(free)
        target = int(choices[self.touched[choices].argmin()])
        if common[target] == best:
            return Place(target, None, best)
        return Place(target, int(common.argmax()), best)

    def take(self, place: Place) -> None:
        """Make the sequence of `place` hold the shared tokens and nothing else."""
        target, source, n = place.sequence, place.source, place.reused
        if source is None:
            self.trim(target, n)
        else:
            self.trim(target, 0)
            self.tokens[target, :n] = self.tokens[source, :n]
            self.length[target] = n
            if self.cells:
                self._cell[target, :n] = self._cell[source, :n]
                self._owners[self._cell[source, :n]] += 1
        self.touch(target)

    def touch(self, sequence: int) -> None:
        """Note a use: the least recently used free sequence is the first to give way."""
        self.touched[sequence] = self.clock
        self.clock += 1

    def trim(self, sequence: int, length: int) -> None:
        """Forget what stands from position `length` on."""
        if self.cells:
            gone = self._cell[sequence, length : self.length[sequence]]
            self._owners[gone] -= 1
            self._spare.extend(gone[self._owners[gone] == 0].tolist())
        self.length[sequence] = length

    def extend(self, sequences: Ints, tokens: Ints, positions: Ints) -> None:
        """Write decoded tokens, each at the next free position of its sequence: all [n], those of
        one sequence in their order."""
        self.tokens[sequences, positions] = tokens
        self.length[sequences] = positions + 1  # of a sequence's tokens the last one counts
        if self.cells:
            start = len(self._spare) - len(tokens)
            new = self._spare[start:]
            del self._spare[start:]
            self._cell[sequences, positions] = new
            self._owners[new] = 1

    def clear(self) -> None:
        """Forget everything."""
        for sequence in range(len(self.length)):
            self.trim(sequence, 0)
