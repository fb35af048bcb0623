"""Chains of revisions as arrays: how often the n-th attempt is right, and all votes among them.

No attempt depends on a later one, and no chain on another: so the first attempts of some chains are
a run of fewer and shorter chains, and one run of long chains holds the whole grid of ratios (paper
section 6.2). No models here; intervals are of 95 %, with the problem as the unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ttsolve.core import Problem, Solution
from ttsolve.engine import Verifier
from ttsolve.measure import Estimate, Floats, mean, ratio, winners
from ttsolve.pair import Pair
from ttsolve.pools import pool_of, scored
from ttsolve.strategies import Revisions

TRAINED: int = Revisions.memory  # attempts in the contexts that a reviser learns from, at most

Selector = Literal["verifier", "majority", "any"]  # any: the vote that knew the answer (pass@N)
Size = tuple[int, int]  # chains, and attempts of each: the parallel and the sequential part


@dataclass(frozen=True, slots=True)
class Chains:
    """The C chains of up to L attempts of one problem."""

    answers: NDArray[np.int64]  # [C, L] class of the answer (`answers.group`); -1: no answer
    right: Floats  # [C, L] as graded: 1 or 0; nan: the chain is shorter
    scores: Floats  # [C, L] the verifier's; nan: none
    subject: str = ""

    def first(self, chains: int, length: int) -> Chains:
        """The first attempts of the first chains."""
        part = np.s_[:chains, :length]
        return Chains(self.answers[part], self.right[part], self.scores[part], self.subject)


def chains_of(candidates: Sequence[Solution], problem: Problem, pair: Pair) -> Chains:
    """The candidates of a run that stand in chains, graded; of shape [0, 0] where none do."""
    some = _in_chains(candidates)
    pool, places = pool_of(some, problem, pair), _places(some)
    right = pool.right.astype(np.float64)
    return Chains(
        answers=np.where(places < 0, -1, pool.answers[places]),
        right=np.where(places < 0, np.nan, right[places]),
        scores=np.where(places < 0, np.nan, pool.scores[places]),
        subject=pool.subject,
    )


def rescored(chains: Chains, candidates: Sequence[Solution], pair: Pair) -> Chains:
    """The chains with the scores that the run's candidates now have; nothing is graded again."""
    some = _in_chains(candidates)
    places = _places(some)
    return replace(chains, scores=np.where(places < 0, np.nan, scored(some, pair)[places]))


def _in_chains(candidates: Sequence[Solution]) -> list[Solution]:
    return [candidate for candidate in candidates if candidate.chain is not None]


def _places(candidates: Sequence[Solution]) -> NDArray[np.int64]:
    """Where among the candidates each attempt of each chain is, shape [C, L]; -1: there is none."""
    rows: dict[int, list[int]] = {}
    for place, candidate in enumerate(candidates):
        rows.setdefault(candidate.chain or 0, []).append(place)
    out = np.full((len(rows), max(map(len, rows.values()), default=0)), -1)
    for row, (_, places) in zip(out, sorted(rows.items()), strict=True):
        row[: len(places)] = places
    return out


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


def attempt_rates(right: Iterable[Floats]) -> Floats:
    """How often the n-th attempt of a chain is right, over each problem's chains: shape [P, L].

    right: what is right in each problem's chains, as `Chains.right` says it.
    """
    return np.array([np.nanmean(one, axis=0) for one in right])


def pass_by_attempt(right: Iterable[Floats], seed: int = 0) -> list[Estimate]:
    """pass@1 of the first attempt, of the second, and so on: over chains, then over problems."""
    return [mean(column, seed) for column in attempt_rates(right).T]


def turned_wrong(right: Sequence[Floats], seed: int = 0) -> Estimate:
    """The share of right attempts whose next one is wrong; n counts right ones with a next."""
    return _turned(right, 1, seed)


def turned_right(right: Sequence[Floats], seed: int = 0) -> Estimate:
    """The share of wrong attempts whose next one is right; n counts wrong ones with a next."""
    return _turned(right, 0, seed)


def followed(right: Floats, of: float = 1) -> NDArray[np.bool_]:
    """Which of a problem's attempts are right (or wrong: 0) and have a next one: the last apart."""
    return np.asarray((right[:, :-1] == of) & ~np.isnan(right[:, 1:]))


def _turned(right: Sequence[Floats], of: float, seed: int) -> Estimate:
    was = [followed(one, of) for one in right]
    turned = [(before & (one[:, 1:] != of)).sum() for before, one in zip(was, right, strict=True)]
    return ratio(np.array(turned, float), np.array([before.sum() for before in was], float), seed)


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
    if selector == "any":
        return float((one.right.reshape(groups, -1) == 1).any(axis=1).mean())
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


def _right(right: Floats, won: NDArray[np.int64]) -> float:
    return float(np.where(won < 0, 0.0, right[np.arange(len(won)), won]).mean())
