"""The bench measures real work: its counts are checked, never its times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gguf_maker import TINY, make_gguf
from ttsolve import bench
from ttsolve.core import Problem, Solution, Usage
from ttsolve.engine import Sampling
from ttsolve.engines.llama import LlamaGenerator
from ttsolve.pair import bare_pair
from ttsolve.prompts import PromptFormat


class CountingVerifier:
    """Scores everything 0.5, at one token a new step."""

    name, params = "counting", 1

    def __init__(self) -> None:
        self.calls: list[int] = []

    def score(self, solutions: Sequence[Solution]) -> tuple[list[Solution], Usage]:
        new = sum(step.score is None for s in solutions for step in s.steps)
        self.calls.append(new)
        scored = [
            replace(s, steps=tuple(replace(step, score=0.5) for step in s.steps)) for s in solutions
        ]
        return scored, Usage(verifier_tokens=new)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", TINY)


def test_a_report_has_every_width_and_its_ratio(path: Path) -> None:
    verifier = CountingVerifier()
    report = bench.run(
        path,
        ("one", "two"),
        PromptFormat(separator="e"),
        verifier,
        widths=(1, 4),
        max_tokens=12,
        seconds=0.05,
        rounds=1,
        threads=1,
    )
    assert [speed.width for speed in report.engine] == [1, 4]
    assert all(speed.tokens and 0 <= speed.outside <= 1 for speed in report.engine)
    assert report.ratios[1] == report.engine[1].rate / report.plain.rate
    assert (report.kv, report.threads, report.generator) == ("split", 1, "tiny.gguf")
    assert [speed.loops for speed in report.engine] == [1, 1]
    assert report.verifier is not None
    assert report.verifier.tokens == sum(verifier.calls)
    assert len(verifier.calls) > 2  # whole solutions in one call, the others step by step


def test_every_sample_of_every_problem_and_each_prompt_once(path: Path) -> None:
    problems = [Problem("x" * n) for n in (5, 9, 14)]
    with LlamaGenerator(path, PromptFormat(), width=30, threads=1, loops=1) as generator:
        prompts = [generator.tokenize(f"{p.question}\n") for p in problems]
        speed = bench.measure(generator, problems, Sampling(max_tokens=5), samples=10)
    assert 30 <= speed.tokens <= 150
    assert speed.prompt_tokens + speed.reused_tokens == 10 * sum(len(p) + 1 for p in prompts)
    assert speed.prompt_tokens <= sum(len(p) + 1 for p in prompts)
    assert speed.loops == 1
    # What was drawn last in a sample is not decoded, nor twice what two samples begin with.
    assert speed.decoded <= speed.prompt_tokens + speed.tokens - 30
    assert speed.shared == speed.tokens / speed.decoded


def test_several_loops_decode_each_prompt_once_each(path: Path) -> None:
    problems = [Problem("x" * n) for n in (5, 9, 14)]
    with LlamaGenerator(path, PromptFormat(), width=60, loops=2) as generator:
        prompts = [generator.tokenize(f"{p.question}\n") for p in problems]
        speed = bench.measure(generator, problems, Sampling(max_tokens=5), samples=20)
    assert speed.loops == 2
    assert 0 <= speed.outside <= 1
    assert speed.prompt_tokens + speed.reused_tokens == 20 * sum(len(p) + 1 for p in prompts)
    assert speed.prompt_tokens <= 2 * sum(len(p) + 1 for p in prompts)


def test_questions_of_a_pair_come_from_its_data(tmp_path: Path) -> None:
    (tmp_path / "bare.gguf").touch()
    pair = bare_pair(tmp_path / "bare.gguf")
    assert bench._questions(pair) == bench.QUESTIONS
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.jsonl").write_text('{"problem": "2 + 2?"}\n' * 40)
    assert bench._questions(pair) == ["2 + 2?"] * 40


def test_the_median_round_counts() -> None:
    speeds = [bench.Speed(1, tokens, 1.0) for tokens in (30, 10, 20)]
    assert bench._median(speeds).tokens == 20
