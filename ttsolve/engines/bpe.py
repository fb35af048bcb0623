"""A pair's own `tokenizer.json` (byte-level BPE), run by tiktoken and never the network."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import tiktoken

from ttsolve.errors import ModelError

MOST = 1 << 24  # ids: a number beyond it is damage
_GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


class ByteBpe:
    """Turns text into the token ids of one `tokenizer.json`.

    Raises:
        ModelError: the file is missing, damaged, or not a byte-level BPE.
    """

    def __init__(self, path: Path):
        try:
            raw = path.read_bytes()
            state = json.loads(raw)
            model, added = state["model"], state["added_tokens"]
            ids: dict[str, int] = model["vocab"]
            ranks = _ranks(model["merges"])
            self._ids = [ids[token] for token in ranks]
            self.special: dict[str, int] = {token["content"]: token["id"] for token in added}
            self.vocabulary = _size([*ids.values(), *self.special.values()])
            pattern = _pattern(state["pre_tokenizer"])
            self._composes = _composes(state.get("normalizer"))
        except OSError as error:
            raise ModelError(f"Cannot read the tokenizer {path}: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"The tokenizer {path} is damaged or no byte-level BPE; use the tokenizer.json "
                "that belongs to the model."
            ) from error
        self.sha256 = sha256(raw).hexdigest()
        # tiktoken merges the pair of the lowest rank and names a token by its rank, while ids may
        # have any order: it is given the ranks of the merges, and `_ids` leads from these to ids.
        self._bpe = tiktoken.Encoding(
            path.stem,
            pat_str=pattern,
            mergeable_ranks={_bytes(token): rank for rank, token in enumerate(ranks)},
            special_tokens={},
        )

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, in which nothing is read as a special token."""
        if self._composes:
            text = unicodedata.normalize("NFC", text)
        return [self._ids[rank] for rank in self._bpe.encode_ordinary(text)]


def _size(ids: Sequence[Any]) -> int:
    """The number of ids, from 0 on."""
    if not all(type(one) is int and 0 <= one < MOST for one in ids):
        raise ValueError("an id that is none")
    return int(max(ids)) + 1


def _ranks(merges: Iterable[Any]) -> list[str]:
    """Every token that merging can make, in the order of the merges: single bytes first."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    return list(dict.fromkeys([*_ALPHABET, *(left + right for left, right in pairs)]))


def _pattern(pre_tokenizer: dict[str, Any]) -> str:
    """The regular expression that cuts text into words before any merge."""
    *parts, last = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    if last["type"] == "ByteLevel" and not last["add_prefix_space"]:
        if not parts and last.get("use_regex", True):
            return _GPT2
        if len(parts) == 1 and not last.get("use_regex", True):
            part = parts[0]
            if (part["type"], part["behavior"], part["invert"]) == ("Split", "Isolated", False):
                return str(part["pattern"]["Regex"])
    raise ValueError("an unknown pre-tokenizer")


def _composes(normalizer: dict[str, Any] | None) -> bool:
    """Whether text is composed (NFC) first."""
    if normalizer is None or normalizer["type"] == "NFC":
        return normalizer is not None
    raise ValueError("an unknown normalizer")


def _alphabet() -> dict[str, int]:
    """GPT-2's stand-in for every byte: a printable byte is itself, the rest follow from 256."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    stand_ins = printable + list(range(256, 256 + len(rest)))
    return {chr(code): byte for code, byte in zip(stand_ins, printable + rest, strict=True)}


_ALPHABET = _alphabet()


def _bytes(token: str) -> bytes:
    return bytes(_ALPHABET[char] for char in token)
