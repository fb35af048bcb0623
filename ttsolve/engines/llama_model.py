"""llama.cpp's low-level API as plain arrays: the engines' only module that imports llama_cpp."""

from __future__ import annotations

import ctypes
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, Literal

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from ttsolve.engines.threads import fastest
from ttsolve.errors import ModelError, TtsolveError
from ttsolve.gguf_file import read_gguf

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Layout = Literal["unified", "split"]

BATCH = 512  # tokens of one call of llama_decode
ABORTED = 2  # llama_decode's word for it
ERROR = 4  # llama.cpp's log level

_said: list[str] = []  # what llama.cpp said of devices while it loaded a model
_errors: list[str] = []  # its complaints


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _listen(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    # llama.cpp talks on stderr; only a reason for failure and the device it found are wanted.
    line = text.decode(errors="replace").strip()
    if level == ERROR:
        _errors.append(line)
    elif "using device" in line:
        _said.append(line)


class LlamaModel:
    """A `cache.Decoder`: a model and its context of `width` sequences, for one thread at a time."""

    def __init__(
        self,
        path: Path,
        *,
        adapter: Path | None = None,
        width: int | None = None,
        context: int | None = None,
        gpu_layers: int = -1,
        threads: int | None = None,
        kv: Literal["auto", "unified", "split"] = "auto",
    ) -> None:
        self.seconds = 0.0
        self._model = _load(path, gpu_layers)
        self._adapter = _load_adapter(adapter, self._model) if adapter else None
        file = read_gguf(path)
        self.width = width or file.width(context)
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.vocab_size: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self.params: int = llama_cpp.llama_model_n_params(self._model)
        gpu = _gpu() if gpu_layers else None
        self.kv: Layout = ("unified" if gpu else "split") if kv == "auto" else kv
        self.contiguous = self.kv == "split"
        self.batch = max(BATCH, self.width)
        self._open(path, *file.cache(self.width, context, split=self.contiguous))
        self._reserve_batch()
        self.threads = threads or fastest(self._time)
        llama_cpp.llama_set_n_threads(self._context, self.threads, self.threads)
        self.seconds = 0.0
        self.device = gpu or f"CPU, {self.threads} threads"
        self.pieces = [self._piece(token) for token in range(self.vocab_size)]
        silent = [token for token, piece in enumerate(self.pieces) if not piece]
        texts = (llama_cpp.llama_vocab_get_text(self._vocab, token) for token in silent)
        self.controls = [
            text.decode(errors="replace") for text in texts if text
        ]  # that control, and say nothing
        is_end = llama_cpp.llama_vocab_is_eog
        self.ends = np.array([is_end(self._vocab, token) for token in range(self.vocab_size)], bool)

    def _open(self, path: Path, context: int, cells: int) -> None:
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
        self._context = llama_cpp.llama_init_from_model(self._model, p)
        if not self._context:
            llama_cpp.llama_model_free(self._model)
            raise ModelError(f"{path} does not fit into memory: lower the width or the context.")
        if self._adapter:
            adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(self._adapter)
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

    def _time(self, threads: int) -> float:
        """Seconds that a small decode takes."""
        llama_cpp.llama_set_n_threads(self._context, threads, threads)
        n = min(self.width, 16)
        zeros, lanes = np.zeros(n, np.int32), np.arange(n, dtype=np.int32)
        self.seconds = 0.0
        self.decode(zeros, zeros, lanes, np.ones(n, bool))
        for sequence in range(n):
            self.trim(sequence, 0)
        return self.seconds

    def _piece(self, token: int, size: int = 64) -> bytes:
        buffer = ctypes.create_string_buffer(size)
        n = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
        return buffer.raw[:n] if n >= 0 else self._piece(token, -n)

    def tokenize(self, text: str, *, start: bool = False) -> list[int]:
        """Token ids; `start`: with what the model wants before a text. Any thread may call."""
        if self._vocab is None:
            raise TtsolveError("The generator is closed: open it again to sample from it.")
        data = text.encode()
        buffer = (ctypes.c_int32 * (len(data) + 8))()
        n = llama_cpp.llama_tokenize(self._vocab, data, len(data), buffer, len(buffer), start, True)
        if start and llama_cpp.llama_vocab_get_add_eos(self._vocab):
            n -= 1  # what follows belongs to the same text
        begin = llama_cpp.llama_vocab_bos(self._vocab)
        twice = start and buffer[:2] == [begin, begin]  # a chat template writes it as well
        return list(buffer[twice:n])

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
            raise TtsolveError(f"llama.cpp could not decode (code {code}: {_reason()}).")
        rows = int(np.count_nonzero(wanted))
        if not rows:
            return np.empty((0, self.vocab_size), np.float32)
        logits = llama_cpp.llama_get_logits(self._context)
        return np.ctypeslib.as_array(logits, (rows, self.vocab_size))

    def copy(self, source: int, target: int) -> None:
        """Make the empty sequence `target` equal to `source`."""
        # Whole sequences only: a split cache aborts the process on a part of one.
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def trim(self, sequence: int, length: int) -> None:
        """Forget what stands in a sequence from position `length` on."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, length, -1)

    def interrupt(self) -> None:
        """Let `decode` return early, from any thread, until `resume` (on a CPU; a GPU is quick)."""
        self._flag[0] = b"x"

    def resume(self) -> None:
        """Take `interrupt` back."""
        self._flag[0] = b"\0"

    def close(self) -> None:
        """Free the model and its cache."""
        self._vocab = None
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)


def _load(path: Path, gpu_layers: int) -> Any:
    if not path.is_file():
        raise ModelError(f"There is no generator at {path}: name a GGUF file.")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{path} is not a GGUF file: convert the model to GGUF first.")
    llama_cpp.llama_log_set(_listen, ctypes.c_void_p(0))
    _said.clear()
    _errors.clear()
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = gpu_layers
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise ModelError(
            f"{path} cannot be loaded as a generator ({_reason()}): "
            "get a complete GGUF of an architecture that llama.cpp knows."
        )
    stateful = llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model)
    if stateful or not llama_cpp.llama_model_has_decoder(model):
        llama_cpp.llama_model_free(model)
        raise ModelError(f"{path} is no transformer that generates text: use a decoder-only model.")
    return model


def _load_adapter(path: Path, model: Any) -> Any:
    """A LoRA adapter; it is to be loaded before the context is made, and goes with the model."""
    _errors.clear()
    adapter = llama_cpp.llama_adapter_lora_init(model, os.fsencode(path))
    if not adapter:
        llama_cpp.llama_model_free(model)
        raise ModelError(
            f"{path} is no adapter over this generator ({_reason()}): use the one that it was "
            "trained over."
        )
    return adapter


def _gpu() -> str | None:
    """The first GPU that the model loaded last was put on."""
    found = (re.search(r"using device (.+?\))", line) for line in _said)
    return next((match[1] for match in found if match), None)


def _reason() -> str:
    """The first complaint of llama.cpp, without the names of its functions."""
    first = _errors[0] if _errors else "it gave no reason"
    return re.sub(r"^((\w+|error loading model): )+", "", first)
