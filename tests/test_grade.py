import pytest

from ttsolve.core import Problem
from ttsolve.errors import UsageError
from ttsolve.grade import countdown, grade

HAND = Problem("Make 24 from 4, 7, 8, 8.", "24: 4 7 8 8", "countdown")


@pytest.mark.parametrize("answer", ["(7 - 8 / 8) * 4", "4*(7-(8/8))", " ( ( 7 - 8/8 ) ) * 4 "])
def test_countdown_won(answer):
    assert grade(HAND, answer)


def test_countdown_is_exact():
    assert countdown("24: 3 3 8 8", "8 / (3 - 8 / 3)")
    assert countdown("24: 1 5 5 5", "5 * (5 - 1 / 5)")
    assert not countdown("1: 1 3 3 10", "3 * 3 / 10 + 1")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "24",
        "(7 - 8 / 8) * 4 = 24",
        "(7 - 8 / 8) * 4 * 1",
        "4 * 6",
        "(7 - 1) * 4",
        "7 + 8 + 8 + 4",
        "(7 - 88 / 8) * 4",
        "(7 - 8 / 8 * 4",
        "4(7 - 8 / 8)",
        "(7 - 8 // 8) * 4",
        "-(8 / 8 - 7) * 4",
        "4 * (7 + -8 / 8)",
        "(7.0 - 8 / 8) * 4",
        "(07 - 8 / 8) * 4",
        "(7 - 8 / 8) \u00d7 4",
        "(\uff17 - 8 / 8) * 4",
        "(7 - 8 / 8) * 4\n",
        "8 / (8 - 8) + 4 * 7",
        "4 / (7 - 8 + 8 - 7)",
        "7 ** 8 - 8 * 4",
        "9**9**9**9",
        "__import__('os')",
        "(" * 5000 + "7" + ")" * 5000,
        "(7 - 8 / 8) * 4" + " " * 10_000,
        None,
    ],
)
def test_countdown_lost(answer):
    assert not grade(HAND, answer)


def test_each_number_as_often_as_it_is_given():
    assert countdown("24: 4 7 8 8", "(7 - 8 / 8) * 4")
    assert not countdown("24: 4 6 8 8", "4 * 6 * 8 / 8 * 8 / 8")
    assert not countdown("24: 5 5 5 5 24", "24 + 5 / (5 / (5 - 5))")  # divides by zero
    assert not countdown("24: 3 8 8", "3 * 8")
    assert countdown("5: 5", "5")
    assert not countdown("0: 8 8 4", "4 / (8 - 8)")


def test_by_reference():
    assert grade(Problem("q", "1/2"), "0.5")
    assert grade(Problem("q", "3 + 4"), "4 + 3")
    assert not grade(Problem("q", "1/2"), "2")
    assert not grade(Problem("q", "1/2"), None)
    assert not grade(Problem("q", "6"), "2 * 3")  # nothing has been computed


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (Problem("q", id="p7"), "'p7' has no reference"),
        (Problem("q", "1", "chess"), "no checker 'chess': use one of countdown"),
        (Problem("q", "4 7 8 8", "countdown"), "like '24: 4 7 8 8', not '4 7 8 8'"),
    ],
)
def test_a_problem_that_cannot_be_graded(problem, message):
    with pytest.raises(UsageError, match=message):
        grade(problem, "1")
