"""What a GGUF file says of itself: its metadata and the shapes of its tensors, read without
llama.cpp, and without its weights."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ttsolve.errors import ModelError

# By GGUF's number of a type: its struct format. 8 is a text, 9 an array.
SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
TEXT, ARRAY = 8, 9
VERSIONS = (2, 3)
WIDTH = 64  # sequences that a generator decodes at once, where memory allows
KV_BYTES = 2 << 30  # what its cache may take
CONTEXT, LEAST = 4096, 512  # tokens of a sequence, at most and at least, where nobody names them
MOST = 1 << 24  # keys, tensors or elements: a number beyond it is damage
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 32: "BF16",
}  # fmt: skip


BLOCKS = {  # by GGUF's number of a tensor's type: weights of a block, and its bytes
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 30: (1, 2),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufFile:
    """The head of a GGUF file."""

    path: Path
    metadata: dict[str, Any]  # of an array of texts: where in the file each is
    params: int  # parameters
    bytes: int  # of the whole file
    bos: str  # the texts of the tokens that begin and end a text; "": there is none
    eos: str

    @property
    def name(self) -> str:
        """What its maker calls the model; else the file's name."""
        return str(self.metadata.get("general.name") or self.path.stem)

    @property
    def quantization(self) -> str:
        """How most of its weights are stored; "": it does not say."""
        return FILE_TYPES.get(self.metadata.get("general.file_type", -1), "")

    @property
    def context(self) -> int:
        """Tokens it was trained for; 0: it does not say."""
        return int(self._of_architecture("context_length", 0))

    @property
    def layers(self) -> int:
        """How many layers it has, the output's not counted."""
        return int(self._of_architecture("block_count", 0))

    @property
    def chat_template(self) -> str:
        """Its chat template, in Jinja; "": it has none."""
        return str(self.metadata.get("tokenizer.chat_template", ""))

    @property
    def cell_bytes(self) -> int:
        """Bytes that one token takes in a KV cache of 16 bits."""
        heads = self._of_architecture("attention.head_count", 1)
        kv_heads = self._of_architecture("attention.head_count_kv", heads)
        each = kv_heads if isinstance(kv_heads, Sequence) else [kv_heads] * self.layers
        most = max(heads) if isinstance(heads, Sequence) else heads
        size = self._of_architecture("embedding_length", 0) // max(1, most)
        key = self._of_architecture("attention.key_length", size)
        value = self._of_architecture("attention.value_length", size)
        return int(2 * sum(each) * (key + value))

    @property
    def cells(self) -> int:
        """How many tokens the cache has room for."""
        return KV_BYTES // max(1, self.cell_bytes)

    def width(self, context: int | None, most: int = WIDTH) -> int:
        """How many sequences of `context` tokens the cache has room for, at most `most`."""
        return max(1, min(most, self.cells // (context or 1)))

    def cache(self, width: int, context: int | None, split: bool) -> tuple[int, int]:
        """Tokens of one sequence, and cells of the whole cache; `split`: none are shared."""
        if context is None:
            context = min(self.context or CONTEXT, CONTEXT)
            if split:
                context = min(context, max(LEAST, self.cells // width))
        if split:
            return context, context * width
        return context, max(context, min(context * width, self.cells))

    def _of_architecture(self, key: str, default: Any) -> Any:
        return self.metadata.get(f"{self.metadata.get('general.architecture')}.{key}", default)


def read_gguf(path: Path) -> GgufFile:
    """The head of the file.

    Raises:
        ModelError: it is missing, not GGUF, damaged, or ends before its weights do.
    """
    if not path.is_file():
        raise ModelError(f"There is no file {path}: give the path of a GGUF file.")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{path} is not a GGUF file: convert the model to GGUF first.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _read(path, _Cursor(data))
            except (struct.error, ValueError, LookupError, TypeError, ArithmeticError) as error:
                raise ModelError(
                    f"{path} is a damaged GGUF file, or of a version unknown here: get it again."
                ) from error


def _read(path: Path, cursor: _Cursor) -> GgufFile:
    version, tensors, keys = cursor.take("IQQ")
    if version not in VERSIONS or max(tensors, keys) > MOST:
        raise ValueError("unknown version")
    metadata = {}
    for _ in range(keys):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.number("I"))
    params = end = 0
    for _ in range(tensors):
        cursor.text()
        shape = cursor.take(f"{cursor.number('I') & 0xF}Q")
        params += prod(shape)
        kind, place = cursor.take("IQ")
        weights, size = BLOCKS.get(kind, (1, 0))  # of a rarer type at least its place is known
        end = max(end, place + prod(shape) // weights * size)
    begin = cursor.at + -cursor.at % metadata.get("general.alignment", 32)
    if begin + end > len(cursor.data) and tensors:
        raise ValueError("cut")
    bos, eos = (
        _token(cursor, metadata, f"tokenizer.ggml.{key}_token_id") for key in ("bos", "eos")
    )
    return GgufFile(path, metadata, params, len(cursor.data), bos, eos)


def _token(cursor: _Cursor, metadata: Mapping[str, Any], key: str) -> str:
    places = metadata.get("tokenizer.ggml.tokens", ())
    if not 0 <= metadata.get(key, -1) < len(places):
        return ""
    cursor.at = places[metadata[key]]
    return cursor.text()


class _Cursor:
    """Reads on from where the last reading ended."""

    def __init__(self, data: mmap.mmap):
        self.data = data
        self.at = 4  # behind the letters GGUF

    def take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{layout}", self.data, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return values

    def number(self, layout: str) -> int:
        return int(self.take(layout)[0])

    def text(self) -> str:
        length = self.number("Q")
        begun, self.at = self.at, self.at + length
        if self.at > len(self.data):
            raise ValueError("cut")
        return self.data[begun : self.at].decode(errors="replace")

    def value(self, kind: int) -> Any:
        if kind == TEXT:
            return self.text()
        if kind != ARRAY:
            return self.take(SCALARS[kind])[0]
        kind, length = self.take("IQ")
        if length > MOST or kind == ARRAY:
            raise ValueError("no such array")
        if kind == TEXT:
            return self._skipped(length)
        return self.take(f"{length}{SCALARS[kind]}")

    def _skipped(self, texts: int) -> Sequence[int]:
        """Where each of so many texts is: a vocabulary has hundreds of thousands."""
        length_at, at, places = struct.Struct("<Q").unpack_from, self.at, []
        for _ in range(texts):
            places.append(at)
            at += 8 + length_at(self.data, at)[0]
        self.at = at
        return places
