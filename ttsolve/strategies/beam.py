"""Beam search, and lookahead search, against the verifier (Snell et al. 2024, section 5.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from ttsolve.core import Problem, Solution
from ttsolve.engine import Engine
from ttsolve.errors import UsageError
from ttsolve.strategies.settings import check, setting


@dataclass(frozen=True)
class BeamSearch:
    """Sample n first steps; keep the n/width best; sample n next steps from them; repeat.

    With lookahead=k a beam is worth what the verifier says at the end of a greedy rollout of k
    steps (k=0: what it says of the beam itself), and costs k + 1 units.

    The n places of the search are n continuations a round, shared out evenly among the beams that
    are kept: n // width of them, at least one. Equal beams are one beam. A beam that has ended
    keeps one place for good: it is neither ranked nor continued, and votes once at the end, as
    every candidate does, whatever its score was beside the others'. What has not ended after the
    last round is continued to its end.
    """

    name: ClassVar[str] = "beam"
    ranks_steps: ClassVar[bool] = True
    n: int = setting(16)
    width: int = setting(0, least=0)  # 0: the square root of n
    lookahead: int = setting(0, least=0)  # steps
    rounds: int = setting(40)

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "width", self.width or round(math.sqrt(self.n)))

    def __call__(self, problem: Problem, engine: Engine) -> list[Solution]:
        ended: list[Solution] = []
        beams = engine.sample([problem.root] * self.n, steps=1, units=1 + self.lookahead)
        for _ in range(self.rounds):
            beams = distinct(engine.score(beams))
            ended += [beam for beam in beams if beam.done]
            beams = [beam for beam in beams if not beam.done]
            if not beams:
                break
            places = self.n - len(ended)
            kept = best(beams, places // self.width, self.values(beams, engine))
            beams = engine.sample(shared_out(places, kept), steps=1)
        return ended + distinct(engine.score(engine.sample(beams)))

    def values(self, beams: list[Solution], engine: Engine) -> list[float]:
        """What each beam is worth: the verifier's score where its rollout ends."""
        if self.lookahead:
            beams = engine.score(engine.rollout(beams, self.lookahead))
        return [beam.scores[-1] for beam in beams]

    @classmethod
    def sized(cls, budget: int, **settings: int) -> Self:
        """The search of as many beams as the budget pays for.

        Raises:
            UsageError: when it pays for none.
        """
        units = 1 + settings.get("lookahead", cls.lookahead)
        if units > budget:
            raise UsageError(
                f"A lookahead of {units - 1} takes {units} units a beam: give a budget of {units} "
                "or more, or a shorter lookahead."
            )
        return cls(budget // units, **settings)


@dataclass(frozen=True)
class Lookahead(BeamSearch):
    """Beam search that judges a step by where a greedy rollout leads from there."""

    name: ClassVar[str] = "lookahead"
    lookahead: int = setting(1, least=0)  # steps


def distinct(beams: Sequence[Solution]) -> list[Solution]:
    """The beams without copies: of those with equal steps, the first.

    A solution may end with the separator or with the model's own end of text: one is a copy of the
    other.
    """
    first: dict[tuple[str, ...], Solution] = {}
    for beam in beams:
        first.setdefault(tuple(step.text.rstrip() for step in beam.steps), beam)
    return list(first.values())


def best(beams: Sequence[Solution], count: int, values: Sequence[float]) -> list[Solution]:
    """The `count` beams (at least one) of the highest value, the highest first."""
    order = sorted(range(len(beams)), key=lambda i: -values[i])  # stable: then who came first
    return [beams[i] for i in order[: max(1, count)]]


def shared_out(
    places: int, beams: Sequence[Solution], weights: Sequence[float] = ()
) -> list[Solution]:
    """The beams in turn, each as often as its share of the places; no weights: all alike."""
    each = shares(places, weights or [1.0] * len(beams))
    return [beam for beam, n in zip(beams, each, strict=True) for _ in range(n)]


def shares(places: int, weights: Sequence[float]) -> list[int]:
    """The places in proportion to the weights: whole parts, then the largest remainders.

    Of equal remainders the higher weight wins, then the first; where all weights are 0 all share
    alike.
    """
    total = math.fsum(weights)
    wanted = [places * (w / total if total else 1 / len(weights)) for w in weights]
    given = [math.floor(w) for w in wanted]
    order = sorted(range(len(weights)), key=lambda i: (given[i] - wanted[i], -weights[i]))
    for i in order[: places - sum(given)]:
        given[i] += 1
    return given
