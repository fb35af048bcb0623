"""Small ONNX graphs as bytes, without the `onnx` package: only training needs that one.

Field numbers are those of onnx.proto; the tests read every graph back with the `onnx` package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

IR_VERSION, OPSET = 8, 18
INT, INTS = 2, 7  # kinds of an attribute
INT64 = 7  # an element type
ELEMENTS = {"float": 1, "float16": 10}  # ONNX Runtime's names of a type, and ONNX's numbers

Dimension = int | str  # a size, or the name of one that is known at run time


def stored_bytes(path: Path) -> int:
    """The size of a model, whose weights may stand in a file beside it; 0: there is none."""
    files = (path, path.with_name(f"{path.name}.data"))
    return sum(file.stat().st_size for file in files if file.is_file())


@dataclass(frozen=True, slots=True)
class Operation:
    """A node of a graph."""

    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Mapping[str, int | Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a graph."""

    name: str
    element: int  # its type, as ONNX numbers them
    shape: Sequence[Dimension]


def model_bytes(
    operations: Sequence[Operation], inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> bytes:
    """An ONNX model of these operations, in an order in which they can run."""
    graph = b"".join(_part(1, _operation(operation)) for operation in operations)
    graph += _part(2, b"graph")
    graph += b"".join(_part(11, _tensor(tensor)) for tensor in inputs)
    graph += b"".join(_part(12, _tensor(tensor)) for tensor in outputs)
    return _number(1, IR_VERSION) + _part(7, graph) + _part(8, _number(2, OPSET))


def _operation(operation: Operation) -> bytes:
    data = b"".join(_part(1, name.encode()) for name in operation.inputs)
    data += b"".join(_part(2, name.encode()) for name in operation.outputs)
    data += _part(4, operation.kind.encode())
    return data + b"".join(_part(5, _attribute(*item)) for item in operation.attributes.items())


def _attribute(name: str, value: int | Sequence[int]) -> bytes:
    data = _part(1, name.encode())
    if isinstance(value, int):
        return data + _number(3, value) + _number(20, INT)
    return data + b"".join(_number(8, one) for one in value) + _number(20, INTS)


def _tensor(tensor: Tensor) -> bytes:
    sizes = (
        _number(1, size) if isinstance(size, int) else _part(2, size.encode())
        for size in tensor.shape
    )
    shape = b"".join(_part(1, size) for size in sizes)
    kind = _number(1, tensor.element) + _part(2, shape)
    return _part(1, tensor.name.encode()) + _part(2, _part(1, kind))


def _part(place: int, data: bytes) -> bytes:
    return _varint(place << 3 | 2) + _varint(len(data)) + data


def _number(place: int, value: int) -> bytes:
    return _varint(place << 3) + _varint(value)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
