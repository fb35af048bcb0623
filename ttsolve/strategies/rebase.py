"""Reward balanced search (Wu et al. 2024, "Inference Scaling Laws", section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from ttsolve.core import Problem, Solution
from ttsolve.engine import Engine
from ttsolve.strategies.beam import shared_out
from ttsolve.strategies.settings import check, setting


@dataclass(frozen=True)
class Rebase:
    """Sample n first steps; share n next steps out among them by their scores; repeat.

    Beam search keeps a fixed number of beams and continues all of them alike. Here a beam gets
    places in proportion to its score: where one step stands out the whole search goes on from it,
    and where none does it stays broad. (Wu et al. take exp(score / T) for the score. A score is a
    probability here, and of those 0.06 is to 0.002 what 0.6 is to 0.02; and there is no T to set.)

    Equal beams stay as many as they are, unlike in beam search: how often a step is sampled counts
    beside its score, for places and in the vote. So the search is best-of-N where the scores of
    steps say nothing; merged, the right solution would have one vote against all wrong ones that
    were let through. A beam that has ended keeps its place.
    """

    name: ClassVar[str] = "rebase"
    ranks_steps: ClassVar[bool] = True
    n: int = setting(16)
    rounds: int = setting(40)

    def __post_init__(self) -> None:
        check(self)

    def __call__(self, problem: Problem, engine: Engine) -> list[Solution]:
        ended: list[Solution] = []
        beams = engine.sample([problem.root] * self.n, steps=1)
        for _ in range(self.rounds):
            beams = engine.score(beams)
            ended += [beam for beam in beams if beam.done]
            beams = [beam for beam in beams if not beam.done]
            if not beams:
                break
            scores = [beam.scores[-1] for beam in beams]
            beams = engine.sample(shared_out(len(beams), beams, scores), steps=1)
        return ended + engine.score(engine.sample(beams))

    @classmethod
    def sized(cls, budget: int, **settings: int) -> Self:
        """The search of as many beams as there are units."""
        return cls(budget, **settings)
