"""A model's KV cache: what stands where (`KVTree`), and the model told of every change.

Searches of several problems sample more prefixes than there are sequences, and go on from few of
them, later. So what a sequence holds is parked in memory when it gives way, and put back when it is
asked for: sooner done than decoding it again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ttsolve.engines.kvtree import KVTree, Place

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

PARKED = 256 << 20  # bytes of what gave way
WORTH = 8  # tokens that are sooner copied than decoded again


@dataclass(frozen=True, slots=True)
class Cells:
    """The first tokens of a prefix, with their keys and values: parked, or lent to another."""

    tokens: Ints
    saved: Any  # as the model saved the sequence, which may go on behind them


class Decoder(Protocol):
    """A model and its KV cache."""

    pieces: list[bytes]  # the text of every token
    ends: Bools  # [vocabulary]: the tokens that end a generation
    batch: int  # tokens one call of `decode` takes
    contiguous: bool  # a batch is quicker when its sequences stand side by side
    seconds: float  # spent decoding so far
    decoded: int  # tokens so far

    def decode(self, tokens: Ints, at: Ints, sequences: Ints, wanted: Bools) -> Floats | None:
        """Decode a batch, all [n]; the logits [wanted tokens, vocabulary], valid until the next
        call. None: interrupted, and the cache may hold a part of the batch."""
        ...

    def copy(self, source: int, target: int) -> None:
        """Make the sequence `target`, which is empty, equal to `source`; perhaps only at the
        beginning of the next `decode`, and until then neither may be saved or loaded."""
        ...

    def trim(self, sequence: int, length: int) -> None:
        """Forget what stands in a sequence from position `length` on."""
        ...

    def save(self, sequence: int) -> Any:
        """What a sequence holds, for `load`, by another cache of the model too; its `len` counts
        bytes."""
        ...

    def load(self, sequence: int, saved: Any) -> None:
        """Make the empty `sequence` hold what was saved."""
        ...

    def interrupt(self) -> None:
        """Let `decode` return early, from any thread, until `resume`."""
        ...

    def resume(self) -> None:
        """Take `interrupt` back."""
        ...

    def close(self) -> None:
        """Free the model and its cache."""
        ...


class Cache:
    """The tree and the model's cache in step."""

    def __init__(self, model: Decoder, tree: KVTree) -> None:
        self.model, self.tree = model, tree
        self.length = tree.length  # [sequences], a live view
        self.spoilt = np.zeros(len(self.length), bool)  # what it holds is hardly asked for again
        self.awaits = np.zeros(len(self.length), bool)  # but for a chain's next attempt, in place
        self._parked: OrderedDict[bytes, Cells] = OrderedDict()  # by content, the oldest first
        self._bytes = 0  # of what is parked
        self._copying: set[int] = set()  # from and to which the model copies when it next decodes

    def place(self, prefix: Ints, free: Bools, complete: bool) -> Place:
        """Where `prefix` goes. Unless `complete`, its last token is to be decoded in any case, for
        its logits; so it is too where the cache does not hold all of it."""
        place = self.tree.place(prefix, free)
        if complete and place.reused == len(prefix):
            return place
        return self.tree.place(prefix[:-1], free)

    def take(self, place: Place) -> None:
        """Make the sequence of `place` hold the shared tokens and nothing else."""
        self.park(place.sequence, 0 if place.source is not None else place.reused)
        if place.source is not None:
            self.model.trim(place.sequence, 0)
            self.model.copy(place.source, place.sequence)
            self._copying |= {place.source, place.sequence}
        self.model.trim(place.sequence, place.reused)
        self.tree.take(place)

    def held(self, prefix: Ints) -> int:
        """How many first tokens of a prefix stand here, or are parked."""
        standing = int(self.tree.common(prefix).max())
        return max(standing, len(prefix) - 1) if self.parked(prefix) else standing

    def parked(self, prefix: Ints) -> Cells | None:
        """What is parked of a prefix, if that is all of it but its last token."""
        return self._parked.get(prefix[:-1].tobytes())

    def lend(self, prefix: Ints) -> Cells:
        """What stands here, or is parked, of a prefix but for its last token, whose logits nobody
        lends."""
        if cells := self.parked(prefix):
            return cells
        common = self.tree.common(prefix[:-1])
        sequence = int(common.argmax())
        if sequence in self._copying:
            return Cells(prefix[:0], None)
        return Cells(prefix[: common[sequence]], self.model.save(sequence))

    def borrow(self, cells: Cells, free: Bools) -> None:
        """Put what another cache lent, or what was parked, into a free sequence, if there is one
        for it, unless as much stands here.

        Not into a cache that sequences share: it may have no room.
        """
        n = len(cells.tokens)
        if self.tree.common(cells.tokens).max() == n or self.tree.cells is not None:
            return
        sequence = self.tree.place(cells.tokens, free).sequence
        if sequence in self._copying:
            return
        self.park(sequence)
        self.evict(sequence)
        self.model.load(sequence, cells.saved)
        self.model.trim(sequence, n)
        self.tree.extend(np.full(n, sequence, np.int32), cells.tokens, np.arange(n, dtype=np.int32))
        self.tree.touch(sequence)

    def make_room(self, needed: int, free: Bools, place: Place) -> bool:
        """Evict free sequences, the least recently used first, until `needed` tokens fit beside
        what remains; True when they do. The prefix at `place` is spared."""
        if self.tree.cells is None:
            return True
        spared = place.sequence if place.source is None else place.source
        for sequence in np.argsort(self.tree.touched).tolist():
            if self.tree.spare >= needed:
                break
            if free[sequence] and sequence != spared:
                self.evict(sequence)
        return self.tree.spare >= needed

    def evict(self, sequence: int) -> None:
        """Forget a sequence."""
        self.tree.trim(sequence, 0)
        self.model.trim(sequence, 0)

    def clear(self) -> None:
        """Forget everything."""
        self._parked.clear()
        self._bytes = 0
        for sequence in range(len(self.length)):
            self.evict(sequence)

    def decode(self, tokens: Ints, at: Ints, sequences: Ints, wanted: Bools) -> Floats | None:
        """As `Decoder.decode`, but an interrupted batch leaves the cache as it was."""
        logits = self.model.decode(tokens, at, sequences, wanted)
        self._copying.clear()
        if logits is None:
            for sequence in np.unique(sequences).tolist():
                self.model.trim(sequence, int(self.length[sequence]))
            return None
        self.tree.extend(sequences, tokens, at)
        return logits

    def park(self, sequence: int, kept: int = 0) -> None:
        """Save what a sequence is about to lose behind its first `kept` tokens (or to bury under
        more), if it may be asked for again.

        Not what is to be copied, which cannot be saved before; nor from a cache that sequences
        share, where it gives way for room.
        """
        n = int(self.length[sequence])
        if n - kept < WORTH or self.spoilt[sequence] or self.tree.cells is not None:
            return
        tokens = self.tree.tokens[sequence, :n].copy()
        key = tokens.tobytes()
        if key in self._parked:
            self._parked.move_to_end(key)
            return
        if sequence in self._copying:
            return
        self._parked[key] = Cells(tokens, self.model.save(sequence))
        self._bytes += len(self._parked[key].saved)
        while self._bytes > PARKED:
            _, oldest = self._parked.popitem(last=False)
            self._bytes -= len(oldest.saved)
