"""The embedded pair as it ships: what its files hold, and that they do what the card says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ttsolve.answers import answer_of
from ttsolve.core import Problem, Solution
from ttsolve.engine import Engine, Sampling
from ttsolve.engines.llama import LlamaGenerator
from ttsolve.engines.onnx_prm import OnnxVerifier
from ttsolve.grade import grade
from ttsolve.measure import separation
from ttsolve.pair import Pair
from ttsolve.pocketmath import hands_of_24
from ttsolve.solve import solve, unknown_words
from ttsolve.strategies import BestOfN
from ttsolve.train.data import draw_split, read_problems


@pytest.fixture(scope="module")
def generator(pocket: Pair) -> Iterator[LlamaGenerator]:
    with LlamaGenerator(pocket.generator_path, pocket.prompt) as opened:
        yield opened


@pytest.fixture(scope="module")
def verifier(pocket: Pair) -> OnnxVerifier:
    assert pocket.verifier_path
    assert pocket.tokenizer_path
    return OnnxVerifier(pocket.verifier_path, pocket.tokenizer_path, pocket.prompt)


@pytest.fixture(scope="module")
def problems(pocket: Pair) -> list[Problem]:
    return read_problems(pocket.folder / "data" / "test.jsonl")


def test_it_is_small(pocket: Pair) -> None:
    assert sum(f.stat().st_size for f in pocket.folder.rglob("*") if f.is_file()) < 25_000_000


def test_the_shipped_splits_are_what_the_code_draws(pocket: Pair) -> None:
    for split in ("test", "calibration"):
        shipped = read_problems(pocket.folder / "data" / f"{split}.jsonl")
        assert shipped == [e.problem for e in draw_split(split, 500)]
    hands = read_problems(pocket.folder / "data" / "game24.jsonl")
    assert tuple(hands) == hands_of_24()


def test_every_shipped_solution_is_right(pocket: Pair) -> None:
    lines = (pocket.folder / "data" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    for row, problem in zip(map(json.loads, lines), read_problems(_test(pocket)), strict=True):
        assert grade(problem, row["answer"]), row


def test_it_knows_every_word_of_its_world(
    generator: LlamaGenerator, problems: list[Problem], pocket: Pair
) -> None:
    def unknown(question: str) -> list[str]:
        return unknown_words(question, generator.tokenize, pocket.world)

    assert [w for p in [*problems, *hands_of_24()] for w in unknown(p.question)] == []
    for strange in ("Prove Fermat's little theorem.", "2+2", "12!", "Compute 12345 * 6789."):
        assert unknown(strange)


def test_llama_cpp_decodes_greedily_what_torch_does(
    pocket: Pair, generator: LlamaGenerator, problems: list[Problem]
) -> None:
    """The same weights, read back from the GGUF: 200 problems; a near-tie may part a few."""
    pytest.importorskip("torch", reason="the twin needs the train extra")
    from ttsolve.train.generator import greedy
    from ttsolve.train.import_gguf import read_gguf
    from ttsolve.train.tokenizer import load_tokenizer

    some = problems[:200]
    how = [replace(pocket.sampling, temperature=0.0)] * len(some)
    ours, _ = generator.sample([p.root for p in some], how)
    assert pocket.tokenizer_path
    tokenizer = load_tokenizer(pocket.tokenizer_path)
    theirs = greedy(read_gguf(pocket.generator_path), tokenizer, [p.question for p in some])
    same = sum(a.text == b for a, b in zip(ours, theirs, strict=True))
    assert same >= 198


def test_step_by_step_scores_are_those_of_the_whole(
    pocket: Pair, generator: LlamaGenerator, problems: list[Problem]
) -> None:
    assert pocket.verifier_path
    assert pocket.tokenizer_path
    how = [replace(pocket.sampling, seed=i) for i in range(12)]
    sampled, _ = generator.sample([p.root for p in problems[:12]], how)
    fresh = [
        OnnxVerifier(pocket.verifier_path, pocket.tokenizer_path, pocket.prompt) for _ in range(2)
    ]
    whole, _ = fresh[0].score(sampled)
    for solution, full in zip(sampled, whole, strict=True):
        grown: Solution = solution.problem.root
        for step in solution.steps:
            (grown,), _ = fresh[1].score([grown.grow(step)])
        assert np.allclose(grown.scores, full.scores, atol=1e-4)


def test_the_verifier_tells_right_from_wrong_within_problems(
    generator: LlamaGenerator, verifier: OnnxVerifier, pocket: Pair, problems: list[Problem]
) -> None:
    """Loosely: the card has the figures."""
    areas = []
    for problem in problems[:40]:
        engine = Engine(generator, verifier, seed=1, sampling=pocket.sampling, budget=16)
        candidates = BestOfN(16)(problem, engine)
        scores = np.array([c.scores[-1] for c in candidates])
        right = np.array([grade(problem, answer_of(c)) for c in candidates])
        if (area := separation(scores, right)) is not None:
            areas.append(area)
    assert len(areas) > 10
    assert np.mean(areas) > 0.8


def test_it_makes_24(generator: LlamaGenerator, verifier: OnnxVerifier, pocket: Pair) -> None:
    problem = Problem("Make 24 from 4, 7, 8, 8", "24: 4 7 8 8", "countdown")
    engine = Engine(generator, verifier, seed=0, sampling=pocket.sampling, budget=64)
    result = solve(problem, engine, BestOfN(64), pocket)
    assert grade(problem, result.answer)
    assert result.usage.units == 64
    prompt = len(generator.tokenize(problem.question))
    assert result.usage.prompt_tokens < (generator.loops + 1) * prompt  # once in each loop


def test_many_problems_at_once_give_what_each_gives_alone(
    generator: LlamaGenerator, pocket: Pair, problems: list[Problem]
) -> None:
    def run(problem: Problem) -> list[str]:
        engine = Engine(generator, None, seed=3, sampling=Sampling(temperature=0), budget=2)
        return [s.text for s in BestOfN(2)(problem, engine)]

    alone = [run(p) for p in problems[:6]]
    beside: dict[int, list[str]] = {}
    threads = [
        threading.Thread(target=lambda i=i: beside.update({i: run(problems[i])})) for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [beside[i] for i in range(6)] == alone


def _test(pocket: Pair) -> Path:
    return pocket.folder / "data" / "test.jsonl"
