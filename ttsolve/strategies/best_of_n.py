"""Best-of-N, and majority voting over the same pool (Snell et al. 2024, section 5.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from ttsolve.core import Problem, Solution
from ttsolve.engine import Engine


@dataclass(frozen=True)
class BestOfN:
    """Sample n solutions side by side and let the verifier score them."""

    name: ClassVar[str] = "best-of-n"
    ranks_steps: ClassVar[bool] = False
    n: int = 16

    def __call__(self, problem: Problem, engine: Engine) -> list[Solution]:
        return engine.score(engine.sample([problem.root] * self.n))

    @classmethod
    def sized(cls, budget: int, **settings: int) -> Self:
        """As many samples as there are units."""
        return cls(budget, **settings)


@dataclass(frozen=True)
class Majority:
    """Sample the same n solutions and ask no verifier: the commonest answer wins the vote."""

    name: ClassVar[str] = "majority"
    ranks_steps: ClassVar[bool] = False
    n: int = 16

    def __call__(self, problem: Problem, engine: Engine) -> list[Solution]:
        return engine.sample([problem.root] * self.n)

    @classmethod
    def sized(cls, budget: int, **settings: int) -> Self:
        """As many samples as there are units."""
        return cls(budget, **settings)
