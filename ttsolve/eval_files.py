"""The files of an evaluation: problems with known answers go in, rows come out."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from ttsolve.dataset import Entry, read
from ttsolve.errors import UsageError
from ttsolve.fields import Fields
from ttsolve.files import replacing
from ttsolve.grid import Row, as_record
from ttsolve.policy import content_hash, shared


def known_problems(
    dataset: Path,
    named: Fields,
    limit: int | None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> list[Entry]:
    """The problems of a file, each once, all of them usable and with a known answer.

    `tell` is told, in one sentence, how many were there again.

    Raises:
        UsageError: when one is not, or there are none.
    """
    try:
        with dataset.open("rb", buffering=0) as source:
            entries = list(islice(read(source, str(dataset), None, named), limit))
    except OSError as error:
        reason = error.strerror
        raise UsageError(f"Cannot read {dataset} ({reason}): give a readable file.") from error
    if not entries:
        raise UsageError(f"{dataset} holds no problem: name another file.")
    for entry in entries:
        if entry.problem is None:
            raise UsageError(f"{dataset}, line {entry.line}: {entry.error}")
        if entry.problem.reference is None:
            raise UsageError(
                f"{dataset}, line {entry.line} has no known answer: name its field with "
                "--answer-field, or take the line out."
            )
    unique: dict[str, Entry] = {}
    for entry in entries:
        if entry.problem:
            unique.setdefault(content_hash(entry.problem.question), entry)
    if again := len(entries) - len(unique):
        count = f"{again} of the {len(entries)} problems of {dataset}"
        tell(f"{count} repeat{'s' * (again == 1)} another: each is measured once.")
    return list(unique.values())


def refuse_test(entries: Sequence[Entry], test: Path, *, needed: bool) -> None:
    """A policy is not fitted to what it will be measured by.

    Raises:
        UsageError: when a problem is in the test split.
    """
    if not needed and not test.is_file():
        return
    hashes = {
        content_hash(e.problem.question) for e in known_problems(test, Fields(), None) if e.problem
    }
    seen = shared([entry.problem for entry in entries if entry.problem], hashes)
    if seen:
        raise UsageError(
            f"{len(seen)} of the problems are in {test}, which must stay unseen: take them out."
        )


def check_rows(file: Path) -> None:
    """Refuse before a long run what its rows cannot be written as.

    Raises:
        UsageError: the suffix is that of another format; without one they become JSON lines.
    """
    if file.suffix.lower() not in ("", ".csv", ".json", ".jsonl", ".ndjson"):
        raise UsageError(f"Cannot write rows into {file}: name a file in .jsonl or .csv.")


def write_rows(rows: Sequence[Row], file: Path) -> None:
    """Write the rows, whole or not at all: CSV where the suffix says so, else JSON lines.

    Raises:
        StorageError: when they cannot be written.
    """
    records = [as_record(row) for row in rows]
    with replacing(file) as part, part.open("w", encoding="utf-8", newline="") as out:
        if file.suffix.lower() == ".csv":
            writer = csv.DictWriter(out, list(records[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(records)
        else:
            out.writelines(json.dumps(record, allow_nan=False) + "\n" for record in records)
