"""A context of llama.cpp as plain arrays: a KV cache of some sequences, and what decodes there."""

from __future__ import annotations

import ctypes
import sys
import time
from typing import Any, Literal

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from ttsolve.engines.llama_model import LlamaModel, reason
from ttsolve.engines.threads import SMALL, fastest, loops_for, most_lanes
from ttsolve.errors import ModelError, TtsolveError, UsageError
from ttsolve.gguf_file import WIDTH

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Layout = Literal["unified", "split"]

BATCH = 512  # tokens of one call of llama_decode
ABORTED = 2  # llama_decode's word for it
MOST = 256  # sequences of one context: llama.cpp's own limit


def open_contexts(
    model: LlamaModel,
    *,
    width: int | None,
    context: int | None,
    threads: int | None,
    loops: int | None,
    kv: Literal["auto", "unified", "split"],
) -> list[LlamaContext]:
    """A context for each decode loop; they share the width and the cache of one.

    Raises:
        ModelError: when they do not fit into memory.
        UsageError: when `loops` is not from 1 to the width.
    """
    small = not model.gpu and model.bytes < SMALL
    if width is None:
        width = model.file.width(context, most_lanes(MOST) if small else WIDTH)
    if loops is None:
        loops = loops_for(width) if small and threads in (None, 1) else 1
    if not 1 <= loops <= width:
        raise UsageError(f"A width of {width} cannot be shared by {loops} loops: choose fewer.")
    if threads is None and (small or loops > 1):
        threads = 1
    layout: Layout = ("unified" if model.gpu else "split") if kv == "auto" else kv
    context, cells = model.file.cache(width, context, split=layout == "split")
    opened: list[LlamaContext] = []
    try:
        for i in range(loops):
            lanes = width // loops + (i < width % loops)
            part = max(context, cells * lanes // width)
            opened.append(LlamaContext(model, lanes, context, part, layout, threads))
    except ModelError:
        for before in opened:
            before.close()
        raise
    return opened


class LlamaContext:
    """A `cache.Decoder`: `width` sequences of up to `context` tokens, for one thread at a time.

    `cells`: tokens of the whole cache. `threads`: CPU threads (None: what is fastest).

    Raises:
        ModelError: when it does not fit into memory.
    """

    def __init__(
        self,
        model: LlamaModel,
        width: int,
        context: int,
        cells: int,
        kv: Layout,
        threads: int | None,
    ) -> None:
        self.seconds, self.decoded = 0.0, 0
        self.width, self.kv = width, kv
        self.pieces, self.ends, self.vocab_size = model.pieces, model.ends, model.vocab_size
        self.contiguous = kv == "split"
        self.batch = max(BATCH, width)
        self._open(model, context, cells)
        self._reserve_batch()
        self.use(threads or fastest(self._time))

    def _open(self, model: LlamaModel, context: int, cells: int) -> None:
        p = llama_cpp.llama_context_default_params()
        p.kv_unified, p.n_seq_max = self.kv == "unified", self.width
        p.n_ctx = cells
        p.n_batch = p.n_ubatch = self.batch
        p.n_outputs_max = self.width
        p.no_perf = True
        # A C function as the callback, since llama.cpp asks after each operation and must not wait
        # for Python: the length of this string is 0 (go on) or 1 (stop).
        self._flag = ctypes.create_string_buffer(2)
        libc = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
        p.abort_callback = ctypes.cast(libc.strlen, llama_cpp.ggml_abort_callback)
        p.abort_callback_data = ctypes.addressof(self._flag)
        self._context = llama_cpp.llama_init_from_model(model.weights, p)
        if not self._context:
            raise ModelError(
                f"{model.path} does not fit into memory: lower the width or the context."
            )
        if model.adapter:
            adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(model.adapter)
            llama_cpp.llama_set_adapters_lora(self._context, adapters, 1, (ctypes.c_float * 1)(1))
        self._memory = llama_cpp.llama_get_memory(self._context)
        self.context = min(context, llama_cpp.llama_n_ctx_seq(self._context))
        self.cells: int | None = llama_cpp.llama_n_ctx(self._context) if p.kv_unified else None

    def _reserve_batch(self) -> None:
        """The C arrays of one batch, as NumPy arrays, so that no loop fills them."""
        n = self.batch
        self._tokens, self._at, self._lanes = (np.zeros(n, np.int32) for _ in range(3))
        self._wanted, self._ones = np.zeros(n, np.int8), np.ones(n, np.int32)
        stride = self._lanes.itemsize
        self._lane_of = (self._lanes.ctypes.data + stride * np.arange(n)).astype(np.uintp)

        def pointer(array: NDArray[Any], kind: Any) -> Any:
            return array.ctypes.data_as(ctypes.POINTER(kind))

        self._batch = llama_cpp.llama_batch(
            n_tokens=0,
            token=pointer(self._tokens, ctypes.c_int32),
            pos=pointer(self._at, ctypes.c_int32),
            n_seq_id=pointer(self._ones, ctypes.c_int32),
            seq_id=pointer(self._lane_of, ctypes.POINTER(ctypes.c_int32)),
            logits=pointer(self._wanted, ctypes.c_int8),
        )

    def use(self, threads: int) -> None:
        """Decode with so many threads."""
        self.threads = threads
        llama_cpp.llama_set_n_threads(self._context, threads, threads)

    def _time(self, threads: int) -> float:
        """Seconds that a small decode takes so many threads."""
        self.use(threads)
        n = min(self.width, 16)
        zeros, lanes = np.zeros(n, np.int32), np.arange(n, dtype=np.int32)
        before = self.seconds
        self.decode(zeros, zeros, lanes, np.ones(n, bool))
        for sequence in range(n):
            self.trim(sequence, 0)
        passed, self.seconds, self.decoded = self.seconds - before, before, 0
        return passed

    def decode(
        self, tokens: Ints, at: Ints, sequences: Ints, wanted: NDArray[np.bool_]
    ) -> Floats | None:
        """As `cache.Decoder.decode`."""
        n = len(tokens)
        self._tokens[:n], self._at[:n], self._lanes[:n] = tokens, at, sequences
        self._wanted[:n] = wanted
        self._batch.n_tokens = n
        started = time.perf_counter()
        code = llama_cpp.llama_decode(self._context, self._batch)
        llama_cpp.llama_synchronize(self._context)
        self.seconds += time.perf_counter() - started
        if code == ABORTED:
            return None
        if code:
            raise TtsolveError(f"llama.cpp could not decode (code {code}: {reason()}).")
        self.decoded += n
        rows = int(np.count_nonzero(wanted))
        if not rows:
            return np.empty((0, self.vocab_size), np.float32)
        logits = llama_cpp.llama_get_logits(self._context)
        block = ctypes.c_float * (rows * self.vocab_size)
        memory = block.from_address(ctypes.addressof(logits.contents))
        return np.frombuffer(memoryview(memory), np.float32).reshape(rows, self.vocab_size)

    def copy(self, source: int, target: int) -> None:
        """Make the empty sequence `target` equal to `source`."""
        # Whole sequences only: a split cache aborts the process on a part of one.
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def trim(self, sequence: int, length: int) -> None:
        """Forget what stands in a sequence from position `length` on."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, length, -1)

    def save(self, sequence: int) -> ctypes.Array[ctypes.c_uint8]:
        """As `cache.Decoder.save`."""
        size = llama_cpp.llama_state_seq_get_size(self._context, sequence)
        saved: ctypes.Array[ctypes.c_uint8] = (ctypes.c_uint8 * size)()
        llama_cpp.llama_state_seq_get_data(self._context, saved, size, sequence)
        return saved

    def load(self, sequence: int, saved: ctypes.Array[ctypes.c_uint8]) -> None:
        """As `cache.Decoder.load`."""
        size = len(saved)
        if llama_cpp.llama_state_seq_set_data(self._context, saved, size, sequence) != size:
            raise TtsolveError("llama.cpp could not copy a sequence from one loop to another.")

    def interrupt(self) -> None:
        """Let `decode` return early, from any thread, until `resume` (on a CPU; a GPU is quick)."""
        self._flag[0] = b"x"

    def resume(self) -> None:
        """Take `interrupt` back."""
        self._flag[0] = b"\0"

    def close(self) -> None:
        """Free the cache."""
        llama_cpp.llama_free(self._context)
