"""Choice subjects: a line is a choice whose worth shows only later, or a guess with its check."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence

from ttsolve.subjects import Draft, split_of


def countdown(rng: random.Random, level: int) -> Draft:
    """Number games: make a target from given numbers, each used once."""
    # How many numbers, the highest of them, the highest target.
    sizes = ((2, 10, 40), (3, 10, 40), (3, 20, 100), (4, 13, 60), (4, 13, 100))
    count, high, top = sizes[level - 1]
    while True:
        numbers = [rng.randint(1, high) for _ in range(count)]
        path = _random_path(rng, numbers)
        target = path[-1][3]
        if not 2 <= target <= top or (count == 4 and target == 24):
            continue
        if count > 2 and target < 10 and rng.random() < 0.6:
            continue  # small targets are easily hit: keep them rare
        return countdown_draft(numbers, target, path)


Move = tuple[int, str, int, int]  # a op b = result


def _random_path(rng: random.Random, numbers: Sequence[int]) -> list[Move]:
    left, path = list(numbers), []
    while len(left) > 1:
        i, j = rng.sample(range(len(left)), 2)
        moves = _moves(left[i], left[j])
        path.append(rng.choice(moves))
        left = [path[-1][3], *(n for k, n in enumerate(left) if k not in (i, j))]
    return path


def _moves(a: int, b: int) -> list[Move]:
    """The sensible moves with two numbers: positive whole results up to 200."""
    a, b = max(a, b), min(a, b)
    moves = [(a, "+", b, a + b)]
    if a > b:
        moves.append((a, "-", b, a - b))
    if a * b <= 200:
        moves.append((a, "*", b, a * b))
    if b > 1 and a % b == 0:
        moves.append((a, "/", b, a // b))
    return moves


def countdown_draft(numbers: Sequence[int], target: int, path: Sequence[Move]) -> Draft:
    """The question and worked solution of a number game, from the moves that win it."""
    left, lines = list(numbers), []
    made: list[tuple[int, str]] = []  # values made so far and not yet used, with their expressions
    for a, op, b, result in path:
        parts = []
        for n in (a, b):
            left.remove(n)
            index = next((i for i, (value, _) in enumerate(made) if value == n), None)
            parts.append(str(n) if index is None else f"({made.pop(index)[1]})")
        made.append((result, f"{parts[0]} {op} {parts[1]}"))
        left = [result, *left]
        rest = f", left {' '.join(map(str, left))}" if len(left) > 1 else ""
        lines.append(f"{a} {op} {b} = {result}{rest}")
    ordered = sorted(numbers)
    return Draft(
        f"Make {target} from {', '.join(map(str, numbers))}.",
        lines,
        made[0][1],
        reference=f"{target}: {' '.join(map(str, ordered))}",
        check="countdown",
        key="numbers " + " ".join(map(str, ordered)),
    )


GUESSING = 0.4  # how likely a guess is wrong in a worked solution
TRIES = 5  # guesses in a worked solution at most


def pairs(rng: random.Random, level: int) -> Draft:
    """Two numbers from their sum and product: guess and check."""
    while True:
        a, b = sorted((rng.randint(2, 10 + 10 * level) for _ in range(2)), reverse=True)
        total, product = a + b, a * b
        if a != b and product < 2500:
            break

    def attempt(n: int) -> str:
        m = total - n
        return f"Try {n} and {m}, {n} + {m} = {total}, {n} * {m} = {n * m}"

    question = f"Two numbers have sum {total} and product {product}. What is the larger?"
    lines = _tries(rng, a, range(total // 2 + 1, total), attempt)
    return Draft(question, lines, str(a), key=f"pairs {a} {b}")


def _tries(
    rng: random.Random, right: int, guesses: Sequence[int], attempt: Callable[[int], str]
) -> list[str]:
    """Some wrong guesses, each found out by its check, and the right one.

    How many come first tells nothing of the next, so that a check has to be reckoned: where every
    worked check came out right, it could be copied from the question, whatever was guessed.
    """
    others = [n for n in guesses if n != right]
    count = 0
    while count < min(TRIES - 1, len(others)) and rng.random() < GUESSING:
        count += 1
    return [*(f"{attempt(n)}, no" for n in rng.sample(others, count)), attempt(right)]


def animals(rng: random.Random, level: int) -> Draft:
    """Heads and legs: guess and check."""
    cows, hens = rng.randint(1, 5 + 9 * level), rng.randint(1, 5 + 9 * level)
    heads, legs = cows + hens, 4 * cows + 2 * hens

    def attempt(n: int) -> str:
        m = heads - n
        check = f"{4 * n} + {2 * m} = {4 * n + 2 * m}"
        return f"Try {n} cows and {m} hens, {n} + {m} = {heads}, {check}"

    question = f"Cows and hens have {heads} heads and {legs} legs. How many cows are there?"
    lines = _tries(rng, cows, range(1, heads), attempt)
    return Draft(question, lines, str(cows), key=f"animals {cows} {hens}")


def remainders(rng: random.Random, level: int) -> Draft:
    """A number from its remainders: guess and check."""
    low, high = ((2, 6), (3, 8), (4, 10), (5, 13), (6, 16))[level - 1]
    while True:
        p, q = rng.sample(range(low, high + 1), 2)
        if math.gcd(p, q) == 1:
            break
    n = rng.randint(1, p * q - 1)

    def attempt(n: int) -> str:
        return f"Try {n}, {n} = {n // p} * {p} + {n % p}, {n} = {n // q} * {q} + {n % q}"

    question = (
        f"Which number below {p * q} leaves {n % p} when divided by {p} "
        f"and {n % q} when divided by {q}?"
    )
    lines = _tries(rng, n, range(n % p, p * q, p), attempt)
    return Draft(question, lines, str(n), key=f"remainders {n} {min(p, q)} {max(p, q)}")


def subsets(rng: random.Random, level: int) -> Draft:
    """Which of the given numbers add up to the target? Exactly one choice does."""
    count = 4 + (level + 1) // 2
    while True:
        numbers = sorted(rng.sample(range(2, 10 + 8 * level), count))
        chosen = sorted(rng.sample(numbers, rng.randint(2, 2 + (level > 1) + (level > 3))))
        if _sums(numbers, sum(chosen)) == 1:
            break
    left, lines = sum(chosen), []
    for n in reversed(chosen):
        left -= n
        lines.append(f"Take {n}, left {left}")
    shuffled = rng.sample(numbers, count)
    question = f"Which of {', '.join(map(str, shuffled))} add up to {sum(chosen)}?"
    answer = " + ".join(map(str, chosen))
    return Draft(question, lines, answer, key="subset " + " ".join(map(str, numbers)))


def _sums(numbers: Sequence[int], target: int) -> int:
    """How many subsets of the numbers add up to the target."""
    ways = [1] + [0] * target
    for n in numbers:
        for total in range(target, n - 1, -1):
            ways[total] += ways[total - n]
    return ways[target]


def coins(rng: random.Random, level: int) -> Draft:
    """Pay a sum with an exact number of coins. Exactly one choice does."""
    while True:
        kinds = sorted(rng.sample(range(2, 10 + 3 * level), 3 + (level > 2)))
        chosen = sorted(rng.choices(kinds, k=2 + (level + 1) // 2))
        ways = itertools.combinations_with_replacement(kinds, len(chosen))
        if sum(sum(way) == sum(chosen) for way in ways) == 1:
            break
    left, lines = sum(chosen), []
    for i, n in enumerate(reversed(chosen)):
        left -= n
        lines.append(f"Take {n}, left {left}, coins {len(chosen) - i - 1}")
    question = f"Pay {sum(chosen)} with {len(chosen)} coins of {', '.join(map(str, kinds))}."
    answer = " + ".join(map(str, chosen))
    return Draft(question, lines, answer, key=f"coins {answer}")


CHILDREN = ("Ada", "Ben", "Cleo", "Dan", "Eva")  # whose problems a sheet holds, one each
SHEETS = ((2, 2), (3, 2), (4, 2), (4, 3), (5, 3))  # how many problems, and their level


def worksheets(rng: random.Random, level: int) -> Draft:
    """Several problems on one sheet, each worked in a line: the sheet is right where all are.

    The one long chain of PocketMath: a line's worth shows at its end, and one wrong line spoils
    all, so that whole solutions are seldom right and a search that drops wrong lines is.
    """
    count, difficulty = SHEETS[level - 1]
    parts = [_on_a_sheet(rng, difficulty)]
    while len(parts) < count:  # all of one split: no part of a sheet is a problem of another's
        part = _on_a_sheet(rng, difficulty)
        if split_of(str(part.key)) == split_of(str(parts[0].key)):
            parts.append(part)
    named = list(zip(CHILDREN, parts, strict=False))
    lines = [f"{child}: {'. '.join(part.lines)}" for child, part in named]
    question = " ".join(f"{child}: {part.question}" for child, part in named)
    return Draft(question, lines, "; ".join(part.answer for part in parts), key=parts[0].key)


def _on_a_sheet(rng: random.Random, level: int) -> Draft:
    return rng.choice((subsets, coins))(rng, level)
