"""The pool files of a training: one line a problem, with every sample of it and its grade.

A line is written when its problem is done, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ttsolve.answers import extract
from ttsolve.core import Problem, Solution
from ttsolve.errors import StorageError
from ttsolve.grade import grade


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled solution."""

    steps: tuple[str, ...]
    answer: str | None
    right: bool
    tokens: int
    given: int = 0  # steps that it was drawn from: of these it is no evidence

    @property
    def text(self) -> str:
        return "".join(self.steps)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A problem with its samples."""

    problem: Problem
    samples: tuple[Sample, ...]  # chain after chain
    length: int = 1  # of each chain of revisions; 1: independent samples


def read_pool(file: Path) -> Iterator[Drawn]:
    """The problems and samples in a pool file; a line that was cut short ends it."""
    for line in _whole_lines(file):
        row = json.loads(line)
        problem = Problem(**row["problem"])
        samples = (
            Sample(_steps(s["text"]), s["answer"], s["right"], s["tokens"], s.get("given", 0))
            for s in row["samples"]
        )
        yield Drawn(problem, tuple(samples), row.get("length", 1))


def _steps(text: str) -> tuple[str, ...]:
    # Not splitlines: it breaks at a dozen other characters too.
    return tuple(re.findall(r"[^\n]*\n|[^\n]+", text))


def line_of(problem: Problem, samples: Sequence[tuple[int, Solution]], length: int = 1) -> str:
    """A problem with its samples, each behind the number of steps it was given."""
    row: dict[str, object] = {
        "problem": {
            key: getattr(problem, key)
            for key in ("question", "reference", "check", "id", "level", "subject")
        },
        "samples": [_sample(problem, s, given) for given, s in samples],
    }
    if length > 1:
        row["length"] = length
    return json.dumps(row) + "\n"


def answer_of_sample(solution: Solution) -> str | None:
    """Its answer; None where it did not end by itself, or gives none."""
    return extract(solution.text) if solution.finish == "stop" else None


def _sample(problem: Problem, solution: Solution, given: int) -> dict[str, object]:
    answer = answer_of_sample(solution)
    row: dict[str, object] = {
        "text": solution.text,
        "answer": answer,
        "right": grade(problem, answer),
        "tokens": solution.tokens,
    }
    return row | ({"given": given} if given else {})


def _whole_lines(file: Path) -> Iterator[str]:
    if file.exists():
        with file.open(encoding="utf-8", newline="\n") as lines:
            yield from (line for line in lines if line.endswith("\n"))


def append(file: Path, lines: Sequence[str]) -> None:
    """Write lines behind the others.

    Raises:
        StorageError: no space or no permission.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8", newline="\n") as out:
            out.write("".join(lines))
    except OSError as error:
        raise StorageError(
            f"Could not write {file} ({error.strerror}); free some space and run the same command "
            "again: it goes on where it stopped."
        ) from error


def trim(file: Path) -> None:
    """Drop a last line that a kill or a full disk has cut short."""
    if file.exists():
        whole = sum(len(line.encode()) for line in _whole_lines(file))
        with file.open("rb+") as out:
            out.truncate(whole)
