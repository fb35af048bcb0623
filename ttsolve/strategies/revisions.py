"""Chains of revisions beside one another (Snell et al. 2024, section 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

from ttsolve.core import Problem, Solution
from ttsolve.engine import Engine
from ttsolve.errors import UsageError
from ttsolve.strategies.settings import check, choice, proportion, setting


@dataclass(frozen=True)
class Revisions:
    """Sample an attempt in each chain; show it to the reviser, which samples the next; and so on.

    Of a chain's attempts the latest `memory` are shown. Every attempt is a candidate and costs one
    unit; where n is no multiple of the chains, the last round is short. The verifier's vote is held
    within each chain, then among the winners; the majority's is one vote of all candidates.

    The ratio is that of sequential to parallel attempts, as "1:4": P chains of length L, where
    L · P = n and L : P is the ratio. With nothing set it is 1:1, or as near as n allows.
    """

    name: ClassVar[str] = "revisions"
    ranks_steps: ClassVar[bool] = False
    n: int = setting(16)
    chains: int = setting(0, least=0)  # 0: as the length or the ratio asks
    length: int = setting(0, least=0)  # attempts of a chain; 0: as the chains ask
    ratio: str = proportion()  # in place of chains and length, which it becomes
    memory: int = setting(4)  # attempts
    vote: Literal["verifier", "majority"] = choice("verifier", "majority")

    def __post_init__(self) -> None:
        check(self)
        chains = self.chains or _chains(self.n, self.length, self.ratio)
        length = self.length or math.ceil(self.n / chains)
        if self.ratio and (self.chains or self.length):
            raise UsageError("A ratio says how many chains of what length: leave these out, or it.")
        if chains > self.n or chains * (length - 1) >= self.n:
            raise UsageError(
                f"{chains} chains of length {length} take {chains * length} units: give a budget "
                f"of {chains * length}, or fewer or shorter chains."
            )
        for name, value in {"chains": chains, "length": length, "ratio": ""}.items():
            object.__setattr__(self, name, value)

    def __call__(self, problem: Problem, engine: Engine) -> list[Solution]:
        chains: list[list[Solution]] = [[] for _ in range(self.chains)]
        for turn in range(self.length):
            growing = chains[: self.n - turn * self.chains]
            shown = [self.shown(problem, i, chain) for i, chain in enumerate(growing)]
            attempts = engine.sample(shown, turn=turn)
            if self.vote == "verifier":
                attempts = engine.score(attempts)
            for chain, attempt in zip(growing, attempts, strict=True):
                chain.append(attempt)
            if any(attempt.finish == "budget" for attempt in attempts):
                break
        return [attempt for chain in chains for attempt in chain]

    def shown(self, problem: Problem, number: int, chain: Sequence[Solution]) -> Solution:
        """The prefix of a chain's next attempt: the problem, and the attempts before it."""
        latest = [replace(a, attempts=()) for a in chain if a.steps][-self.memory :]
        return replace(problem.root, chain=number, attempts=tuple(latest))

    @classmethod
    def sized(cls, budget: int, **settings: Any) -> Self:
        """Chains of as many attempts as there are units.

        Raises:
            UsageError: when those asked for take more, or none have the ratio asked for.
        """
        return cls(budget, **settings)

    @classmethod
    def near(cls, budget: int, ratio: str, **settings: Any) -> Self:
        """Chains of as many attempts as there are units, and a ratio near to the one asked for."""
        return cls(budget, chains=_nearest(budget, *_parts(ratio)), **settings)


def _chains(n: int, length: int, ratio: str) -> int:
    """How many chains n attempts make.

    Raises:
        UsageError: when none have that ratio.
    """
    if not ratio:
        return max(1, n // length) if length else _nearest(n, 1, 1)
    sequential, parallel = _parts(ratio)
    chains = _nearest(n, sequential, parallel)
    if chains * chains * sequential == n * parallel and n % chains == 0:
        return chains
    common = math.gcd(sequential, parallel) ** 2
    least = sequential * parallel // common  # that number times a square is possible
    root = math.isqrt(n // least)
    possible = " or ".join(str(least * k * k) for k in (root, root + 1) if k)
    raise UsageError(
        f"No chains of {n} attempts have the ratio {ratio}: give a budget of {possible}, or chains "
        "and length instead."
    )


def _nearest(n: int, sequential: int, parallel: int) -> int:
    return min(max(1, round(math.sqrt(n * parallel / sequential))), n)


def _parts(ratio: str) -> tuple[int, int]:
    """The sequential and the parallel part of a ratio."""
    sequential, parallel = ratio.split(":")
    return int(sequential), int(parallel)
