"""How a run went, as a tree of steps: what was sampled, what was kept, where the winner came from.

Made from a run's trace and its result; to JSON and back. Equal steps after equal prefixes are one
node. Rollouts are no part of the tree: they only lend their last score to the node they judge.
Chains of revisions stand beside the tree, attempt for attempt.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, cast

from ttsolve.core import Result, Solution
from ttsolve.engine import Event
from ttsolve.vote import Aggregation, chain_winners

Path = tuple[str, ...]  # the texts of a prefix's steps


@dataclass(frozen=True, slots=True)
class Node:
    """A step behind its prefix."""

    parent: int = -1  # the number of the node before it; -1: none, this is the root
    text: str = ""
    score: float | None = None  # the verifier's
    value: float | None = None  # its score at the end of the rollout that judged it
    count: int = 0  # how often it was sampled
    finish: str | None = None  # of the candidates that end here
    candidates: tuple[int, ...] = ()  # their places in the result


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt of a chain of revisions."""

    candidate: int  # its place in the result
    steps: tuple[tuple[str, float | None], ...]  # texts and scores
    shown: int  # how many attempts before it were shown
    finish: str | None
    wins: bool = False  # within its chain


@dataclass(frozen=True, slots=True)
class Tree:
    """A run; its nodes are in an order in which each comes after its parent. The root is node 0."""

    question: str
    answer: str | None
    share: float  # of the vote
    strategy: str
    settings: dict[str, Any]
    winner: int | None  # the candidate whose solution is shown as the answer's
    nodes: tuple[Node, ...]
    chains: tuple[tuple[Attempt, ...], ...] = ()

    def children(self) -> list[list[int]]:
        """The numbers of the nodes behind each node, in the order of the nodes."""
        out: list[list[int]] = [[] for _ in self.nodes]
        for number, node in enumerate(self.nodes):
            if node.parent >= 0:
                out[node.parent].append(number)
        return out

    def way_to(self, candidate: int | None) -> set[int]:
        """The numbers of the nodes from the root to a candidate; of none when there is none."""
        ends = (i for i, node in enumerate(self.nodes) if candidate in node.candidates)
        number = next(ends, -1)
        way = set()
        while number >= 0:
            way.add(number)
            number = self.nodes[number].parent
        return way

    def steps_of(self, candidate: int | None) -> list[tuple[str, float | None]]:
        """The texts and scores of a candidate's steps; of none when there is none."""
        for attempt in (attempt for chain in self.chains for attempt in chain):
            if attempt.candidate == candidate:
                return list(attempt.steps)
        way = sorted(self.way_to(candidate))[1:]  # a step's number follows its prefix's
        return [(self.nodes[number].text, self.nodes[number].score) for number in way]

    def to_json(self) -> str:
        """The tree as one line of JSON; what a node does not have is left out."""
        usual = asdict(Node())
        record = {f.name: getattr(self, f.name) for f in fields(self)}
        record["nodes"] = [
            {key: value for key, value in asdict(node).items() if value != usual[key]}
            for node in self.nodes
        ]
        record["chains"] = [[asdict(attempt) for attempt in chain] for chain in self.chains]
        return json.dumps(record, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Tree:
        """The tree that `to_json` wrote."""
        record = json.loads(text)
        nodes = (
            Node(**{**node, "candidates": tuple(node.get("candidates", ()))})
            for node in record.pop("nodes")
        )
        chains = (tuple(map(_attempt, chain)) for chain in record.pop("chains", ()))
        return cls(**record, nodes=tuple(nodes), chains=tuple(chains))


def tree_of(trace: Sequence[Event], result: Result, mark: str = "Answer:") -> Tree:
    """The tree of a run, from what happened in it and what came of it.

    mark: how an answer is marked, for the winners within chains.
    """
    growing = _Growing()
    for event in trace:
        if event.child.chain is not None:
            continue
        if event.verb == "sample":
            growing.sampled(event.parent, event.child)
        elif event.verb == "rollout":
            growing.judges[_path(event.child)] = _path(event.parent)
        else:
            growing.scored(event.child)
    growing.ended(result.candidates)
    return Tree(
        question=result.problem.question,
        answer=result.answer,
        share=result.share,
        strategy=result.strategy,
        settings=result.settings,
        winner=result.candidates.index(result.best) if result.best else None,
        nodes=tuple(growing.nodes),
        chains=_chains(result, mark),
    )


def _chains(result: Result, mark: str) -> tuple[tuple[Attempt, ...], ...]:
    by = cast(Aggregation, result.settings.get("aggregation", "last"))
    held = result.settings.get("vote") == "hierarchical"
    won = {id(winner) for winner in chain_winners(result.candidates, by, mark)} if held else set()
    chains: dict[int, list[Attempt]] = {}
    for place, candidate in enumerate(result.candidates):
        if candidate.chain is not None:
            steps = tuple((step.text, step.score) for step in candidate.steps)
            wins = id(candidate) in won
            attempt = Attempt(place, steps, len(candidate.attempts), candidate.finish, wins)
            chains.setdefault(candidate.chain, []).append(attempt)
    return tuple(map(tuple, chains.values()))


def _attempt(record: dict[str, Any]) -> Attempt:
    return Attempt(**{**record, "steps": tuple((text, score) for text, score in record["steps"])})


class _Growing:
    """A tree in the making."""

    def __init__(self) -> None:
        self.nodes = [Node()]
        self.judges: dict[Path, Path] = {}  # where a rollout ended -> the prefix it began at
        self._numbers: dict[Path, int] = {(): 0}

    def sampled(self, parent: Solution, child: Solution) -> None:
        """Count the steps that a sample added."""
        path = _path(child)
        for end in range(len(parent.steps) + 1, len(path) + 1):
            number = self._number(path[:end])
            self._change(number, count=self.nodes[number].count + 1)

    def scored(self, solution: Solution) -> None:
        """Note the scores of what was sampled, and that of a rollout where it began."""
        path = _path(solution)
        for end, step in enumerate(solution.steps, start=1):
            if path[:end] in self._numbers:
                self._change(self._numbers[path[:end]], score=step.score)
        if path in self.judges:
            self._change(self._number(self.judges[path]), value=solution.steps[-1].score)

    def ended(self, candidates: Sequence[Solution]) -> None:
        """Note the candidates where they end, but for those in chains."""
        places: dict[Path, list[int]] = {}
        for place, candidate in enumerate(candidates):
            if candidate.chain is None:
                places.setdefault(_path(candidate), []).append(place)
        for path, here in places.items():
            finish = candidates[here[-1]].finish
            self._change(self._number(path), candidates=tuple(here), finish=finish)

    def _number(self, path: Path) -> int:
        """The number of a prefix's node, which is made where there is none."""
        if path not in self._numbers:
            parent = self._number(path[:-1])
            self._numbers[path] = len(self.nodes)
            self.nodes.append(Node(parent, path[-1]))
        return self._numbers[path]

    def _change(self, number: int, **values: Any) -> None:
        self.nodes[number] = replace(self.nodes[number], **values)


def _path(solution: Solution) -> Path:
    return tuple(step.text for step in solution.steps)
