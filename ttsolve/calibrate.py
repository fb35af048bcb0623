"""Fits a policy to what was measured: bins, the table, the confidence. Arrays in, a policy out.

What is reported is cross-validated: inside each bin the problems are halved, the strategy is chosen
on one half and judged on the other, and the reverse (paper section 3.2). What is kept is fitted on
all of them. Ties go to the cheaper strategy.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ttsolve.auto import INDEPENDENT, Auto
from ttsolve.difficulty import BINS, bin_of, thresholds
from ttsolve.evaluate import Measured
from ttsolve.measure import Estimate, Floats, Pool, mean, paired
from ttsolve.policy import Choice, Policy

Ints = NDArray[np.int64]
Cell = tuple[str, int]  # strategy, budget
PROBES = (0, 2, 4, 8)  # samples; 0: no bins
PROBE_SHARE = 4  # a probe takes this part of the budget at most: a quarter
TIE = 1.0  # standard errors of the paired difference


@dataclass(frozen=True, slots=True)
class Table:
    """What was measured of P problems, each value with shape [P]."""

    contents: tuple[str, ...]  # the problems' content hashes
    rates: dict[Cell, Floats]  # how often the strategy is right at that budget, 0..1
    costs: dict[Cell, Floats]  # tokens, generated and verified
    pools: tuple[Pool, ...]
    seconds: dict[Cell, Floats] = field(default_factory=dict)

    @property
    def budgets(self) -> tuple[int, ...]:
        return tuple(sorted({budget for _, budget in self.rates}))

    def strategies(self, budget: int) -> list[str]:
        """Those measured at that budget."""
        return [name for name, at in self.rates if at == budget]

    def only(self, names: Collection[str]) -> Table:
        """The table of these strategies alone."""
        rates, costs, seconds = (
            {cell: value for cell, value in part.items() if cell[0] in names}
            for part in (self.rates, self.costs, self.seconds)
        )
        return replace(self, rates=rates, costs=costs, seconds=seconds)


@dataclass(frozen=True, slots=True)
class Fitted:
    """The choice for one budget, and how good it is by cross-validation."""

    choice: Choice
    right: Floats  # [P] of the policy, cross-validated
    single: str  # the best single strategy
    estimate: Estimate
    gain: Estimate  # over the best single strategy, cross-validated as well


def table_of(outcomes: Sequence[Measured], *, with_auto: bool = False) -> Table:
    """The rows of one seed as arrays, the problems in their order.

    Those of `auto` are left out (it is no choice of a policy) unless they are asked for.
    """
    rates: dict[Cell, list[float]] = {}
    costs: dict[Cell, list[float]] = {}
    seconds: dict[Cell, list[float]] = {}
    whole = [outcome for outcome in outcomes if outcome.rows]
    rows = [row for outcome in whole for row in outcome.rows if row.seed == outcome.rows[0].seed]
    for row in rows:
        if with_auto or row.strategy.partition(":")[0] != Auto.name:
            cell = row.strategy, row.budget
            rates.setdefault(cell, []).append(row.rate)
            costs.setdefault(cell, []).append(row.tokens + row.verifier_tokens)
            seconds.setdefault(cell, []).append(row.seconds)
    return Table(
        contents=tuple(outcome.rows[0].content for outcome in whole),
        rates={cell: np.array(values) for cell, values in rates.items()},
        costs={cell: np.array(values) for cell, values in costs.items()},
        pools=tuple(outcome.pools[0] for outcome in whole if outcome.pools),
        seconds={cell: np.array(values) for cell, values in seconds.items()},
    )


# --- difficulty -------------------------------------------------------------------------------


def probed(pools: Sequence[Pool], samples: int) -> Floats:
    """The predicted difficulty of each problem, from its first samples: shape [P]."""
    return np.array([_mean_score(pool, samples) for pool in pools])


def oracle(pools: Sequence[Pool]) -> Floats:
    """The oracle difficulty of each problem: the share of right samples, shape [P]."""
    return np.array([pool.right.mean() for pool in pools])


def binned(values: Floats, cuts: Sequence[float]) -> Ints:
    """The bin of each value, 1 the easiest."""
    return np.array([bin_of(value, cuts) for value in values], dtype=np.int64)


def _mean_score(pool: Pool, samples: int) -> float:
    scores = np.where(pool.answers[:samples] < 0, 0.0, pool.scores[:samples])
    return float(scores[~np.isnan(scores)].mean()) if not np.isnan(scores).all() else 0.0


# --- the table --------------------------------------------------------------------------------


def best_of(rates: Mapping[str, Floats], costs: Mapping[str, Floats], tie: float = TIE) -> str:
    """The strategy that is right most often; of those it does not really beat, the cheapest.

    Args:
        tie: a lead of so many standard errors (of the paired difference) is none.
    """
    leader = max(rates, key=lambda name: float(rates[name].mean()))

    def tied(name: str) -> bool:
        lead = rates[leader] - rates[name]
        error = lead.std(ddof=1) / math.sqrt(lead.size) if lead.size > 1 else math.inf
        return bool(lead.mean() <= (tie * error if tie else 0.0) + 1e-12)

    return min((n for n in rates if tied(n)), key=lambda name: float(costs[name].mean()))


def after_probe(values: Mapping[Cell, Floats], strategy: str, left: int) -> Floats | None:
    """What the strategy makes of the budget that a probe leaves it; None: too little.

    Between two budgets that were measured the value is interpolated in the logarithm. That the
    probe's samples vote as well is left out: what is found here is a little less than what comes.
    """
    return at_budget({b: value for (name, b), value in values.items() if name == strategy}, left)


def at_budget(curve: Mapping[int, Floats], budget: float) -> Floats | None:
    """A curve's value, linear in the budget's logarithm, level after its end; None: before it."""
    if not curve or budget < min(curve):
        return None
    low = max(point for point in curve if point <= budget)
    high = min((point for point in curve if point > budget), default=low)
    if low in (high, budget):
        return curve[low]
    part = math.log(budget / low) / math.log(high / low)
    return (1 - part) * curve[low] + part * curve[high]


def options(table: Table, budget: int, probe: int) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """(rates, costs) of every strategy that the budget and its probe allow."""
    rates, costs = {}, {}
    for name in table.strategies(budget):
        left = budget if name in INDEPENDENT else budget - probe
        rate, cost = (after_probe(v, name, left) for v in (table.rates, table.costs))
        if rate is not None and cost is not None:
            probing = 0.0 if name in INDEPENDENT else _probe_cost(table, probe)
            rates[name], costs[name] = rate, cost + probing
    return rates, costs


def _probe_cost(table: Table, probe: int) -> Floats | float:
    cells = [(b, c) for (name, b), c in table.costs.items() if name == INDEPENDENT[0]]
    budget, cost = max(cells, default=(1, np.zeros(len(table.contents))), key=lambda cell: cell[0])
    return cost * probe / budget


def cross_validated(
    rates: Mapping[str, Floats], costs: Mapping[str, Floats], bins: Ints, tie: float = TIE
) -> Floats:
    """How often the choice is right for each problem, chosen on the other half of its bin: [P]."""
    names = chosen_by_halves(rates, costs, bins, tie)
    return np.array([rates[name][place] for place, name in enumerate(names)])


def chosen_by_halves(
    rates: Mapping[str, Floats], costs: Mapping[str, Floats], bins: Ints, tie: float = TIE
) -> list[str]:
    """The strategy for each problem, chosen on the other half of its bin."""
    out = [""] * len(bins)
    for one in np.unique(bins):
        places = np.flatnonzero(bins == one)
        halves = [places[::2], places[1::2]]
        for judged, seen in (halves, halves[::-1]):
            where = seen if seen.size else judged
            name = best_of(_at(rates, where), _at(costs, where), tie)
            for place in judged:
                out[place] = name
    return out


def _at(values: Mapping[str, Floats], places: Ints) -> dict[str, Floats]:
    return {name: value[places] for name, value in values.items()}


def fit_choice(table: Table, budget: int, probe: int, tie: float = TIE) -> Fitted:
    """The choice for a budget, with a probe of that many samples (0: one strategy for all)."""
    everywhere = np.ones(len(table.contents), dtype=np.int64)
    alone = options(table, budget, 0)
    single = cross_validated(*alone, everywhere, tie)
    cuts: tuple[float, ...] = ()
    rates, costs, bins = *alone, everywhere
    if probe:
        values = probed(table.pools, probe)
        cuts = thresholds([float(value) for value in values], BINS)
        rates, costs = options(table, budget, probe)
        bins = binned(values, cuts)
    chosen = [
        best_of(_at(rates, where), _at(costs, where), tie)
        for one in range(1, len(cuts) + 2)
        if (where := np.flatnonzero(bins == one)).size
    ]
    right = cross_validated(rates, costs, bins, tie)
    choice = Choice(budget, tuple(chosen), probe if cuts else 0, cuts)
    return Fitted(choice, right, best_of(*alone, tie), mean(right), paired(right, single))


def fit_budget(
    table: Table, budget: int, probes: Sequence[int] = PROBES, tie: float = TIE
) -> Fitted:
    """The choice with the probe that is worth it: of those no better than a smaller one, none."""
    able = [probe for probe in probes if not probe or (probe * PROBE_SHARE <= budget)]
    able = [probe for probe in able if not probe or table.pools]
    fits = {str(probe): fit_choice(table, budget, probe, tie) for probe in sorted({0, *able})}
    rights = {probe: fit.right for probe, fit in fits.items()}
    sizes = {probe: np.full(len(table.contents), float(probe)) for probe in fits}
    return fits[best_of(rights, sizes, tie)]


def fit_policy(
    table: Table, probes: Sequence[int] = PROBES, tie: float = TIE, about: str = "a fit"
) -> tuple[Policy, list[Fitted]]:
    """The policy of all budgets measured, and how good each of its choices is."""
    fits = [fit_budget(table, budget, probes, tie) for budget in table.budgets]
    choices = tuple(fit.choice for fit in fits)
    return Policy(about, choices, fitted_on=tuple(sorted(set(table.contents)))), fits


def compute_optimal(table: Table, difficulty: Floats, tie: float = TIE) -> dict[int, Floats]:
    """The paper's curve: by bins of a difficulty that cost nothing, cross-validated; [P] each."""
    bins = binned(difficulty, thresholds([float(value) for value in difficulty], BINS))
    return {b: cross_validated(*options(table, b, 0), bins, tie) for b in table.budgets}
