"""Our own way to draw as a sampler of llama.cpp, which draws on the device, inside its graph.

A draw is that of `engines.draw`: the inverse of the cumulative distribution at a number that is
hashed from (seed, position), so that seeds mean there what they mean here, and no logits come back.
It is here to be measured: the decode loop has no use for it yet, since it needs the logits behind a
prefix from which several samples grow.
"""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
from llama_cpp._ggml import libggml

F32, I32 = 0, 26  # ggml's numbers of its types
BELOW_ONE = 1 - 2.0**-24  # of the distribution: sums in 32 bits may end a little below 1

_POINTER = ctypes.c_void_p


def _ggml(name: str, *arguments: Any) -> Any:
    """A function of ggml that makes a tensor in a graph's context."""
    function = getattr(libggml, f"ggml_{name}")
    function.restype, function.argtypes = _POINTER, (_POINTER, *arguments)
    return function


_cast = _ggml("cast", _POINTER, ctypes.c_int)
_cumsum = _ggml("cumsum", _POINTER)
_new = _ggml("new_tensor_1d", ctypes.c_int, ctypes.c_int64)
_reshape = _ggml("reshape_1d", _POINTER, ctypes.c_int64)
_scale = _ggml("scale", _POINTER, ctypes.c_float)
_scale_bias = _ggml("scale_bias", _POINTER, ctypes.c_float, ctypes.c_float)
_soft_max = _ggml("soft_max", _POINTER)
_step = _ggml("step", _POINTER)
_sub = _ggml("sub", _POINTER, _POINTER)
_sum_rows = _ggml("sum_rows", _POINTER)
_elements = libggml.ggml_nelements
_elements.restype, _elements.argtypes = ctypes.c_int64, (_POINTER,)
_set_input = libggml.ggml_set_input
_set_input.restype, _set_input.argtypes = None, (_POINTER,)
_fill = libggml.ggml_backend_tensor_set
_fill.restype = None
_fill.argtypes = (_POINTER, _POINTER, ctypes.c_size_t, ctypes.c_size_t)


class OwnSampler:
    """Draws one sequence's tokens at `number`, a number in [0, 1) that is set before each turn."""

    def __init__(self, temperature: float = 1.0) -> None:
        self.number = 0.0
        self.temperature = temperature
        self._input: int | None = None
        face = llama_cpp.llama_sampler_i()
        # Held here: what C calls must not be collected.
        self._calls = {
            "name": llama_cpp.llama_sampler_i_name(lambda own: b"inverse"),
            "apply": llama_cpp.llama_sampler_i_apply(lambda own, tokens: None),
            "backend_init": llama_cpp.llama_sampler_i_backend_init(lambda own, buffer, n: True),
            "backend_apply": llama_cpp.llama_sampler_i_backend_apply(self._build),
            "backend_set_input": llama_cpp.llama_sampler_i_backend_set_input(self._put),
        }
        for name, call in self._calls.items():
            setattr(face, name, call)
        self._face = face
        # A context takes chains only.
        self.chain = llama_cpp.llama_sampler_chain_init(
            llama_cpp.llama_sampler_chain_default_params()
        )
        own = llama_cpp.llama_sampler_init(ctypes.byref(face), None)
        llama_cpp.llama_sampler_chain_add(self.chain, own)

    def _build(self, own: Any, context: int, graph: int, data: Any) -> None:
        """Add the draw to the graph: how many tokens stand before the cumulative sum passes it."""
        tensors = data.contents
        size = _elements(tensors.logits)
        x = _scale(context, _reshape(context, tensors.logits, size), 1 / self.temperature)
        self._input = _new(context, F32, 1)
        _set_input(self._input)
        beyond = _step(context, _sub(context, _cumsum(context, _soft_max(context, x)), self._input))
        before = _scale_bias(context, _sum_rows(context, beyond), -1.0, float(size))
        tensors.sampled = _cast(context, before, I32)
        tensors.logits = tensors.probs = tensors.candidates = None  # nothing else comes back

    def _put(self, own: Any) -> None:
        value = ctypes.c_float(self.number * BELOW_ONE)
        if self._input:
            _fill(self._input, ctypes.addressof(value), 0, 4)
