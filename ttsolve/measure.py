"""Statistics over stored samples: pass@k, votes at any N, AUC within problems, calibration.

No models here, only arrays: a `Pool` holds what is known of all samples of one problem. Intervals
are of 95 %, with the problem as the unit (bootstrap over problems). Everything random is seeded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Method = Literal["weighted", "best", "majority"]
Values = Callable[["Pool"], Floats]  # one number for each sample of a pool, shape [K]; nan: none

BOOTSTRAP = 2000  # resamples of the problems
DRAWS = 256  # subsets of a pool, for each size


@dataclass(frozen=True, slots=True)
class Pool:
    """The K samples of one problem, drawn independently and in equal ways."""

    answers: NDArray[np.int64]  # [K] class of the answer (`answers.group`); -1: no answer
    right: NDArray[np.bool_]  # [K] as graded
    scores: Floats  # [K] the verifier's score of the whole solution, 0..1
    tokens: NDArray[np.int64] | None = None  # [K] generated
    steps: Floats | None = None  # [K, S] the verifier's score of each step; nan beyond the last
    likelihood: Floats | None = None  # [K] log-likelihood under the generator
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value with its 95 % interval, from n problems (or trials)."""

    value: float
    low: float
    high: float
    n: int

    @property
    def brief(self) -> str:
        """The value and its interval alone, for tables that tell n elsewhere."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def __str__(self) -> str:
        return f"{self.brief}, n={self.n}"


# --- intervals --------------------------------------------------------------------------------


def mean(values: Iterable[float], seed: int = 0) -> Estimate:
    """The mean of one value a problem, with a bootstrap over problems; nan without values."""
    x = np.fromiter(values, dtype=np.float64)
    if not x.size:
        return Estimate(math.nan, math.nan, math.nan, 0)
    rng = np.random.default_rng(seed)
    # How often each problem is drawn: the bootstrap without its arrays of indices.
    counts = rng.multinomial(x.size, np.full(x.size, 1 / x.size), size=BOOTSTRAP)
    low, high = np.quantile(counts @ x / x.size, (0.025, 0.975))
    return Estimate(float(x.mean()), float(low), float(high), x.size)


def paired(a: Floats, b: Floats, seed: int = 0) -> Estimate:
    """The mean of a - b over problems: equal shape [P], same problems in the same order."""
    if a.shape != b.shape:
        raise ValueError(f"paired values must be of the same problems: {a.shape} and {b.shape}")
    return mean(a - b, seed)


def ratio(part: Floats, whole: Floats, seed: int = 0) -> Estimate:
    """The sum of one number a problem as a part of another's sum; nan where that is 0.

    n is the sum of `whole`; the bootstrap is over problems.
    """
    total = float(whole.sum())
    if not total:
        return Estimate(math.nan, math.nan, math.nan, 0)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(part.size, np.full(part.size, 1 / part.size), size=BOOTSTRAP)
    parts, wholes = counts @ part, counts @ whole
    drawn = parts[wholes > 0] / wholes[wholes > 0]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(float(part.sum()) / total, float(low), float(high), round(total))


def wilson(right: int, total: int) -> Estimate:
    """A proportion of independent trials, with Wilson's score interval."""
    if not total:
        return Estimate(math.nan, math.nan, math.nan, 0)
    z, p = 1.959963984540054, right / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total**2)) / (1 + z * z / total)
    return Estimate(p, max(0.0, middle - half), min(1.0, middle + half), total)


# --- pass@k -----------------------------------------------------------------------------------


def pass_rates(pools: Sequence[Pool], k: int = 1) -> Floats:
    """Each problem's unbiased pass@k, shape [P]: 1 - C(n-c, k) / C(n, k) (Chen et al. 2021).

    Raises:
        ValueError: when a pool has fewer than k samples.
    """
    return np.array([_pass(len(p.right), int(p.right.sum()), k) for p in pools], dtype=np.float64)


def pass_at(pools: Sequence[Pool], k: int = 1, seed: int = 0) -> Estimate:
    """pass@k over problems."""
    return mean(pass_rates(pools, k), seed)


def quintiles(pools: Sequence[Pool]) -> list[float]:
    """Mean pass@1 of each fifth of the problems, the hardest first (paper section 3.2)."""
    return [float(part.mean()) for part in np.array_split(np.sort(pass_rates(pools)), 5)]


def _pass(n: int, c: int, k: int) -> float:
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples a problem, not {n}")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


# --- votes ------------------------------------------------------------------------------------


def vote_rates(
    pools: Sequence[Pool], method: Method, n: int, draws: int = DRAWS, seed: int = 0
) -> Floats:
    """How often a vote among n samples is right, for each problem: shape [P].

    Subsets of n are drawn from each pool without replacement; as its samples are independent,
    each subset is as good as n fresh ones. Equal seeds draw equal subsets, whatever the method, so
    that two votes are compared on the same candidates (`paired`).

    Raises:
        ValueError: when a pool has fewer than n samples.
    """
    return np.array([_vote_rate(p, method, n, draws, [seed, i]) for i, p in enumerate(pools)])


def _vote_rate(pool: Pool, method: Method, n: int, draws: int, seed: list[int]) -> float:
    size = len(pool.right)
    if not 1 <= n <= size:
        raise ValueError(f"a vote among {n} needs as many samples a problem, not {size}")
    rng = np.random.default_rng(seed)
    picked = np.argsort(rng.random((draws, size)), axis=1)[:, :n]
    won = winners(pool.answers[picked], pool.scores[picked], method)
    rows = np.flatnonzero(won >= 0)
    return float(pool.right[picked[rows, won[rows]]].sum() / draws)


def winners(answers: NDArray[np.int64], scores: Floats, method: Method) -> NDArray[np.int64]:
    """The place of each vote's best candidate of the winning answer; -1 where none has an answer.

    The rules of `vote`, for many votes at once: answers and scores have shape [D, N].
    """
    (votes, n), classes = answers.shape, int(answers.max()) + 1
    voting = answers >= 0
    if not classes:
        return np.full(votes, -1)
    if np.isnan(scores[voting]).any():
        method, scores = "majority", np.zeros_like(scores)
    shape = (votes, classes)
    cell = (np.arange(votes)[:, None] * classes + answers)[voting]
    count = np.bincount(cell, minlength=votes * classes).reshape(shape)
    best, first = np.full(shape, -np.inf), np.full(shape, n)
    np.maximum.at(best.reshape(-1), cell, scores[voting])
    np.minimum.at(first.reshape(-1), cell, np.broadcast_to(np.arange(n), answers.shape)[voting])
    total = np.bincount(cell, scores[voting], votes * classes).reshape(shape)
    weight = np.where(count, {"weighted": total, "best": best, "majority": count}[method], -np.inf)
    tied = weight == weight.max(axis=1, keepdims=True)
    tied &= best == np.where(tied, best, -np.inf).max(axis=1, keepdims=True)
    won = np.where(tied, first, n).argmin(axis=1)[:, None]
    place = np.where(answers == won, scores, -np.inf).argmax(axis=1)
    return np.where(voting.any(axis=1), place, -1)


# --- does the score tell right from wrong? ----------------------------------------------------


def scores_of(pool: Pool) -> Floats:
    """The verifier's score of each sample."""
    return pool.scores


def likelihood_of(pool: Pool) -> Floats:
    """The generator's log-likelihood of each sample: what a verifier must beat."""
    return np.full(len(pool.right), np.nan) if pool.likelihood is None else pool.likelihood


def auc(pools: Sequence[Pool], values: Values = scores_of, seed: int = 0) -> Estimate:
    """How often a right sample is valued above a wrong one of the same problem (ties count 1/2).

    The mean over problems that have both; n counts these.
    """
    each = (separation(values(pool), pool.right) for pool in pools)
    return mean([area for area in each if area is not None], seed)


def auc_by_subject(
    pools: Sequence[Pool], values: Values = scores_of, seed: int = 0
) -> dict[str, Estimate]:
    """The AUC within problems, for each subject."""
    subjects = sorted({pool.subject for pool in pools})
    return {s: auc([p for p in pools if p.subject == s], values, seed) for s in subjects}


def auc_by_step(pools: Sequence[Pool], seed: int = 0) -> list[Estimate]:
    """The AUC within problems of the first step's score, of the second's, and so on."""
    known = [(pool.steps, pool.right) for pool in pools if pool.steps is not None]
    areas = [
        [separation(steps[:, i], right) for steps, right in known if i < steps.shape[1]]
        for i in range(max((steps.shape[1] for steps, _ in known), default=0))
    ]
    return [mean([area for area in step if area is not None], seed) for step in areas]


def separation(values: Floats, right: NDArray[np.bool_]) -> float | None:
    """The Mann-Whitney statistic of right against wrong, 0..1; None unless there are both."""
    known = ~np.isnan(values)
    a, b = values[known & right][:, None], values[known & ~right][None, :]
    if not a.size or not b.size:
        return None
    return float(((a > b) + 0.5 * (a == b)).mean())


# --- calibration ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bin:
    """The scores between low and high: what they promised and what came true."""

    low: float
    high: float
    count: int
    score: float  # their mean; nan when there are none
    right: float  # the share of right ones; nan when there are none


def calibration(scores: Floats, right: NDArray[np.bool_], bins: int = 10) -> list[Bin]:
    """A reliability table over equal parts of 0..1 (lower edges belong); nan is left out."""
    known = ~np.isnan(scores)
    scores, right = scores[known], right[known]
    where = np.clip((scores * bins).astype(np.int64), 0, bins - 1)
    table = []
    for i in range(bins):
        inside = where == i
        count = int(inside.sum())
        means = (float(x[inside].mean()) if count else math.nan for x in (scores, right))
        table.append(Bin(i / bins, (i + 1) / bins, count, *means))
    return table


def calibration_error(table: Sequence[Bin]) -> float:
    """The expected calibration error: mean distance of promise and truth, weighted by count."""
    total = sum(row.count for row in table)
    if not total:
        return math.nan
    return sum(abs(row.score - row.right) * row.count for row in table if row.count) / total
