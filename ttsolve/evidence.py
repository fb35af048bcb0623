"""What the paper's claims are judged by: arrays over the same problems, in the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ttsolve.calibrate import Table, binned, chosen_by_halves, options, oracle, probed
from ttsolve.chains import attempt_rates
from ttsolve.difficulty import BINS, thresholds
from ttsolve.exchange import FORMULAS, Formula, multiplier
from ttsolve.measure import Floats, vote_rates
from ttsolve.policy import read_plan
from ttsolve.pools import rescored
from ttsolve.vote import Aggregation

Difficulty = Literal["oracle", "predicted"]
BEST, MAJORITY, BEAM, AUTO = "best-of-n", "majority", "beam:width=4", "auto"
REVISIONS = "revisions"
SMALL = 16  # units: up to here a budget is called small
TARGET = 64  # units: what compute-optimal search is to reach with a quarter of them


class Missing(Exception):
    """What a claim needs was not measured; the message says what."""


@dataclass(frozen=True, slots=True)
class Larger:
    """A larger generator's greedy answers."""

    name: str
    times: float  # M: its parameters as a multiple of the small generator's
    right: Floats  # [P]


@dataclass(frozen=True)
class Evidence:
    """Everything measured of P problems."""

    table: Table  # also of `auto`
    orm: Table | None = None  # best-of-N over the same samples, scored by an outcome verifier
    chains: Floats | None = None  # [P, C, L] attempt l of chain c: 1 right, 0 wrong, nan none
    larger: Larger | None = None
    formula: Formula = FORMULAS["arxiv"]
    overhead: float = 1.0  # see `exchange.overhead`
    lacking: Mapping[str, str] = field(default_factory=dict)  # why there is no orm, chains, …
    timed: bool = False  # each run computed all of its own, so that its seconds mean something

    def need(self, part: Literal["orm", "chains", "larger", "revisions"]) -> Missing:
        """What to raise where a part is not there."""
        return Missing(self.lacking.get(part, f"no {part} was measured"))

    # --- single strategies ---

    def rate(self, strategy: str, budget: int) -> Floats:
        """How often it is right at that budget, shape [P].

        Raises:
            Missing: it was not measured there.
        """
        if (strategy, budget) not in self.table.rates:
            if strategy.startswith(REVISIONS) and not self.ratios():
                raise self.need("revisions")
            raise Missing(f"{strategy} was not measured at a budget of {budget}")
        return self.table.rates[strategy, budget]

    def budgets(self, *strategies: str, largest: float = np.inf) -> list[int]:
        """The budgets above 1 at which all of them were measured.

        Raises:
            Missing: there are none.
        """
        some = [
            b
            for b in self.table.budgets
            if 1 < b <= largest and all((name, b) in self.table.rates for name in strategies)
        ]
        if not some:
            if len(strategies) == 1:
                raise Missing(f"{strategies[0]} was not measured")
            raise Missing(f"{' and '.join(strategies)} were not measured at the same budget")
        return some

    def over(self, strategy: str, budgets: Sequence[int]) -> Floats:
        """The mean of its rates over budgets, shape [P]."""
        return np.asarray(np.mean([self.rate(strategy, budget) for budget in budgets], axis=0))

    # --- difficulty ---

    def difficulty(self, kind: Difficulty) -> Floats:
        """That of each problem by all its samples, whose cost is not charged: shape [P].

        Raises:
            Missing: no samples are known.
        """
        pools = self.table.pools
        if not pools:
            raise Missing("best-of-n was not measured, so no difficulty is known")
        return oracle(pools) if kind == "oracle" else probed(pools, len(pools[0].right))

    def bins(self, kind: Difficulty = "oracle") -> NDArray[np.int64]:
        """The bin of each problem, 1 the easiest: shape [P]."""
        values = self.difficulty(kind)
        return binned(values, thresholds([float(value) for value in values], BINS))

    def among(self, *numbers: int) -> NDArray[np.bool_]:
        """Which problems are in these bins of oracle difficulty.

        Raises:
            Missing: none is.
        """
        inside = np.isin(self.bins(), numbers)
        if not inside.any():
            raise Missing(f"no problem is in the bins {' and '.join(map(str, numbers))}")
        return inside

    # --- compute-optimal ---

    @property
    def searches(self) -> list[str]:
        """The strategies among which compute-optimal search chooses."""
        names = dict.fromkeys(name for name, _ in self.table.rates)
        others = (MAJORITY, AUTO, REVISIONS)
        return [name for name in names if read_plan(name)[0] not in others]

    def ratios(self, budget: int | None = None) -> dict[str, float]:
        """The revisions measured (at that budget) with their ratio sequential / parallel."""
        names = dict.fromkeys(
            name
            for name, b in self.table.rates
            if name.startswith(f"{REVISIONS}:ratio=") and budget in (None, b)
        )
        return {name: ratio_of(name) for name in names}

    def optimal(self, names: Sequence[str], kind: Difficulty) -> dict[int, Floats]:
        """The paper's compute-optimal curve, cross-validated inside each bin: budget → [P].

        Of equal strategies the cheaper is chosen; a lead is a lead, however small.
        """
        some, bins = self.table.only(names), self.bins(kind)
        chosen = self._chosen(some, bins)
        return {b: _gathered(some.rates, each, b) for b, each in chosen.items()}

    def optimal_costs(self, names: Sequence[str], kind: Difficulty) -> dict[str, dict[int, Floats]]:
        """What that curve's choices cost: {"tokens", "seconds"} → budget → [P]."""
        some, bins = self.table.only(names), self.bins(kind)
        chosen = self._chosen(some, bins)
        parts = {"tokens": some.costs, "seconds": some.seconds}
        return {
            what: {b: _gathered(part, each, b) for b, each in chosen.items()}
            for what, part in parts.items()
        }

    @staticmethod
    def _chosen(table: Table, bins: NDArray[np.int64]) -> dict[int, list[str]]:
        return {b: chosen_by_halves(*options(table, b, 0), bins, 0.0) for b in table.budgets}

    # --- parts ---

    def votes(self, by: Aggregation, budget: int) -> Floats:
        """How often best-of-N weighted is right with steps aggregated so, shape [P].

        Raises:
            Missing: no scores of steps are known.
        """
        pools = self.table.pools
        if not pools or any(p.steps is None or np.isnan(p.steps).all() for p in pools):
            raise Missing("the scores of the steps are not known")
        return vote_rates([rescored(pool, by) for pool in pools], "weighted", budget)

    def attempts(self) -> Floats:
        """How often the n-th attempt of a chain is right, shape [P, L].

        Raises:
            Missing: no chains were measured.
        """
        if self.chains is None:
            raise self.need("chains")
        return attempt_rates(self.chains)

    def multipliers(self) -> dict[float, float]:
        """m for each R of the formula.

        Raises:
            Missing: there is no larger generator.
        """
        if self.larger is None:
            raise self.need("larger")
        times = self.larger.times
        return {r: multiplier(self.formula, times, r, self.overhead) for r in self.formula.ratios}


def ratio_name(sequential: int, parallel: int) -> str:
    """Revisions with so many sequential for so many parallel, as a policy names them."""
    return f"{REVISIONS}:ratio={sequential}:{parallel}"


def ratio_of(name: str) -> float:
    """The ratio sequential / parallel in such a name."""
    sequential, parallel = str(read_plan(name)[1]["ratio"]).split(":")
    return int(sequential) / int(parallel)


def _gathered(
    values: Mapping[tuple[str, int], Floats], names: Sequence[str], budget: int
) -> Floats:
    return np.array([values[name, budget][place] for place, name in enumerate(names)])
