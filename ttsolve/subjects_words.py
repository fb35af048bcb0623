"""Local subjects in words: quantities, percentages, rates. Every line follows from those above."""

from __future__ import annotations

import itertools
import random

from ttsolve.subjects import Draft

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ida", "Jon", "Kim", "Leo")
THINGS = ("apples", "books", "cards", "coins", "eggs", "keys", "pens", "shells")
VEHICLES = ("train", "car", "bus", "boat", "truck")
GOODS = ("coat", "lamp", "chair", "bag", "clock")


def quantities(rng: random.Random, level: int) -> Draft:
    """Quantities that depend on one another, facts shuffled, some of them irrelevant.

    The solution works back from the question to a known number, then computes forward.
    """
    depth = level
    names = rng.sample(NAMES, depth + 1 + rng.randint(0, min(level, 3)))
    thing = rng.choice(THINGS)
    chain, others = names[: depth + 1], names[depth + 1 :]  # chain[0] is asked, chain[-1] known
    value = rng.randint(2, 30)
    has = {chain[-1]: value}
    back = [f"{chain[-1]} = {value}"]
    forward: list[str] = []
    facts = [f"{chain[-1]} has {value} {thing}."]
    for who, base in reversed(list(itertools.pairwise(chain))):
        fact, relation, value, worked = _relation(rng, who, base, value, thing)
        has[who] = value
        facts.append(fact)
        back.append(f"{who} = {relation}")
        forward.append(f"{who} = {worked}")
    for who in others:  # nobody asks what these have
        base = rng.choice(list(has))
        fact, _, has[who], _ = _relation(rng, who, base, has[base], thing)
        if rng.random() < 0.3:
            has[who] = rng.randint(2, 60)
            fact = f"{who} has {has[who]} {thing}."
        facts.append(fact)
    rng.shuffle(facts)
    question = " ".join([*facts, f"How many {thing} does {chain[0]} have?"])
    return Draft(question, [*reversed(back), *forward], str(value))


def _relation(
    rng: random.Random, who: str, base: str, value: int, thing: str
) -> tuple[str, str, int, str]:
    """A fact about `who` from what `base` has (`value`): sentence, relation, value, worked line."""
    kinds = ["more"]
    if value >= 4:
        kinds.append("fewer")
    if value <= 33:
        kinds.append("times")
    kind = rng.choice(kinds)
    if kind == "more":
        n = rng.randint(2, 40)
        sentence, op, result = f"{who} has {n} more {thing} than {base}.", "+", value + n
    elif kind == "fewer":
        n = rng.randint(1, min(value - 1, 40))
        sentence, op, result = f"{who} has {n} fewer {thing} than {base}.", "-", value - n
    else:
        n = rng.randint(2, 3 if value > 12 else 5)
        sentence, op, result = f"{who} has {n} times as many {thing} as {base}.", "*", value * n
    return sentence, f"{base} {op} {n}", result, f"{value} {op} {n} = {result}"


def percentages(rng: random.Random, level: int) -> Draft:
    """Parts of a hundred, built from ten and five percent."""
    base = 20 * rng.randint(1, 5 * level)
    tens, fives = rng.randint(1, 9), (level >= 2) * rng.randint(0, 1)
    percent = 10 * tens + 5 * fives
    lines = [f"10% of {base} = {base // 10}"]
    if tens > 1:
        lines.append(f"{10 * tens}% of {base} = {tens} * {base // 10} = {tens * base // 10}")
    part = tens * base // 10
    if fives:
        lines.append(f"5% of {base} = {base // 10} / 2 = {base // 20}")
        lines.append(f"{part} + {base // 20} = {part + base // 20}")
        part += base // 20
    if level <= 2:
        return Draft(f"What is {percent}% of {base}?", lines, str(part))
    good = rng.choice(GOODS)
    up = rng.random() < 0.5
    price = base + part if up else base - part
    lines.append(f"{base} {'+' if up else '-'} {part} = {price}")
    change = f"{percent}% {'more' if up else 'less'}"
    if level <= 3:
        return Draft(f"A {good} costs {base} dollars. What is {change}?", lines, str(price))
    count = rng.randint(2, 3 if level == 4 else 9)
    if price * count > 999:
        count = 2
    lines.append(f"{count} * {price} = {count * price}")
    question = f"A {good} costs {base} dollars, now {change}. What do {count} cost?"
    return Draft(question, lines, str(count * price))


def rates(rng: random.Random, level: int) -> Draft:
    """Speed and distance."""
    vehicle = rng.choice(VEHICLES)
    speed, hours = rng.randint(3, 8 + 8 * level), rng.randint(2, 3 + level)
    more = rng.randint(2, 3 + level)
    far = speed * hours
    lines = [f"{far} / {hours} = {speed}"]
    if level <= 2:
        lines.append(f"{speed} * {more} = {speed * more}")
        question = f"A {vehicle} goes {far} miles in {hours} hours. How far in {more} hours?"
        return Draft(question, lines, str(speed * more))
    faster = rng.randint(2, 5 * level)
    quick = speed + faster
    lines += [f"{speed} + {faster} = {quick}", f"{quick} * {more} = {quick * more}"]
    question = (
        f"A {vehicle} goes {far} miles in {hours} hours, then {faster} miles an hour faster. "
    )
    if level == 3:
        return Draft(f"{question}How far in {more} more hours?", lines, str(quick * more))
    lines.append(f"{far} + {quick * more} = {far + quick * more}")
    return Draft(
        f"{question}How far in all after {more} more hours?", lines, str(far + quick * more)
    )
