"""Judge an answer by what is known of its problem. For measuring only: no strategy sees this."""

from __future__ import annotations

import re
from collections.abc import Callable

from ttsolve import arithmetic
from ttsolve.answers import same
from ttsolve.core import Problem
from ttsolve.errors import UsageError


def grade(problem: Problem, answer: str | None) -> bool:
    """Whether the answer is right, by the problem's checker, else by comparison with its reference.

    Raises:
        UsageError: when the problem has no reference, or names a checker that does not exist.
    """
    if problem.reference is None:
        raise UsageError(f"problem {problem.id!r} has no reference answer: add one to grade it.")
    if problem.check is not None and problem.check not in CHECKERS:
        known = ", ".join(CHECKERS)
        raise UsageError(f"there is no checker {problem.check!r}: use one of {known}, or none.")
    if answer is None:
        return False
    if problem.check is None:
        return same(problem.reference, answer)
    return CHECKERS[problem.check](problem.reference, answer)


def countdown(reference: str, answer: str) -> bool:
    """A number game: does the expression reach the target with each number used exactly once?

    Args:
        reference: target and numbers, as in "24: 4 7 8 8".
        answer: only + - * / between numbers, and parentheses; evaluated exactly.

    Raises:
        UsageError: when the reference is written differently.
    """
    if not re.fullmatch(r"[0-9]+:( [0-9]+)+", reference):
        raise UsageError(f"a number game's reference is like '24: 4 7 8 8', not {reference!r}.")
    target, *numbers = re.findall("[0-9]+", reference)
    if len(answer) > arithmetic.MAX_LENGTH or not re.fullmatch(r"[0-9+\-*/() ]+", answer):
        return False
    if sorted(re.findall("[0-9]+", answer)) != sorted(numbers):
        return False
    if re.search(r"(^|[-+*/(]) *-", answer):  # the game knows no negative signs
        return False
    try:
        return arithmetic.value(arithmetic.parse(answer)) == int(target)
    except (arithmetic.NotArithmetic, ZeroDivisionError):
        return False


CHECKERS: dict[str, Callable[[str, str], bool]] = {"countdown": countdown}
"""The checkers that `Problem.check` can name: each takes the reference and the answer."""
