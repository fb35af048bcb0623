"""What a strategy can ask for: sample and score. Everything fast hides below this line.

A `Generator` and a `Verifier` are shared by all runs and may be called from several threads at
once; an `Engine` is light, belongs to one run of one problem, and holds that run's seed, budget,
bill and trace.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Literal, Protocol, TypeVar

from ttsolve.core import Solution, Usage

Model = TypeVar("Model")
Watch = Callable[[int, Solution], None]  # called with (index of the prefix, what it grew into)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one continuation is drawn."""

    steps: int | None = None  # at most so many further steps; None: to the end
    temperature: float = 1.0  # 0: greedy
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off
    min_p: float = 0.0  # 0: off
    max_tokens: int = 512  # of the whole continuation; reaching it finishes with "length"
    seed: int = 0  # 32 bits


class Generator(Protocol):
    """The paper's proposer."""

    @property
    def name(self) -> str:
        """Names file and prompt format; equal names give equal samples for equal seeds."""
        ...

    @property
    def params(self) -> int:
        """Parameter count, for FLOPs."""
        ...

    def sample(
        self,
        prefixes: Sequence[Solution],
        how: Sequence[Sampling],
        watch: Watch | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[list[Solution], Usage]:
        """Continue each prefix as its `Sampling` says; same order, same length.

        `watch` hears of every continuation as it ends. When `stop` is set, what is unfinished comes
        back as it stands with finish "budget". The usage counts tokens only.
        """
        ...


class Verifier(Protocol):
    """Judges steps: a process reward model."""

    @property
    def name(self) -> str:
        """Names files and prompt format; equal names give equal scores."""
        ...

    @property
    def params(self) -> int:
        """Parameter count, for FLOPs."""
        ...

    def score(self, solutions: Sequence[Solution]) -> tuple[list[Solution], Usage]:
        """Fill in the score of every step that has none; same order, same length."""
        ...


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: a continuation that ended, or a solution that was scored."""

    verb: Literal["sample", "rollout", "score"]
    parent: Solution
    child: Solution


@dataclass
class Engine:
    """One run of one problem: the two verbs, with its seed, its budget and its bill.

    What stands in a chain of revisions is grown by the reviser and judged by its verifier, which
    read the earlier attempts; where there is none, by the generator, and by the verifier, which
    reads each attempt alone.
    """

    generator: Generator
    verifier: Verifier | None = None
    reviser: Generator | None = None
    revision_verifier: Verifier | None = None
    seed: int = 0
    sampling: Sampling = Sampling()  # the pair's defaults; steps and temperature vary by call
    budget: int = 2**31  # units: generations, as the paper counts them
    listen: Callable[[Event], None] | None = None  # the live view
    stop: threading.Event = field(default_factory=threading.Event)  # set by Ctrl-C
    usage: Usage = Usage()
    trace: list[Event] = field(default_factory=list)
    decided: dict[str, object] = field(default_factory=dict)  # by the strategy, for the output
    _lane: int = 0

    def sample(
        self,
        prefixes: Sequence[Solution],
        *,
        steps: int | None = None,
        temperature: float | None = None,
        units: int = 1,
        turn: int = 0,
    ) -> list[Solution]:
        """Continue each prefix by up to `steps` steps (None: to the end).

        A finished solution comes back as it is, free. A continuation that starts at a problem's
        root costs `units` of the budget, 1 for the solution that grows there and as many more as
        its rollouts will cost; prefixes beyond the budget come back with finish "budget". What
        Ctrl-C stopped before it had begun costs nothing.

        turn: which attempt of its chain each prefix asks for, from 0; outside chains it means none.
        """
        if temperature is None:
            temperature = self.sampling.temperature
        how = replace(self.sampling, steps=steps, temperature=temperature)
        return self._continue("sample", prefixes, how, units, turn)

    def rollout(self, prefixes: Sequence[Solution], steps: int) -> list[Solution]:
        """Continue each prefix greedily by up to `steps` steps, only to see where it leads."""
        how = replace(self.sampling, steps=steps, temperature=0.0)
        return self._continue("rollout", prefixes, how, 1)

    def _continue(
        self,
        verb: Literal["sample", "rollout"],
        prefixes: Sequence[Solution],
        sampling: Sampling,
        root_units: int,
        turn: int = 0,
    ) -> list[Solution]:
        started = time.perf_counter()
        out = list(prefixes)
        how: dict[int, Sampling] = {}  # of those to be continued, by their place
        left = self.budget - self.usage.units
        for i, prefix in enumerate(prefixes):
            if prefix.done:
                continue
            cost = 0 if prefix.steps else root_units
            if self.stop.is_set() or cost > left:
                out[i] = replace(prefix, finish="budget")
                continue
            left -= cost
            how[i] = replace(sampling, seed=self._seed_of(prefix, turn))
        for model, places in _shared_out(how, prefixes, self.generator, self.reviser):

            def watch(lane: int, solution: Solution, places: list[int] = places) -> None:
                self._happened(Event(verb, prefixes[places[lane]], solution))

            some, drawn = [out[i] for i in places], [how[i] for i in places]
            grown, usage = model.sample(some, drawn, watch, self.stop)
            for i, solution in zip(places, grown, strict=True):
                out[i] = solution
            computed = usage.generated_tokens + usage.prompt_tokens
            self.usage += replace(usage, generator_flops=2.0 * model.params * computed)
        begun = sum(not prefixes[i].steps and _begun(out[i]) for i in how)
        self.usage += Usage(units=begun * root_units, seconds=time.perf_counter() - started)
        return out

    def score(self, solutions: Sequence[Solution]) -> list[Solution]:
        """Fill in the score of every step that has none; without a verifier, change nothing."""
        started = time.perf_counter()
        out = list(solutions)
        new = [i for i, s in enumerate(out) if any(step.score is None for step in s.steps)]
        for verifier, places in _shared_out(new, out, self.verifier, self.revision_verifier):
            shown = [out[i] for i in places]
            if verifier is self.verifier:  # it never learnt to read earlier attempts
                shown = [replace(solution, attempts=()) for solution in shown]
            scored, usage = verifier.score(shown)
            for i, solution in zip(places, scored, strict=True):
                judged = replace(solution, attempts=out[i].attempts)
                self._happened(Event("score", out[i], judged))
                out[i] = judged
            flops = 2.0 * verifier.params * usage.verifier_tokens
            self.usage += replace(usage, verifier_flops=flops)
        self.usage += Usage(seconds=time.perf_counter() - started)
        return out

    def _happened(self, event: Event) -> None:
        self.trace.append(event)
        if self.listen:
            self.listen(event)

    def _seed_of(self, prefix: Solution, turn: int) -> int:
        """That of a chain's attempt, or else of the run's next lane."""
        question = prefix.problem.question
        if turn and prefix.chain is not None:
            return sample_seed(self.seed, question, prefix.chain, turn)
        self._lane += 1
        return sample_seed(self.seed, question, self._lane - 1)


def _begun(grown: Solution) -> bool:
    """Whether anything was drawn for it; else it was stopped while it waited for its turn."""
    return bool(grown.steps) or grown.finish != "budget"


def _shared_out(
    places: Iterable[int], solutions: Sequence[Solution], first: Model | None, revises: Model | None
) -> Iterator[tuple[Model, list[int]]]:
    """Which of the places in `solutions` are whose: chains are `revises`'s, if there is one."""
    mine: list[int] = []
    chains: list[int] = []
    for i in places:
        (mine if revises is None or solutions[i].chain is None else chains).append(i)
    for model, some in ((first, mine), (revises, chains)):
        if model is not None and some:
            yield model, some


def sample_seed(run: int, question: str, lane: int, turn: int = 0) -> int:
    """The seed of one sample, 32 bits: from the run's seed, the problem and its place in the run.

    Never from a global generator: the same run gives the same seeds, alone or beside others in one
    batch, and a run of 64 samples begins with those of a run of 16. So do chains of revisions with
    fewer and shorter ones: of those the lane is the chain, and the turn the attempts before.
    """
    place = f"{lane}.{turn}" if turn else f"{lane}"
    key = f"{run}/{place}/{question}".encode()
    return int.from_bytes(blake2b(key, digest_size=4).digest(), "little")
