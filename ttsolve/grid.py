"""What `ttsolve eval` measures: strategies × budgets × seeds; and a row of what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from fractions import Fraction

from ttsolve.auto import INDEPENDENT, Auto
from ttsolve.errors import UsageError
from ttsolve.policy import planned


@dataclass(frozen=True, slots=True)
class Grid:
    """What is measured of every problem."""

    strategies: tuple[str, ...]  # as `policy.planned` reads them, or "auto"
    budgets: tuple[int, ...]  # units, rising
    seeds: tuple[int, ...] = (0,)

    @property
    def pooled(self) -> tuple[str, ...]:
        """The strategies whose votes are held in one pool, the one that scores it first."""
        return tuple(name for name in INDEPENDENT if name in self.strategies)

    @property
    def searches(self) -> tuple[str, ...]:
        return tuple(name for name in self.strategies if name not in INDEPENDENT)

    @property
    def units(self) -> int:
        """The units of one problem, at most."""
        pool = self.budgets[-1] if self.pooled else 0
        return len(self.seeds) * (pool + len(self.searches) * sum(self.budgets))


@dataclass(frozen=True, slots=True)
class Row:
    """One problem × strategy × budget × seed."""

    problem: str  # its id
    content: str  # see `policy.content_hash`
    strategy: str  # with its settings, as `policy.planned` reads it
    budget: int  # units
    seed: int
    right: float  # 1: the run's answer is right; 0: it is not
    rate: float  # how often it would be: over draws from a pool, else as `right`
    share: float  # of the vote
    score: float | None  # of the best candidate that gives the answer
    candidates: int
    probability: float | None  # that the answer is right, as the policy is calibrated
    units: int
    tokens: float  # generated, also those found in the store; of a pool, this budget's part
    verifier_tokens: float
    # Of the run, beside the others in flight; of a pool, this budget's part. What another run had
    # sampled before takes no time: without a store the seconds are those of the run alone.
    seconds: float
    oracle: float | None = None  # difficulty: the pool's share of right samples
    predicted: float | None = None  # difficulty: the pool's mean score
    # How often a right candidate is scored above a wrong one; None: unless there are both, scored.
    auc: float | None = None


def sizes(strategy: str, budgets: Sequence[int]) -> list[int]:
    """The budgets for which the strategy has a size.

    Raises:
        UsageError: when it has none for any of them, or there is none of its name.
    """
    if strategy.partition(":")[0] == Auto.name:
        return list(budgets)
    able = []
    for budget in budgets:
        with suppress(UsageError):
            planned(strategy, budget)
            able.append(budget)
    if not able:
        planned(strategy, budgets[-1])  # which says why
    return able


def ratios(budgets: Sequence[int]) -> list[str]:
    """The ratios of chains whose number and length are powers of two, as "1:4": the paper's grid.

    The most parallel come first.
    """
    powers = [1 << i for i in range(budgets[-1].bit_length())]
    found = {Fraction(a, b) for a in powers for b in powers if a * b in budgets}
    return [f"{ratio.numerator}:{ratio.denominator}" for ratio in sorted(found)]


def as_record(row: Row) -> dict[str, object]:
    """The row for JSON or CSV: probabilities and times to a sensible number of digits."""
    return {
        key: round(value, 6) if isinstance(value, float) else value
        for key, value in asdict(row).items()
    }
