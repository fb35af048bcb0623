"""Solutions sampled with our own engine, and the verifier's labels made of them (paper section 3).

The label of a step is the Monte-Carlo estimate of P(correct | prefix): the share of right ones
among all samples of the problem that begin with that prefix. Where rollouts were asked for, these
are also samples drawn from the prefix itself. No human labels anything.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ttsolve.core import Problem, Solution, Usage
from ttsolve.engine import Generator, Sampling, sample_seed
from ttsolve.errors import UsageError
from ttsolve.strategies.revisions import Revisions
from ttsolve.train.alone import alone
from ttsolve.train.pool_file import Drawn, answer_of_sample, append, line_of, read_pool, trim

AT_ONCE = 64  # problems in one call of the engine
CHAINS_AT_ONCE = 64  # as many as the engine keeps the beginnings of
MEMORY: int = Revisions.memory  # earlier attempts that a reviser is shown, at most


@dataclass(frozen=True, slots=True)
class Drawing:
    """What `draw` reports: how far it is."""

    problems: int
    of: int
    tokens_per_second: float
    seconds_left: float


def draw(
    generator: Generator,
    problems: Sequence[Problem],
    samples: int,
    sampling: Sampling,
    file: Path,
    *,
    seed: int = 0,
    length: int = 1,
    rollouts: int = 0,
    report: Callable[[Drawing], None] = lambda drawing: None,
) -> None:
    """Sample every problem `samples` times into `file`; what is in it already stays.

    length: attempts of a chain, each shown the latest before it; `samples` counts chains.
    rollouts: further samples drawn from each step of each different sample (not of chains).

    Raises:
        UsageError: the file holds samples of other problems, or another process writes it.
        StorageError: the file could not be written; what is in it stays good.
    """
    with alone(file):
        trim(file)
        done = _done(file, problems)
        started, tokens = time.monotonic(), 0
        at_once = AT_ONCE if length == 1 else max(1, CHAINS_AT_ONCE // samples)
        for first in range(done, len(problems), at_once):
            group = problems[first : first + at_once]
            grown, used = _grown(generator, group, samples, length, sampling, seed)
            completed, more = _completed(generator, group, grown, rollouts, sampling, seed)
            tokens += used + more
            lines = [
                line_of(p, [*((0, s) for s in solutions), *others], length)
                for p, solutions, others in zip(group, grown, completed, strict=True)
            ]
            append(file, lines)
            passed, count = max(time.monotonic() - started, 1e-3), first + len(group)
            left = passed / (count - done) * (len(problems) - count)
            report(Drawing(count, len(problems), tokens / passed, left))


def _grown(
    generator: Generator,
    problems: Sequence[Problem],
    chains: int,
    length: int,
    sampling: Sampling,
    seed: int,
) -> tuple[list[list[Solution]], int]:
    """The attempts of every problem, chain after chain; and how many tokens were drawn."""
    shown = Revisions(chains * length, chains=chains).shown
    places = [(problem, chain) for problem in problems for chain in range(chains)]
    grown: list[list[Solution]] = [[] for _ in places]
    tokens = 0
    for turn in range(length):
        prefixes = [
            shown(p, chain, before) if length > 1 else p.root
            for (p, chain), before in zip(places, grown, strict=True)
        ]
        how = [
            replace(sampling, seed=sample_seed(seed, p.question, chain, turn))
            for p, chain in places
        ]
        attempts, usage = generator.sample(prefixes, how)
        tokens += usage.generated_tokens
        for before, attempt in zip(grown, attempts, strict=True):
            before.append(attempt)
    return [
        [attempt for chain in grown[first : first + chains] for attempt in chain]
        for first in range(0, len(grown), chains)
    ], tokens


def _completed(
    generator: Generator,
    problems: Sequence[Problem],
    grown: Sequence[Sequence[Solution]],
    rollouts: int,
    sampling: Sampling,
    seed: int,
) -> tuple[list[list[tuple[int, Solution]]], int]:
    """Rollouts from every beginning of each problem's samples, and how many tokens were drawn.

    Each rollout comes with the number of steps it was given.
    """
    if not rollouts:
        return [[] for _ in problems], 0
    places = list[tuple[int, int, Solution]]()  # problem, lane, beginning
    for number, solutions in enumerate(grown):
        begun = [beginning for beginning in _beginnings(solutions) for _ in range(rollouts)]
        places += [(number, lane, b) for lane, b in enumerate(begun, start=len(solutions))]
    how = [
        replace(sampling, seed=sample_seed(seed, problems[number].question, lane))
        for number, lane, _ in places
    ]
    drawn, usage = generator.sample([b for _, _, b in places], how) if places else ([], Usage())
    out: list[list[tuple[int, Solution]]] = [[] for _ in problems]
    for (number, _, beginning), solution in zip(places, drawn, strict=True):
        out[number].append((len(beginning.steps), solution))
    return out, usage.generated_tokens


def _beginnings(solutions: Sequence[Solution]) -> list[Solution]:
    """The different prefixes, but for the whole, of those that have an answer."""
    found: dict[tuple[str, ...], Solution] = {}
    for solution in solutions:
        if answer_of_sample(solution) is not None:
            for end in range(1, len(solution.steps)):
                steps = solution.steps[:end]
                found.setdefault(tuple(s.text for s in steps), Solution(solution.problem, steps))
    return list(found.values())


def _done(file: Path, problems: Sequence[Problem]) -> int:
    """How many of the problems are in the file."""
    done = 0
    for kept, problem in zip(read_pool(file), problems, strict=False):
        done += 1
        if kept.problem.question != problem.question:
            raise UsageError(f"{file} holds samples of other problems: name another file.")
    return done


def step_labels(drawn: Drawn) -> dict[tuple[str, ...], list[float]]:
    """For each different solution, the label of every step: how often its prefix ended well.

    Samples without an answer are left out (they hurt: paper appendix D); equal samples all count,
    but a rollout only behind the steps it was given: that it begins with them is no evidence.
    """
    counted, right = Counter[tuple[str, ...]](), defaultdict[tuple[str, ...], int](int)
    parsable = [s for s in drawn.samples if s.answer is not None]
    for sample in parsable:
        for end in range(max(1, sample.given), len(sample.steps) + 1):
            counted[sample.steps[:end]] += 1
            right[sample.steps[:end]] += sample.right
    return {
        s.steps: [
            right[s.steps[:end]] / counted[s.steps[:end]] for end in range(1, len(s.steps) + 1)
        ]
        for s in parsable
    }
