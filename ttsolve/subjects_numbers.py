"""Local subjects in numbers: expressions, equations, fractions, sequences, divisors."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction

from ttsolve.subjects import Draft


def expressions(rng: random.Random, level: int) -> Draft:
    """Nested expressions; each line restates what is left of the expression."""
    tree = _grow(rng, level + (level > 2))
    question = f"Compute {_show(tree)}."
    lines = []
    while not isinstance(tree, int):
        tree, done = _reduce(tree)
        lines.append(done if isinstance(tree, int) else f"{done}, {_show(tree)}")
    return Draft(question, lines, str(tree))


Tree = int | tuple[str, "Tree", "Tree"]


def _grow(rng: random.Random, operations: int) -> Tree:
    """A random expression whose every value lies in 0..200."""
    while True:
        tree = _shape(rng, operations)
        if _value(tree) is not None:
            return tree


def _shape(rng: random.Random, operations: int) -> Tree:
    if operations == 0:
        return rng.randint(1, 20)
    left = rng.randint(0, operations - 1)
    op = rng.choice("++--*")
    return op, _shape(rng, left), _shape(rng, operations - 1 - left)


def _value(tree: Tree) -> int | None:
    """The value; None where a part of it is negative or above 200."""
    if isinstance(tree, int):
        return tree
    op, left, right = tree
    a, b = _value(left), _value(right)
    if a is None or b is None:
        return None
    result = {"+": a + b, "-": a - b, "*": a * b}[op]
    return result if 0 <= result <= 200 else None


def _reduce(tree: tuple[str, Tree, Tree]) -> tuple[Tree, str]:
    """Carry out the leftmost operation on two plain numbers; say what was done."""
    op, left, right = tree
    if not isinstance(left, int):
        smaller, done = _reduce(left)
        return (op, smaller, right), done
    if not isinstance(right, int):
        smaller, done = _reduce(right)
        return (op, left, smaller), done
    result = _value(tree)
    assert result is not None
    return result, f"{left} {op} {right} = {result}"


def _show(tree: Tree, inner: bool = False) -> str:
    if isinstance(tree, int):
        return str(tree)
    op, left, right = tree
    text = f"{_show(left, True)} {op} {_show(right, True)}"
    return f"({text})" if inner else text


def equations(rng: random.Random, level: int) -> Draft:
    """Linear equations in one unknown."""
    x, a = rng.randint(1, 6 + 3 * level), rng.randint(2, 5 + level)
    b = rng.randint(1, 10 * level)
    if level <= 2:
        if rng.random() < 0.5 or a * x <= b:
            total = a * x + b
            left, moved = f"{a} * x + {b}", f"{total} - {b}"
        else:
            total = a * x - b
            left, moved = f"{a} * x - {b}", f"{total} + {b}"
        lines = [f"{a} * x = {moved} = {a * x}", f"x = {a * x} / {a} = {x}"]
        return Draft(f"Solve {left} = {total}.", lines, str(x))
    if level <= 3:
        total = a * (x + b)
        lines = [f"x + {b} = {total} / {a} = {x + b}", f"x = {x + b} - {b} = {x}"]
        return Draft(f"Solve {a} * (x + {b}) = {total}.", lines, str(x))
    a = max(a, 3)
    c = rng.randint(2, a - 1)
    d = (a - c) * x + b
    lines = [
        f"{a} * x - {c} * x = {d} - {b}",
        f"{a - c} * x = {d - b}",
        f"x = {d - b} / {a - c} = {x}",
    ]
    if level == 4:
        return Draft(f"Solve {a} * x + {b} = {c} * x + {d}.", lines, str(x))
    e = rng.randint(2, 9)
    lines.append(f"y = {e} * {x} = {e * x}")
    question = f"Solve {a} * x + {b} = {c} * x + {d} and y = {e} * x for y."
    return Draft(question, lines, str(e * x))


# Common denominators by level; a question of equally many terms may be drawn with several of them.
_COMMON = ((4, 6, 8), (6, 8, 10, 12), (12, 18, 20), (12, 20, 24, 30), (24, 30, 36, 40))

Term = tuple[str, int, int]  # sign, numerator, denominator


def fractions(rng: random.Random, level: int) -> Draft:
    """Sums and differences of fractions over a common denominator."""
    common = rng.choice(_COMMON[level - 1])
    denominators = [d for d in range(2, common + 1) if common % d == 0]
    value, terms = Fraction(0), list[Term]()
    for i in range(2 if level <= 3 else 3):
        d = rng.choice(denominators)
        n = rng.choice([n for n in range(1, d) if math.gcd(n, d) == 1])
        minus = i > 0 and rng.random() < 0.4 and value >= Fraction(n, d)
        value += -Fraction(n, d) if minus else Fraction(n, d)
        terms.append(("- " if minus else "+ " if i else "", n, d))
    question = f"Compute {' '.join(f'{sign}{n}/{d}' for sign, n, d in terms)}."
    alike = {c for row in (_COMMON[:3] if level <= 3 else _COMMON[3:]) for c in row} - {common}
    fitting = [c for c in sorted(alike) if all(c % d == 0 for _, _, d in terms)]
    others = tuple(_over(c, terms, value) for c in fitting)
    return Draft(question, _over(common, terms, value), str(value), others=others)


def _over(common: int, terms: list[Term], value: Fraction) -> list[str]:
    """The worked lines: every term over the common denominator, their sum, its lowest terms."""
    lines = [f"{n}/{d} = {n * common // d}/{common}" for _, n, d in terms]
    total = f"{int(value * common)}/{common}"
    lines.append(" ".join(f"{s}{n * common // d}/{common}" for s, n, d in terms) + f" = {total}")
    return lines if total == str(value) else [*lines, f"{total} = {value!s}"]


def sequences(rng: random.Random, level: int) -> Draft:
    """The next number of a sequence, by its differences."""
    start, step = rng.randint(1, 10 * level), rng.randint(2, 4 + 3 * level)
    bend = 0 if level <= 2 else rng.randint(1, level)
    terms = [start]
    steps = [step + bend * i for i in range(5)]
    for s in steps:
        terms.append(terms[-1] + s)
    lines = [f"{b} - {a} = {b - a}" for a, b in itertools.pairwise(terms[:5])]
    if bend:
        lines.append(f"{steps[3]} + {bend} = {steps[4]}")
    lines.append(f"{terms[4]} + {steps[4]} = {terms[5]}")
    if level == 5:
        lines.append(f"{steps[4]} + {bend} = {steps[4] + bend}")
        lines.append(f"{terms[5]} + {steps[4] + bend} = {terms[5] + steps[4] + bend}")
        question = f"What comes after the next in {', '.join(map(str, terms[:5]))}?"
        return Draft(question, lines, str(terms[5] + steps[4] + bend))
    return Draft(f"What comes next in {', '.join(map(str, terms[:5]))}?", lines, str(terms[5]))


def divisors(rng: random.Random, level: int) -> Draft:
    """Greatest common divisors by Euclid's algorithm."""
    while True:
        g = rng.randint(1, 3 * level)
        a, b = (g * rng.randint(2, 4 + 4 * level) for _ in range(2))
        a, b = max(a, b), min(a, b)
        lines, x, y = [], a, b
        while y:
            lines.append(f"{x} = {x // y} * {y} + {x % y}")
            x, y = y, x % y
        if a < 200 and b > 1 and len(lines) in range(level // 2, level + 2):
            return Draft(f"What is the greatest common divisor of {a} and {b}?", lines, str(x))
