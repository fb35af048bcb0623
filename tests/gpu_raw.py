"""llama.cpp without our engine: a context of several sequences, and nothing around it."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from gpu_sampler import OwnSampler
from ttsolve.engines.draw import Drawer, Settings, uniforms


class Raw:
    """A model and a context of `width` sequences in one cache, of `context` tokens each."""

    def __init__(self, path: Path, width: int, context: int, gpu_layers: int = -1) -> None:
        llama_cpp.llama_log_set(_silent, ctypes.c_void_p(0))
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = gpu_layers
        self.model = llama_cpp.llama_model_load_from_file(os.fsencode(path), options)
        assert self.model, path
        sizes = llama_cpp.llama_context_default_params()
        sizes.kv_unified, sizes.n_seq_max = True, width
        sizes.n_ctx, sizes.n_batch = width * context, max(512, width)
        sizes.n_ubatch, sizes.n_outputs_max = sizes.n_batch, width
        self.context = llama_cpp.llama_init_from_model(self.model, sizes)
        assert self.context, "the context does not fit into memory"
        self.vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocabulary)
        self.width = width
        self._batch = llama_cpp.llama_batch_init(sizes.n_batch, 0, 1)

    def decode(
        self, tokens: Sequence[int], at: Sequence[int], lanes: Sequence[int], last_only: bool
    ) -> None:
        """Decode tokens at their places in their sequences; the logits of all are wanted, or of
        the last."""
        batch = self._batch
        batch.n_tokens = n = len(tokens)
        for i in range(n):
            batch.token[i], batch.pos[i] = tokens[i], at[i]
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, lanes[i]
            batch.logits[i] = not last_only or i == n - 1
        code = llama_cpp.llama_decode(self.context, batch)
        assert code == 0, f"llama_decode: {code}"
        llama_cpp.llama_synchronize(self.context)

    def logits(self, rows: int) -> np.ndarray:
        """Of the tokens wanted, in their order: [rows, vocabulary]."""
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits(self.context), (rows, self.size))

    def texts(self) -> list[bytes]:
        """Of every token, as the file has it."""
        text = llama_cpp.llama_vocab_get_text
        return [text(self.vocabulary, token) for token in range(self.size)]

    def ends(self) -> np.ndarray:
        """[vocabulary]: the tokens that end a text."""
        ends = llama_cpp.llama_vocab_is_eog
        return np.array([ends(self.vocabulary, token) for token in range(self.size)], bool)

    def clear(self) -> None:
        """Forget every sequence."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def close(self) -> None:
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)


@llama_cpp.llama_log_callback
def _silent(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    pass


def turns(path: Path, width: int, context: int, rounds: int) -> dict[str, float]:
    """Milliseconds of a turn, in which each of `width` sequences gets a token.

    "decoded": and nothing is drawn; "drawn here": the logits are read, and our own drawer draws;
    "drawn there": on the device by `OwnSampler`, and by llama.cpp's own samplers, from which all
    logits come back, or those of the likeliest 40; nan: the device takes no samplers.
    """
    raw = Raw(path, width, context)
    settings, drawer = Settings.empty(width), Drawer(raw.size)
    settings.temperature[:] = 1
    settings.seed[:] = np.arange(width)

    def not_drawn(turn: int) -> list[int]:
        return [0] * width

    def drawn_here(turn: int) -> list[int]:
        at = np.full(width, turn, np.int32)
        return drawer.draw(raw.logits(width), settings, at).tolist()

    def drawn_there(turn: int) -> list[int]:
        return [llama_cpp.llama_get_sampled_token_ith(raw.context, i) for i in range(width)]

    try:
        out = {"decoded": _milliseconds(raw, rounds, not_drawn)}
        out["drawn here"] = _milliseconds(raw, rounds, drawn_here)
        own = [OwnSampler() for _ in range(width)]

        def numbered(turn: int) -> list[int]:
            drawn = drawn_there(turn)
            numbers = uniforms(settings.seed, np.full(width, turn + 1, np.int32))
            for sampler, number in zip(own, numbers.tolist(), strict=True):
                sampler.number = number
            return drawn

        ways: list[tuple[str, list[Any], Callable[[int], list[int]]]] = [
            ("drawn there", [sampler.chain for sampler in own], numbered),
            ("by its own samplers", [_chain(seed) for seed in range(width)], drawn_there),
            ("of 40", [_chain(seed, top_k=40) for seed in range(width)], drawn_there),
        ]
        for what, chains, draw in ways:
            with sampling(raw, chains) as there:
                out[what] = _milliseconds(raw, rounds, draw) if there else float("nan")
        return out
    finally:
        raw.close()


@contextmanager
def sampling(raw: Raw, chains: Sequence[Any]) -> Iterator[bool]:
    """Each sequence with its chain of samplers, which are freed; whether the device takes all."""
    attach = llama_cpp.llama_set_sampler
    yield all(attach(raw.context, lane, chain) for lane, chain in enumerate(chains))
    for lane, chain in enumerate(chains):
        attach(raw.context, lane, None)
        llama_cpp.llama_sampler_free(chain)


def _chain(seed: int, top_k: int = 0) -> Any:
    """Samplers of llama.cpp that draw from the likeliest tokens; top_k: 0: from all."""
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    if top_k:
        llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_top_k(top_k))
    llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_dist(seed))
    return chain


def _milliseconds(raw: Raw, rounds: int, draw: Callable[[int], list[int]]) -> float:
    """Of a turn, over so many; each decodes what the one before it drew."""
    lanes, tokens, started = range(raw.width), [0] * raw.width, 0.0
    for turn in range(rounds + 2):  # the first two are slower
        if turn == 2:
            started = time.perf_counter()
        raw.decode(tokens, [turn] * raw.width, lanes, last_only=False)
        tokens = draw(turn)
    passed = time.perf_counter() - started
    raw.clear()
    return 1000 * passed / rounds
