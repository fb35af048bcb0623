"""A verifier's keys and values in one pool of cells that never leaves the device.

A cell holds what one token left in every layer. A step of the `ScoreTree` remembers the numbers of
its cells only. What is before the rows of a batch is gathered from the pool, and what they leave is
scattered into it, by two small graphs that ONNX Runtime runs where the model runs; over the bus go
numbers of cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ttsolve.engines.onnx_graph import ELEMENTS, INT64, Operation, Tensor, model_bytes

Cells = NDArray[np.int64]
PAD = 0  # the cell before a row that has nothing before it; all zeros, for a NaN would spread


@dataclass(frozen=True, slots=True)
class Slot:
    """A layer's keys, or its values."""

    past: str  # the model's input [rows, heads, past, size]
    present: str  # its output [rows, heads, past + new, size]
    heads: int
    size: int
    element: str  # ONNX Runtime's name of its type: "float" or "float16"


class KeyPool:
    """Room for `cells` tokens of the model of a session.

    opens: makes a session of a graph's bytes on the same device; device: "cpu" or "cuda".
    """

    def __init__(
        self,
        session: Any,
        slots: Sequence[Slot],
        cells: int,
        opens: Callable[[bytes], Any],
        device: str,
    ) -> None:
        self._session, self._slots, self._device = session, slots, device
        self._read, self._write = opens(_reading(slots)), opens(_writing(slots))
        types = {"float": np.float32, "float16": np.float16}
        self._pool = [
            ort.OrtValue.ortvalue_from_numpy(
                np.zeros((cells + 1, slot.heads, slot.size), types[slot.element]), device, 0
            )
            for slot in slots
        ]
        self._free = np.arange(cells, PAD, -1)

    @property
    def free(self) -> int:
        """How many cells are free."""
        return len(self._free)

    def release(self, cells: Cells) -> None:
        """Let go of cells that nothing will ask for again."""
        self._free = np.concatenate([self._free, cells])

    def run(
        self, feed: Mapping[str, NDArray[Any]], before: Cells, keep: bool
    ) -> tuple[NDArray[Any], list[Any]]:
        """Run the model behind the cells `before` [rows, past] (`PAD`: nothing).

        Returns the logits, and what all tokens left, on the device, if it is to be kept.
        """
        binding = self._session.io_binding()
        for name, array in feed.items():
            binding.bind_cpu_input(name, array)
        past = self._gathered(before)
        for slot, value in zip(self._slots, past, strict=True):
            binding.bind_ortvalue_input(slot.past, value)
        binding.bind_output("logits", "cpu")
        if keep:
            for slot in self._slots:
                binding.bind_output(slot.present, self._device, 0)
        self._session.run_with_iobinding(binding)
        logits, *present = binding.get_outputs()
        return logits.numpy(), present

    def keep(self, present: Sequence[Any], rows: Cells, places: Cells) -> Cells:
        """Keep what the tokens at `places` of `rows` [n] left: the cells [n] that have it now."""
        count = len(rows)
        assert count <= self.free, "the pool holds what one call of the tree may keep"
        cells = self._free[self.free - count :].copy()
        binding = self._write.io_binding()
        binding.bind_cpu_input("where", np.stack([rows, places], axis=1))
        binding.bind_cpu_input("cells", cells[:, None])
        for slot, value, pool in zip(self._slots, present, self._pool, strict=True):
            binding.bind_ortvalue_input(slot.present, value)
            # Input and output are one buffer: ONNX Runtime then writes the new cells only.
            binding.bind_ortvalue_input(f"pool.{slot.past}", pool)
            binding.bind_ortvalue_output(f"kept.{slot.past}", pool)
        self._write.run_with_iobinding(binding)
        self._free = self._free[: self.free - count]
        return cells

    def _gathered(self, before: Cells) -> list[Any]:
        binding = self._read.io_binding()
        binding.bind_cpu_input("before", before)
        for slot, pool in zip(self._slots, self._pool, strict=True):
            binding.bind_ortvalue_input(f"pool.{slot.past}", pool)
            binding.bind_output(slot.past, self._device, 0)
        self._read.run_with_iobinding(binding)
        return list(binding.get_outputs())


def _reading(slots: Sequence[Slot]) -> bytes:
    """Cells of the pool as a past: `before` [rows, past] → [rows, heads, past, size]."""
    operations, inputs, outputs = [], [Tensor("before", INT64, ["rows", "past"])], []
    for slot in slots:
        pool, cells, element = f"pool.{slot.past}", f"cells.{slot.past}", ELEMENTS[slot.element]
        operations.append(Operation("Gather", [pool, "before"], [cells], {"axis": 0}))
        operations.append(Operation("Transpose", [cells], [slot.past], {"perm": [0, 2, 1, 3]}))
        inputs.append(Tensor(pool, element, ["pool", slot.heads, slot.size]))
        outputs.append(Tensor(slot.past, element, ["rows", slot.heads, "past", slot.size]))
    return model_bytes(operations, inputs, outputs)


def _writing(slots: Sequence[Slot]) -> bytes:
    """What tokens left, into the pool: those at `where` [n, 2] (row, place) into `cells` [n, 1]."""
    operations, outputs = [], []
    inputs = [Tensor("where", INT64, ["n", 2]), Tensor("cells", INT64, ["n", 1])]
    for slot in slots:
        pool, kept, element = f"pool.{slot.past}", f"kept.{slot.past}", ELEMENTS[slot.element]
        turned, new = f"turned.{slot.past}", f"new.{slot.past}"
        perm = {"perm": [0, 2, 1, 3]}
        operations.append(Operation("Transpose", [slot.present], [turned], perm))
        operations.append(Operation("GatherND", [turned, "where"], [new]))
        operations.append(Operation("ScatterND", [pool, "cells", new], [kept]))
        inputs.append(Tensor(slot.present, element, ["rows", slot.heads, "tokens", slot.size]))
        inputs.append(Tensor(pool, element, ["pool", slot.heads, slot.size]))
        outputs.append(Tensor(kept, element, ["pool", slot.heads, slot.size]))
    return model_bytes(operations, inputs, outputs)
