"""PocketMath: every worked solution is right, every answer is the only one, no split leaks."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from hashlib import blake2b

import pytest

from ttsolve import arithmetic, pocketmath, subjects
from ttsolve.answers import extract
from ttsolve.grade import grade
from ttsolve.pocketmath import CHOICE, LEVELS, LOCAL, SUBJECTS, Exercise, exercises
from ttsolve.train import data

EACH = 25  # exercises of each subject and level


@cache
def drawn(subject: str) -> list[Exercise]:
    rng = random.Random(f"test {subject}")
    return [pocketmath.exercise(rng, subject, level) for level in LEVELS for _ in range(EACH)]


def taken(count: int, *arguments: object) -> list[Exercise]:
    return list(itertools.islice(exercises(*arguments), count))


def value(text: str, known: dict[str, Fraction] | None = None) -> Fraction:
    """An expression's value; words stand for what is known of them."""
    text = re.sub(r"(\d+)% of (\d+)", r"(\1 * \2 / 100)", text)
    text = re.sub(r"[A-Za-z]+", lambda word: f"({(known or {})[word[0]]})", text)
    return arithmetic.value(arithmetic.parse(text))


# --- solvers: every right answer of a question, found without the generator's code ---------------


def numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def quantities(question: str) -> list[object]:
    return [amounts(question)[re.search(r"does (\w+) have", question)[1]]]


def amounts(question: str) -> dict[str, int]:
    """What each of a question's people has."""
    facts = {}
    for fact in question.split(". "):
        who, has, n, *rest = fact.rstrip(".?").split()
        if has == "has":
            facts[who] = (int(n), *rest)

    def count(who: str) -> int:
        match facts[who]:
            case n, "more", *_, base:
                return count(base) + n
            case n, "fewer", *_, base:
                return count(base) - n
            case n, "times", *_, base:
                return count(base) * n
            case n, _:
                return n
        raise AssertionError(facts[who])

    return {who: count(who) for who in facts}


def equations(question: str) -> list[object]:
    statements = question.removeprefix("Solve ").removesuffix(".").removesuffix(" for y")
    wanted = "y" if question.endswith("for y.") else "x"
    found = []
    for x in range(-5, 40):
        known = {"x": Fraction(x)}
        for statement in statements.split(" and "):
            left, right = statement.split(" = ")
            if left == "y":
                known["y"] = value(right, known)
            elif value(left, known) != value(right, known):
                break
        else:
            found.append(known[wanted])
    return found


def percentages(question: str) -> list[object]:
    percent = Fraction(int(re.search(r"(\d+)%", question)[1]), 100)
    if match := re.search(r"% of (\d+)\?", question):
        return [percent * int(match[1])]
    base = int(re.search(r"costs (\d+) dollars", question)[1])
    count = re.search(r"What do (\d+) cost", question)
    price = base * (1 + percent if "more" in question else 1 - percent)
    return [price * (int(count[1]) if count else 1)]


def sequences(question: str) -> list[object]:
    a, b, c, d, e = numbers(question)
    bend = (c - b) - (b - a)
    assert (d - c) - (c - b) == (e - d) - (d - c) == bend
    following = e + (e - d) + bend
    return [following + (e - d) + 2 * bend if "after the next" in question else following]


def rates(question: str) -> list[object]:
    far, hours, *rest = numbers(question)
    *faster, more = rest
    then = (Fraction(far, hours) + sum(faster)) * more
    return [far + then if "in all" in question else then]


def pairs(question: str) -> list[object]:
    total, product = numbers(question)
    return [a for a in range(total + 1) if a * (total - a) == product and 2 * a >= total]


def animals(question: str) -> list[object]:
    heads, legs = numbers(question)
    return [cows for cows in range(heads + 1) if 4 * cows + 2 * (heads - cows) == legs]


def remainders(question: str) -> list[object]:
    below, r, p, s, q = numbers(question)
    return [n for n in range(below) if n % p == r and n % q == s]


def subsets(question: str) -> list[object]:
    *given, target = numbers(question)
    chosen = (c for n in range(1, len(given) + 1) for c in itertools.combinations(sorted(given), n))
    return [" + ".join(map(str, c)) for c in chosen if sum(c) == target]


def coins(question: str) -> list[object]:
    total, count, *kinds = numbers(question)
    ways = itertools.combinations_with_replacement(sorted(kinds), count)
    return [" + ".join(map(str, way)) for way in ways if sum(way) == total]


def worksheets(question: str) -> list[object]:
    parts = re.split(r" ?(?:Ada|Ben|Cleo|Dan|Eva): ", question)[1:]
    answers = [SOLVERS[kind_of(part)](part) for part in parts]
    return ["; ".join(map(str, some)) for some in itertools.product(*answers)]


def kind_of(part: str) -> str:
    return {"Which": "subsets", "Pay": "coins"}[part.split(maxsplit=1)[0]]


SOLVERS: dict[str, Callable[[str], list[object]]] = {
    "quantities": quantities,
    "expressions": lambda question: [value(question.removeprefix("Compute ").rstrip("."))],
    "equations": equations,
    "fractions": lambda question: [value(question.removeprefix("Compute ").rstrip("."))],
    "percentages": percentages,
    "sequences": sequences,
    "rates": rates,
    "divisors": lambda question: [math.gcd(*numbers(question))],
    "pairs": pairs,
    "animals": animals,
    "remainders": remainders,
    "subsets": subsets,
    "coins": coins,
    "worksheets": worksheets,
}


@pytest.mark.parametrize("subject", SOLVERS)
def test_the_answer_is_the_only_right_one(subject: str) -> None:
    for exercise in drawn(subject):
        question = exercise.problem.question
        assert [str(a) for a in SOLVERS[subject](question)] == [exercise.problem.reference], (
            question
        )


def test_every_subject_but_the_number_games_has_one_right_answer() -> None:
    assert {*SOLVERS, "countdown"} == set(SUBJECTS) == {*LOCAL, *CHOICE}


# --- worked solutions --------------------------------------------------------------------------


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_worked_solution_is_graded_right(subject: str) -> None:
    for exercise in drawn(subject):
        assert grade(exercise.problem, extract(exercise.solution)), exercise
        assert not grade(exercise.problem, "1 + 1 + 0"), exercise


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_question_is_one_line_and_a_step_too(subject: str) -> None:
    for exercise in drawn(subject):
        question, lines = exercise.problem.question, exercise.solution.split("\n")
        assert question == " ".join(question.split())
        assert question.endswith((".", "?"))
        assert lines.pop() == ""
        assert all(lines)
        assert [line.startswith("Answer: ") for line in lines] == [False] * (len(lines) - 1) + [
            True
        ]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_equation_in_a_solution_holds(subject: str) -> None:
    for exercise in drawn(subject):
        *lines, answer = exercise.solution.splitlines()
        parts = [part for line in lines for part in line.split(", ") if " = " in part]
        stated = [part.rpartition(": ")[2].split(" = ") for part in parts]
        assert stated or subject in ("subsets", "coins", "worksheets")
        known = {
            sides[0]: Fraction(sides[-1])
            for sides in stated
            if sides[0].isalpha() and sides[-1].isdigit()
        }
        for sides in stated:
            assert len({value(side, known) for side in sides}) == 1, exercise
        if subject in {*LOCAL} - {"divisors"}:  # the last line computes the answer
            assert answer == "Answer: " + lines[-1].rpartition(" = ")[2]


def test_euclid_goes_on_to_the_divisor() -> None:
    for exercise in drawn("divisors"):
        *lines, answer = exercise.solution.splitlines()
        steps = [numbers(line) for line in lines]
        assert all(0 <= rest < small for _, _, small, rest in steps)
        assert all(a[2:] == b[::2] for a, b in itertools.pairwise(steps))  # divisor, rest
        assert (answer, steps[-1][3]) == (f"Answer: {steps[-1][2]}", 0)


def test_an_expression_keeps_its_value_from_line_to_line() -> None:
    for exercise in drawn("expressions"):
        rests = re.findall(r", (.*)", exercise.solution)
        assert {str(value(rest)) for rest in rests} <= {exercise.problem.reference}


def test_relations_come_before_the_numbers() -> None:
    for exercise in drawn("quantities"):
        words = [
            any(name in line.split(" = ")[1] for name in pocketmath.NAMES)
            for line in exercise.solution.splitlines()[:-1]
        ]
        assert words == sorted(words, reverse=True)


def test_nobody_has_less_than_nothing() -> None:
    """A fact that nobody asks about is as possible as the others."""
    for exercise in drawn("quantities"):
        assert all(0 < n < 1000 for n in amounts(exercise.problem.question).values())


# What a guess is checked by: which number of its line is to be which of the question.
GUESSED = {"pairs": (7, 1), "animals": (7, 1), "remainders": (8, 3)}


@pytest.mark.parametrize("subject", GUESSED)
def test_a_wrong_guess_is_found_out_by_its_check(subject: str) -> None:
    found, wanted = GUESSED[subject]
    for exercise in drawn(subject):
        asked = numbers(exercise.problem.question)[wanted]
        *wrong, right, answer = exercise.solution.splitlines()
        assert numbers(right)[found] == asked
        assert numbers(right)[0] == int(answer.removeprefix("Answer: "))
        assert all(line.endswith(", no") and numbers(line)[found] != asked for line in wrong)
        assert len({numbers(line)[0] for line in [*wrong, right]}) == len(wrong) + 1


@pytest.mark.parametrize("subject", GUESSED)
def test_how_many_guesses_were_wrong_tells_nothing_of_the_next(subject: str) -> None:
    rng = random.Random(1)
    tries = Counter(pocketmath.exercise(rng, subject, 5).solution.count("Try") for _ in range(4000))
    for n in (1, 2, 3):
        begun = sum(tries[k] for k in range(n, 6))
        assert abs(tries[n] / begun - 0.6) < 4 * math.sqrt(0.24 / begun)


@pytest.mark.parametrize("subject", GUESSED)
def test_a_guess_is_not_learned_by_heart(subject: str) -> None:
    rng = random.Random(0)
    keys = {pocketmath.exercise(rng, subject, rng.choice(LEVELS)).key for _ in range(4000)}
    assert len(keys) > 1000


def test_a_number_game_uses_what_is_left() -> None:
    for exercise in drawn("countdown"):
        target, *left = numbers(exercise.problem.question)
        for line in exercise.solution.splitlines()[:-1]:
            a, _, b, _, result, *shown = re.sub(", left", "", line).split()
            left = sorted([*(Counter(left) - Counter([int(a), int(b)])).elements(), int(result)])
            assert sorted(map(int, shown)) == (left if len(left) > 1 else [])
        assert left == [target]


@pytest.mark.parametrize("subject", ["subsets", "coins"])
def test_what_is_left_to_pay_is_right(subject: str) -> None:
    for exercise in drawn(subject):
        *lines, answer = exercise.solution.splitlines()
        assert_taken(lines, answer, subject)


def assert_taken(lines: list[str], answer: str, subject: str) -> None:
    """The numbers of the answer are taken from the largest on, and what is left is right."""
    used = numbers(answer)
    for done, line in enumerate(lines, start=1):
        n, left, *coins_left = numbers(line)
        assert n == used[-done]
        assert left == sum(used[:-done])
        assert coins_left == ([len(used) - done] if subject == "coins" else [])
    assert len(lines) == len(used)


def test_a_sheet_is_its_problems_in_turn() -> None:
    """Each problem is worked in one line, as it would be alone in several."""
    kinds, counts = set(), set()
    for exercise in drawn("worksheets"):
        asked = re.split(r" ?\w+: ", exercise.problem.question)[1:]
        names = [word for word in exercise.problem.question.split() if word.endswith(":")]
        assert names == ["Ada:", "Ben:", "Cleo:", "Dan:", "Eva:"][: len(asked)]
        *lines, answer = exercise.solution.splitlines()
        assert [line.split()[0] for line in lines] == names
        answers = answer.removeprefix("Answer: ").split("; ")
        for part, line, own in zip(asked, lines, answers, strict=True):
            kinds.add(kind_of(part))
            assert_taken(line.split(": ", 1)[1].split(". "), own, kind_of(part))
        counts.add(len(lines))
    assert (kinds, counts) == ({"subsets", "coins"}, {2, 3, 4, 5})


def test_every_part_of_a_sheet_is_of_its_split() -> None:
    """A part's own problem, drawn alone, would be of the sheet's split too."""
    alone = {
        e.problem.question: e.key
        for subject in ("subsets", "coins")
        for level in (1, 2, 3)
        for e in [pocketmath.exercise(random.Random(f"{level}{n}"), subject, level)
                  for n in range(3000)]
    }  # fmt: skip
    met = 0
    for exercise in itertools.islice(exercises(9, "test", {("worksheets", 1): 1.0}), 400):
        for part in re.split(r" ?\w+: ", exercise.problem.question)[1:]:
            if part in alone:
                met += 1
                assert subjects.split_of(alone[part]) == "test"
    assert met > 50


# --- streams ------------------------------------------------------------------------------------


def digest(found: list[Exercise]) -> str:
    text = "\n".join(f"{e.problem!r} {e.solution!r} {e.key}" for e in found)
    return blake2b(text.encode(), digest_size=8).hexdigest()


@pytest.mark.parametrize(
    ("seed", "split", "expected"),
    [
        (0, "train", "11b182a1e3153da4"),
        (2024, "test", "8fc041cb937d39b9"),
        (2025, "calibration", "aaac10f05a00903b"),
    ],
)
def test_a_seed_gives_the_problems_it_always_gave(seed: int, split: str, expected: str) -> None:
    """Checkpoints, labels and shipped splits were made with these streams."""
    assert digest(taken(300, seed, split)) == expected


def test_equal_seeds_give_equal_streams_and_others_differ() -> None:
    assert taken(50, 3, "train") == taken(50, 3, "train")
    ours = {e.problem.question for e in taken(50, 3, "train")}
    theirs = {e.problem.question for e in taken(50, 4, "train")}
    assert len(ours & theirs) < 10


def test_weights_say_how_often_a_cell_is_drawn() -> None:
    found = taken(400, 1, "train", {("coins", 2): 3.0, ("rates", 5): 1.0})
    counts = Counter((e.problem.subject, e.problem.level) for e in found)
    assert set(counts) == {("coins", 2), ("rates", 5)}
    assert 250 < counts["coins", 2] < 350


def test_every_cell_has_problems_in_every_split() -> None:
    """Else a stream would look for one forever."""
    rng = random.Random(0)
    for subject, level in itertools.product(SUBJECTS, LEVELS):
        missing = {"train", "calibration", "test"}
        for _ in range(2000):
            missing.discard(subjects.split_of(pocketmath.exercise(rng, subject, level).key))
            if not missing:
                break
        assert not missing, (subject, level)


# --- leakage ------------------------------------------------------------------------------------

FRACTIONS = {("fractions", level): 1.0 for level in LEVELS}
GAMES = {("countdown", level): 1.0 for level in (4, 5)}


@pytest.fixture(scope="module")
def training() -> list[Exercise]:
    """Some of everything, and much of the two subjects that could leak."""
    return [*taken(2000, 5, "train"), *taken(2000, 6, "train", FRACTIONS),
            *taken(2000, 7, "train", GAMES)]  # fmt: skip


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[Exercise]]:
    return {split: list(data.draw_split(split, 500)) for split in ("test", "calibration")}


def test_splits_share_no_problem(training, shipped) -> None:
    parts = [training, *shipped.values()]
    for one, other in itertools.combinations(parts, 2):
        assert not {e.key for e in one} & {e.key for e in other}
        assert not {e.problem.question for e in one} & {e.problem.question for e in other}


def test_shipped_splits_repeat_nothing(shipped) -> None:
    for found in shipped.values():
        assert len({e.problem.question for e in found}) == len(found) == 500


def test_a_sum_with_several_common_denominators_is_known_as_shared() -> None:
    """The key of a sum of fractions holds its common denominator, its question does not."""
    rng = random.Random(0)
    by_question: dict[str, set[str]] = {}
    shared: dict[str, set[bool]] = {}
    for _ in range(3000):
        exercise = pocketmath.exercise(rng, "fractions", rng.choice(LEVELS))
        by_question.setdefault(exercise.problem.question, set()).add(exercise.key)
        shared.setdefault(exercise.problem.question, set()).add(exercise.shared)
        assert exercise.key not in exercise.others
    crossing = {q for q, keys in by_question.items() if len(set(map(subjects.split_of, keys))) > 1}
    assert len(crossing) > 10
    assert all(shared[question] == {True} for question in crossing)
    assert sum(flags == {False} for flags in shared.values()) > 100


def test_training_never_makes_24_from_four_numbers(training) -> None:
    hands = [numbers(e.problem.question) for e in training if e.problem.subject == "countdown"]
    assert sum(len(hand) == 5 for hand in hands) > 1000
    assert not [hand for hand in hands if len(hand) == 5 and hand[0] == 24]
    for split in ("test", "calibration"):
        games = taken(100, 8, split, GAMES)
        assert not [e for e in games if numbers(e.problem.question)[0] == 24]


def test_a_held_out_hand_occurs_with_no_target(training) -> None:
    keys = {e.key for e in training if e.problem.subject == "countdown"}
    assert not [key for key in keys if subjects.held_out(key)]
    met = {h.reference for h in pocketmath.hands_of_24() if f"numbers {h.reference[4:]}" in keys}
    assert len(met) > 80  # the other half is met


# --- the Game of 24 -----------------------------------------------------------------------------


def test_there_are_1362_hands() -> None:
    hands = pocketmath.hands_of_24()
    assert len({h.question for h in hands}) == len({h.id for h in hands}) == len(hands) == 1362
    held = sum(subjects.held_out(f"numbers {h.reference[4:]}") for h in hands)
    assert held > 600
    assert len(hands) - held > 600


@pytest.mark.parametrize(
    ("hand", "answer"),
    [
        ("3, 3, 8, 8", "8 / (3 - 8 / 3)"),
        ("4, 7, 8, 8", "(7 - 8 / 8) * 4"),
        ("1, 5, 5, 5", "5 * (5 - 1 / 5)"),
        ("1, 1, 1, 1", None),
        ("1, 1, 1, 10", None),
        ("13, 13, 13, 13", None),
    ],
)
def test_known_hands(hand: str, answer: str | None) -> None:
    found = [h for h in pocketmath.hands_of_24() if h.question == f"Make 24 from {hand}."]
    assert len(found) == (answer is not None)
    if answer:
        assert grade(found[0], answer)


def test_only_hands_are_held_out() -> None:
    for n in range(1, 14):
        for key in ("numbers {} 13 13", "numbers {} 13 13 14", "coins {} + 13", "x {} 1 1 1"):
            assert not subjects.held_out(key.format(n))
