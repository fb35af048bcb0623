"""Text into tokens: a `tokenizer.json` by tiktoken where that is exact, else by `tokenizers`."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from ttsolve.engines.bpe import ByteBpe
from ttsolve.errors import MissingExtra, ModelError


class Tokenizer(Protocol):
    """What a verifier asks of its tokenizer."""

    special: dict[str, int]  # the added tokens, by their text
    vocabulary: int
    sha256: str

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, in which nothing is read as a special token."""
        ...


class PackageTokenizer:
    """Any other tokenizer (SentencePiece's, or byte-level with a pre-tokenizer of many parts).

    Raises:
        ModelError: the file is missing or damaged.
        MissingExtra: the package is not installed.
    """

    def __init__(self, path: Path):
        try:
            import tokenizers
        except ModuleNotFoundError as error:
            raise MissingExtra(
                f"The tokenizer {path} needs the package `tokenizers`: pip install tokenizers."
            ) from error
        try:
            raw = path.read_bytes()
            added = json.loads(raw)["added_tokens"]
            self._tokenizer = tokenizers.Tokenizer.from_str(raw.decode())
        except OSError as error:
            raise ModelError(f"Cannot read the tokenizer {path}: {error.strerror}.") from error
        except Exception as error:  # the package's own errors share no base class
            raise ModelError(
                f"The tokenizer {path} is damaged; use the tokenizer.json that belongs to the "
                "model."
            ) from error
        self._tokenizer.encode_special_tokens = True  # as text: a problem may not bring marks
        self.special = {token["content"]: int(token["id"]) for token in added}
        self.vocabulary = int(self._tokenizer.get_vocab_size())
        self.sha256 = sha256(raw).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, in which nothing is read as a special token."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def open_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a published model.

    Raises:
        ModelError: the file is missing or damaged.
        MissingExtra: it needs a package that is not installed.
    """
    try:
        return ByteBpe(path)
    except ModelError:
        return PackageTokenizer(path)
