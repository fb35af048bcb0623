"""A generator's GGUF as weights again: where a pair is all there is, training goes on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import torch
from gguf.quants import dequantize

from ttsolve.errors import ModelError
from ttsolve.train.export import gguf_name
from ttsolve.train.model import LanguageModel, Shape

_SIZES = {  # of `Shape`, as GGUF calls them
    "layers": "block_count",
    "width": "embedding_length",
    "heads": "attention.head_count",
    "hidden": "feed_forward_length",
    "context": "context_length",
    "rope_base": "rope.freq_base",
    "epsilon": "attention.layer_norm_rms_epsilon",
}


def read_gguf(path: Path) -> LanguageModel:
    """The model in a GGUF that `export_gguf` wrote, to the precision of its weights.

    Raises:
        ModelError: the file is missing or damaged, or a model of another architecture.
    """
    try:
        reader = gguf.GGUFReader(path)
        sizes = {ours: _number(reader, f"llama.{name}") for ours, name in _SIZES.items()}
        weights = {t.name: torch.tensor(dequantize(t.data, t.tensor_type)) for t in reader.tensors}
        vocabulary = len(weights["token_embd.weight"])
        model = LanguageModel(Shape(vocabulary=vocabulary, **sizes))
        model.load_state_dict({name: weights[gguf_name(name)] for name in model.state_dict()})
    except (OSError, ValueError, KeyError, IndexError, RuntimeError) as error:
        raise ModelError(
            f"{path} is no generator that ttsolve trained, or a damaged one: use the "
            "generator.gguf of `ttsolve train generator`."
        ) from error
    return model.eval()


def _number(reader: gguf.GGUFReader, key: str) -> Any:
    """An integer or a float, as the file has it."""
    return reader.fields[key].parts[-1][0].item()
