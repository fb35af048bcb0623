"""Samples that know nothing of each other, as arrays, and the votes held among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ttsolve.answers import answer_of, group
from ttsolve.core import Problem, Solution
from ttsolve.grade import grade
from ttsolve.measure import Floats, Method, Pool, winners
from ttsolve.pair import Pair
from ttsolve.solve import aggregation_of
from ttsolve.vote import Aggregation, score_of

Ints = NDArray[np.int64]


def pool_of(candidates: Sequence[Solution], problem: Problem, pair: Pair) -> Pool:
    """The candidates of a run as arrays, graded, in their order: that of their lanes."""
    texts = [answer_of(candidate, pair.prompt.answer) for candidate in candidates]
    judged = {text: grade(problem, text) for text in dict.fromkeys(texts)}
    steps = np.full((len(texts), max((len(c.steps) for c in candidates), default=0)), np.nan)
    for row, candidate in zip(steps, candidates, strict=True):
        known = [math.nan if step.score is None else step.score for step in candidate.steps]
        row[: len(known)] = known
    return Pool(
        answers=np.array([-1 if c is None else c for c in group(texts)], dtype=np.int64),
        right=np.array([judged[text] for text in texts], dtype=np.bool_),
        scores=scored(candidates, pair),
        tokens=np.array([c.tokens for c in candidates], dtype=np.int64),
        steps=steps,
        subject=problem.subject or "",
    )


def scored(candidates: Sequence[Solution], pair: Pair) -> Floats:
    """Each candidate's score; nan: none."""
    scores = (score_of(candidate, aggregation_of(pair)) for candidate in candidates)
    return np.array([np.nan if s is None else s for s in scores], dtype=np.float64)


def unscored(pool: Pool) -> Pool:
    """The pool as a vote without a verifier sees it."""
    return replace(pool, scores=np.full(len(pool.right), np.nan))


def rescored(pool: Pool, by: Aggregation) -> Pool:
    """The pool with its solutions' scores made of those of their steps in another way.

    Raises:
        ValueError: when the scores of steps are not known.
    """
    if pool.steps is None:
        raise ValueError("the scores of steps are not known")
    lengths = (~np.isnan(pool.steps)).sum(axis=1)
    last = pool.steps[np.arange(len(lengths)), np.maximum(lengths - 1, 0)]
    known = {
        "last": last,
        "min": np.fmin.reduce(pool.steps, axis=1),
        "prod": np.where(lengths > 0, np.nanprod(pool.steps, axis=1), np.nan),
    }
    return replace(pool, scores=known[by])


def vote_among(pool: Pool, n: int, method: Method) -> tuple[float, int]:
    """The vote of a pool's first n samples: the answer's share, and its best one's place (or -1).

    The rules of `vote`, on arrays.
    """
    shares, places = votes_among(pool.answers[None, :n], pool.scores[None, :n], method)
    return float(shares[0]), int(places[0])


def votes_among(answers: Ints, scores: Floats, method: Method) -> tuple[Floats, Ints]:
    """D votes at once, among n candidates each: (shares, places), shape [D], of shape [D, n]."""
    places = winners(answers, scores, method)
    voting = answers >= 0
    counted = method == "majority" or bool(np.isnan(scores[voting]).any())
    weights = np.where(voting, 1.0 if counted else scores, 0.0)
    weights = np.where(weights.sum(axis=1, keepdims=True) > 0, weights, voting)
    won = answers == answers[np.arange(len(answers)), places][:, None]
    total = np.maximum(weights.sum(axis=1), np.finfo(np.float64).tiny)
    return np.where(places < 0, 0.0, (weights * won).sum(axis=1) / total), places
