"""A published reward model as an ONNX graph: a Llama-like decoder, and a head that reads it.

Written out as in `graph.py`, for the same reasons: `torch.onnx.export` computes the same numbers
(within 2e-5), but takes minutes, holds the weights twice, and cannot mix precisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, BinaryIO, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ttsolve.train.graph import IR_VERSION, OPSET, Graph, tensor_info

Dtype = Literal["f32", "f16", "int8"]
Floats = NDArray[np.float32]
BLOCK = 32  # weights that share a scale, in int8
PAGE = 4096  # bytes: what is aligned to it need not be copied into memory


@dataclass(frozen=True, slots=True)
class Decoder:
    """The sizes of a Llama-like decoder (Llama, Mistral, Qwen2, Qwen3)."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    size: int  # of a head
    epsilon: float
    speeds: Floats  # of the rotary angles, radians a token: [size / 2]
    rotary_scale: float  # of cosine and sine


@dataclass(frozen=True, slots=True)
class Head:
    """What makes one logit of a hidden state: weight · relu(inner · hidden + inner_bias) + bias.

    A score is the sigmoid of the logit, whatever the family: a softmax over two outputs is the
    sigmoid of their difference, and so both are one here.
    """

    weight: Floats  # [width]
    bias: float = 0.0
    inner: Floats | None = None  # [width, width]; None: the hidden state itself is read
    inner_bias: Floats | None = None  # [width]


class Data:
    """Where the large constants are: in the graph's file, or in one beside it (over 2 GB)."""

    def __init__(self, file: BinaryIO | None = None, location: str = ""):
        self.file = file
        self.location = location  # the name of that file
        self.digest = sha256()  # of all constants: what tells one verifier from another

    def tensor(self, array: NDArray[Any], name: str) -> TensorProto:
        raw = np.ascontiguousarray(array)
        if self.file is None:
            return numpy_helper.from_array(raw, name)
        self.file.write(b"\0" * (-self.file.tell() % PAGE))
        tensor = TensorProto(name=name, dims=raw.shape, data_location=TensorProto.EXTERNAL)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(raw.dtype)
        where = {"location": self.location, "offset": self.file.tell(), "length": raw.nbytes}
        for key, value in where.items():
            tensor.external_data.add(key=key, value=str(value))
        self.file.write(raw.data)
        self.digest.update(raw.data)
        return tensor


def decoder_graph(
    weights: Mapping[str, Floats], shape: Decoder, head: Head, dtype: Dtype, data: Data
) -> onnx.ModelProto:
    """The graph of a reward model; `weights` are named as in transformers' base model.

    In: input_ids, position_ids [B, T] int64; attention_mask [B, P + T] int64, 0 = padding;
    step_positions [B, S] int64, where in T each step is read; past.{i}.key and .value
    [B, kv heads, P, size], padded cells zeros. Out: logits [B, S]; present.{i}.key and .value
    [B, kv heads, P + T, size]. Matrices and caches have the `dtype` (int8: the matrices, with a
    scale for each 32 weights); the residual stream, norms, softmax and head are f32.
    """
    graph = _DecoderGraph(weights, shape, head, dtype, data)
    graph.build()
    lengths = ("input_ids", "tokens"), ("attention_mask", "cells"), ("position_ids", "tokens")
    ids = [*lengths, ("step_positions", "steps")]
    inputs = [tensor_info(name, ["batch", length], np.int64) for name, length in ids]
    kind = np.float16 if dtype == "f16" else np.float32
    cache = ["batch", shape.kv_heads, "past", shape.size]
    inputs += [tensor_info(f"past.{name}", cache, kind) for name in graph.cached]
    cache = ["batch", shape.kv_heads, "cells", shape.size]
    outputs = [tensor_info("logits", ["batch", "steps"])]
    outputs += [tensor_info(f"present.{name}", cache, kind) for name in graph.cached]
    for constant in graph.constants:
        data.digest.update(constant.name.encode() + constant.raw_data)
    body = helper.make_graph(graph.nodes, "verifier", inputs, outputs, graph.constants)
    domains = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(
        body, opset_imports=domains, ir_version=IR_VERSION, producer_name="ttsolve"
    )


class _DecoderGraph(Graph):
    """The graph of a decoder and its head."""

    def __init__(
        self, weights: Mapping[str, Floats], shape: Decoder, head: Head, dtype: Dtype, data: Data
    ):
        super().__init__()
        self.weights = weights
        self.shape = shape
        self.head = head
        self.dtype = dtype
        self.data = data

    def build(self) -> None:
        cos, sin, mask = self._angles("Cos"), self._angles("Sin"), self._mask()
        embedding = self.weights["embed_tokens.weight"]
        table = embedding if self.dtype == "f32" else embedding.astype(np.float16)
        x = self._add("Gather", self._large(table, "embed_tokens"), "input_ids")
        x = x if self.dtype == "f32" else self._add("Cast", x, to=TensorProto.FLOAT)
        for i in range(self.shape.layers):
            x = self._block(x, f"layers.{i}.", cos, sin, mask)
        last = self._constant(np.array([-1]))
        index = self._add("Unsqueeze", "step_positions", last)
        read = self._norm(self._add("GatherND", x, index, batch_dims=1), "norm")
        if self.head.inner is not None:
            read = self._add("MatMul", read, self._large(self.head.inner.T, "inner"))
            read = self._add("Relu", self._add("Add", read, self._constant(self.head.inner_bias)))
        logit = self._add("MatMul", read, self._constant(self.head.weight[:, None]))
        logit = self._add("Add", logit, self._constant(np.float32(self.head.bias)))
        self._add("Squeeze", logit, last, name="logits")

    def _block(self, x: str, prefix: str, cos: str, sin: str, mask: str) -> str:
        shape, layer = self.shape, len(self.cached) // 2
        y = self._norm(x, prefix + "input_layernorm")
        q = self._heads(y, prefix + "self_attn.q", shape.heads)
        k = self._heads(y, prefix + "self_attn.k", shape.kv_heads)
        v = self._heads(y, prefix + "self_attn.v", shape.kv_heads)
        q, k = self._rotate(q, cos, sin), self._rotate(k, cos, sin)
        k = self._cache(self._half(k), f"{layer}.key")
        v = self._cache(self._half(v), f"{layer}.value")
        attended = self._attention(q, k, v, mask)
        joined = self._constant(np.array([0, 0, shape.heads * shape.size]))
        joined = self._add("Reshape", attended, joined)
        x = self._add("Add", x, self._linear(joined, prefix + "self_attn.o_proj"))
        y = self._norm(x, prefix + "post_attention_layernorm")
        gate = self._linear(y, prefix + "mlp.gate_proj")
        fed = self._add("Mul", gate, self._add("Sigmoid", gate))
        fed = self._add("Mul", fed, self._linear(y, prefix + "mlp.up_proj"))
        return self._add("Add", x, self._linear(fed, prefix + "mlp.down_proj"))

    def _attention(self, q: str, k: str, v: str, mask: str) -> str:
        """[B, T, kv heads, group, size]: the heads of a group share their keys and values."""
        shape, one = self.shape, self._constant(np.array([1]))
        q = self._add("Mul", q, self._constant(np.float32(shape.size**-0.5)))
        groups = [0, shape.kv_heads, shape.heads // shape.kv_heads, -1, shape.size]
        q = self._add("Reshape", self._half(q), self._constant(np.array(groups)))
        two = self._constant(np.array([2]))
        k, v = self._add("Unsqueeze", k, two), self._add("Unsqueeze", v, two)
        keys = self._add("Transpose", k, perm=[0, 1, 2, 4, 3])
        scores = self._full(self._add("MatMul", q, keys))
        scores = self._add("Add", scores, self._add("Unsqueeze", mask, one))
        shares = self._half(self._add("Softmax", scores, axis=-1))
        attended = self._full(self._add("MatMul", shares, v))
        return self._add("Transpose", attended, perm=[0, 3, 1, 2, 4])

    def _heads(self, x: str, name: str, heads: int) -> str:
        """[B, T, width] -> [B, heads, T, size]"""
        split = self._constant(np.array([0, 0, heads, self.shape.size]))
        x = self._add("Reshape", self._linear(x, name + "_proj"), split)
        if name + "_norm.weight" in self.weights:  # Qwen3
            x = self._norm(x, name + "_norm")
        return self._add("Transpose", x, perm=[0, 2, 1, 3])

    def _rotate(self, x: str, cos: str, sin: str) -> str:
        """Turn each pair (i, i + size / 2)."""
        half = self.shape.size // 2
        a, b = self._slice(x, 0, half, axis=3), self._slice(x, half, None, axis=3)
        first = self._add("Sub", self._add("Mul", a, cos), self._add("Mul", b, sin))
        second = self._add("Add", self._add("Mul", b, cos), self._add("Mul", a, sin))
        return self._add("Concat", first, second, axis=-1)

    def _angles(self, op: str) -> str:
        """[B, 1, T, size / 2]: cosine (or sine) of the rotary angles."""
        positions = self._add("Cast", "position_ids", to=TensorProto.FLOAT)
        positions = self._add("Unsqueeze", positions, self._constant(np.array([1, 3])))
        turned = self._add(op, self._add("Mul", positions, self._constant(self.shape.speeds)))
        return self._add("Mul", turned, self._constant(np.float32(self.shape.rotary_scale)))

    def _norm(self, x: str, name: str) -> str:
        return self._rms_norm(x, self.weights[f"{name}.weight"], self.shape.epsilon)

    def _linear(self, x: str, name: str) -> str:
        weight = self.weights[f"{name}.weight"]
        if self.dtype == "int8":
            y = self._int8(x, weight, name)
        else:
            kind = np.float16 if self.dtype == "f16" else np.float32
            matrix = self._large(weight.T.astype(kind, copy=False), name)
            y = self._full(self._add("MatMul", self._half(x), matrix))
        if f"{name}.bias" in self.weights:
            y = self._add("Add", y, self._constant(self.weights[f"{name}.bias"]))
        return y

    def _int8(self, x: str, weight: Floats, name: str) -> str:
        # Not `quantize_dynamic`: it gives a whole batch one scale, and a score would depend on
        # what else is in the batch.
        rows, columns = weight.shape
        blocks = -(-columns // BLOCK)
        padded = np.pad(weight, ((0, 0), (0, blocks * BLOCK - columns)))
        parts = padded.reshape(rows, blocks, BLOCK)
        scales = np.abs(parts).max(axis=-1) / np.float32(127)
        steps = np.where(scales > 0, scales, np.float32(1))[..., None]
        levels = (np.rint(parts / steps) + 128).astype(np.uint8)
        matrix, scale = self._large(levels, name), self._large(scales.ravel(), f"{name}.scales")
        sizes = {"K": columns, "N": rows, "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
        return self._add("MatMulNBits", x, matrix, scale, domain="com.microsoft", **sizes)

    def _half(self, x: str) -> str:
        return self._add("Cast", x, to=TensorProto.FLOAT16) if self.dtype == "f16" else x

    def _full(self, x: str) -> str:
        return self._add("Cast", x, to=TensorProto.FLOAT) if self.dtype == "f16" else x

    def _large(self, array: NDArray[Any], name: str) -> str:
        self.constants.append(self.data.tensor(array, f"weight.{name}"))
        return f"weight.{name}"
