"""PocketMath: the small world of school problems that the embedded pair knows.

A seeded, unlimited source of problems with worked steps, in fifteen subjects of two kinds. In a
*local* subject every line follows from what stands above it; in a *choice* subject a line is a
choice whose worth shows only later, while the end is easy to check. One step a line; the last line
states the answer. The subjects themselves are written in the `subjects_*.py` beside this file.

Splits never share a problem: each problem has a key (the numbers of a game; the arithmetic of a
solution without its names), and the key's hash says which split it belongs to.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from hashlib import blake2b

from ttsolve import subjects_choice as choice
from ttsolve import subjects_numbers as numbers
from ttsolve import subjects_words as words
from ttsolve.core import Problem
from ttsolve.subjects import Draft, Split, split_of

Hand = tuple[int, ...]
LEVELS = (1, 2, 3, 4, 5)
NAMES = words.NAMES

LOCAL: dict[str, Callable[[random.Random, int], Draft]] = {
    "quantities": words.quantities,
    "expressions": numbers.expressions,
    "equations": numbers.equations,
    "fractions": numbers.fractions,
    "percentages": words.percentages,
    "sequences": numbers.sequences,
    "rates": words.rates,
    "divisors": numbers.divisors,
}
CHOICE: dict[str, Callable[[random.Random, int], Draft]] = {
    "countdown": choice.countdown,
    "pairs": choice.pairs,
    "animals": choice.animals,
    "remainders": choice.remainders,
    "subsets": choice.subsets,
    "coins": choice.coins,
    "worksheets": choice.worksheets,
}
SUBJECTS = LOCAL | CHOICE


@dataclass(frozen=True, slots=True)
class Exercise:
    """A problem with its worked solution (lines joined by line breaks, each line ended by one)."""

    problem: Problem
    solution: str
    key: str  # equal keys are kept in one split
    others: tuple[str, ...] = ()  # keys under which this very question is drawn as well

    @property
    def shared(self) -> bool:
        """Whether another split draws this very question, worked otherwise."""
        return len({split_of(key) for key in (self.key, *self.others)}) > 1


# --- drawing and splitting --------------------------------------------------------------------


def exercise(rng: random.Random, subject: str, level: int) -> Exercise:
    """One problem of a subject and level (1 easy to 5 hard), whatever split it belongs to."""
    draft = SUBJECTS[subject](rng, level)
    key, *others = (_key(subject, lines) for lines in (draft.lines, *draft.others))
    identity = blake2b(draft.question.encode(), digest_size=6).hexdigest()
    reference = draft.reference or draft.answer
    problem = Problem(draft.question, reference, draft.check, identity, level, subject)
    lines = [*draft.lines, f"Answer: {draft.answer}"]
    return Exercise(problem, "".join(f"{x}\n" for x in lines), draft.key or key, tuple(others))


def _key(subject: str, lines: list[str]) -> str:
    return f"{subject} " + " | ".join(_nameless(line) for line in lines)


def _nameless(line: str) -> str:
    return " ".join("_" if word in NAMES else word for word in line.split())


def exercises(
    seed: int, split: Split, weights: dict[tuple[str, int], float] | None = None
) -> Iterator[Exercise]:
    """An endless stream of exercises of one split; equal seeds give equal streams.

    Args:
        seed: of the stream.
        split: only problems of this split are drawn (a question may be `shared` all the same).
        weights: how often each (subject, level) is drawn; None: all equally.
    """
    rng = random.Random(f"{seed}/{split}")
    weights = weights or {(s, level): 1.0 for s in SUBJECTS for level in LEVELS}
    cells, shares = list(weights), list(weights.values())
    while True:
        subject, level = rng.choices(cells, shares)[0]
        while split_of((found := exercise(rng, subject, level)).key) != split:
            pass
        yield found


# --- the Game of 24 ---------------------------------------------------------------------------


@cache
def hands_of_24() -> tuple[Problem, ...]:
    """The 1,362 hands of four numbers 1 to 13 that make 24, as problems (level 5)."""
    hands = itertools.combinations_with_replacement(range(1, 14), 4)
    return tuple(_hand(hand) for hand in hands if _reaches(hand, Fraction(24)))


def _hand(hand: Hand) -> Problem:
    question = f"Make 24 from {', '.join(map(str, hand))}."
    shown, identity = (joint.join(map(str, hand)) for joint in " -")
    return Problem(question, f"24: {shown}", "countdown", f"24-{identity}", 5, "game24")


def _reaches(hand: Hand, target: Fraction) -> bool:
    """Whether + - * / and parentheses make the target (not 0) of a hand, each number used once."""
    for some, rest in _parts(hand):
        reached = _values(rest)
        for a in _values(some):
            # What b must be for a + b, a - b, b - a, and where a is not 0 a * b, a / b, b / a.
            wanted = [target - a, a - target, target + a]
            wanted += [target / a, a / target, target * a] if a else []
            if not reached.isdisjoint(wanted):
                return True
    return False


@cache
def _values(hand: Hand) -> frozenset[Fraction]:
    """All that can be made of a hand."""
    if len(hand) == 1:
        return frozenset([Fraction(hand[0])])
    made = set[Fraction]()
    for some, rest in _parts(hand):
        for a, b in itertools.product(_values(some), _values(rest)):
            made |= {a + b, a - b, b - a, a * b}
            made |= ({a / b} if b else set()) | ({b / a} if a else set())
    return frozenset(made)


def _parts(hand: Hand) -> Iterator[tuple[Hand, Hand]]:
    """A hand in two parts, in every way."""
    for size in range(1, len(hand) // 2 + 1):
        for places in itertools.combinations(range(len(hand)), size):
            some = tuple(hand[i] for i in places)
            yield some, tuple(n for i, n in enumerate(hand) if i not in places)
