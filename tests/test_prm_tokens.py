"""Laws of token boundaries, on the real tokenizers of Qwen2, Llama 3 and Llama 2."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="exporting needs the `train` extra")

from gguf import TokenType
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from prm_maker import CHATML, LLAMA_CHAT, LLAMA_SPLIT, PIECES, QWEN_SPLIT, random_steps
from ttsolve.engines.bpe import ByteBpe
from ttsolve.engines.prm_format import PrmFormat
from ttsolve.engines.tokens import PackageTokenizer, open_tokenizer
from ttsolve.errors import ModelError
from ttsolve.train.export_prm import _read
from ttsolve.train.families import FAMILIES

VOCABULARIES = Path(__file__).parents[2] / "shared" / "vocab"
FILES = {
    "qwen2": ("ggml-vocab-qwen2.gguf", "Qwen-Qwen2.5-7B-Instruct.jinja"),
    "llama3": ("ggml-vocab-llama-bpe.gguf", "meta-llama-Llama-3.2-3B-Instruct.jinja"),
    "llama2": ("ggml-vocab-llama-spm.gguf", ""),
}
ODD = "aé漢и 🙂\n\t\r .,:;-+=$\\{}()<|>123'sStéà\u0301\u00a0\u200b\u3000\ufeff"


SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}


def metadata(path: Path) -> dict[str, Any]:
    """The keys of a GGUF file; `gguf.GGUFReader` takes 20 s for a large vocabulary."""
    data = path.read_bytes()
    at = 8

    def number(form: str) -> Any:
        nonlocal at
        (value,) = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return value

    def value(kind: int) -> Any:
        nonlocal at
        if kind == 8:
            size = number("Q")
            at += size
            return data[at - size : at].decode()
        if kind == 9:
            kind, count = number("I"), number("Q")
            return [value(kind) for _ in range(count)]
        return number(SCALARS[kind])

    _, count = number("Q"), number("Q")
    return {value(8): value(number("I")) for _ in range(count)}


def byte_level(tokens, merges, split, nfc):
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    cut = {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False}
    return {
        "normalizer": {"type": "NFC"} if nfc else None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [cut, level | {"use_regex": False}],
        },
        "decoder": level | {"use_regex": True},
        "model": {
            "type": "BPE",
            "ignore_merges": not nfc,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def sentencepiece(tokens, scores):
    """As transformers converts it: a merge for each way to cut a piece in two, best piece first."""
    ids = {token: i for i, token in enumerate(tokens)}
    merges = [
        (ids[token], token[:i], token[i:])
        for token in tokens
        for i in range(1, len(token))
        if not token.startswith("<0x") and token[:i] in ids and token[i:] in ids
    ]
    merges.sort(key=lambda merge: (-scores[merge[0]], ids[merge[1]], ids[merge[2]]))
    spaces = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    return {
        "normalizer": {"type": "Sequence", "normalizers": spaces},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": ids,
            "merges": [[left, right] for _, left, right in merges],
        },
    }


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """(tokenizer.json, transformers' tokenizer) of a published vocabulary."""
    done = {}

    def make(name):
        file, chat = FILES[name]
        if not (VOCABULARIES / file).exists():
            pytest.skip(f"the vocabulary {file} is not there")
        if name not in done:
            keys = metadata(VOCABULARIES / file)
            tokens, kinds = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
            if name == "qwen2":
                tokens[151651] = "<extra_0>"  # as in the repositories of its reward models
            special = [i for i, kind in enumerate(kinds) if kind == TokenType.CONTROL]
            if name == "llama2":
                state = sentencepiece(tokens, keys["tokenizer.ggml.scores"])
                special.append(0)
            else:
                merges = [m.split(" ") for m in keys["tokenizer.ggml.merges"]]
                split = QWEN_SPLIT if name == "qwen2" else LLAMA_SPLIT
                plain = tokens[: min(special)]
                state = byte_level(plain, merges, split, nfc=name == "qwen2")
                special += list(range(151646, 151652)) * (name == "qwen2")
            flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
            added = [{"id": i, "content": tokens[i], "special": True, **flags} for i in special]
            added = list({token["id"]: token for token in added}.values())
            path = tmp_path_factory.mktemp(name) / "tokenizer.json"
            path.write_text(json.dumps({"version": "1.0", "added_tokens": added, **state}))
            begin = {"llama3": "<|begin_of_text|>", "llama2": "<s>", "qwen2": "<|endoftext|>"}
            template = (VOCABULARIES / chat).read_text() if chat else None
            theirs = PreTrainedTokenizerFast(
                tokenizer_file=str(path), bos_token=begin[name], chat_template=template
            )
            done[name] = path, theirs
        return done[name]

    return make


def odd_texts(count, seed=0):
    dice = random.Random(seed)
    for i in range(count):
        alphabet = ODD if i % 3 else [chr(dice.randrange(32, 0x2FFF)) for _ in range(9)]
        text = "".join(dice.choice(alphabet) for _ in range(dice.randrange(1, 30)))
        yield dice.choice(PIECES) + text if i % 5 == 0 else text


# The package's tables for NFC are older than Python's: they lack the marks of Unicode 14.
_RANGES = ((0x898, 0x8A0), (0x8CA, 0x8D3), (0xC3C, 0xC3D), (0x1715, 0x1716), (0x180F, 0x1810),
           (0x1AC1, 0x1ACF), (0x1DFA, 0x1DFB))  # fmt: skip
NEW_MARKS = {chr(mark) for first, end in _RANGES for mark in range(first, end)}


@pytest.mark.parametrize("name", ["qwen2", "llama3"])
def test_byte_level_tokens_are_those_of_the_tokenizers_package(real, name):
    path, _ = real(name)
    ours, theirs = ByteBpe(path), Tokenizer.from_file(str(path))
    theirs.encode_special_tokens = True
    assert ours.vocabulary == theirs.get_vocab_size()
    texts = [text for text in odd_texts(11_000) if not NEW_MARKS & {*text}]
    assert len(texts) >= 10_000
    encoded = theirs.encode_batch(texts, add_special_tokens=False)
    assert [t for t, e in zip(texts, encoded, strict=True) if ours.encode(t) != e.ids] == []


PAIRS = [
    *(("qwen2", name) for name in ("openr", "skywork", "pure", "trl", "qwen", "qwen-orm", "orm")),
    *(("llama3", name) for name in ("er-prm", "rlhflow", "rlhflow-orm", "orm", "trl")),
    ("llama2", "math-shepherd"),
]


@pytest.mark.parametrize(("vocabulary", "name"), PAIRS)
def test_step_by_step_gives_the_tokens_of_the_whole(real, vocabulary, name):
    """What is built step by step is what the family's own code makes of the whole solution."""
    path, theirs = real(vocabulary)
    family, ours = FAMILIES[name], open_tokenizer(path)
    layout = family.layout(theirs, family.mark)
    how = PrmFormat(family=name, context=4096, tolerance=0.0, **layout)
    dice, odd = random.Random(0), odd_texts(10_000, seed=1)
    for _ in range(40):
        texts = [*random_steps(dice), *(next(odd).strip() for _ in range(3))]
        steps = [text for text in texts if text and not text.startswith("Step")]
        steps = [step.replace("\n", " ").strip() if name == "skywork" else step for step in steps]
        given = [step + "\n\n" for step in steps]
        ids, places = family.published(
            theirs, family.mark, "What is 2 + 2?", given if how.whole else steps
        )
        end = places[-1] - how.read
        assert _read(how, ours, "What is 2 + 2?", given) == (ids[:end], places)


def test_the_marks_are_the_tokens_that_the_families_name(real):
    _, qwen = real("qwen2")
    assert qwen.encode(" \n\n\n\n\n") == [76325]
    assert qwen.encode(" + -") == [488, 481]
    assert qwen.encode("<extra_0>") == [151651]
    assert qwen.encode("\n") == [198]
    _, llama = real("llama3")
    assert llama.encode("+")[-1] == 10
    assert llama.encode("<|reserved_special_token_0|>")[-1] == 128002
    _, mistral = real("llama2")
    assert mistral.convert_ids_to_tokens(mistral.encode("a ки\n"))[-2:] == ["▁ки", "<0x0A>"]


def test_what_is_no_byte_level_bpe_is_read_by_the_package(real, tmp_path):
    path, theirs = real("llama2")
    ours = open_tokenizer(path)
    assert isinstance(ours, PackageTokenizer)
    assert ours.encode("2 + 2\n") == theirs.encode("2 + 2\n", add_special_tokens=False)
    assert ours.special["<s>"] not in ours.encode("2 + 2 <s>")
    (tmp_path / "tokenizer.json").write_text('{"added_tokens": []}')
    with pytest.raises(ModelError, match="is damaged"):
        open_tokenizer(tmp_path / "tokenizer.json")


def test_the_templates_of_the_tests_are_in_the_shape_of_the_real_ones(real):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for name, chat in ("qwen2", CHATML), ("llama3", LLAMA_CHAT):
        _, theirs = real(name)
        full = theirs.apply_chat_template(turns, tokenize=False)
        short = theirs.apply_chat_template(turns, tokenize=False, chat_template=chat)
        assert full.endswith(short.removeprefix(theirs.bos_token or ""))
