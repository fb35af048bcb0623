"""The weights and the vocabulary of a GGUF, loaded by llama.cpp once for all its contexts."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from ttsolve.errors import ModelError, TtsolveError
from ttsolve.gguf_file import read_gguf

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
    """Weights and vocabulary, for any number of contexts and threads.

    Raises:
        ModelError: when a file is missing, damaged, or of the wrong kind.
    """

    def __init__(self, path: Path, *, adapter: Path | None = None, gpu_layers: int = -1) -> None:
        self.path = path
        self.weights = _load(path, gpu_layers)
        self.adapter = _load_adapter(adapter, self.weights) if adapter else None
        self._vocab = llama_cpp.llama_model_get_vocab(self.weights)
        self.vocab_size: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self.params: int = llama_cpp.llama_model_n_params(self.weights)
        self.bytes: int = llama_cpp.llama_model_size(self.weights)
        self.gpu = _gpu() if gpu_layers else None  # its name, if the model is on one
        self.file = read_gguf(path)
        self.pieces = [self._piece(token) for token in range(self.vocab_size)]
        silent = [token for token, piece in enumerate(self.pieces) if not piece]
        texts = (llama_cpp.llama_vocab_get_text(self._vocab, token) for token in silent)
        self.controls = [
            text.decode(errors="replace") for text in texts if text
        ]  # that control, and say nothing
        is_end = llama_cpp.llama_vocab_is_eog
        self.ends = np.array([is_end(self._vocab, token) for token in range(self.vocab_size)], bool)

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

    def close(self) -> None:
        """Free the weights, when no context is left that uses them."""
        self._vocab = None
        llama_cpp.llama_model_free(self.weights)


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
            f"{path} cannot be loaded as a generator ({reason()}): "
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
            f"{path} is no adapter over this generator ({reason()}): use the one that it was "
            "trained over."
        )
    return adapter


def _gpu() -> str | None:
    """The first GPU that the model loaded last was put on."""
    found = (re.search(r"using device (.+?\))", line) for line in _said)
    return next((match[1] for match in found if match), None)


def reason() -> str:
    """The first complaint of llama.cpp, without the names of its functions."""
    first = _errors[0] if _errors else "it gave no reason"
    return re.sub(r"^((\w+|error loading model): )+", "", first)
