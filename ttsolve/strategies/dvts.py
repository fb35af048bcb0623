"""Diverse verifier tree search (Beeching, Tunstall and Rush 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

from ttsolve.core import Problem, Solution
from ttsolve.engine import Engine
from ttsolve.strategies.beam import best, distinct, shared_out
from ttsolve.strategies.settings import check, setting

Tree = list[Solution]


@dataclass(frozen=True)
class Dvts:
    """Beam search in n/width subtrees that know nothing of each other; each keeps its best beam.

    The n places are shared out evenly among n // width subtrees, at least one. Inside a subtree
    the rules are those of beam search. Two subtrees that come to the same solution both vote for
    it, as two samples of best-of-N do: neither is a copy of the other.
    """

    name: ClassVar[str] = "dvts"
    ranks_steps: ClassVar[bool] = True
    n: int = setting(16)
    width: int = setting(0, least=0)  # 0: the square root of n
    rounds: int = setting(40)

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "width", self.width or round(math.sqrt(self.n)))

    def __call__(self, problem: Problem, engine: Engine) -> list[Solution]:
        places, more = divmod(self.n, subtrees := max(1, self.n // self.width))
        trees = [[problem.root] * (places + (i < more)) for i in range(subtrees)]
        for _ in range(self.rounds):
            trees = [pruned(tree) for tree in grown(trees, engine, steps=1)]
            if all(beam.done for tree in trees for beam in tree):
                break
        return [beam for tree in grown(trees, engine) for beam in distinct(tree)]

    @classmethod
    def sized(cls, budget: int, **settings: int) -> Self:
        """The search of as many beams as there are units."""
        return cls(budget, **settings)


def grown(trees: list[Tree], engine: Engine, steps: int | None = None) -> list[Tree]:
    """Every beam of every subtree, continued by up to `steps` steps and scored."""
    beams = [beam for tree in trees for beam in tree]
    scored = iter(engine.score(engine.sample(beams, steps=steps)))
    return [[next(scored) for _ in tree] for tree in trees]


def pruned(tree: Tree) -> Tree:
    """The subtree with its best beam in every place that no ended beam keeps."""
    beams = distinct(tree)
    ended = [beam for beam in beams if beam.done]
    beams = [beam for beam in beams if not beam.done]
    if not beams:
        return ended
    kept = best(beams, 1, [beam.scores[-1] for beam in beams])
    return ended + shared_out(len(tree) - len(ended), kept)
