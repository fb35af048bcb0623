"""The strategies, by the name the user types.

A strategy is a frozen dataclass of its settings; called with a problem and an engine it returns
candidates. Voting is not its business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field
from typing import Any, ClassVar, Protocol, Self

from ttsolve.core import Problem, Solution
from ttsolve.engine import Engine
from ttsolve.errors import UsageError
from ttsolve.strategies.beam import BeamSearch, Lookahead
from ttsolve.strategies.best_of_n import BestOfN, Majority
from ttsolve.strategies.dvts import Dvts
from ttsolve.strategies.rebase import Rebase
from ttsolve.strategies.revisions import Revisions
from ttsolve.strategies.settings import one_of, read_settings


class Strategy(Protocol):
    """A dataclass that spends an engine's budget on one problem."""

    name: ClassVar[str]
    ranks_steps: ClassVar[bool]  # True: it cannot do without a verifier
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __call__(self, problem: Problem, engine: Engine) -> list[Solution]:
        """The candidates, scored where the strategy asks the verifier."""
        ...

    @classmethod
    def sized(cls, budget: int, **settings: Any) -> Self:
        """The strategy that spends `budget` units."""
        ...


ALL: tuple[type[Strategy], ...] = (
    *(BestOfN, Majority),
    *(BeamSearch, Lookahead, Dvts, Rebase),
    Revisions,
)
STRATEGIES = {strategy.name: strategy for strategy in ALL}


def strategy_named(
    name: str, budget: int, settings: Mapping[str, object] | None = None
) -> Strategy:
    """The strategy of that name, sized to spend `budget` units.

    Raises:
        UsageError: when there is no strategy of that name, or it has no such setting or value.
    """
    if name not in STRATEGIES:
        raise UsageError(f"There is no strategy {name!r}: use {one_of(STRATEGIES)}.")
    kind = STRATEGIES[name]
    return kind.sized(budget, **read_settings(kind, settings or {}))


__all__ = [
    "STRATEGIES",
    "BeamSearch",
    "BestOfN",
    "Dvts",
    "Lookahead",
    "Majority",
    "Rebase",
    "Revisions",
    "Strategy",
    "one_of",
    "read_settings",
    "strategy_named",
]
