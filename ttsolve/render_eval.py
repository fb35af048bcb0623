"""What an evaluation and a calibration show: tables on stdout, every figure with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ttsolve.calibrate import Fitted
from ttsolve.fit_confidence import Kept, Reliability
from ttsolve.measure import Estimate
from ttsolve.render import line, printable
from ttsolve.report import Point, Stopped


def show_points(points: Sequence[Point]) -> None:
    """Accuracy and cost, a line for each strategy and budget (and bin)."""
    if not points:
        return
    wide = max(len(point.strategy) for point in points)
    binned = any(point.bin for point in points)
    line(
        f"{'bin  ' if binned else ''}{'budget':>6}  {'strategy':{wide}}  right  95 % interval   "
        f"{'n':>5} {'units':>7} {'tokens':>8} {'seconds':>8}"
    )
    for point in sorted(points, key=lambda p: (p.bin or 0, p.budget)):
        begin = f"{point.bin:3}  " if binned else ""
        costs = [
            _number(point.units, ".1f", 7),
            _number(point.tokens, ",.0f", 8),
            _number(point.seconds, ".2f", 8),
        ]
        line(
            f"{begin}{point.budget:6}  {point.strategy:{wide}}  {estimate(point.right)} "
            f"{point.right.n:5} {' '.join(costs)}"
        )


def show_stops(stops: Sequence[Stopped]) -> None:
    """What came of stopping early."""
    for stop in stops:
        early = stop.right.n
        held = f"{estimate(stop.right)} right, n={early}" if early else "none"
        line(
            f"{stop.strategy}, budget {stop.budget}: stopped early {early} of {stop.runs} runs, "
            f"{held}; {stop.saved:.0%} of all budgets saved"
        )


def show_reliabilities(tables: Sequence[Reliability]) -> None:
    """How far probabilities are from what came true."""
    for table in tables:
        line(
            f"{table.strategy}: expected calibration error {table.error:.3f}, "
            f"n={table.votes} votes on {table.problems} problems"
        )


def show_differences(one: str, other: str, differences: dict[int, Estimate]) -> None:
    """A paired comparison by budget."""
    for budget, difference in sorted(differences.items()):
        sign = f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
        line(f"{one} over {other}, budget {budget}: {sign}, n={difference.n}")


def show_areas(areas: dict[tuple[int, str], Estimate]) -> None:
    """How well the scores tell right candidates from wrong ones."""
    for (budget, strategy), area in sorted(areas.items()):
        line(f"{strategy}, budget {budget}: AUC of the candidates' scores {area}")


def show_fits(fits: Sequence[Fitted]) -> None:
    """The table that was fitted; its accuracy is cross-validated."""
    for fit in fits:
        choice, gain = fit.choice, fit.gain
        line(
            f"budget {choice.budget}: right {estimate(fit.estimate)}, n={fit.estimate.n}; over "
            f"{fit.single} for all {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
        )
        if not choice.probe:
            line(f"  no probe: {choice.strategies[0]}")
            continue
        line(f"  probe of {choice.probe}")
        edges = ["", *(f"from {cut:.3f}" for cut in choice.thresholds)][::-1]
        for number, (name, edge) in enumerate(zip(choice.strategies, edges, strict=True), 1):
            line(f"  bin {number}: {name:24} {edge}".rstrip())


def show_kept(kept: Sequence[Kept], largest: int) -> None:
    """What each promise of a confidence costs, out of fold."""
    for one in kept:
        if math.isnan(one.accuracy):
            line(f"confidence {one.stop.promise}: cannot be promised")
            continue
        line(
            f"confidence {one.stop.promise}: stop at {one.stop.threshold:.3f}; {one.stopped:.0%} "
            f"of runs stop, {one.accuracy:.3f} of these are right, {1 - one.spent:.0%} of a "
            f"budget of {largest} is saved"
        )


def estimate(value: Estimate) -> str:
    """A value with its interval, in columns."""
    return printable(f"{value.value:.3f}") + f"  [{value.low:.3f}, {value.high:.3f}]"


def _number(value: float | None, form: str, width: int) -> str:
    return f"{'-' if value is None else format(value, form):>{width}}"
