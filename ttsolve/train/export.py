"""The trained models as a pair's files: GGUF for the generator, ONNX for the verifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType, TokenType
from torch import nn

from ttsolve.errors import ModelError
from ttsolve.files import replacing
from ttsolve.train.graph import Weights, reward_graph, reward_notes
from ttsolve.train.model import LanguageModel, RewardModel, Shape
from ttsolve.train.tokenizer import BOS, EOS

Dtype = Literal["f32", "f16", "q8_0"]

_KINDS = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
_NAMES = {  # ours -> llama.cpp's
    "attention_norm": "attn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "output": "attn_output",
    "feed_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def export_gguf(
    model: LanguageModel, tokenizer: Path, path: Path, dtype: Dtype = "f16", name: str = "ttsolve"
) -> None:
    """Write the generator and its tokenizer as a GGUF of architecture `llama`.

    `dtype` is that of the matrices (norms stay f32). `name` is what the file calls itself.

    Raises:
        ModelError: the tokenizer is not the model's.
        StorageError: the file could not be written; nothing half-written stays.
    """
    vocabulary = _Vocabulary(tokenizer, model.shape)
    kind, file_type = _KINDS[dtype]
    with replacing(path) as part:
        writer = gguf.GGUFWriter(part, "llama")
        try:
            writer.add_name(name)
            writer.add_file_type(file_type)
            _describe(writer, model.shape)
            vocabulary.describe(writer)
            for ours, weight in _weights(model).items():
                as_kind = kind if weight.ndim == 2 else GGMLQuantizationType.F32
                data = gguf.quantize(weight, as_kind)
                writer.add_tensor(gguf_name(ours), data, raw_dtype=as_kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def export_onnx(model: RewardModel, tokenizer: Path, path: Path) -> None:
    """Write the verifier as ONNX (f32) with past keys and values in and out; see `graph.py`.

    Raises:
        ModelError: the tokenizer is not the model's.
        StorageError: the file could not be written; nothing half-written stays.
    """
    vocabulary = _Vocabulary(tokenizer, model.shape)
    weights = _weights(model)
    notes = reward_notes(weights, model.shape, tokenizer, vocabulary.id(BOS))
    proto = reward_graph(weights, model.shape, notes)
    with replacing(path) as part:
        part.write_bytes(proto.SerializeToString())


class _Vocabulary:
    """A byte-level BPE `tokenizer.json`, as GGUF wants to be told about it."""

    def __init__(self, path: Path, shape: Shape):
        state = json.loads(path.read_text(encoding="utf-8"))
        self.special = {token["content"]: token["id"] for token in state["added_tokens"]}
        ids: dict[str, int] = {**state["model"]["vocab"], **self.special}
        self.tokens = sorted(ids, key=ids.__getitem__)
        self.merges = [m if isinstance(m, str) else " ".join(m) for m in state["model"]["merges"]]
        if len(self.tokens) != shape.vocabulary or max(ids.values()) + 1 != len(ids):
            raise ModelError(
                f"The tokenizer {path} has {len(self.tokens)} tokens and the model "
                f"{shape.vocabulary}; export with the tokenizer it was trained with."
            )

    def id(self, special: str) -> int:
        return int(self.special[special])

    def describe(self, writer: Any) -> None:
        control, normal = TokenType.CONTROL, TokenType.NORMAL
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(self.tokens)
        writer.add_token_types([control if t in self.special else normal for t in self.tokens])
        writer.add_token_merges(self.merges)
        writer.add_bos_token_id(self.id(BOS))
        writer.add_eos_token_id(self.id(EOS))
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(False)


def _describe(writer: Any, shape: Shape) -> None:
    writer.add_vocab_size(shape.vocabulary)
    writer.add_block_count(shape.layers)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_context_length(shape.context)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(shape.rope_base)


def gguf_name(ours: str) -> str:
    """What llama.cpp calls a weight: `blocks.3.query.weight` is `blk.3.attn_q.weight`."""
    if ours.startswith("blocks."):
        _, layer, part, suffix = ours.split(".")
        return f"blk.{layer}.{_NAMES[part]}.{suffix}"
    return {"embedding.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}[ours]


def _weights(model: nn.Module) -> Weights:
    state = model.state_dict().items()
    return {
        name: weight.detach().float().cpu().numpy().astype(np.float32) for name, weight in state
    }
