"""Where the keys and values of a verifier's steps are kept: in arrays here, or on the device.

Both ways compute a batch behind what is before its rows, and keep what new steps left. In arrays,
keys and values come back from every batch and go out with the next one: the fastest way on a CPU,
where nothing is copied further than memory. On a GPU that would be gigabytes over the bus, so there
they stay in a pool, and a step has the numbers of its cells only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ttsolve.engines.onnx_model import OnnxModel
from ttsolve.engines.onnx_pool import PAD, KeyPool
from ttsolve.engines.scoretree import Array, Node, Run

Feed = dict[str, Array]
Places = tuple[Node, int, slice]  # a step; its row in a batch, and where in the row it is


class StepKeys(Protocol):
    """A way to keep keys and values. `Node.past` is its own; None: a step has none."""

    least: int  # cells before a row, if only for padding

    def run(self, feed: Feed, runs: Sequence[Run], past: int, keep: bool) -> tuple[Array, Any]:
        """A batch's logits, behind `past` cells a row (padded on the left); and what all its tokens
        left, if it is to be kept. Any thread may call."""
        ...

    def keep(self, steps: Sequence[Places], left: Any) -> None:
        """Set the `past` of steps, from what a batch left."""
        ...

    def release(self, node: Node) -> None:
        """Let go of what a step has."""
        ...


class HostKeys:
    """In NumPy arrays: of each step [heads, tokens, size], twice a layer."""

    least = 0

    def __init__(self, model: OnnxModel) -> None:
        self._model = model
        self._present = [name.replace("past.", "present.") for name in model.past]

    def run(self, feed: Feed, runs: Sequence[Run], past: int, keep: bool) -> tuple[Array, Any]:
        caches = {
            name: np.zeros((len(runs), shape[1], past, shape[3]), dtype)
            for name, (shape, dtype) in self._model.past.items()
        }
        for row, run in enumerate(runs):
            shift = past - run.start
            for node in run.first.before():
                cells = slice(shift + node.start, shift + node.end)
                for array, kept in zip(caches.values(), node.past or (), strict=True):
                    array[row, :, cells] = kept
        outputs = ["logits", *self._present] if keep else ["logits"]
        logits, *left = self._model.run(outputs, feed | caches)
        return logits, left

    def keep(self, steps: Sequence[Places], left: list[Array]) -> None:
        for node, row, cells in steps:
            # A copy: a view would hold a whole batch.
            node.past = [np.array(array[row, :, cells]) for array in left]

    def release(self, node: Node) -> None:
        node.past = None


class DeviceKeys:
    """In a pool on the device: of each step the numbers of its cells [tokens]."""

    least = 1  # what has no cells at all is an edge that not every kernel knows

    def __init__(self, pool: KeyPool) -> None:
        self._pool = pool

    def run(self, feed: Feed, runs: Sequence[Run], past: int, keep: bool) -> tuple[Array, Any]:
        before = np.full((len(runs), past), PAD)
        for row, run in enumerate(runs):
            shift = past - run.start
            for node in run.first.before():
                before[row, shift + node.start : shift + node.end] = node.past
        return self._pool.run(feed, before, keep)

    def keep(self, steps: Sequence[Places], left: Any) -> None:
        sizes = [cells.stop - cells.start for _, _, cells in steps]
        rows = np.repeat([row for _, row, _ in steps], sizes)
        places = np.concatenate([np.arange(cells.start, cells.stop) for _, _, cells in steps])
        kept: NDArray[np.int64] = self._pool.keep(left, rows, places)
        for (node, _, _), own in zip(steps, np.split(kept, np.cumsum(sizes)[:-1]), strict=True):
            node.past = own

    def release(self, node: Node) -> None:
        self._pool.release(node.past)
        node.past = None
