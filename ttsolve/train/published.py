"""A published reward model in memory: stock transformers classes, and the head beside them.

No code of a model's repository is ever run: where a config names some, the stock backbone of its
model type takes the weights, and the head's few tensors are read from the files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging

from ttsolve.errors import ModelError
from ttsolve.train.decoder import Decoder, Floats, Head
from ttsolve.train.families import Family

DECODERS = ("llama", "mistral", "qwen2", "qwen3")
ROTARY = ("default", "linear", "llama3", "yarn")  # their angles do not depend on a text's length
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]  # *.bin when there are no others
WRAPPER = "pretrained_model."  # TRL's value-head class puts it before every name


@dataclass(frozen=True)
class Published:
    """A model as it was found."""

    source: str
    root: Path
    config: Any
    tokenizer: Any
    backbone: Any  # without any head, f32, not training

    @property
    def context(self) -> int:
        """Tokens that every layer can look back on."""
        window = getattr(self.config, "sliding_window", None)
        if not getattr(self.config, "use_sliding_window", True):
            window = None
        return int(min(self.config.max_position_embeddings, window or 2**31))

    @property
    def decoder(self) -> Decoder:
        config, rotary = self.config, self.backbone.rotary_emb
        return Decoder(
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            size=rotary.inv_freq.numel() * 2,
            epsilon=config.rms_norm_eps,
            speeds=rotary.inv_freq.float().numpy(),
            rotary_scale=float(rotary.attention_scaling),
        )

    def hidden(self, ids: list[int]) -> Floats:
        """The last hidden state at every token: [tokens, width]."""
        with torch.no_grad():
            out = self.backbone(input_ids=torch.tensor([ids]), use_cache=False)
        states: Floats = out.last_hidden_state[0].numpy()
        return states

    def head(self, family: Family) -> Head:
        """What makes the family's logit of a hidden state.

        Raises:
            ModelError: the model's files do not have it.
        """
        tensors = _tensors(self.root)
        if family.head == "tokens":
            rows = tensors("lm_head.weight")
            if rows is None and self.config.tie_word_embeddings:
                rows = self.backbone.embed_tokens.weight.detach()
            if rows is None:
                raise self._headless(family, "lm_head")
            signs = [
                self.tokenizer.encode(sign, add_special_tokens=False)[-1] for sign in family.signs
            ]
            plus, minus = rows[signs].float()
            return Head(_numpy(plus - minus))
        name = "v_head.summary" if family.head == "value" else "score"
        inner, inner_bias = tensors(f"{name}.0.weight"), tensors(f"{name}.0.bias")
        last = name if inner is None else f"{name}.2"
        weight, bias = tensors(f"{last}.weight"), tensors(f"{last}.bias")
        if weight is None or len(weight) > 2:
            raise self._headless(family, name)
        weight = weight.float()
        bias = torch.zeros(len(weight)) if bias is None else bias.float()
        if len(weight) == 2:  # the logit of class 1 against class 0
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        return Head(
            _numpy(weight[0]),
            float(bias[0]),
            None if inner is None else _numpy(inner),
            None if inner_bias is None else _numpy(inner_bias),
        )

    def _headless(self, family: Family, name: str) -> ModelError:
        return ModelError(
            f"{self.source} has no head {name!r} such as the family {family.name!r} has: name "
            "another with --family."
        )


class Weights(Mapping[str, Floats]):
    """The backbone's weights by name, as f32 arrays, none of them copied before it is asked for."""

    def __init__(self, backbone: Any):
        self._state: dict[str, torch.Tensor] = backbone.state_dict()

    def __getitem__(self, name: str) -> Floats:
        return _numpy(self._state[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


def open_published(source: str) -> Published:
    """The model in a Hugging Face folder, or of that id on the hub.

    Raises:
        ModelError: it cannot be read, or is no decoder that ttsolve can write.
    """
    root = Path(source) if Path(source).is_dir() else _fetched(source)
    logging.set_verbosity_error()  # it would report the head as unexpected
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(root, trust_remote_code=False)
        _check(config, source)
        tokenizer = AutoTokenizer.from_pretrained(root, trust_remote_code=False)
        backbone, loaded = AutoModel.from_pretrained(
            root,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            key_mapping={f"^{WRAPPER}": ""},
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise ModelError(
            f"{source} is no model of transformers ({reason}): give the folder with its "
            "config.json, tokenizer and weights."
        ) from error
    if missing := sorted(loaded["missing_keys"]):
        raise ModelError(
            f"{source} lacks weights of its backbone ({missing[0]} and {len(missing) - 1} more): "
            "merge an adapter into its base model, or fetch the files again."
        )
    return Published(source, root, config, tokenizer, backbone.eval())


def _check(config: Any, source: str) -> None:
    rotary = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if config.model_type not in DECODERS or rotary not in ROTARY or config.hidden_act != "silu":
        raise ModelError(
            f"{source} is a {config.model_type} with {rotary} rotary angles, which ttsolve cannot "
            f"write as ONNX: choose a model of {', '.join(DECODERS)}."
        )


def _fetched(source: str) -> Path:
    """The folder of a model of the hub, fetched unless it is in the hub's cache."""
    try:
        root = Path(snapshot_download(source, allow_patterns=FILES))
        if not any(root.glob("*.safetensors")):
            root = Path(snapshot_download(source, allow_patterns=[*FILES, "*.bin"]))
    except Exception as error:  # of the network, of the hub, of the id: they share no base class
        raise ModelError(
            f"There is no folder {source}, and the hub does not give a model of that name "
            f"({type(error).__name__}): check the name and the network."
        ) from error
    return root


def _tensors(root: Path) -> Callable[[str], torch.Tensor | None]:
    """Finds a single tensor of a checkpoint by its name; None when there is none."""
    files: dict[str, Path] = {}
    for name in WEIGHTS:
        if (root / f"{name}.index.json").is_file():
            index = json.loads((root / f"{name}.index.json").read_text(encoding="utf-8"))
            files = {key: root / file for key, file in index["weight_map"].items()}
            break
        if (root / name).is_file():
            files = dict.fromkeys(_names(root / name), root / name)
            break

    def find(name: str) -> torch.Tensor | None:
        for key in (name, WRAPPER + name):
            if key in files:
                return _read(files[key], key)
        return None

    return find


def _names(file: Path) -> list[str]:
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as tensors:
            return list(tensors.keys())
    return list(torch.load(file, map_location="cpu", weights_only=True, mmap=True))


def _read(file: Path, key: str) -> torch.Tensor:
    tensor: torch.Tensor
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as tensors:
            tensor = tensors.get_tensor(key)
    else:
        tensor = torch.load(file, map_location="cpu", weights_only=True, mmap=True)[key]
    return tensor


def _numpy(tensor: torch.Tensor) -> Floats:
    array: Floats = tensor.detach().float().numpy().astype(np.float32, copy=False)
    return array
