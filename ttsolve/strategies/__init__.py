"""The strategies, by the name the user types.

A strategy is a frozen dataclass of its settings; called with a problem and an engine it returns
candidates. Voting is not its business.
"""

from __future__ import annotations

from dataclasses import Field
from typing import Any, ClassVar, Protocol

from ttsolve.core import Problem, Solution
from ttsolve.engine import Engine
from ttsolve.errors import UsageError
from ttsolve.strategies.best_of_n import BestOfN, Majority


class Strategy(Protocol):
    """A dataclass that spends an engine's budget on one problem."""

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __call__(self, problem: Problem, engine: Engine) -> list[Solution]:
        """The candidates, scored where the strategy asks the verifier."""
        ...


STRATEGIES = {strategy.name: strategy for strategy in (BestOfN, Majority)}


def strategy_named(name: str, budget: int) -> Strategy:
    """The strategy of that name, sized to spend `budget` units.

    Raises:
        UsageError: when there is no strategy of that name.
    """
    if name not in STRATEGIES:
        raise UsageError(f"There is no strategy {name!r}: use {' or '.join(STRATEGIES)}.")
    return STRATEGIES[name](budget)


__all__ = ["STRATEGIES", "BestOfN", "Majority", "Strategy", "strategy_named"]
