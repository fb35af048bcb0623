"""The verifier as an ONNX graph: what `RewardModel.forward` computes, written out by hand.

Written out rather than traced: it takes milliseconds instead of half a minute, matrices that see
the same input are one matrix, and any number of past tokens will do, none included.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from ttsolve.train.model import Shape

Weights = dict[str, NDArray[np.float32]]  # a RewardModel's state_dict
OPSET = 18
IR_VERSION = 8  # the oldest that carries this opset: any runtime of the last years reads it
LOWEST_SURPRISE = -12.0


def reward_graph(weights: Weights, shape: Shape, notes: dict[str, str]) -> onnx.ModelProto:
    """The graph of a reward model, with its `reward_notes`.

    In: input_ids, position_ids [B, T] int64; attention_mask [B, P + T] int64, 0 = padding;
    past.{i}.key and .value [B, heads, P, size], where the last i has a key only: the trunk's
    hidden states. Padded cells of the past must be zeros. Out: logits [B, T]; present.{i}.key
    and .value [B, heads, P + T, size].
    """
    graph = RewardGraph(weights, shape)
    graph.build()
    ids = [("input_ids", "tokens"), ("attention_mask", "cells"), ("position_ids", "tokens")]
    inputs = [tensor_info(name, ["batch", length], np.int64) for name, length in ids]
    size = shape.width // shape.heads
    cache = ["batch", shape.heads, "past", size]
    inputs += [tensor_info(f"past.{name}", cache) for name in graph.cached]
    cache = ["batch", shape.heads, "cells", size]
    outputs = [tensor_info("logits", ["batch", "tokens"])]
    outputs += [tensor_info(f"present.{name}", cache) for name in graph.cached]
    body = helper.make_graph(graph.nodes, "verifier", inputs, outputs, graph.constants)
    model = helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="ttsolve",
    )
    helper.set_model_props(model, notes)
    onnx.checker.check_model(model, full_check=True)
    return model


def reward_notes(weights: Weights, shape: Shape, tokenizer: Path, bos: int) -> dict[str, str]:
    """What a runtime must know of a verifier beside its graph; kept in the file's metadata."""
    notes = {
        "format": "1",
        "digest": weights_digest(weights),  # what tells one verifier from another
        "tokenizer": sha256(tokenizer.read_bytes()).hexdigest(),
        "vocabulary": str(shape.vocabulary),
        "bos": str(bos),  # the id that begins a text
        "context": str(shape.context),  # tokens
        "params": str(sum(weight.size for weight in weights.values())),
        "read": "last token of a step",  # where a step's score is
    }
    return {f"ttsolve.{name}": note for name, note in notes.items()}


def weights_digest(weights: Weights) -> str:
    """SHA-256 of names and values."""
    digest = sha256()
    for name, weight in sorted(weights.items()):
        digest.update(name.encode() + weight.tobytes())
    return digest.hexdigest()


class Graph:
    """Collects the nodes; every method that adds some returns the name of what they compute."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.names: dict[tuple[str, tuple[int, ...], bytes], str] = {}  # of constants, by content
        self.cached: list[str] = []  # "0.key", "0.value", …

    def _mask(self) -> str:
        """[B, 1, T, P + T]: 0 where a token may look, else minus infinity; see `causal_mask`."""
        zero, one = self._constant(np.int64(0)), self._constant(np.int64(1))
        cells = self._add("Gather", self._add("Shape", "attention_mask"), one)
        past = self._add("Sub", cells, self._add("Gather", self._add("Shape", "input_ids"), one))
        place = self._add("Unsqueeze", self._add("Range", zero, cells, one), zero)
        rows = self._add("Unsqueeze", self._add("Range", past, cells, one), one)
        token = self._add("Greater", "attention_mask", zero)
        token = self._add("Unsqueeze", token, self._constant(np.array([1, 2])))
        earlier = self._add("And", token, self._add("LessOrEqual", place, rows))
        seen = self._add("Or", earlier, self._add("Equal", place, rows))
        hidden = self._constant(np.float32(-np.inf))
        return self._add("Where", seen, self._constant(np.float32(0)), hidden)

    def _rms_norm(self, x: str, weight: NDArray[Any], epsilon: float) -> str:
        square = self._add("Pow", x, self._constant(np.float32(2)))
        mean = self._add("ReduceMean", square, self._constant(np.array([-1])))
        mean = self._add("Add", mean, self._constant(np.float32(epsilon)))
        y = self._add("Div", x, self._add("Sqrt", mean))
        return self._add("Mul", y, self._constant(weight))

    def _cache(self, new: str, name: str) -> str:
        self.cached.append(name)
        return self._add("Concat", f"past.{name}", new, axis=2, name=f"present.{name}")

    def _slice(self, x: str, start: int, end: int | None, axis: int) -> str:
        bounds = (start, np.iinfo(np.int64).max if end is None else end, axis)
        return self._add("Slice", x, *(self._constant(np.array([bound])) for bound in bounds))

    def _constant(self, value: Any) -> str:
        array = np.asarray(value, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.names:
            self.names[key] = f"constant.{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(array, self.names[key]))
        return self.names[key]

    def _add(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        name = name or f"{op}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name


class RewardGraph(Graph):
    """The graph of a `RewardModel`."""

    def __init__(self, weights: Mapping[str, NDArray[Any]], shape: Shape):
        super().__init__()
        self.weights = weights
        self.shape = shape
        self.size = shape.width // shape.heads

    def build(self) -> None:
        cos, sin, mask = self._cosine("Cos"), self._cosine("Sin"), self._mask()
        embedding = self._constant(self.weights["trunk.embedding.weight"])
        x = self._add("Gather", embedding, "input_ids")
        for i in range(self._depth("trunk.blocks.")):
            x = self._block(x, f"trunk.blocks.{i}.", cos, sin, mask)
        hidden = self._norm(x, "trunk.norm.weight")
        surprise = self._surprise(self._shifted(hidden), embedding)
        x = self._add("Add", hidden, self._linear(surprise, "surprise"))
        for i in range(self._depth("judges.")):
            x = self._block(x, f"judges.{i}.", cos, sin, mask)
        logit = self._linear(self._norm(x, "norm.weight"), "head")
        self._add("Squeeze", logit, self._constant(np.array([-1])), name="logits")
        self._cache(self._split(hidden), f"{len(self.cached) // 2}.key")

    def _block(self, x: str, prefix: str, cos: str, sin: str, mask: str) -> str:
        layer = len(self.cached) // 2
        y = self._norm(x, prefix + "attention_norm.weight")
        q, k, v = (self._split(part) for part in self._matrices(y, prefix, "query", "key", "value"))
        q, k = self._rotate(q, cos, sin), self._rotate(k, cos, sin)
        k, v = self._cache(k, f"{layer}.key"), self._cache(v, f"{layer}.value")
        scores = self._add("MatMul", q, self._add("Transpose", k, perm=[0, 1, 3, 2]))
        scale = self._constant(np.float32(self.size**-0.5))
        scores = self._add("Add", self._add("Mul", scores, scale), mask)
        attended = self._add("MatMul", self._add("Softmax", scores, axis=-1), v)
        joined = self._add("Transpose", attended, perm=[0, 2, 1, 3])
        joined = self._add("Reshape", joined, self._constant(np.array([0, 0, self.shape.width])))
        x = self._add("Add", x, *self._matrices(joined, prefix, "output"))
        y = self._norm(x, prefix + "feed_norm.weight")
        gate, up = self._matrices(y, prefix, "gate", "up")
        fed = self._add("Mul", self._add("Mul", gate, self._add("Sigmoid", gate)), up)
        return self._add("Add", x, *self._matrices(fed, prefix, "down"))

    def _surprise(self, before: str, embedding: str) -> str:
        """[B, T, 3]: log-probability of each token, of the likeliest one, and their difference."""
        logits = self._add("MatMul", before, self._add("Transpose", embedding, perm=[1, 0]))
        logs = self._add("LogSoftmax", logits, axis=-1)
        last = self._constant(np.array([-1]))
        index = self._add("Unsqueeze", "input_ids", last)
        own = self._add("GatherElements", logs, index, axis=-1)
        best = self._add("ReduceMax", logs, last)
        three = self._add("Concat", own, best, self._add("Sub", own, best), axis=-1)
        return self._add("Clip", three, self._constant(np.float32(LOWEST_SURPRISE)))

    def _shifted(self, hidden: str) -> str:
        """At each new token the hidden state of the token before it: of zeros before the first."""
        past = f"past.{self._depth('')}.key"
        pads = self._constant(np.array([0, 0, 1, 0, 0, 0, 0, 0]))
        last = self._slice(self._add("Pad", past, pads), -1, None, axis=2)
        joined = self._add("Transpose", last, perm=[0, 2, 1, 3])
        joined = self._add("Reshape", joined, self._constant(np.array([0, 0, self.shape.width])))
        return self._add("Concat", joined, self._slice(hidden, 0, -1, axis=1), axis=1)

    def _cosine(self, op: str) -> str:
        """[B, 1, T, size]: cosine (or sine) of the rotary angles, the same for both of a pair."""
        exponents = np.arange(0, self.size, 2, dtype=np.float32) / np.float32(self.size)
        speeds = (self.shape.rope_base**-exponents).astype(np.float32).repeat(2)
        positions = self._add("Cast", "position_ids", to=onnx.TensorProto.FLOAT)
        positions = self._add("Unsqueeze", positions, self._constant(np.array([1, 3])))
        return self._add(op, self._add("Mul", positions, self._constant(speeds)))

    def _rotate(self, x: str, cos: str, sin: str) -> str:
        # A turn by a right angle, (even, odd) -> (-odd, even), is a matrix.
        turn = np.kron(np.eye(self.size // 2), [[0, 1], [-1, 0]]).astype(np.float32)
        turned = self._add("MatMul", x, self._constant(turn))
        return self._add("Add", self._add("Mul", x, cos), self._add("Mul", turned, sin))

    def _split(self, x: str) -> str:
        """[B, T, width] -> [B, heads, T, size]"""
        heads = self._constant(np.array([0, 0, self.shape.heads, self.size]))
        return self._add("Transpose", self._add("Reshape", x, heads), perm=[0, 2, 1, 3])

    def _norm(self, x: str, weight: str) -> str:
        return self._rms_norm(x, self.weights[weight], self.shape.epsilon)

    def _linear(self, x: str, name: str) -> str:
        product = self._add("MatMul", x, self._constant(self.weights[f"{name}.weight"].T))
        return self._add("Add", product, self._constant(self.weights[f"{name}.bias"]))

    def _matrices(self, x: str, prefix: str, *names: str) -> list[str]:
        """The products of `x` with several of a block's matrices, made as one."""
        parts = [self.weights[f"{prefix}{name}.weight"].T for name in names]
        product = self._add("MatMul", x, self._constant(np.concatenate(parts, axis=1)))
        if len(parts) == 1:
            return [product]
        ends = np.cumsum([0] + [part.shape[1] for part in parts])
        return [self._slice(product, a, b, axis=2) for a, b in pairwise(ends.tolist())]

    def _depth(self, prefix: str) -> int:
        return sum(n.startswith(prefix) and n.endswith(".query.weight") for n in self.weights)


def tensor_info(name: str, shape: list[Any], dtype: Any = np.float32) -> onnx.ValueInfoProto:
    """An input or an output of a graph; a size that is not fixed has a name."""
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
    )
