"""The pool of keys and values: what is kept is what comes back, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from ttsolve.engines import onnx_pool
from ttsolve.engines.onnx_graph import Operation, Tensor, model_bytes
from ttsolve.engines.onnx_pool import PAD, KeyPool, Slot

SLOTS = [
    Slot("past.0.key", "present.0.key", heads=2, size=3, element="float"),
    Slot("past.0.value", "present.0.value", heads=2, size=3, element="float"),
]


def opened(graph: bytes) -> ort.InferenceSession:
    return ort.InferenceSession(graph, providers=["CPUExecutionProvider"])


def on_device(*arrays: np.ndarray) -> list[ort.OrtValue]:
    return [ort.OrtValue.ortvalue_from_numpy(array, "cpu", 0) for array in arrays]


def left(rows: int, tokens: int, slot: Slot, seed: int) -> np.ndarray:
    """What `tokens` of `rows` leave in a layer."""
    shape = (rows, slot.heads, tokens, slot.size)
    kind = {"float": np.float32, "float16": np.float16}[slot.element]
    return np.random.default_rng(seed).standard_normal(shape).astype(kind)


@pytest.mark.parametrize("graph", [onnx_pool._reading(SLOTS), onnx_pool._writing(SLOTS)])
def test_the_graphs_are_what_onnx_reads(graph: bytes) -> None:
    onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)


def test_a_graph_is_written_as_it_stands() -> None:
    """The picture: out = transpose(gather(x, i, axis 1))."""
    gather = Operation("Gather", ["x", "i"], ["g"], {"axis": 1})
    turn = Operation("Transpose", ["g"], ["out"], {"perm": [1, 0]})
    inputs = [Tensor("x", 1, [2, 300]), Tensor("i", 7, ["n"])]
    session = opened(model_bytes([gather, turn], inputs, [Tensor("out", 1, ["n", 2])]))
    assert session.get_inputs()[0].shape == [2, 300]
    x = np.arange(600, dtype=np.float32).reshape(2, 300)
    [out] = session.run(None, {"x": x, "i": np.array([299, 0])})
    assert out.tolist() == [[299, 599], [0, 300]]


@pytest.mark.parametrize("element", ["float", "float16"])
def test_what_is_kept_comes_back(element: str) -> None:
    slots = [Slot(s.past, s.present, s.heads, s.size, element) for s in SLOTS]
    pool = KeyPool(None, slots, 8, opened, "cpu")
    keys, values = (left(2, 5, slot, seed) for seed, slot in enumerate(slots))
    first = pool.keep(on_device(keys, values), np.array([0, 0, 0]), np.array([2, 3, 4]))
    second = pool.keep(on_device(keys, values), np.array([1, 1]), np.array([0, 4]))
    assert len({*first, *second, PAD}) == 6
    before = np.full((2, 4), PAD)
    before[0, 1:], before[1, 2:] = first, second
    for array, got in zip((keys, values), pool._gathered(before), strict=True):
        expected = np.zeros((2, 2, 4, 3), array.dtype)
        expected[0, :, 1:] = array[0, :, 2:]
        expected[1, :, 2:] = array[1, :, [0, 4]].swapaxes(0, 1)
        assert np.array_equal(got.numpy(), expected)


def test_only_new_cells_are_written() -> None:
    """The pool is one buffer for good: nothing is copied, nothing else changes."""
    pool = KeyPool(None, SLOTS, 8, opened, "cpu")
    places = [value.data_ptr() for value in pool._pool]
    arrays = [left(1, 3, slot, seed) for seed, slot in enumerate(SLOTS)]
    one = pool.keep(on_device(*arrays), np.array([0]), np.array([1]))
    before = [value.numpy().copy() for value in pool._pool]
    two = pool.keep(on_device(*arrays), np.array([0, 0]), np.array([0, 2]))
    assert [value.data_ptr() for value in pool._pool] == places
    for old, value in zip(before, pool._pool, strict=True):
        changed = np.flatnonzero((old != value.numpy()).any(axis=(1, 2)))
        assert set(changed) == set(two.tolist())
        assert not set(changed) & {PAD, *one.tolist()}


def test_released_cells_are_used_again() -> None:
    pool = KeyPool(None, SLOTS, 4, opened, "cpu")
    arrays = [left(1, 4, slot, seed) for seed, slot in enumerate(SLOTS)]
    rows, places = np.zeros(4, np.int64), np.arange(4)
    for _ in range(3):
        cells = pool.keep(on_device(*arrays), rows, places)
        assert sorted(cells) == [1, 2, 3, 4]
        assert pool.free == 0
        pool.release(cells)
    pool.keep(on_device(*arrays), rows[:2], places[:2])
    with pytest.raises(AssertionError, match="the pool holds"):
        pool.keep(on_device(*arrays), rows[:3], places[:3])
