"""Solutions sampled with our own engine, and the verifier's labels made of them (paper section 3).

A *pool* file has one line a problem: what was asked, and every sample with its grade. It is written
a problem at a time, so that an interrupted run goes on where it stopped. The label of a step is the
Monte-Carlo estimate of P(correct | prefix): the share of right ones among all samples of the
problem that begin with that prefix. No human labels anything.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ttsolve.answers import extract
from ttsolve.core import Problem, Solution
from ttsolve.engine import Generator, Sampling, sample_seed
from ttsolve.errors import StorageError, UsageError
from ttsolve.grade import grade
from ttsolve.strategies.revisions import Revisions

AT_ONCE = 64  # problems in one call of the engine
CHAINS_AT_ONCE = 64  # as many as the engine keeps the beginnings of
MEMORY: int = Revisions.memory  # earlier attempts that a reviser is shown, at most


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled solution."""

    steps: tuple[str, ...]
    answer: str | None
    right: bool
    tokens: int

    @property
    def text(self) -> str:
        return "".join(self.steps)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A problem with its samples."""

    problem: Problem
    samples: tuple[Sample, ...]  # chain after chain
    length: int = 1  # of each chain of revisions; 1: independent samples


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
    report: Callable[[Drawing], None] = lambda drawing: None,
) -> None:
    """Sample every problem `samples` times into `file`; what is in it already stays.

    length: attempts of a chain, each shown the latest before it; `samples` counts chains.

    Raises:
        UsageError: the file holds samples of other problems.
        StorageError: the file could not be written; what is in it stays good.
    """
    _trim(file)
    done = _done(file, problems)
    started, tokens = time.monotonic(), 0
    at_once = AT_ONCE if length == 1 else max(1, CHAINS_AT_ONCE // samples)
    for first in range(done, len(problems), at_once):
        group = problems[first : first + at_once]
        grown, used = _grown(generator, group, samples, length, sampling, seed)
        tokens += used
        lines = [_line(p, solutions, length) for p, solutions in zip(group, grown, strict=True)]
        _append(file, lines)
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
            replace(sampling, seed=sample_seed(seed, p.question, chain * length + turn))
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


def _done(file: Path, problems: Sequence[Problem]) -> int:
    """How many of the problems are in the file."""
    done = 0
    for kept, problem in zip(read_pool(file), problems, strict=False):
        done += 1
        if kept.problem.question != problem.question:
            raise UsageError(f"{file} holds samples of other problems: name another file.")
    return done


def read_pool(file: Path) -> Iterator[Drawn]:
    """The problems and samples in a pool file; a line that was cut short ends it."""
    for line in _whole_lines(file):
        row = json.loads(line)
        problem = Problem(**row["problem"])
        samples = (
            Sample(_steps(s["text"]), s["answer"], s["right"], s["tokens"]) for s in row["samples"]
        )
        yield Drawn(problem, tuple(samples), row.get("length", 1))


def _steps(text: str) -> tuple[str, ...]:
    # Not splitlines: it breaks at a dozen other characters too.
    return tuple(re.findall(r"[^\n]*\n|[^\n]+", text))


def step_labels(drawn: Drawn) -> dict[tuple[str, ...], list[float]]:
    """For each different solution, the label of every step: how often its prefix ended well.

    Samples without an answer are left out (they hurt: paper appendix D); equal samples all count.
    """
    counted, right = Counter[tuple[str, ...]](), defaultdict[tuple[str, ...], int](int)
    parsable = [s for s in drawn.samples if s.answer is not None]
    for sample in parsable:
        for end in range(1, len(sample.steps) + 1):
            counted[sample.steps[:end]] += 1
            right[sample.steps[:end]] += sample.right
    return {
        s.steps: [
            right[s.steps[:end]] / counted[s.steps[:end]] for end in range(1, len(s.steps) + 1)
        ]
        for s in parsable
    }


def _line(problem: Problem, solutions: Sequence[Solution], length: int = 1) -> str:
    row: dict[str, object] = {
        "problem": {
            key: getattr(problem, key)
            for key in ("question", "reference", "check", "id", "level", "subject")
        },
        "samples": [_sample(problem, s) for s in solutions],
    }
    if length > 1:
        row["length"] = length
    return json.dumps(row) + "\n"


def _sample(problem: Problem, solution: Solution) -> dict[str, object]:
    answer = extract(solution.text) if solution.finish == "stop" else None
    return {
        "text": solution.text,
        "answer": answer,
        "right": grade(problem, answer),
        "tokens": solution.tokens,
    }


def _whole_lines(file: Path) -> Iterator[str]:
    if file.exists():
        with file.open(encoding="utf-8", newline="\n") as lines:
            yield from (line for line in lines if line.endswith("\n"))


def _append(file: Path, lines: Sequence[str]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8", newline="\n") as out:
            out.write("".join(lines))
    except OSError as error:
        raise StorageError(
            f"Could not write {file} ({error.strerror}); free some space and run the same command "
            "again: it goes on where it stopped."
        ) from error


def _trim(file: Path) -> None:
    """Drop a last line that a kill or a full disk has cut short."""
    if file.exists():
        whole = sum(len(line.encode()) for line in _whole_lines(file))
        with file.open("rb+") as out:
            out.truncate(whole)
