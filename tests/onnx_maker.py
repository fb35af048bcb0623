"""A verifier with random weights and a small tokenizer, for tests; needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ttsolve.engines.bpe import _ALPHABET
from ttsolve.train.graph import reward_graph, reward_notes

BOS, EOS = "<|bos|>", "<|eos|>"
MERGES = "Ġ a|Ġ +|Ġ =|t e|te n|Ġ 1|Ġ 2|A n|s w|An sw|Answ e|Answe r|Answer :|Ġa p|p l|Ġap pl"


def write_tokenizer(path: Path, merges: str = MERGES, shuffle: bool = False) -> Path:
    """A byte-level BPE `tokenizer.json`; `shuffle`: with its ids in no order."""
    pairs = [merge.split(" ") for merge in merges.split("|")]
    tokens = [*sorted(_ALPHABET), *(left + right for left, right in pairs)]
    if shuffle:
        np.random.default_rng(0).shuffle(tokens)
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    special["special"] = True
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    byte_level["use_regex"] = True
    state = {
        "version": "1.0",
        "added_tokens": [
            {"id": len(tokens) + i, "content": content, **special}
            for i, content in enumerate((BOS, EOS))
        ],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": pairs,
        },
    }
    path.write_text(json.dumps(state))
    return path


def vocabulary_of(tokenizer: Path) -> int:
    state = json.loads(tokenizer.read_text())
    return len(state["model"]["vocab"]) + len(state["added_tokens"])


def write_verifier(path: Path, tokenizer: Path, context: int = 256, seed: int = 0) -> Path:
    """A reward model of one layer and one judge, wild enough that every token matters."""
    vocabulary, width, hidden = vocabulary_of(tokenizer), 32, 48
    shape = SimpleNamespace(
        vocabulary=vocabulary,
        width=width,
        heads=2,
        epsilon=1e-5,
        rope_base=10_000.0,
        context=context,
    )
    dice = np.random.default_rng(seed)
    sizes = {"trunk.embedding.weight": (vocabulary, width), "surprise.weight": (width, 3)}
    sizes |= {"head.weight": (1, width)}
    for block in ("trunk.blocks.0", "judges.0"):
        sizes |= {f"{block}.{name}.weight": (width, width) for name in ("query", "key", "value")}
        sizes |= {f"{block}.output.weight": (width, width)}
        sizes |= {f"{block}.{name}.weight": (hidden, width) for name in ("gate", "up")}
        sizes |= {f"{block}.down.weight": (width, hidden)}
    weights = {name: dice.normal(0, 0.3, size) for name, size in sizes.items()}
    norms = ["trunk.norm", "norm"]
    norms += [
        f"{b}.{n}_norm" for b in ("trunk.blocks.0", "judges.0") for n in ("attention", "feed")
    ]
    weights |= {f"{norm}.weight": dice.normal(1, 0.1, width) for norm in norms}
    weights |= {"surprise.bias": dice.normal(0, 0.1, width), "head.bias": np.zeros(1)}
    floats = {name: weight.astype(np.float32) for name, weight in weights.items()}
    notes = reward_notes(floats, shape, tokenizer, bos=vocabulary - 2)
    path.write_bytes(reward_graph(floats, shape, notes).SerializeToString())
    return path
