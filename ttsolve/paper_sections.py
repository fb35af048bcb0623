"""The report's sections on search, revisions and the exchange, with their figures.

What was not measured has no section.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ttsolve import plots, plots_paper
from ttsolve.calibrate import at_budget
from ttsolve.chains import TRAINED
from ttsolve.document import Figure, Grid, Section
from ttsolve.evidence import AUTO, BEAM, BEST, MAJORITY, Difficulty, Evidence, Missing, ratio_name
from ttsolve.exchange import Match, matches, reach
from ttsolve.measure import Estimate, Floats, mean
from ttsolve.render_paper import signed
from ttsolve.report import Point
from ttsolve.vote import Aggregation

KINDS: tuple[Difficulty, ...] = ("oracle", "predicted")
STEPS: dict[Aggregation, str] = {
    "last": "of the last step",
    "min": "the least of all steps",
    "prod": "the product of all",
}


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is drawn, and where to."""

    evidence: Evidence
    pair: str
    folder: Path

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.png"

    def title(self, what: str) -> str:
        return f"{what} (pair {self.pair}, {len(self.evidence.table.contents)} problems)"

    def budgets(self, name: str, curves: Mapping[str, Mapping[int, Floats]], what: str) -> Figure:
        """Accuracy by budget."""
        points = [
            Point(label, budget, mean(rates))
            for label, curve in curves.items()
            for budget, rates in curve.items()
        ]
        plots.plot_budgets(points, self.file(name), self.title(what))
        return Figure(self.file(name), what)


def search_sections(e: Evidence, draw: Drawing) -> list[Section]:
    """Search by budget, by difficulty, compute-optimal; aggregation; ORM."""
    curves = {name: _curve(e, name) for name in (*e.searches, MAJORITY, AUTO)}
    what = "Which strategy is right most often at a budget"
    out = [
        Section(
            "Search by budget",
            figure=draw.budgets("search", {k: v for k, v in curves.items() if v}, what),
        )
    ]
    if BEAM in e.searches and e.table.pools:
        out += [_bins_section(e, draw), _optimal_section(e, draw)]
    try:
        budgets = e.budgets(BEST)
        what = "Which score of a solution's steps makes the best vote"
        steps = {name: {b: e.votes(by, b) for b in budgets} for by, name in STEPS.items()}
        figure = draw.budgets("aggregation", steps, what)
        out.append(Section("Scores of steps as one", figure=figure))
    except Missing:
        pass
    if e.orm:
        what = "A verifier that judges steps (PRM) against one that judges outcomes (ORM)"
        both = {"PRM": _curve(e, BEST), "ORM": {b: r for (_, b), r in e.orm.rates.items()}}
        out.append(Section("PRM and ORM", figure=draw.budgets("orm", both, what)))
    return out


def _bins_section(e: Evidence, draw: Drawing) -> Section:
    what = "Beam search and best-of-N in each bin of oracle difficulty"
    bins = e.bins()
    points = [
        Point(name, b, mean(rates[bins == number]), bin=int(number))
        for name in (BEAM, BEST)
        for b, rates in _curve(e, name).items()
        for number in np.unique(bins)
    ]
    plots.plot_bins(points, draw.file("bins"), draw.title(what))
    return Section("Search by difficulty", figure=Figure(draw.file("bins"), what))


def _optimal_section(e: Evidence, draw: Drawing) -> Section:
    optimal = {f"compute-optimal, {k} bins": e.optimal(e.searches, k) for k in KINDS}
    auto = {AUTO: curve} if (curve := _curve(e, AUTO)) else {}
    what = "The best strategy of each bin against best-of-N for all"
    curves = {BEST: _curve(e, BEST), **optimal, **auto}
    return Section(
        "Compute-optimal search",
        (
            "The strategy of each bin is chosen on one half of its problems and judged on the "
            "other; where a half has few problems, luck chooses as well, and the curve lies lower "
            "than it would with many. What it costs to sort the problems into bins is not charged, "
            "as in the paper; auto pays for its probe.",
            "What it takes to be as often right as best-of-N on average, interpolated between "
            "the budgets measured; times fewer in parentheses:",
        ),
        _savings(e, {**optimal, **auto}),
        draw.budgets("optimal", curves, what),
    )


def _savings(e: Evidence, curves: Mapping[str, Mapping[int, Floats]]) -> Grid:
    """Units, tokens and seconds of each curve where it is as good as best-of-N at some budget."""
    costs = {f"compute-optimal, {k} bins": e.optimal_costs(e.searches, k) for k in KINDS}
    plain = {"tokens": e.table.costs, "seconds": e.table.seconds}
    parts = {
        what: {b: v for (n, b), v in part.items() if n == AUTO} for what, part in plain.items()
    }
    costs[AUTO] = parts
    forms = {"tokens": "{:,.0f}"} | ({"seconds": "{:.2f}"} if e.timed else {})
    rows = []
    for target in e.budgets(BEST)[1:]:
        goal = e.rate(BEST, target)
        for name, curve in curves.items():
            needed = reach(curve, float(goal.mean()))
            cells = [_times(needed, target, "{:.1f}")]
            for what, form in forms.items():
                spent = at_budget(costs[name][what], needed) if math.isfinite(needed) else None
                own = float(plain[what][BEST, target].mean())
                cells.append(_times(math.inf if spent is None else float(spent.mean()), own, form))
            rows.append((f"best-of-n at {target}: {goal.mean():.3f}", name, *cells))
    return Grid(("as right as", "by", "units", *forms), tuple(rows))


def _times(spent: float, instead_of: float, form: str) -> str:
    if not math.isfinite(spent):
        return "not reached"
    return f"{form.format(spent)} ({instead_of / spent:.1f})" if spent else form.format(spent)


def revision_sections(e: Evidence, draw: Drawing) -> list[Section]:
    """Chains, sequential against parallel, ratios; nothing where no reviser was measured."""
    out = []
    if e.chains is not None:
        what = "Is the n-th attempt of a chain more often right than the first"
        file = draw.file("attempts")
        plots_paper.plot_attempts({"all": e.attempts()}, TRAINED, file, draw.title(what))
        out.append(Section("Revisions along a chain", figure=Figure(file, what)))
    if not e.ratios():
        return out
    budgets = [b for b in e.table.budgets if {ratio_name(b, 1), ratio_name(1, b)} <= {*e.ratios(b)}]
    if budgets:
        what = "N revisions in a row against N first answers side by side"
        curves = {
            "sequential": {b: e.rate(ratio_name(b, 1), b) for b in budgets},
            "parallel": {b: e.rate(ratio_name(1, b), b) for b in budgets},
        }
        out.append(
            Section("Sequential and parallel", figure=draw.budgets("parallel", curves, what))
        )
    budget = max(b for _, b in e.table.rates if len(e.ratios(b)) > 2)
    what = f"Which ratio of revisions to parallel samples is best at N = {budget}"
    bins, found = e.bins(), e.ratios(budget)
    lines: dict[str, dict[float, Estimate]] = {
        f"bin {number}": {
            ratio: mean(e.rate(name, budget)[bins == number]) for name, ratio in found.items()
        }
        for number in np.unique(bins)
    }
    lines["all"] = {ratio: mean(e.rate(name, budget)) for name, ratio in found.items()}
    plots_paper.plot_ratios(lines, draw.file("ratios"), draw.title(what))
    out.append(Section("Ratios", figure=Figure(draw.file("ratios"), what)))
    return out


def exchange_sections(e: Evidence, draw: Drawing) -> list[Section]:
    """The larger generator at equal FLOPs; nothing where there is none."""
    if not e.larger:
        return []
    curve, bins = e.optimal(e.searches, "oracle"), e.bins()
    found = matches(curve, e.larger.right, bins, e.multipliers())
    what = f"{e.larger.name}, {e.larger.times:.3g} times the parameters, at equal FLOPs"
    lines = {
        int(number): {b: mean(rates[bins == number]) for b, rates in curve.items()}
        for number in np.unique(bins)
    }
    plots_paper.plot_stars(lines, found, draw.file("stars"), draw.title(what))
    return [
        Section(
            "Test-time compute against parameters",
            (
                f"The {e.formula.name} formula: {e.formula.about}. R is inference tokens for each "
                "of pretraining; m is how many solutions the small model may sample for one "
                "greedy answer of the larger. The small model's line is compute-optimal search.",
            ),
            matches_table(found),
            Figure(draw.file("stars"), what),
        )
    ]


def matches_table(found: Sequence[Match]) -> Grid:
    """The comparison as a table."""
    return Grid(
        ("R", "m", "compared at", "bin", "n", "small", "larger", "small - larger", "wins"),
        tuple(
            (
                f"{match.ratio:g}",
                f"{match.multiplier:.1f}",
                f"{match.budget:.4g}{' (largest measured)' if match.short else ''}",
                "all" if match.bin is None else str(match.bin),
                str(match.lead.n),
                f"{match.small.value:.3f}",
                f"{match.larger.value:.3f}",
                signed(match.lead),
                match.wins,
            )
            for match in found
        ),
    )


def _curve(e: Evidence, name: str) -> dict[int, Floats]:
    return {b: rates for (n, b), rates in e.table.rates.items() if n == name}
