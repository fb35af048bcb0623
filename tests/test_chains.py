"""Chains as arrays: what is said of attempts, and votes that are those of the slow twin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttsolve.chain_runs import run_chains
from ttsolve.chains import (
    Chains,
    chains_of,
    judged_by,
    pass_by_attempt,
    rescored,
    select_grid,
    select_rates,
    turned_right,
    turned_wrong,
)
from ttsolve.core import Problem, Solution, Step, Usage
from ttsolve.engines.sim import SimGenerator, SimVerifier
from ttsolve.measure import ratio
from ttsolve.recall import StoredPair
from ttsolve.solve import SIM
from ttsolve.store import Store
from ttsolve.vote import hierarchical, majority

PROBLEM = Problem("q", reference="1")


def picture(drawing: str, scores: float = 0.5) -> Chains:
    """A chain a line, an attempt a digit: 1 is right, - no answer, . no attempt."""
    rows = [list(line) for line in drawing.split()]
    answers = np.array([[-1 if c in "-." else int(c) for c in row] for row in rows])
    right = np.array([[math.nan if c == "." else float(c == "1") for c in row] for row in rows])
    return Chains(answers, right, np.full(answers.shape, scores))


def attempt(chain: int, answer: int, score: float) -> Solution:
    text = "no idea\n" if answer < 0 else f"Answer: {answer}\n"
    return Solution(PROBLEM, (Step(text, 1, score=score),), "stop", chain=chain)


def candidates_of(one: Chains) -> list[Solution]:
    return [
        attempt(c, int(one.answers[c, i]), float(one.scores[c, i]))
        for c, i in np.ndindex(one.right.shape)
    ]


# --- attempts ---------------------------------------------------------------------------------


SOLVED = [picture("0110 -011"), picture("0001 1200")]
RIGHT = [one.right for one in SOLVED]


def test_pass_at_each_attempt() -> None:
    rates = pass_by_attempt(RIGHT)
    assert [estimate.value for estimate in rates] == [0.25, 0.25, 0.5, 0.5]
    assert [estimate.n for estimate in rates] == [2] * 4
    assert (rates[0].low, rates[0].high) == (0.0, 0.5)


def test_what_the_next_attempt_turns() -> None:
    """Of right ones with a next: 1 of 2, 0 of 1, none, 1 of 1; of wrong ones 3 of 8."""
    assert (turned_wrong(RIGHT).value, turned_wrong(RIGHT).n) == (0.5, 4)
    assert (turned_right(RIGHT).value, turned_right(RIGHT).n) == (3 / 8, 8)
    assert math.isnan(turned_wrong([picture("00 00").right]).value)


def test_an_attempt_that_was_not_made_counts_nowhere() -> None:
    short = picture("011 10.")
    assert [rate.value for rate in pass_by_attempt([short.right])] == [0.5, 0.5, 1.0]
    assert (turned_wrong([short.right]).value, turned_wrong([short.right]).n) == (0.5, 2)
    assert (turned_right([short.right]).value, turned_right([short.right]).n) == (1.0, 1)
    assert select_rates([short], 1, 3, "majority").tolist() == [1.0]  # 1 1; 1, of equals the first


def test_a_ratio_is_that_of_the_sums() -> None:
    found = ratio(np.array([1.0, 0.0, 3.0]), np.array([2.0, 4.0, 4.0]))
    assert (found.value, found.n) == (0.4, 10)
    assert 0 <= found.low < 0.4 < found.high <= 0.75


# --- votes ------------------------------------------------------------------------------------


def test_votes_of_prefixes() -> None:
    """Chains say 2, 1, 1 and 3; with a second attempt the heavier 1 outvotes the 2 in chain 1."""
    one = picture("21 12 12 31")
    one.scores[:] = [[0.25, 0.5], [0.5, 0.125], [0.375, 0.25], [0.75, 0.125]]
    assert select_rates([one], 1, 1, "verifier").tolist() == [0.5]  # four votes of one chain
    assert select_rates([one], 2, 1, "verifier").tolist() == [0.5]  # 1 beats 2; 3 beats 1
    assert select_rates([one], 4, 1, "verifier").tolist() == [1.0]
    assert select_rates([one], 1, 2, "verifier").tolist() == [0.75]
    assert select_rates([one], 4, 1, "majority").tolist() == [1.0]
    assert select_rates([one], 3, 1, "majority").tolist() == [1.0]  # one group of three
    assert select_rates([one], 1, 2, "majority").tolist() == [0.5]  # of equals the first
    assert select_rates([one], 1, 1, "any").tolist() == [0.5]
    assert select_rates([one], 2, 1, "any").tolist() == [1.0]


boards = st.integers(1, 4).flatmap(
    lambda chains: st.integers(1, 4).flatmap(
        lambda length: st.lists(
            st.tuples(st.integers(-1, 2), st.integers(1, 64)),
            min_size=chains * length,
            max_size=chains * length,
        ).map(lambda cells: (chains, length, cells))
    )
)


@given(boards, st.sampled_from(["verifier", "majority"]))
def test_every_prefix_votes_as_its_candidates_would(board, selector) -> None:
    chains, length, cells = board
    answers = np.array([answer for answer, _ in cells]).reshape(chains, length)
    scores = np.array([score / 64 for _, score in cells]).reshape(chains, length)
    one = Chains(answers, np.float64(answers == 1), scores)
    for (c, n), rates in select_grid([one], selector).items():
        voted = []
        for group in range(chains // c):
            part = Chains(
                *(array[group * c : (group + 1) * c, :n] for array in (answers, one.right, scores))
            )
            some = candidates_of(part)
            if selector == "majority":
                some = [replace(s, steps=(replace(s.steps[0], score=None),)) for s in some]
            vote = (hierarchical if selector == "verifier" else majority)(some)
            voted.append(vote.answer == "1")
        assert rates[0] == pytest.approx(np.mean(voted))


def test_what_cannot_vote_is_told() -> None:
    with pytest.raises(ValueError, match="4 × 1 attempts are asked of 2 × 4"):
        select_rates(SOLVED, 4, 1, "majority")
    with pytest.raises(ValueError, match="needs the scores"):
        select_rates([picture("01", math.nan)], 1, 2, "verifier")
    assert select_rates([picture("-1", math.nan)], 1, 1, "verifier").tolist() == [0.0]


# --- runs -------------------------------------------------------------------------------------


class Attentive:
    """Scores by how many attempts it is shown."""

    name, params = "attentive", 1

    def score(self, solutions: Sequence[Solution]) -> tuple[list[Solution], Usage]:
        def scored(one: Solution) -> Solution:
            score = len(one.attempts) / 8
            return replace(one, steps=tuple(replace(s, score=score) for s in one.steps))

        return [scored(one) for one in solutions], Usage()


def test_runs_become_arrays_and_are_judged_by_others(tmp_path: Path) -> None:
    problems = [Problem(f"question {i} p=0.7", reference="42") for i in range(3)]
    with Store(tmp_path / "ttsolve.db") as store:
        models = StoredPair(SIM, store, lambda: (SimGenerator(), SimVerifier()))
        results = list(run_chains(problems, models, chains=3, length=4, memory=2))
        assert [result.problem.question for result in results] == [p.question for p in problems]
        again = list(run_chains(problems, models, chains=3, length=4, memory=2))
        assert [r.candidates for r in again] == [r.candidates for r in results]
        assert all(r.usage.generated_tokens == 0 for r in again)
        assert [run.correct is None for run in store.runs(3)] == [False] * 3
    for result, problem in zip(results, problems, strict=True):
        whole = chains_of(result.candidates, problem, SIM)
        assert whole.right.shape == (3, 4)
        answered = [c.text.splitlines()[-1] == "Answer: 42" for c in result.candidates]
        assert whole.right.ravel().tolist() == answered
        voted = select_rates([whole], 3, 4, "verifier")[0]
        assert voted == float(result.answer == "42")
        with_history = judged_by(Attentive(), result.candidates)
        assert [c.attempts for c in with_history] == [c.attempts for c in result.candidates]
        again = rescored(whole, with_history, SIM)
        assert again.scores.tolist() == [[0, 0.125, 0.25, 0.25]] * 3
        assert same(again, chains_of(with_history, problem, SIM))
        alone = judged_by(Attentive(), result.candidates, history=False)
        assert not rescored(whole, alone, SIM).scores.any()
        probe = replace(result.candidates[0], chain=None)
        short = chains_of([probe, *result.candidates[:-1]], problem, SIM)
        assert np.isnan(short.right).tolist() == [[False] * 4, [False] * 4, [False] * 3 + [True]]
        assert same(short.first(3, 3), whole.first(3, 3))
        assert chains_of([probe], problem, SIM).right.shape == (0, 0)


def same(a: Chains, b: Chains) -> bool:
    arrays = zip((a.answers, a.right, a.scores), (b.answers, b.right, b.scores), strict=True)
    return all(np.array_equal(x, y, equal_nan=True) for x, y in arrays)
