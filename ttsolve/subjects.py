"""What the author of a PocketMath subject writes: a question, worked steps and an answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Draft:
    """One problem of a subject; `pocketmath.exercise` adds the rest."""

    question: str
    lines: list[str]  # the worked solution, one step a line, without the answer's line
    answer: str
    reference: str | None = None  # None: the answer itself
    check: str | None = None  # a checker of `grade`, where many answers are right
    key: str | None = None  # None: the lines with their names left out
    others: tuple[list[str], ...] = ()  # the lines of other drafts with this very question
