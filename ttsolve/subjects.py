"""What the author of a PocketMath subject writes, and which split a problem belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

Split = Literal["train", "calibration", "test"]


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


def split_of(key: str) -> Split | None:
    """The split of a key; None for hands that training must never see (see `held_out`)."""
    place = int.from_bytes(blake2b(key.encode(), digest_size=4).digest(), "little")
    if place % 16 == 0:
        return "test"
    if place % 16 == 1:
        return "calibration"
    return None if held_out(key) else "train"


def held_out(key: str) -> bool:
    """Whether these four numbers are in the half of the Game-of-24 hands that training never sees.

    Half of all hands of four numbers 1 to 13, drawn by hash, occur in no training problem, whatever
    its target. (No training problem has target 24 with four numbers, in either half.)
    """
    kind, *hand = key.split()
    if kind != "numbers" or len(hand) != 4 or any(int(n) > 13 for n in hand):
        return False
    return blake2b(b"hand " + " ".join(hand).encode(), digest_size=1).digest()[0] % 2 == 0
