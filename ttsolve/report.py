"""What the rows of an evaluation come to: accuracy with intervals, by budget and by difficulty."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, TypeVar

import numpy as np

from ttsolve.auto import Auto
from ttsolve.calibrate import Table, binned, compute_optimal, oracle, probed
from ttsolve.difficulty import BINS, thresholds
from ttsolve.fit_confidence import Reliability
from ttsolve.grid import Row
from ttsolve.measure import Estimate, calibration, calibration_error, mean, paired, wilson

Difficulty = Literal["oracle", "predicted"]
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Point:
    """One strategy at one budget, over the problems of one bin or of all."""

    strategy: str
    budget: int
    right: Estimate
    units: float | None = None  # means over the runs; None: a curve made of several strategies
    tokens: float | None = None  # generated
    seconds: float | None = None
    bin: int | None = None  # None: all


@dataclass(frozen=True, slots=True)
class Stopped:
    """The runs of `auto` that ended before their budget."""

    strategy: str
    budget: int
    right: Estimate  # of the answers at which they stopped
    runs: int  # all of them
    saved: float  # the mean part of the budget that came back, over all runs


def points(rows: Sequence[Row]) -> list[Point]:
    """Accuracy of each strategy at each budget, over all problems."""
    return [_point(cell) for cell in _by(rows, lambda row: (row.budget, row.strategy)).values()]


def points_by_bin(rows: Sequence[Row], difficulty: Difficulty) -> list[Point]:
    """The same for the problems of each bin, by quantiles of what was measured here."""
    bins = bins_of(rows, difficulty)
    known = [row for row in rows if row.content in bins]
    cells = _by(known, lambda row: (bins[row.content], row.budget, row.strategy))
    return [_point(cell, bins[cell[0].content]) for _, cell in sorted(cells.items())]


def bins_of(rows: Iterable[Row], difficulty: Difficulty) -> dict[str, int]:
    """Each problem's bin, 1 the easiest; none where there was no pool to tell."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        value = row.oracle if difficulty == "oracle" else row.predicted
        if value is not None:
            values[row.content].append(value)
    means = {content: fmean(each) for content, each in values.items()}
    cuts = thresholds(list(means.values()), BINS)
    numbers = binned(np.array(list(means.values())), cuts)
    return {content: int(number) for content, number in zip(means, numbers, strict=True)}


def optimal_points(table: Table) -> list[Point]:
    """The paper's two curves: the best strategy of each bin, cross-validated, the bins for free."""
    if not table.pools or len(table.rates) < 2 * len(table.budgets):
        return []
    size = len(table.pools[0].right)
    kinds = {"oracle": oracle(table.pools), "predicted": probed(table.pools, size)}
    return [
        Point(f"compute-optimal, {kind} bins", budget, mean(right))
        for kind, difficulty in kinds.items()
        for budget, right in compute_optimal(table, difficulty).items()
    ]


def against(rows: Sequence[Row], one: str, other: str) -> dict[int, Estimate]:
    """How much more often one strategy is right than another, by budget, on the same problems."""
    out = {}
    for budget, cell in _by(rows, lambda row: row.budget).items():
        a, b = (_rates([row for row in cell if row.strategy == name]) for name in (one, other))
        both = [content for content in a if content in b]
        if both:
            first, second = (np.array([each[content] for content in both]) for each in (a, b))
            out[budget] = paired(first, second)
    return out


def areas(rows: Sequence[Row]) -> dict[tuple[int, str], Estimate]:
    """The AUC of the candidates' scores within a run, by budget and strategy.

    The mean over runs that have right and wrong candidates, with scores; n counts these.
    """
    both = [row for row in rows if row.auc is not None]
    cells = _by(both, lambda row: (row.budget, row.strategy))
    return {key: mean(row.auc or 0.0 for row in cell) for key, cell in cells.items()}


def stopped(rows: Sequence[Row]) -> list[Stopped]:
    """How the early stops went, by strategy and budget."""
    runs = [row for row in rows if row.strategy.startswith(f"{Auto.name}:")]
    return [
        Stopped(
            strategy,
            budget,
            wilson(sum(row.right > 0.5 for row in early), len(early)),
            len(cell),
            fmean(1 - row.units / row.budget for row in cell),
        )
        for (budget, strategy), cell in _by(runs, lambda row: (row.budget, row.strategy)).items()
        for early in [[row for row in cell if row.units < row.budget]]
    ]


def reliabilities(rows: Sequence[Row]) -> list[Reliability]:
    """Whether the probabilities told came true, for each strategy that has any."""
    told = [row for row in rows if row.probability is not None]
    out = []
    for strategy, cell in _by(told, lambda row: row.strategy).items():
        chance = np.array([row.probability for row in cell], dtype=np.float64)
        table = calibration(chance, np.array([row.right > 0.5 for row in cell]))
        problems = len({row.content for row in cell})
        error = calibration_error(table)
        out.append(Reliability(strategy, table, error, len(cell), problems))
    return out


def _point(rows: Sequence[Row], bin_: int | None = None) -> Point:
    return Point(
        rows[0].strategy,
        rows[0].budget,
        mean(_rates(rows).values()),
        units=fmean(row.units for row in rows),
        tokens=fmean(row.tokens for row in rows),
        seconds=fmean(row.seconds for row in rows),
        bin=bin_,
    )


def _rates(rows: Sequence[Row]) -> Mapping[str, float]:
    """Each problem's rate: the mean over seeds."""
    return {
        content: fmean(row.rate for row in each)
        for content, each in _by(rows, lambda row: row.content).items()
    }


def _by(rows: Iterable[Row], key: Callable[[Row], K]) -> dict[K, list[Row]]:
    groups: dict[K, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups
