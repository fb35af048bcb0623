"""The main path: from a problem to a result."""

from __future__ import annotations

import pytest

from ttsolve.core import Problem
from ttsolve.engine import Engine, Generator, Sampling, Verifier
from ttsolve.engines.sim import RIGHT_ANSWER, SimGenerator, SimVerifier
from ttsolve.pair import Pair, World
from ttsolve.solve import SIM, aggregation_of, open_models, solve, unknown_words
from ttsolve.strategies import BestOfN, Majority

PROBLEM = Problem("what is six times seven")


def test_a_result_says_everything_about_the_run() -> None:
    engine = Engine(SimGenerator(), SimVerifier(), seed=7, sampling=Sampling(temperature=0.5))
    result = solve(PROBLEM, engine, BestOfN(16), SIM)
    assert result.answer == RIGHT_ANSWER
    assert 0 < result.share <= 1
    assert result.best in result.candidates
    assert len(result.candidates) == result.usage.units == 16
    assert (result.strategy, result.seed, result.pair) == ("best-of-n", 7, "sim")
    assert result.settings == {
        "n": 16,
        "temperature": 0.5,
        "vote": "weighted",
        "aggregation": "last",
        "verifier": "sim",
    }
    assert not result.interrupted


@pytest.mark.parametrize(
    ("strategy", "verifier", "vote"),
    [
        (BestOfN(4), SimVerifier(), "weighted"),
        (BestOfN(4), None, "majority"),
        (Majority(4), SimVerifier(), "majority"),
        (Majority(4), None, "majority"),
    ],
)
def test_only_scores_make_a_weighted_vote(
    strategy: BestOfN | Majority, verifier: Verifier | None, vote: str
) -> None:
    result = solve(PROBLEM, Engine(SimGenerator(), verifier), strategy, SIM)
    assert result.settings["vote"] == vote
    assert (result.settings["verifier"] is None) == (verifier is None)


def test_no_candidate_with_an_answer_is_no_answer() -> None:
    for max_tokens in (1, 20):  # nothing at all; cut before the answer
        engine = Engine(SimGenerator(), SimVerifier(), sampling=Sampling(max_tokens=max_tokens))
        result = solve(PROBLEM, engine, BestOfN(3), SIM)
        assert (result.answer, result.share, result.best) == (None, 0.0, None)


def test_a_stopped_run_votes_over_what_there_is() -> None:
    engine = Engine(SimGenerator(), SimVerifier())
    engine.listen = lambda event: engine.stop.set() if len(engine.trace) == 3 else None
    result = solve(PROBLEM, engine, BestOfN(9), SIM)
    assert result.interrupted
    assert [c.finish for c in result.candidates] == ["stop"] * 3 + ["budget"] * 6
    assert result.answer is not None


# A closed list of words, as a tokenizer sees it: known words are one token, others letters.
KNOWN = {"Make", " from", " apples", "how", " how"}


def tokenize(text: str) -> list[int]:
    return [0] if text in KNOWN or len(text.strip()) == 1 else [0] * len(text)


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("Make 24 from 4, 7, 8, 8", []),
        ("how apples", []),
        ("Make x from y", []),
        ("12 + 34 = ?", ["12 + 34 = ?"]),  # no sentence of any world
        ("Make a sonnet from apples, a sonnet!", ["sonnet"]),
        ("Wie viele Äpfel", ["Wie", "viele", "Äpfel"]),
    ],
)
def test_unknown_words(question: str, words: list[str]) -> None:
    assert unknown_words(question, tokenize) == words


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("Make 24 from 0099, +, 4", []),
        ("Make 24 from 100, 7", ["100"]),
        ("Make 2^3! from 4", ["^", "!"]),
        ("Make 24 from 💥💥", ["💥"]),
        (f"Make {'9' * 9999} from 4", ["9" * 9999]),
    ],
)
def test_numbers_and_signs_may_be_of_another_world(question: str, found: list[str]) -> None:
    world = World("Testland", "Nothing but tests.", signs="+,", largest=99)
    assert unknown_words(question, tokenize, world) == found
    assert unknown_words(question, tokenize) == []


def test_the_simulator_opens_without_any_model() -> None:
    generator, verifier = open_models(SIM)
    assert (generator.name, verifier and verifier.name) == ("sim", "sim")


def test_the_embedded_pair_solves(pocket: Pair) -> None:
    generator, verifier = open_models(pocket)
    assert verifier is not None
    problem = Problem("Make 24 from 4, 7, 8, 8")
    twice = [
        solve(problem, pocket_engine(pocket, generator, verifier), BestOfN(16), pocket)
        for _ in range(2)
    ]
    result = twice[0]
    assert result.answer == twice[1].answer
    assert [c.text for c in result.candidates] == [c.text for c in twice[1].candidates]
    assert result.settings["aggregation"] == aggregation_of(pocket)
    assert result.usage.generated_tokens == sum(c.tokens for c in result.candidates)
    assert all(0 <= score <= 1 for c in result.candidates for score in c.scores)


def pocket_engine(pair: Pair, generator: Generator, verifier: Verifier) -> Engine:
    return Engine(generator, verifier, seed=1, sampling=pair.sampling, budget=16)
