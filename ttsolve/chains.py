"""Chains of revisions as arrays: how often the n-th attempt is right, and all votes among them.

No attempt depends on a later one, and no chain on another: so the first attempts of some chains are
a run of fewer and shorter chains, and one run of long chains holds the whole grid of ratios (paper
section 6.2). No models here; intervals are of 95 %, with the problem as the unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ttsolve.answers import answer_of, group
from ttsolve.core import Problem, Solution
from ttsolve.engine import Verifier
from ttsolve.grade import grade
from ttsolve.measure import Estimate, Floats, mean, ratio, winners
from ttsolve.pair import Pair
from ttsolve.solve import aggregation_of
from ttsolve.vote import score_of

Selector = Literal["verifier", "majority"]
Size = tuple[int, int]  # chains, and attempts of each: the parallel and the sequential part


@dataclass(frozen=True, slots=True)
class Chains:
    """The C chains of L attempts of one problem."""

    answers: NDArray[np.int64]  # [C, L] class of the answer (`answers.group`); -1: no answer
    right: NDArray[np.bool_]  # [C, L] as graded
    scores: Floats  # [C, L] the verifier's; nan: none
    subject: str = ""

    def first(self, chains: int, length: int) -> Chains:
        """The first attempts of the first chains."""
        part = np.s_[:chains, :length]
        return Chains(self.answers[part], self.right[part], self.scores[part], self.subject)


def solved_chains(candidates: Sequence[Solution], problem: Problem, pair: Pair) -> Chains:
    """The candidates of a run of revisions as arrays, graded.

    Raises:
        ValueError: when the chains are not of one length, as where a budget cut them.
    """
    numbers = sorted({c.chain for c in candidates if c.chain is not None})
    rows = [[c for c in candidates if c.chain == number] for number in numbers]
    lengths = {len(row) for row in rows}
    if len(lengths) != 1:
        raise ValueError(f"chains of one length are needed, not of {sorted(lengths)}")
    shape, flat = (len(rows), lengths.pop()), [c for row in rows for c in row]
    texts = [answer_of(candidate, pair.prompt.answer) for candidate in flat]
    judged = {text: grade(problem, text) for text in dict.fromkeys(texts)}
    scores = [score_of(candidate, aggregation_of(pair)) for candidate in flat]
    return Chains(
        answers=np.array([-1 if c is None else c for c in group(texts)]).reshape(shape),
        right=np.array([judged[text] for text in texts]).reshape(shape),
        scores=np.array([np.nan if s is None else s for s in scores]).reshape(shape),
        subject=problem.subject or "",
    )


def judged_by(
    verifier: Verifier, candidates: Sequence[Solution], *, history: bool = True
) -> list[Solution]:
    """The candidates with the scores of another verifier.

    history: whether it reads the attempts that were shown before each; else it reads each alone.
    """
    bare = [
        replace(
            candidate,
            steps=tuple(replace(step, score=None) for step in candidate.steps),
            attempts=candidate.attempts if history else (),
        )
        for candidate in candidates
    ]
    scored, _ = verifier.score(bare)
    pairs = zip(scored, candidates, strict=True)
    return [replace(new, attempts=old.attempts) for new, old in pairs]


# --- attempts ---------------------------------------------------------------------------------


def pass_by_attempt(solved: Sequence[Chains], seed: int = 0) -> list[Estimate]:
    """pass@1 of the first attempt, of the second, and so on: over chains, then over problems."""
    rates = np.array([chains.right.mean(axis=0) for chains in solved])
    return [mean(column, seed) for column in rates.T]


def turned_wrong(solved: Sequence[Chains], seed: int = 0) -> Estimate:
    """The share of right attempts whose next one is wrong; n counts right ones with a next."""
    return _turned(solved, [chains.right for chains in solved], seed)


def turned_right(solved: Sequence[Chains], seed: int = 0) -> Estimate:
    """The share of wrong attempts whose next one is right; n counts wrong ones with a next."""
    return _turned(solved, [~chains.right for chains in solved], seed)


def _turned(solved: Sequence[Chains], of: Sequence[NDArray[np.bool_]], seed: int) -> Estimate:
    before = [chosen[:, :-1] for chosen in of]
    after = [chosen[:, 1:] for chosen in of]
    turned = [(b & ~a).sum() for b, a in zip(before, after, strict=True)]
    return ratio(np.array(turned, float), np.array([b.sum() for b in before], float), seed)


# --- votes ------------------------------------------------------------------------------------


def select_rates(solved: Sequence[Chains], chains: int, length: int, selector: Selector) -> Floats:
    """How often the vote of so many chains of that length is right, for each problem: shape [P].

    It is held in as many groups of chains as there are, none of which shares a chain.

    Raises:
        ValueError: when there are fewer or shorter chains, or a verifier's vote lacks scores.
    """
    return np.array([_select(one, chains, length, selector) for one in solved])


def select_grid(solved: Sequence[Chains], selector: Selector) -> dict[Size, Floats]:
    """`select_rates` for all numbers and lengths of chains that are powers of two."""
    sizes = [(c, n) for c in _powers(solved, 0) for n in _powers(solved, 1)]
    return {(c, n): select_rates(solved, c, n, selector) for c, n in sizes}


def _powers(solved: Sequence[Chains], axis: int) -> list[int]:
    most = min(one.right.shape[axis] for one in solved)
    return [1 << i for i in range(most.bit_length())]


def _select(one: Chains, chains: int, length: int, selector: Selector) -> float:
    there, longest = one.right.shape
    if not (1 <= chains <= there and 1 <= length <= longest):
        raise ValueError(f"{chains} × {length} attempts are asked of {there} × {longest}")
    groups = there // chains
    one = one.first(groups * chains, length)
    if selector == "majority":
        answers = one.answers.reshape(groups, -1)
        won = winners(answers, np.full(answers.shape, np.nan), "majority")
        return _right(one.right.reshape(groups, -1), won)
    if np.isnan(one.scores[one.answers >= 0]).any():
        raise ValueError("the verifier's vote needs the scores of all attempts with an answer")
    best = winners(one.answers, one.scores, "weighted")  # of each chain
    rows = np.arange(len(best))
    answers = np.where(best >= 0, one.answers[rows, best], -1).reshape(groups, chains)
    scores = one.scores[rows, best].reshape(groups, chains)
    right = one.right[rows, best].reshape(groups, chains)
    return _right(right, winners(answers, scores, "weighted"))


def _right(right: NDArray[np.bool_], won: NDArray[np.int64]) -> float:
    return float(((won >= 0) & right[np.arange(len(won)), won]).mean())
