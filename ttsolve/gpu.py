"""A pair on a GPU: whether the GPU is used at all, and whether the pair fits into its memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ttsolve.engines.cuda import Card, cards, gpu_found
from ttsolve.engines.onnx_graph import stored_bytes
from ttsolve.engines.threads import SMALL
from ttsolve.errors import ModelError
from ttsolve.gguf_file import GgufFile, read_gguf

LOG = logging.getLogger("ttsolve")
ALL = -1  # layers
VERIFIER_CACHE = 512 << 20  # bytes, as `OnnxVerifier` keeps by default
WORK = 512 << 20  # bytes that a model computes in, about
UNUSED = (
    "There is a GPU, and llama-cpp-python cannot use it: build it with CUDA, as README.md says "
    "under GPU, or give --gpu-layers 0."
)

Parts = Mapping[str, float]  # bytes, by what they are for


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be opened; None: nothing of that kind."""

    generator: Path | None
    context: int | None  # of the generator, as its pair says
    verifier: Path | None


def look(wanted: Wanted, gpu_layers: int = ALL) -> None:
    """Before models are opened: warn of a GPU that is not used, and see that they fit into it.

    Raises:
        ModelError: they do not.
    """
    if not gpu_layers or not gpu_found():
        return
    parts: dict[str, float] = {}
    file = read_gguf(wanted.generator) if wanted.generator else None
    if file and not _generator_offloads():
        _warn_of(file)
        file = None
    if file:
        parts |= generator_parts(file, wanted.context, gpu_layers)
    if wanted.verifier and _verifier_on_gpu():
        parts |= verifier_parts(wanted.verifier)
        parts["room to compute"] = parts.get("room to compute", 0) + WORK
    if parts:
        fit(parts, cards(), file, wanted.context)


def warn_if_unused(generator: Path, gpu_layers: int = ALL) -> None:
    """One line, once, when there is a GPU that the generator would gain from, and llama.cpp is
    built without it."""
    if gpu_layers and gpu_found() and not _generator_offloads():
        _warn_of(read_gguf(generator))


def _warn_of(file: GgufFile) -> None:
    if file.bytes >= SMALL:
        _warn()


@cache
def _warn() -> None:
    LOG.warning(UNUSED)


def generator_parts(file: GgufFile, context: int | None, gpu_layers: int | None = ALL) -> Parts:
    """Bytes of the generator's weights and of its cache: all, or those of so many layers on a GPU.

    gpu_layers: None: there is no GPU.
    """
    _, cells = file.cache(file.width(context), context, split=gpu_layers is None)
    layers = file.layers + 1 if gpu_layers in (None, ALL) else gpu_layers
    share = min(1.0, (layers or 0) / (file.layers + 1))
    work = {} if gpu_layers is None else {"room to compute": WORK}
    return {"generator": share * file.bytes, "its cache": share * cells * file.cell_bytes, **work}


def verifier_parts(graph: Path) -> Parts:
    """Bytes of the verifier's weights and of what it may keep."""
    return {"verifier": stored_bytes(graph), "its cache at most": VERIFIER_CACHE}


def fit(
    parts: Parts, there: list[Card], file: GgufFile | None = None, context: int | None = None
) -> None:
    """See that the parts fit into what is free of the cards, which llama.cpp fills together.

    file: the generator, if some of its layers could stay off the GPU.

    Raises:
        ModelError: they do not, or not by much.
    """
    free, total = sum(card.free for card in there), sum(card.total for card in there)
    needed = sum(parts.values())
    if not there or needed <= free:
        return
    raise ModelError(
        f"The pair needs about {needed / 1e9:.1f} GB ({itemised(parts)}) on the GPU, and "
        f"{free / 1e9:.1f} of "
        f"{total / 1e9:.1f} GB are free ({', '.join(card.name for card in there)}): "
        f"{_remedy(parts, free, file, context)}."
    )


def _remedy(parts: Parts, free: int, file: GgufFile | None, context: int | None) -> str:
    if file:
        rest = sum(parts.values()) - sum(generator_parts(file, context).values())
        for layers in range(file.layers, 0, -1):
            if rest + sum(generator_parts(file, context, layers).values()) <= free:
                less = "or lower generator.context in pair.toml"
                return f"put {layers} layers there (--gpu-layers {layers}), {less}"
    return "use smaller models, or do without the GPU (--gpu-layers 0)"


def itemised(parts: Parts) -> str:
    """The parts in GB."""
    return " + ".join(f"{size / 1e9:.1f} {what}" for what, size in parts.items())


def device_name(device: str) -> str:
    """Where a verifier runs, in words: `device` is "cpu" or "cuda"."""
    if device != "cuda":
        return "CPU"
    names = [card.name for card in cards()]
    return f"CUDA ({names[0]})" if names else "CUDA"


def _generator_offloads() -> bool:
    from ttsolve.engines.llama_gpu import offloads

    return offloads()


def _verifier_on_gpu() -> bool:
    from ttsolve.engines.onnx_model import cuda_works

    return cuda_works()
