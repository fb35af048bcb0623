r"""What the fields of a record mean, as the data sets in use name them.

Known are those of GSM8K, MATH and MATH-500, SVAMP, ASDiv, MAWPS, MultiArith, GSM-Hard, AIME, MGSM,
OlympiadBench and our own; upper and lower case are one. A reference is cut out of a worked solution
that ends in `#### 42` or holds a `\boxed{42}`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ttsolve.answers import extract
from ttsolve.core import Problem
from ttsolve.errors import UsageError
from ttsolve.grade import CHECKERS

QUESTION = ("question", "problem", "squestion", "prompt", "input", "query", "text")
REFERENCE = (
    *("reference", "answer", "final_answer", "final_ans", "answer_number", "expected_answer"),
    *("ground_truth", "target", "gold", "result", "lsolutions"),
)
WORKED = "solution"  # holds a reference only where it marks one
ID = ("id", "unique_id", "problem_id", "question_id", "task_id", "uid", "qid", "idx", "index")
UNIT = re.compile(r"([-\d.,/:% ]+?) *\([^()]*\)")  # ASDiv's answers: 9 (apples)

Record = Mapping[str, object]


class BadRecord(ValueError):
    """A record that holds no problem; its message is the sentence for the user."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields that the user named; None: found by their usual names."""

    question: str | None = None
    answer: str | None = None


def problem_in(record: Record, named: Fields = Fields()) -> Problem:
    """The problem of a record, with its reference where there is one.

    Raises:
        BadRecord: when it holds no question, lacks a named field, or names an unknown checker.
    """
    folded = {key.casefold(): value for key, value in record.items()}
    question = checked(_question(record, folded, named.question))
    if named.answer is not None:
        value = _named(record, named.answer)
        return Problem(question, reference=_reference(value))
    values = (_reference(folded.get(name)) for name in REFERENCE)
    reference = next((value for value in values if value is not None), None)
    if reference is None and isinstance(worked := folded.get(WORKED), str):
        reference = extract(worked)
    if reference is not None and "body" in folded and (match := UNIT.fullmatch(reference)):
        reference = match[1]
    return Problem(question, reference, _check(folded, reference))


def id_in(record: Record) -> str | int | None:
    """The record's own id; None when it has none."""
    folded = {key.casefold(): value for key, value in record.items()}
    ids = (folded.get(name) for name in ID)
    return next((i for i in ids if isinstance(i, str | int) and not isinstance(i, bool)), None)


def asks(columns: list[str], named: Fields) -> bool:
    """Whether one of these fields is the question."""
    if named.question is not None:
        return named.question in columns
    return any(column.casefold() in QUESTION for column in columns)


def checked(question: str) -> str:
    """The question, trimmed.

    Raises:
        BadRecord: when it is empty, or no text.
    """
    question = question.strip()
    if not question:
        raise BadRecord("The question is empty: write one, or take the line out.")
    if "\0" in question:
        raise BadRecord("The question has a NUL character: is the file a text?")
    try:
        question.encode()
    except UnicodeEncodeError:
        raise BadRecord("The question has half a character (a lone surrogate): mend it.") from None
    return question


def _question(record: Record, folded: Record, named: str | None) -> str:
    if named is not None:
        value = _named(record, named)
    else:
        name = next((name for name in QUESTION if name in folded), None)
        if name is None:
            have = ", ".join(list(record)[:8]) or "none"
            raise BadRecord(
                f"No field holds the question (there are: {have}): name it with --question-field."
            )
        value = folded[name]
        if name == "question" and isinstance(body := folded.get("body"), str):
            value = f"{body.strip()} {value}"
    if not isinstance(value, str):
        raise BadRecord("The question is not a text: name its field with --question-field.")
    return value


def _check(folded: Record, reference: str | None) -> str | None:
    """The checker that a record of ours names; elsewhere the word may mean anything."""
    check = folded.get("check") if "reference" in folded else None
    if not isinstance(check, str) or not check or reference is None:
        return None
    if check not in CHECKERS:
        raise BadRecord(f"There is no checker {check!r}: use one of {', '.join(CHECKERS)}.")
    try:
        CHECKERS[check](reference, "")
    except UsageError as error:
        raise BadRecord(f"The reference is not one of {check} ({error})") from None
    return check


def _named(record: Record, name: str) -> object:
    if name not in record:
        have = ", ".join(list(record)[:8]) or "none"
        raise BadRecord(f"There is no field {name!r} (there are: {have}): name one of these.")
    return record[name]


def _reference(value: object) -> str | None:
    """The known answer as text; None: there is none, or none that an answer can be compared to."""
    if isinstance(value, list) and len(value) == 1:
        [value] = value
    if isinstance(value, float) and not math.isfinite(value):  # a gap in a table
        return None
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        return None
    return extract(value) or value.strip() or None
