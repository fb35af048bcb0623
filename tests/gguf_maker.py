"""Random-weight GGUF files of real shapes, to test the engine and its speed on."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from ttsolve.gguf_file import _Cursor, read_gguf


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder's shape, and the arithmetic its matrices are stored in."""

    architecture: str  # "llama" or "qwen2"
    layers: int
    width: int
    heads: int
    kv_heads: int
    hidden: int  # of the feed-forward part
    context: int  # tokens the model is said to be trained for
    quant: gguf.GGMLQuantizationType
    scale: float = 0.1  # standard deviation of the weights: the larger, the surer the model


POCKET = Shape("llama", 4, 128, 4, 4, 352, 512, gguf.GGMLQuantizationType.F16)
QWEN_05B = Shape("qwen2", 24, 896, 14, 2, 4864, 4096, gguf.GGMLQuantizationType.Q8_0, 0.02)
TINY = Shape("llama", 1, 32, 2, 2, 64, 256, gguf.GGMLQuantizationType.F32, 0.5)


def byte_tokens(size: int) -> tuple[list[str], list[str]]:
    """A byte-level vocabulary and its merges: 3 control tokens, 256 bytes, pairs of letters."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    pairs = [(a, b) for a in letters for b in letters][: max(0, size - 259)]
    tokens = ["<s>", "</s>", "<pad>", *symbols, *(a + b for a, b in pairs)]
    # A larger one is filled with words that no text is cut into; one in 32 ends a sentence.
    tokens += [f"W{i}{'.' * (i % 32 == 0)}" for i in range(size - len(tokens))]
    return tokens[:size], [f"{a} {b}" for a, b in pairs]


def make_gguf(
    path: Path,
    shape: Shape,
    *,
    vocabulary: int = 600,
    tokenizer: Path | None = None,
    chat_template: str | None = None,
    adds_end: bool = False,
    seed: int = 0,
) -> Path:
    """Write a model of `shape` with random weights; `tokenizer` names a GGUF to copy one from."""
    writer = gguf.GGUFWriter(path, shape.architecture)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    if tokenizer is None:
        tokens, merges = byte_tokens(vocabulary)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(tokens)
        writer.add_token_types(
            [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(tokens) - 3)
        )
        writer.add_token_merges(merges)
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(adds_end)
    else:
        vocabulary = len(read_gguf(tokenizer).metadata["tokenizer.ggml.tokens"])
    for name, array in tensors(shape, vocabulary, np.random.default_rng(seed)):
        quant = gguf.GGMLQuantizationType.F32 if array.ndim == 1 else shape.quant
        writer.add_tensor(name, gguf.quants.quantize(array, quant), raw_dtype=quant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if tokenizer is not None:
        put_tokenizer(path, tokenizer, without_chat=chat_template is not None)
    return path


def put_tokenizer(path: Path, source: Path, without_chat: bool) -> None:
    """Put every tokenizer.* key of `source` into the model at `path`, as bytes: a published
    vocabulary has half a million texts, and the writer takes minutes for them."""
    keys = [
        data
        for key, data in head(source)[1]
        if key.startswith("tokenizer.") and not (without_chat and "chat_template" in key)
    ]
    data = path.read_bytes()
    (version, tensors, count), own, end, start = head(path)
    infos = data[end:start]
    out = b"GGUF" + struct.pack("<IQQ", version, tensors, count + len(keys))
    out += b"".join(key for _, key in own) + b"".join(keys) + infos
    path.write_bytes(out + bytes(-len(out) % gguf.GGUF_DEFAULT_ALIGNMENT) + data[aligned(start) :])


def aligned(place: int) -> int:
    return place + -place % gguf.GGUF_DEFAULT_ALIGNMENT


def head(path: Path) -> tuple[tuple[int, int, int], list[tuple[str, bytes]], int, int]:
    """Version and counts; every key with its bytes; where the keys end, and the tensors' names."""
    data = path.read_bytes()
    cursor = _Cursor(data)  # type: ignore[arg-type]
    version, tensors, count = cursor.take("IQQ")
    keys = []
    for _ in range(count):
        begin = cursor.at
        name = cursor.text()
        cursor.value(cursor.number("I"))
        keys.append((name, data[begin : cursor.at]))
    end = cursor.at
    for _ in range(tensors):
        cursor.text()
        cursor.take(f"{cursor.number('I')}Q")
        cursor.take("IQ")
    return (version, tensors, count), keys, end, cursor.at


def copy_tokenizer(source: gguf.GGUFReader, writer: gguf.GGUFWriter) -> int:
    """Copy every tokenizer.* key; return the size of the vocabulary."""
    for key, field in source.fields.items():
        if key.startswith("tokenizer."):
            kind = field.types[0]
            sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), kind, sub_type=sub)
    return len(source.fields["tokenizer.ggml.tokens"].data)


def tensors(shape: Shape, vocabulary: int, random: np.random.Generator):  # type: ignore[no-untyped-def]
    """Every tensor of the model by its GGUF name; embeddings are tied."""

    def matrix(rows: int, columns: int) -> np.ndarray:
        return random.standard_normal((rows, columns), dtype=np.float32) * np.float32(shape.scale)

    kv = shape.width // shape.heads * shape.kv_heads
    yield "token_embd.weight", matrix(vocabulary, shape.width)
    yield "output_norm.weight", np.ones(shape.width, np.float32)
    for i in range(shape.layers):
        yield f"blk.{i}.attn_norm.weight", np.ones(shape.width, np.float32)
        yield f"blk.{i}.ffn_norm.weight", np.ones(shape.width, np.float32)
        for name, rows in ("attn_q", shape.width), ("attn_k", kv), ("attn_v", kv):
            yield f"blk.{i}.{name}.weight", matrix(rows, shape.width)
            if shape.architecture == "qwen2":
                yield f"blk.{i}.{name}.bias", np.zeros(rows, np.float32)
        yield f"blk.{i}.attn_output.weight", matrix(shape.width, shape.width)
        yield f"blk.{i}.ffn_gate.weight", matrix(shape.hidden, shape.width)
        yield f"blk.{i}.ffn_up.weight", matrix(shape.hidden, shape.width)
        yield f"blk.{i}.ffn_down.weight", matrix(shape.width, shape.hidden)
