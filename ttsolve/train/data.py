"""PocketMath's splits as files: one JSON object a line, in the fields of MATH-500."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from ttsolve.core import Problem
from ttsolve.errors import UsageError
from ttsolve.files import write_whole
from ttsolve.pocketmath import (
    CHOICE,
    LEVELS,
    LOCAL,
    SUBJECTS,
    Exercise,
    exercises,
    hands_of_24,
)
from ttsolve.subjects import Split

SEEDS: dict[Split, int] = {"test": 2024, "calibration": 2025}
IN_VAIN = 2000  # problems in a row that are not new, before one gives up


# Search pays where a step is a choice, and most where many follow each other: seven of eight
# problems of the splits are of the first kind, over half are worksheets.
SHARES = {"countdown": 6.0, "subsets": 4.0, "coins": 4.0, "worksheets": 24.0}
# More of what the generator gets wrong in many ways.
LABEL_SHARES = dict.fromkeys(LOCAL, 1.0) | {
    "countdown": 6.0,
    "subsets": 3.0,
    "remainders": 6.0,
    "pairs": 4.0,
    "quantities": 6.0,
    "fractions": 3.0,
    "worksheets": 20.0,
}


def split_weights(
    subjects: Sequence[str] = (), levels: Sequence[int] = ()
) -> dict[tuple[str, int], float]:
    """How often the test and calibration splits hold each (subject, level).

    Args:
        subjects, levels: only these; none: all.

    Raises:
        UsageError: there is no such subject.
    """
    weights = {
        (s, level): SHARES.get(s, 1.0) * (2.0 if s in CHOICE and level > 3 else 1.0)
        for s in SUBJECTS
        for level in LEVELS
    }
    return _only(weights, subjects, levels)


def label_weights(subjects: Sequence[str] = ()) -> dict[tuple[str, int], float]:
    """How often the verifier learns from each (subject, level): more from the hardest games.

    Args:
        subjects: only these; none: all.

    Raises:
        UsageError: there is no such subject.
    """
    weights = {(s, level): LABEL_SHARES.get(s, 2.0) for s in SUBJECTS for level in LEVELS}
    weights |= {("countdown", level): 12.0 for level in (4, 5)}
    return _only(weights, subjects, ())


def _only(
    weights: dict[tuple[str, int], float], subjects: Sequence[str], levels: Sequence[int]
) -> dict[tuple[str, int], float]:
    if strange := [name for name in subjects if name not in SUBJECTS]:
        raise UsageError(f"There is no subject {strange[0]!r}: use one of {', '.join(SUBJECTS)}.")
    return {
        (subject, level): share
        for (subject, level), share in weights.items()
        if subject in (subjects or SUBJECTS) and level in (levels or LEVELS)
    }


def draw_split(
    split: Split, count: int, subjects: Sequence[str] = (), levels: Sequence[int] = ()
) -> Iterator[Exercise]:
    """The first `count` different problems that no other split shares.

    Raises:
        UsageError: there are hardly so many; or see `split_weights`.
    """
    seen: set[str] = set()
    in_vain = 0
    for exercise in exercises(SEEDS[split], split, split_weights(subjects, levels)):
        if len(seen) == count:
            return
        if not exercise.shared and exercise.problem.question not in seen:
            seen.add(exercise.problem.question)
            in_vain = 0
            yield exercise
        elif (in_vain := in_vain + 1) == IN_VAIN:
            raise UsageError(
                f"Only {len(seen)} such problems of the {split} split were found: ask for fewer, "
                "or for more subjects and levels."
            )


def write_data(
    folder: Path,
    test: int,
    calibration: int,
    subjects: Sequence[str] = (),
    levels: Sequence[int] = (),
) -> Iterator[tuple[Path, int]]:
    """Write test.jsonl, calibration.jsonl and game24.jsonl; (file, number of problems) of each.

    Raises:
        UsageError: see `draw_split`.
        StorageError: a file could not be written; nothing half-written stays.
    """
    counts: dict[Split, int] = {"test": test, "calibration": calibration}
    for split, count in counts.items():
        rows = [_row(e.problem, e.solution) for e in draw_split(split, count, subjects, levels)]
        yield _write(folder / f"{split}.jsonl", rows)
    yield _write(folder / "game24.jsonl", [_row(hand) for hand in hands_of_24()])


def read_problems(file: Path) -> list[Problem]:
    """The problems of such a file."""
    rows = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    return [
        Problem(
            row["problem"],
            row["reference"],
            row.get("check"),
            row["id"],
            row["level"],
            row["subject"],
        )
        for row in rows
    ]


def _row(problem: Problem, solution: str | None = None) -> dict[str, object]:
    row: dict[str, object] = {"id": problem.id, "problem": problem.question}
    if solution is not None:
        row |= {"solution": solution, "answer": solution.rsplit("Answer: ", 1)[1].strip()}
    row |= {"reference": problem.reference, "level": problem.level, "subject": problem.subject}
    return row | ({"check": problem.check} if problem.check else {})


def _write(file: Path, rows: list[dict[str, object]]) -> tuple[Path, int]:
    write_whole(file, "".join(json.dumps(row) + "\n" for row in rows))
    return file, len(rows)
