"""Fits the confidence: how likely is an answer right, and when may a run stop.

Votes held in pools, in many orders, are the evidence for independent samples; rows are that for
searches. Everything reported is out of fold: problems are halved, and a half is judged by what the
other has taught.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttsolve.auto import FIRST_LOOK, INDEPENDENT
from ttsolve.confidence import FEATURES, Calibration, Stop, features, sigmoid
from ttsolve.grid import Row
from ttsolve.measure import Bin, Floats, Pool, calibration, calibration_error
from ttsolve.policy import Choice
from ttsolve.pools import votes_among

Bools = NDArray[np.bool_]
ORDERS = 16  # of a pool's samples
PROMISES = (0.8, 0.85, 0.9, 0.95, 0.98)
THRESHOLDS = tuple(sigmoid(0.1 * i) for i in range(80))  # tried for every promise: 0.5 to 0.9996
RIDGE = 1.0  # keeps the weights finite where the votes are always right
BEYOND = 2.0  # a threshold that nothing reaches
FEWEST = 50  # problems, to fit a strategy's calibration or to promise anything


@dataclass(frozen=True, slots=True)
class Votes:
    """I votes of P problems."""

    features: Floats  # [I, FEATURES]
    right: Bools  # [I]
    problem: NDArray[np.int64]  # [I] 0 to P - 1

    def where(self, chosen: Bools) -> Votes:
        """The chosen ones."""
        return Votes(self.features[chosen], self.right[chosen], self.problem[chosen])


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well a strategy's probabilities hold, out of fold."""

    strategy: str
    table: list[Bin]
    error: float  # expected calibration error
    votes: int
    problems: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What came of a promise, out of fold."""

    stop: Stop
    accuracy: float  # of the answers at which runs stopped; nan: none did
    stopped: float  # their share of all runs
    spent: float  # the mean part of the budget, of all runs


def fit_confidence(
    pools: Sequence[Pool], rows: Sequence[Row], choices: Sequence[Choice]
) -> tuple[tuple[Calibration, ...], list[Reliability], list[Kept]]:
    """Calibrations of all strategies measured, how well they hold, and what can be promised.

    Args:
        pools: one for each problem; none: only searches were measured, and nothing is promised.
        choices: of the policy that will run; its probes are first looks.
    """
    votes: dict[str, Votes] = {}
    kept: list[Kept] = []
    if pools:
        probes = [choice.probe for choice in choices if choice.probe]
        sizes = look_sizes(min(len(pool.right) for pool in pools), min([FIRST_LOOK, *probes]))
        weighted = not all(np.isnan(pool.scores).all() for pool in pools)
        if weighted:
            votes["best-of-n"] = pool_votes(pools, sizes)
        votes["majority"] = pool_votes(pools, sizes, weighted=False)
        kept = fit_stops(pools, sizes, weighted)
    names = [row.strategy.partition(":")[0] for row in rows]
    for name in dict.fromkeys(name for name in names if name not in INDEPENDENT):
        some = [row for row, its in zip(rows, names, strict=True) if its == name]
        votes[name] = row_votes(some)
    fits = [fit for name, each in votes.items() if (fit := fit_calibration(name, each))]
    return tuple(fit for fit, _ in fits), [reliable for _, reliable in fits], kept


# --- evidence ---------------------------------------------------------------------------------


def look_sizes(largest: int, first: int = FIRST_LOOK) -> list[int]:
    """The numbers of samples at which a run looks at its vote: doubling up to `largest`."""
    first = min(first, largest)
    doubled = [first << i for i in range(max(1, (largest // first).bit_length()))]
    return doubled if doubled[-1] == largest else [*doubled, largest]


def looked(
    pools: Sequence[Pool], sizes: Sequence[int], weighted: bool, orders: int = ORDERS
) -> tuple[Floats, Bools]:
    """The votes of each problem, order and look: features [P, D, L, FEATURES], right [P, D, L]."""
    known = np.zeros((len(pools), orders, len(sizes), FEATURES))
    right = np.zeros((len(pools), orders, len(sizes)), dtype=np.bool_)
    method = "weighted" if weighted else "majority"
    rows = np.arange(orders)
    for p, pool in enumerate(pools):
        rng = np.random.default_rng(p)
        order = np.argsort(rng.random((orders, len(pool.right))), axis=1)
        order[0] = np.arange(len(pool.right))  # as the run itself drew them
        for i, size in enumerate(sizes):
            some = order[:, :size]
            scores = pool.scores[some] if weighted else np.full(some.shape, np.nan)
            shares, places = votes_among(pool.answers[some], scores, method)  # type: ignore[arg-type]
            right[p, :, i] = (places >= 0) & pool.right[some][rows, places]
            best = scores[rows, places]
            known[p, :, i] = [
                features(share, None if math.isnan(score) else score, size)
                for share, score in zip(shares, best, strict=True)
            ]
    return known, right


def pool_votes(pools: Sequence[Pool], sizes: Sequence[int], weighted: bool = True) -> Votes:
    """The votes at every look, of samples that know nothing of each other."""
    known, right = looked(pools, sizes, weighted)
    problem = np.repeat(np.arange(len(pools)), right[0].size if len(pools) else 0)
    return Votes(known.reshape(-1, FEATURES), right.reshape(-1), problem)


def row_votes(rows: Sequence[Row]) -> Votes:
    """The votes at the end of runs."""
    voted = [row for row in rows if row.share]
    numbers = {name: i for i, name in enumerate(dict.fromkeys(row.content for row in voted))}
    known = [features(row.share, row.score, row.candidates) for row in voted]
    return Votes(
        np.array(known, dtype=np.float64).reshape(-1, FEATURES),
        np.array([row.right > 0.5 for row in voted], dtype=np.bool_),
        np.array([numbers[row.content] for row in voted], dtype=np.int64),
    )


# --- probability ------------------------------------------------------------------------------


def fit_logistic(votes: Votes, rounds: int = 50) -> Floats:
    """The weights of a logistic regression, shape [FEATURES], by Newton's method."""
    x, y = votes.features, votes.right.astype(np.float64)
    weights = np.zeros(FEATURES)
    for _ in range(rounds):
        p = predict(x, weights)
        gradient = x.T @ (y - p) - RIDGE * weights
        curvature = (x * (p * (1 - p))[:, None]).T @ x + RIDGE * np.eye(FEATURES)
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            break
    return weights


def predict(known: Floats, weights: Floats) -> Floats:
    """P(right) of each vote: shape [...] of features [..., FEATURES]."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * (known @ weights))))


def fit_calibration(strategy: str, votes: Votes) -> tuple[Calibration, Reliability] | None:
    """The strategy's calibration, and how well such a one holds; None: too few problems."""
    problems = len(np.unique(votes.problem))
    if problems < FEWEST:
        return None
    halves = [votes.problem % 2 == half for half in (0, 1)]
    out = np.zeros(len(votes.right))
    for judged, seen in (halves, halves[::-1]):
        out[judged] = predict(votes.features[judged], fit_logistic(votes.where(seen)))
    table = calibration(out, votes.right)
    weights = tuple(round(float(weight), 4) for weight in fit_logistic(votes))
    reliable = Reliability(strategy, table, calibration_error(table), len(out), problems)
    return Calibration(strategy, weights), reliable


# --- stopping ---------------------------------------------------------------------------------


def fit_stops(pools: Sequence[Pool], sizes: Sequence[int], weighted: bool = True) -> list[Kept]:
    """For each promise the lowest threshold that keeps it, less one standard error, at any budget;
    of fewer than `FEWEST` problems nothing is promised.

    The runs are played out: each stops at its first look whose probability, out of fold, reaches
    the threshold, so what looking often does to the accuracy is in it.
    """
    if len(pools) < FEWEST:
        return [_broken(promise) for promise in PROMISES]
    known, right = looked(pools, sizes, weighted)
    chance = np.zeros(right.shape)
    half = np.arange(len(pools)) % 2
    for one in (0, 1):
        seen, many = half != one, right[0].size
        problem = np.repeat(np.arange(int(seen.sum())), many)
        votes = Votes(known[seen].reshape(-1, FEATURES), right[seen].reshape(-1), problem)
        chance[half == one] = predict(known[half == one], fit_logistic(votes))
    return [_keep(promise, chance, right, sizes) for promise in PROMISES]


def _keep(promise: float, chance: Floats, right: Bools, sizes: Sequence[int]) -> Kept:
    kept = [
        Kept(Stop(promise, round(threshold, 4)), accuracy, stopped, spent)
        for threshold in THRESHOLDS
        if threshold >= promise
        for holds, accuracy, stopped, spent in [played(promise, threshold, chance, right, sizes)]
        if holds
    ]
    return kept[0] if kept else _broken(promise)


def _broken(promise: float) -> Kept:
    """A promise that cannot be made: no run stops."""
    return Kept(Stop(promise, BEYOND), math.nan, 0.0, 1.0)


def played(
    promise: float, threshold: float, chance: Floats, right: Bools, sizes: Sequence[int]
) -> tuple[bool, float, float, float]:
    """(is the promise kept, accuracy of the stopped, their share, mean part of the budget)."""
    sure = chance >= threshold
    first = np.where(sure.any(axis=2), sure.argmax(axis=2), len(sizes))  # [P, D]
    at = np.minimum(first, len(sizes) - 1)
    hit = np.take_along_axis(right, at[:, :, None], axis=2)[:, :, 0]
    holds = bool((first < len(sizes)).any())
    for last in range(len(sizes)):
        holds &= _bound(first <= last, hit) >= promise
    stopped = first < len(sizes)
    accuracy = float(hit[stopped].mean()) if stopped.any() else math.nan
    spent = np.asarray(sizes)[at].mean() / sizes[-1]
    return holds, accuracy, float(stopped.mean()), float(spent)


def _bound(stopped: Bools, hit: Bools) -> float:
    """The share of right ones among the stopped, less one standard error over problems.

    One more problem, half of it right, is counted in: where all are right the error would be 0.
    """
    count, good = stopped.sum(axis=1), (hit & stopped).sum(axis=1)
    if not count.any():
        return 1.0
    more = count[count > 0].mean()
    count, good = np.append(count, more), np.append(good, more / 2)
    total = count.sum()
    accuracy = good.sum() / total
    error = math.sqrt(float(((good - accuracy * count) ** 2).sum())) / total
    return float(accuracy - error)
