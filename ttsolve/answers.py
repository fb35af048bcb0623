r"""Find the answer in a solution, and decide whether two answers are one.

Which answers are one:
- *Numbers* are compared exactly: `1/2`, `0.5` and `\frac12` are one, as are `1,000` and `1000`. A
  decimal of six or more places is compared at six (`0.333333` is `1/3`, `0.333` is not), and a
  percentage in both its readings (`50\%` is `0.5` and is `50`), both as in math-verify.
- *Expressions*, that is arithmetic with more than one number which is not a plain fraction `a/b`,
  are compared by their form up to order and grouping, never by value: `(8 - 4) * 6` is
  `6 * (8 - 4)`; `4 * 6`, `3 * 8` and `24` are three answers.
- *Words* are one when they differ in case only.
- *Lists*, several of these with `;` between them, are one when they are part by part.
- *Everything else* (LaTeX, units, intervals, symbols, ...) is left to math-verify, which runs in a
  process of its own so that a time limit holds in every thread and against every text. What cannot
  be read in time is equal to itself only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from ttsolve import arithmetic, mathverify
from ttsolve.core import Solution
from ttsolve.prompts import BOXED, THINK, THOUGHT, thinks

GROUP_LIMIT = 10.0  # seconds for one grouping; after that only the exact paths are left
MAX_LENGTH = 1000  # characters; a longer answer is equal to itself only


def answer_of(solution: Solution, mark: str = "Answer:") -> str | None:
    """The answer of a solution; the unfinished last line of one that was cut does not count."""
    text = solution.text
    if solution.finish in ("length", "budget"):
        text = text[: text.rfind("\n") + 1]
    return extract(text, mark)


def extract(text: str, mark: str = "Answer:") -> str | None:
    r"""The last answer in a text: after the mark, else in `\boxed{}`, else after `####`.

    Where a model thinks first, the answer is in what it says then.
    """
    if THINK in text or THOUGHT in text:
        if thinks(text):
            return None
        text = text.rpartition(THOUGHT)[2]
    if mark.startswith(BOXED):
        return _boxed(text) or _after(text, "####") or _after(text, "Answer:")
    return _after(text, mark) or _boxed(text) or _after(text, "####")


def same(a: str, b: str) -> bool:
    """Whether two answers are one; reflexive and symmetric."""
    return a == b or _match(_read(a), _read(b))


def group(answers: Sequence[str | None]) -> list[int | None]:
    """The class of each answer, numbered from 0 in the order of first appearance; None stays None.

    The partition depends on the set of answers alone, not on their order or number.
    """
    readings = {text: _read(text) for text in set(answers) if text is not None}
    deadline = time.monotonic() + GROUP_LIMIT
    classes: dict[Reading, Reading] = {}  # each reading to the first of its class
    # Equality is not transitive for loose readings (50 = 50% = 0.5): a fixed order decides.
    for reading in sorted(set(readings.values()), key=lambda r: (r.loose, r.text, r.kind)):
        firsts = dict.fromkeys(classes.values()) if reading.loose else ()
        matches = (f for f in firsts if time.monotonic() < deadline and _match(reading, f))
        classes[reading] = next(matches, reading)
    numbers: dict[Reading, int] = {}
    return [
        None if text is None else numbers.setdefault(classes[readings[text]], len(numbers))
        for text in answers
    ]


# --- finding ----------------------------------------------------------------------------------


def _after(text: str, mark: str) -> str | None:
    """What follows the last mark on its line (or on the next, where nothing does)."""
    _, found, rest = text.rpartition(mark)
    if not found:
        return None
    lines = rest.split("\n", 2)
    first = next((line for line in lines[:2] if line.strip(" *\t\r")), "")
    return _boxed(first) or first.strip().removeprefix("**").removesuffix("**").strip() or None


def _boxed(text: str) -> str | None:
    r"""The contents of the innermost last `\boxed{...}` that is closed."""
    opened: list[int | None] = []  # where the contents begin; None: a brace of another kind
    best: tuple[int, int] | None = None
    for match in re.finditer(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", text):
        if match[0] == "}":
            start = opened.pop() if opened else None
            if start is not None and (best is None or start > best[0]):
                best = (start, match.start())
        elif match[0].endswith("{") and match[0] != "\\{":
            opened.append(None if match[0] == "{" else match.end())
    return text[slice(*best)].strip() or None if best else None


# --- reading ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says. Equal readings are one answer."""

    kind: Literal["number", "expression", "words", "list", "other"]
    text: str  # a canonical form
    loose: bool = False  # may equal an answer with another reading


_SPACES = re.compile(r"(?:\s|\\[,;! ]|~)+")
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{([^{}]*)\}\s*\{([^{}]*)\}|([0-9])([0-9]))")
_NUMBER = re.compile(r"([-+]?)\s*\$?(\d+|\d{1,3}(?:,\d{3})+|\d*(?=\.\d))(\.\d*)?\s*(%?)", re.ASCII)
_MIXED = re.compile(r"(-?)(\d{1,100}) (\d{1,100})/(\d{1,100})", re.ASCII)
_WORDS = re.compile(r"\(?([A-Za-z]+(?:[ '][A-Za-z]+)*)\)?")
_POWER = re.compile(r"\s*\*\*\s*(\([^()]*\)|[-+]?[\w.]+)")  # as programs write it
_PLAIN = {  # LaTeX and typography, in plain text
    "{,}": ",", "\\!": "", "\\left": "", "\\right": "", "\\%": "%", "\\$": "$", "\u2212": "-",
    "\\times": "*", "\\cdot": "*", "\u00d7": "*", "\u00b7": "*", "\\div": "/", "\u00f7": "/",
}  # fmt: skip


def _read(text: str) -> Reading:
    if len(text) > MAX_LENGTH:
        return Reading("other", text)
    return _read_short(text)


@lru_cache(maxsize=16384)
def _read_short(text: str) -> Reading:
    plain = _plain(text)
    return _single(plain) or _list(plain) or _other(text)


def _single(plain: str) -> Reading | None:
    return _number(plain) or _arithmetic(plain) or _words(plain)


def _plain(text: str) -> str:
    text = text.strip()
    for opening, closing in (("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if len(text) > 2 and text.startswith(opening) and text.endswith(closing):
            text = text.removeprefix(opening).removesuffix(closing)
    for latex, plain in _PLAIN.items():
        text = text.replace(latex, plain)
    for _ in range(8):  # fractions within fractions, from the inside
        text, count = _FRACTION.subn(r"((\1\3)/(\2\4))", text)
        if not count:
            break
    return _SPACES.sub(" ", text).strip().removesuffix(".")


def _number(plain: str) -> Reading | None:
    if match := _NUMBER.fullmatch(plain):
        sign, whole, places, percent = match.groups(default="")
        number = Fraction(f"{sign}{whole.replace(',', '') or 0}{places.rstrip('.')}")
        if percent:
            return Reading("number", f"{number}%", loose=True)
        return Reading("number", str(number), loose=len(places) > 6)  # with its point
    if (match := _MIXED.fullmatch(plain)) and int(match[4]):
        number = int(match[2]) + Fraction(int(match[3]), int(match[4]))
        return Reading("number", str(-number if match[1] else number))
    return None


def _arithmetic(plain: str) -> Reading | None:
    try:
        node = arithmetic.parse(plain)
        numbers = arithmetic.leaves(node)
        whole = all(n.denominator == 1 for n in numbers)
        quotient = len(numbers) == 2 and whole and plain.count("/") == 1
        if len(numbers) == 1 or quotient:
            return Reading("number", str(arithmetic.value(node)))
        return Reading("expression", arithmetic.canonical(node))
    except (arithmetic.NotArithmetic, ZeroDivisionError):
        return None


def _words(plain: str) -> Reading | None:
    plain = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\{([^{}\\]*)\}", r"\1", plain)
    match = _WORDS.fullmatch(plain.strip())
    return Reading("words", match[1].casefold()) if match else None


def _list(plain: str) -> Reading | None:
    parts = [_single(part.strip()) for part in plain.split(";")]
    if len(parts) == 1 or any(part is None or part.loose for part in parts):
        return None
    return Reading("list", "; ".join(f"{part.kind} {part.text}" for part in parts if part))


def _other(text: str) -> Reading:
    text = " ".join(_POWER.sub(r"^{\1}", text).split())
    # Of a power that is left math-verify would read what stands before it.
    return Reading("other", text, loose="**" not in text)


# --- comparing --------------------------------------------------------------------------------


def _match(x: Reading, y: Reading) -> bool:
    if x == y or not (x.loose or y.loose):
        return x == y
    if x.kind == y.kind == "number":
        return _near(x.text, y.text)
    if "other" not in (x.kind, y.kind) or "expression" in (x.kind, y.kind):
        return False
    a, b = sorted((x.text, y.text))
    return mathverify.readable(a) and mathverify.readable(b) and mathverify.same(a, b)


def _near(a: str, b: str) -> bool:
    """Whether two numbers, one of them a percentage or a long decimal, are one."""
    if a.endswith("%") != b.endswith("%"):
        percent, number = sorted((a, b), key=lambda text: not text.endswith("%"))
        part = Fraction(percent[:-1])
        return Fraction(number) in (part, part / 100)
    return "%" not in a and round(Fraction(a), 6) == round(Fraction(b), 6)
