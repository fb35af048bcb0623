"""Choose among candidates: best-of-N weighted, best-of-N, majority (paper section 5.1, appendix E);
and among chains of revisions (section 6.1).

Every vote first gathers the candidates into classes of one answer; candidates without an answer do
not vote. Between classes of equal weight the higher best score decides, then who came first. So
where no two candidates agree, every vote on scored candidates is won by the best score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ttsolve.answers import answer_of, group
from ttsolve.core import Solution

Aggregation = Literal["last", "min", "prod"]
Method = Literal["weighted", "best", "majority", "hierarchical"]
Voter = tuple[float, str, Solution]  # score (0: none), answer, candidate


@dataclass(frozen=True, slots=True)
class Vote:
    """The outcome of a vote."""

    answer: str | None  # as its best candidate writes it; None: no candidate has an answer
    share: float  # the answer's part of the total weight, 0..1
    best: Solution | None  # the highest-scored candidate that gives the answer
    weights: tuple[tuple[str, float, int], ...]  # (answer, weight, candidates), the winner first
    method: Method  # what was really done: unscored candidates have only their number to weigh


@dataclass(frozen=True, slots=True)
class _Class:
    """The candidates that give one answer."""

    answer: str
    best: Solution
    score: float  # of the best; 0 when there are no scores
    weight: float
    count: int


def score_of(solution: Solution, by: Aggregation = "last") -> float | None:
    """The score of a solution, from those of its steps; None when there are none, or not all."""
    if not solution.steps or any(step.score is None for step in solution.steps):
        return None
    scores = solution.scores
    if by == "last":
        return scores[-1]
    return min(scores) if by == "min" else math.prod(scores)


def best_of_n_weighted(
    candidates: Sequence[Solution], by: Aggregation = "last", mark: str = "Answer:"
) -> Vote:
    """The answer with the greatest sum of scores (Li et al. 2023); by majority without scores."""
    # fsum, because its result does not depend on the order of the candidates
    return _vote(candidates, by, mark, "weighted", math.fsum)


def best_of_n(
    candidates: Sequence[Solution], by: Aggregation = "last", mark: str = "Answer:"
) -> Vote:
    """The answer of the best-scored candidate; by majority without scores."""
    return _vote(candidates, by, mark, "best", max)


def majority(
    candidates: Sequence[Solution], by: Aggregation = "last", mark: str = "Answer:"
) -> Vote:
    """The most frequent answer; scores, where there are any, only break ties."""
    return _vote(candidates, by, mark, "majority", len)


def hierarchical(
    candidates: Sequence[Solution], by: Aggregation = "last", mark: str = "Answer:"
) -> Vote:
    """Best-of-N weighted within each chain of revisions, then among the chains' winners.

    A candidate that stands in no chain (a probe) is a chain of one. Without scores it is one vote
    by majority among all candidates: majorities of short chains say little.
    """
    answered = [c for c in candidates if answer_of(c, mark) is not None]
    if any(score_of(candidate, by) is None for candidate in answered):
        return majority(candidates, by, mark)
    return _vote(chain_winners(candidates, by, mark), by, mark, "hierarchical", math.fsum)


def best_of_all(
    candidates: Sequence[Solution], by: Aggregation = "last", mark: str = "Answer:"
) -> Vote:
    """The vote that suits the candidates: majority without scores, hierarchical with chains."""
    if all(score_of(candidate, by) is None for candidate in candidates):
        return majority(candidates, by, mark)
    if any(candidate.chain is not None for candidate in candidates):
        return hierarchical(candidates, by, mark)
    return best_of_n_weighted(candidates, by, mark)


def chain_winners(
    candidates: Sequence[Solution], by: Aggregation = "last", mark: str = "Answer:"
) -> list[Solution]:
    """Of each chain with an answer the highest-scored candidate that gives the chain's answer."""
    chains: dict[object, list[Solution]] = {}
    for i, candidate in enumerate(candidates):
        key = f"alone {i}" if candidate.chain is None else candidate.chain
        chains.setdefault(key, []).append(candidate)
    winners = (best_of_n_weighted(chain, by, mark).best for chain in chains.values())
    return [winner for winner in winners if winner is not None]


def _vote(
    candidates: Sequence[Solution],
    by: Aggregation,
    mark: str,
    method: Method,
    weigh: Callable[[list[float]], float],
) -> Vote:
    voters = [
        (score_of(candidate, by), text, candidate)
        for candidate in candidates
        if (text := answer_of(candidate, mark)) is not None
    ]
    if any(score is None for score, _, _ in voters):
        method, weigh = "majority", len
    members: dict[int | None, list[Voter]] = {}
    for (score, text, candidate), number in zip(voters, group([v[1] for v in voters]), strict=True):
        members.setdefault(number, []).append((score or 0.0, text, candidate))
    classes = sorted(
        (_gather(member, weigh) for member in members.values()),
        key=lambda c: (-c.weight, -c.score),  # a stable sort: then who came first
    )
    if not classes:
        return Vote(None, 0.0, None, (), method)
    total = math.fsum(c.weight for c in classes)
    share = classes[0].weight / total if total > 0 else classes[0].count / len(voters)
    weights = tuple((c.answer, c.weight, c.count) for c in classes)
    return Vote(classes[0].answer, share, classes[0].best, weights, method)


def _gather(members: list[Voter], weigh: Callable[[list[float]], float]) -> _Class:
    scores = [score for score, _, _ in members]
    score, answer, best = max(members, key=lambda member: member[0])  # the first of equals
    return _Class(answer, best, score, weigh(scores), len(members))
