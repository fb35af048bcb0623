"""A world drawn as a tree of steps, in which every sample and every score is known beforehand."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ttsolve.core import Solution, Step, Usage
from ttsolve.engine import Sampling, Watch

Path = tuple[str, ...]
STEP = Step("", tokens=1)


@dataclass
class World:
    """Generator and verifier of a drawing: a step and its score a line, indented behind its prefix.

    The samples that continue a prefix are its children in turn; a greedy one is the first child. A
    step that stands twice behind a prefix is as likely as two.
    """

    drawing: str
    name: str = "world"
    params: int = 1
    behind: dict[Path, list[str]] = field(default_factory=dict)
    scores: dict[Path, float] = field(default_factory=dict)
    taken: Counter[Path] = field(default_factory=Counter)  # children given so far
    rounds: list[list[str]] = field(default_factory=list)  # the prefixes of each call of `sample`

    def __post_init__(self) -> None:
        path: Path = ()
        for line in filter(str.strip, self.drawing.splitlines()):
            *words, score = line.split()
            path = (*path[: (len(line) - len(line.lstrip())) // 2], " ".join(words) + "\n")
            self.behind.setdefault(path[:-1], []).append(path[-1])
            self.scores[path] = float(score)

    def sample(
        self,
        prefixes: Sequence[Solution],
        how: Sequence[Sampling],
        watch: Watch | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[list[Solution], Usage]:
        if prefixes:
            self.rounds.append([" ".join(prefix.text.split()) for prefix in prefixes])
        out = [self._grown(prefix, one) for prefix, one in zip(prefixes, how, strict=True)]
        for i, solution in enumerate(out):
            if watch:
                watch(i, solution)
        return out, Usage()

    def _grown(self, prefix: Solution, how: Sampling) -> Solution:
        left = how.steps
        while left != 0 and not prefix.done:
            path = path_of(prefix)
            children = self.behind[path]
            place = self.taken[path] % len(children) if how.temperature else 0
            self.taken[path] += how.temperature > 0
            ends = (*path, children[place]) not in self.behind
            step = replace(STEP, text=children[place])
            prefix = prefix.grow(step, finish="stop" if ends else None)
            left = None if left is None else left - 1
        return prefix

    def score(self, solutions: Sequence[Solution]) -> tuple[list[Solution], Usage]:
        return [self._scored(solution) for solution in solutions], Usage()

    def _scored(self, solution: Solution) -> Solution:
        path = path_of(solution)
        steps = (
            replace(step, score=self.scores[path[:end]])
            for end, step in enumerate(solution.steps, start=1)
        )
        return replace(solution, steps=tuple(steps))


def path_of(solution: Solution) -> Path:
    return tuple(step.text for step in solution.steps)
