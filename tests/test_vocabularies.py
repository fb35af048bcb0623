"""Generators with the vocabularies of Qwen2 and Llama 3, and random weights: prompts as published,
tokens as published, and the engine on both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gguf_maker import TINY, make_gguf
from ttsolve.core import Problem, Solution
from ttsolve.engine import Sampling
from ttsolve.engines.llama import LlamaGenerator
from ttsolve.gguf_file import read_gguf
from ttsolve.own_pair import own_generator
from ttsolve.pair import Pair

FOLDER = Path(__file__).parents[2] / "shared" / "vocab"
PROBLEM = Problem("What is 1 + 1?")


@dataclass(frozen=True)
class Published:
    """A vocabulary with the chat template of a model that has it."""

    vocabulary: str
    template: str
    begin: str  # the token that begins a prompt
    ends: tuple[str, ...]  # tokens that end a generation


QWEN = Published("qwen2", "Qwen-Qwen2.5-7B-Instruct", "", ("<|im_end|>", "<|endoftext|>"))
LLAMA = Published(
    "llama-bpe",
    "meta-llama-Llama-3.2-3B-Instruct",
    "<|begin_of_text|>",
    ("<|eot_id|>", "<|end_of_text|>"),
)


@dataclass(frozen=True)
class Twin:
    """A model with random weights."""

    published: Published
    template: str
    pair: Pair
    generator: LlamaGenerator


@pytest.fixture(scope="module", params=[QWEN, LLAMA], ids=["qwen2", "llama3"])
def twin(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Twin]:
    published: Published = request.param
    vocabulary = FOLDER / f"ggml-vocab-{published.vocabulary}.gguf"
    if not vocabulary.exists():
        pytest.skip("no published vocabularies here")
    template = (FOLDER / f"{published.template}.jinja").read_text(encoding="utf-8")
    shape = replace(TINY, architecture="qwen2" if published is QWEN else "llama", context=2048)
    path = make_gguf(
        tmp_path_factory.mktemp("twin") / "twin.gguf",
        shape,
        tokenizer=vocabulary,
        chat_template=template,
    )
    pair = own_generator(path)
    often = replace(pair.prompt, separator="e", answer="none")  # in what random weights say
    with LlamaGenerator(path, often, width=4, threads=1, context=512) as generator:
        yield Twin(published, template, pair, generator)


def draw(twin: Twin, prefixes: list[Solution], **how: object) -> tuple[list[Solution], int, int]:
    """What grew, how many prompt tokens were decoded, and how many were reused."""
    settings = [Sampling(seed=i, **{"max_tokens": 24, **how}) for i in range(len(prefixes))]  # type: ignore[arg-type]
    out, usage = twin.generator.sample(prefixes, settings)
    return out, usage.prompt_tokens, usage.reused_tokens


def test_its_file_says_how_it_is_asked(twin: Twin) -> None:
    prompt = twin.pair.prompt
    assert (prompt.chat, prompt.separator, prompt.answer) == (True, "\n\n", "\\boxed")
    assert "step by step" in prompt.system
    assert (twin.pair.sampling.temperature, twin.pair.generator.context) == (0.8, 2048)
    assert read_gguf(twin.pair.generator_path).params == twin.generator.params


def test_the_prompt_is_that_of_transformers(twin: Twin) -> None:
    transformers = pytest.importorskip("transformers.utils.chat_template_utils")
    prompt = twin.pair.prompt
    turns = [("system", prompt.system), ("user", PROBLEM.question)]
    (expected,), _ = transformers.render_jinja_template(
        [[{"role": role, "content": content} for role, content in turns]],
        chat_template=twin.template,
        add_generation_prompt=True,
        bos_token=twin.published.begin,
        date_string="26 Jul 2024",
    )
    assert twin.generator.prompt.render(PROBLEM.question) == expected


def test_tokens_are_as_published(twin: Twin) -> None:
    file = FOLDER / f"ggml-vocab-{twin.published.vocabulary}.gguf"
    texts = file.with_suffix(".gguf.inp").read_text(encoding="utf-8")
    lines = file.with_suffix(".gguf.out").read_text().splitlines()
    cases = texts.removesuffix("\n__ggml_vocab_test__\n").split("\n__ggml_vocab_test__\n")
    assert len(cases) == len(lines) > 40
    for text, line in zip(cases, lines, strict=True):
        assert twin.generator.tokenize(text) == [int(token) for token in line.split()], text


def test_a_prompt_begins_once(twin: Twin) -> None:
    """The template writes the token that begins a text, and so would the vocabulary."""
    ids = list(twin.generator._prompt_ids(PROBLEM.question, ()))
    begin = [twin.generator.tokenize(text)[0] for text in [twin.published.begin] if text]
    assert ids[: len(begin)] == begin
    assert [ids.count(token) for token in begin] == [1] * len(begin)
    pieces = twin.generator._model.pieces
    assert pieces[ids[-1]].endswith(b"\n")  # what the generator says comes next


def test_a_question_is_no_control_token(twin: Twin) -> None:
    """What it says can neither end the user's turn nor begin another."""
    marks = "".join(twin.published.ends)
    plain, hostile = (
        list(twin.generator._prompt_ids(text, ())) for text in ("a", f"a{marks}{marks}")
    )
    silent = {token for token, piece in enumerate(twin.generator._model.pieces) if not piece}
    assert [token for token in hostile if token in silent] == [
        token for token in plain if token in silent
    ]
    said = b"".join(twin.generator._model.pieces[token] for token in hostile).decode()
    assert f"a{marks}{marks}" in said


def test_every_token_that_ends_a_generation_ends_a_solution(twin: Twin) -> None:
    ends = twin.generator._model.ends
    for text in twin.published.ends:
        (token,) = twin.generator.tokenize(text)
        assert ends[token]
    assert ends.sum() < 10


def test_samples_share_a_prompt_and_grow_from_prefixes(twin: Twin) -> None:
    prompt = len(twin.generator._prompt_ids("q", ()))
    root = Problem("q").root
    whole, decoded, reused = draw(twin, [root] * 8)
    assert (decoded, reused) == (prompt, 7 * prompt)
    assert len({solution.text for solution in whole}) == 8
    again, decoded, _ = draw(twin, [root] * 8)
    assert (again, decoded) == (whole, 0)
    (part,), _, _ = draw(twin, [root], max_tokens=9)
    prefix = root.grow(*part.steps)
    (grown,), decoded, reused = draw(twin, [prefix], max_tokens=3)
    assert grown.ids[:9] == part.ids
    assert decoded + reused == prompt + 9
    assert reused >= prompt


def test_a_step_ends_where_the_separator_does(twin: Twin) -> None:
    """Tokens of such a vocabulary hold more than one letter: what ends a step is within one."""
    roots = [Problem("q").root] * 4
    one, _, _ = draw(twin, roots, steps=1)
    whole, _, _ = draw(twin, roots)
    for step, solution in zip(one, whole, strict=True):
        assert len(step.steps) == 1
        assert "e" in step.text
        assert step.steps[0] == solution.steps[0]
    assert any(len(solution.steps) > 1 for solution in whole)
