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

AT_ONCE = 64  # problems in one call of the engine


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
    samples: tuple[Sample, ...]


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
    report: Callable[[Drawing], None] = lambda drawing: None,
) -> None:
    """Sample every problem `samples` times into `file`; what is in it already stays.

    Raises:
        UsageError: the file holds samples of other problems.
        StorageError: the file could not be written; what is in it stays good.
    """
    _trim(file)
    done = _done(file, problems)
    started, tokens = time.monotonic(), 0
    for first in range(done, len(problems), AT_ONCE):
        group = problems[first : first + AT_ONCE]
        prefixes = [p.root for p in group for _ in range(samples)]
        how = [
            replace(sampling, seed=sample_seed(seed, p.question, lane))
            for p in group
            for lane in range(samples)
        ]
        grown, usage = generator.sample(prefixes, how)
        tokens += usage.generated_tokens
        lines = [
            _line(problem, grown[i * samples : (i + 1) * samples])
            for i, problem in enumerate(group)
        ]
        _append(file, lines)
        passed, count = max(time.monotonic() - started, 1e-3), first + len(group)
        left = passed / (count - done) * (len(problems) - count)
        report(Drawing(count, len(problems), tokens / passed, left))


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
        yield Drawn(problem, tuple(samples))


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


def _line(problem: Problem, solutions: Sequence[Solution]) -> str:
    row = {
        "problem": {
            key: getattr(problem, key)
            for key in ("question", "reference", "check", "id", "level", "subject")
        },
        "samples": [_sample(problem, s) for s in solutions],
    }
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
