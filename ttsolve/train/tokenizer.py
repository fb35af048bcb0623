"""The embedded pair's tokenizer: byte-level BPE over PocketMath's closed list of words.

Every word and operator of the world is one token (with its leading space), every digit is one
token, and a leading space joins the first digit of a number. Anything else falls back to bytes.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import regex
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ttsolve.errors import ModelError
from ttsolve.pocketmath import exercises

BOS, EOS = "<|bos|>", "<|eos|>"
_WORDS = regex.compile(r" ?\p{L}+| ?[^\s\p{L}\p{N}]+")


def build_tokenizer(sample: int = 20_000) -> Tokenizer:
    """Learn the merges on the words of `sample` training exercises."""
    words: Counter[str] = Counter()
    for exercise in itertools.islice(exercises(0, "train"), sample):
        words.update(_WORDS.findall(f"{exercise.problem.question}\n{exercise.solution}"))
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=4096,  # an upper bound: the words run out first
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learned.train_from_iterator((w for w, n in words.items() for _ in range(min(n, 50))), trainer)
    state = json.loads(learned.to_str())["model"]
    vocabulary: dict[str, int] = state["vocab"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in state["merges"]]
    for digit in "0123456789":
        merges.append(("Ġ", digit))
        vocabulary["Ġ" + digit] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([BOS, EOS])
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path))


def special_ids(tokenizer: Tokenizer) -> tuple[int, int]:
    """The ids of BOS and EOS.

    Raises:
        ModelError: the tokenizer is none of ours.
    """
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
    if bos is None or eos is None:
        raise ModelError(f"The tokenizer lacks {BOS} or {EOS}: use the one `train generator` made.")
    return bos, eos
