import contextlib
import itertools
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ttsolve import arithmetic, mathverify
from ttsolve.answers import MAX_LENGTH, answer_of, extract, group, same
from ttsolve.core import Problem, Solution, Step
from ttsolve.errors import MissingExtra

# --- finding ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("1 + 1 = 2\nAnswer: 2\n", "2"),
        ("Answer: 1\nno\nAnswer:   3/4  \n", "3/4"),
        ("Answer: $\\boxed{7}$", "7"),
        ("**Answer:** 42", "42"),
        ("**Answer: 42**\nthanks", "42"),
        ("Answer:\n42\n43", "42"),
        ("so \\boxed{1}, no: \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{a}\\boxed{cut {off}", "a"),
        ("\\boxed{x = \\boxed{5}}", "5"),
        ("so\n#### 1,000", "1,000"),
        ("Answer:", None),
        ("\\boxed{}", None),
        ("nothing", None),
        ("", None),
    ],
)
def test_extract(text, answer):
    assert extract(text) == answer


def test_the_mark_of_the_pair_comes_first():
    text = "Answer: 1\nResult: 2\n\\boxed{3}"
    assert [extract(text, mark) for mark in ("Answer:", "Result:", "\\boxed{}")] == ["1", "2", "3"]


def test_an_answer_that_was_cut_does_not_count():
    steps = (Step("Answer: 9\n", 3), Step("Answer: 12", 3))
    assert answer_of(Solution(Problem("q"), steps, "stop")) == "12"
    assert answer_of(Solution(Problem("q"), steps, "length")) == "9"
    assert answer_of(Solution(Problem("q"), steps[1:], "budget")) is None


def test_extract_is_linear():
    assert extract("\\boxed{" * 20_000) is None
    assert extract("{" * 100_000 + "}" * 100_000) is None


# --- comparing --------------------------------------------------------------------------------

ONE = [
    [
        "1/2",
        "0.5",
        ".50",
        r"\frac12",
        r"\dfrac{1}{2}",
        "$\\frac{2}{4}$",
        r"\left(\frac12\right)",
        "50\\%",
    ],
    ["1,000", "1000", "1{,}000", "1,\\!000", "1000.", "$1000$", "\\$1,000", "1000.00", " 1000"],
    ["-3", "- 3", "(-3)", "\u22123", "-3.0", "-6/2"],
    ["1/3", "0.333333", "0.33333333", r"\tfrac{1}{3}"],
    ["3 1/2", "7/2", "3.5", r"3\frac{1}{2}"],
    ["4 * 6", "6*4", "(4)*(6)", r"6 \times 4", "6\u00b74", r"$4 \cdot 6$"],
    ["(8 - 4) * (7 - 1)", "(7-1)*(8-4)"],
    ["9 - (3 - 1)", "9 + 1 - 3", "(1 - 3) + 9", "1 + (9 - 3)"],
    ["8 / (3 - 8 / 3)", "8/(3-(8/3))"],
    ["6 / (1 - 3/4)", r"\frac{6}{1-\frac{3}{4}}"],
    ["2 / (3 / 5)", "5 * 2 / 3", "2 / 3 * 5"],
    ["2 + 7 + 7", "7 + 2 + 7"],
    ["Yes", "yes.", r"\text{yes}"],
    ["B", "(B)", r"\text{(B)}"],
    [r"\sqrt{8}", r"2\sqrt{2}"],
    ["x^2 + 1", "1+x^2", "x**2 + 1"],
    ["2**3", "8", "2^3", "2 ** 3"],
    ["(1+1)**(1+1)", "4"],
    ["x = 5", "5"],
    [r"5\text{ cm}", "5", "5 apples"],
    ["(1, 2)", "(1,2)"],
    ["21; 7 + 12", "21;12 + 7", "42/2; (7 + 12)", "$21; 7 + 12$"],
    ["Yes; 0.5", r"yes; \frac12"],
]


@pytest.mark.parametrize("one", ONE, ids=lambda one: one[0])
def test_one_answer(one):
    assert [(a, b) for a, b in itertools.permutations(one, 2) if not same(a, b)] == []


@pytest.mark.parametrize(
    "many",
    [
        ["4 * 6", "3 * 8", "24", "4 * 6 * 1", "4 * (5 + 1)"],
        ["4 + 6", "4 * 6", "4 - 6", "6 - 4", "4 / 6 * 1"],
        ["2 + 7", "2 + 7 + 7", "7 + 7"],
        ["1/3", "0.33", "0.333", "3"],
        ["50", "0.5"],
        ["50%", "5", "0.05"],
        ["1000", "1", "100"],
        ["yes", "no", "0"],
        ["(1, 2)", "(1, 3)", "1", "2", "12"],
        [r"\sqrt{8}", r"\sqrt{2}", "2", "2.8"],
        ["x - y", "y - x"],
        ["21; 19", "19; 21", "21; 7 + 12", "21; 19; 19", "21", "40"],
        ["1; 2", "1;", "2; 1"],
        ["1/0", "0", "2/0"],
        ["2**3", "2**4", "2", "2**((3))", "2**99999999"],
        ["", "0"],
        ["\u0665", "5 * 1", "5"],
    ],
    ids=lambda many: many[0],
)
def test_different_answers(many):
    assert [(a, b) for a, b in itertools.permutations(many, 2) if same(a, b)] == []


def test_group():
    answers = [
        "4*6",
        None,
        "0.5",
        "6*4",
        "3*8",
        r"\frac12",
        "24",
        "2\\sqrt2",
        "0.5",
        r"\sqrt8",
        None,
    ]
    assert group(answers) == [0, None, 1, 0, 2, 1, 3, 4, 1, 4, None]


def test_a_percentage_joins_one_reading_only():
    classes = group(["50", "50%", "0.5"])
    assert classes[0] != classes[2]
    assert classes[1] in (classes[0], classes[2])


@st.composite
def expressions(draw, depth=3):
    """Arithmetic as (text, a shuffled text that must be the same answer)."""
    if depth == 0 or draw(st.booleans()):
        number = str(draw(st.integers(1, 13)))
        return number, number
    (a, b), (c, d) = draw(expressions(depth - 1)), draw(expressions(depth - 1))
    op = draw(st.sampled_from("+-*/"))
    swapped = op in "+*" and draw(st.booleans())
    return f"({a}) {op} ({c})", f"({d}){op}({b})" if swapped else f"({b}){op}({d})"


texts = st.one_of(
    st.text(max_size=20),
    st.text("0123456789+-*/(). ", max_size=12),
    st.fractions().map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
    st.integers().map(lambda n: f"{n:,}"),
    expressions().map(lambda pair: pair[0]),
)
exact = st.one_of(
    st.fractions(max_denominator=8).map(str), expressions(2).map(lambda pair: pair[0])
)


@given(texts)
@settings(max_examples=200, deadline=None)
def test_reflexive(a):
    assert same(a, a)
    assert group([a, None, a]) == [0, None, 0]


@given(exact, exact)
@settings(max_examples=200, deadline=None)
def test_symmetric_and_the_grouping_of_two(a, b):
    assert same(a, b) == same(b, a) == (group([a, b]) == [0, 0])


@given(st.lists(exact | st.none(), max_size=12), st.randoms())
@settings(max_examples=100, deadline=None)
def test_grouping_is_an_equivalence_whatever_the_order(answers, rng):
    classes = group(answers)
    for (a, i), (b, j) in itertools.product(zip(answers, classes, strict=True), repeat=2):
        assert (i is None) == (a is None)
        if a is not None and b is not None:
            assert (i == j) == same(a, b)
    order = rng.sample(range(len(answers)), len(answers))
    shuffled = group([answers[i] for i in order])
    pairs = set(zip(shuffled, (classes[i] for i in order), strict=True))
    assert len(pairs) == len(set(classes))  # one to one: the same partition


@given(expressions())
def test_order_and_grouping_do_not_matter_and_keep_the_value(pair):
    first, second = map(arithmetic.parse, pair)
    assert arithmetic.canonical(first) == arithmetic.canonical(second)
    assert sorted(arithmetic.leaves(first)) == sorted(arithmetic.leaves(second))
    assert same(*pair)


@given(expressions(), expressions())
def test_one_form_has_one_value(a, b):
    first, second = arithmetic.parse(a[0]), arithmetic.parse(b[0])
    if arithmetic.canonical(first) == arithmetic.canonical(second):
        with contextlib.suppress(ZeroDivisionError):
            assert arithmetic.value(first) == arithmetic.value(second)


@given(expressions())
@example(("(1)/((1)/((1)-(1)))", ""))  # dividing by 1 / 0 is not multiplying by 0
@example(("1/(2/(3/0))", ""))
@example(("1/(2*(3/(1-1)))", ""))
def test_values_are_those_of_python(pair):
    text = pair[0]
    spelled = "".join(f"F({t})" if t.isdigit() else t for t in _split(text))
    try:
        expected = eval(spelled, {"F": Fraction})
    except ZeroDivisionError:
        with pytest.raises(ZeroDivisionError):
            arithmetic.value(arithmetic.parse(text))
    else:
        assert arithmetic.value(arithmetic.parse(text)) == expected


def _split(text):
    return ["".join(part) for _, part in itertools.groupby(text, key=str.isdigit)]


NOT = ["", "2 3", "2(3)", "2**3", "2//3", "(2", "2)", "+2", "2+", "x", "\u0663", "\u00b2", "1e9"]
BEYOND = ["1" * 500, "(" * 40 + "1" + ")" * 40, "-" * 40 + "1"]


@pytest.mark.parametrize("text", NOT + BEYOND)
def test_not_arithmetic(text):
    with pytest.raises(arithmetic.NotArithmetic):
        arithmetic.parse(text)


# --- hostile text, threads and forks ----------------------------------------------------------

HOSTILE = [
    "9**9**9**9",
    "9^{9^{9^{9}}}",
    "(10^{10^{10}})!",
    "((((10!)!)!)!)!",
    "(" * 900,
    "\\frac{1}{" * 90,
    "\\sqrt{" * 100 + "2" + "}" * 100,
    "1" * 100_000,
    "(" * 50_000 + "1" + ")" * 50_000,
    "\\int_0^{\\infty} e^{-x^{99}} \\sin(x^{x^x}) dx",
    "\ud800\x00\n",
]


@pytest.fixture
def hurried(monkeypatch):
    """Little time for each question, so that the test is quick."""
    ask = mathverify._worker.ask
    monkeypatch.setattr(mathverify, "PATIENCE", 100)  # other work on the machine is no reason
    monkeypatch.setattr(mathverify._worker, "ask", lambda a, b: ask(a, b, 0.2))
    yield
    mathverify.readable.cache_clear()
    mathverify.same.cache_clear()


@pytest.mark.usefixtures("hurried")
def test_hostile_text_ends_and_the_next_question_is_answered():
    for text in HOSTILE:
        assert not same(text, "\\sqrt{7}"), text[:40]
        assert same(text, text)
    assert group([*HOSTILE, HOSTILE[0]]) == [*range(len(HOSTILE)), 0]
    assert mathverify.same("\\sqrt{8}", "2\\sqrt{2}")


def test_a_worker_that_takes_too_long_by_the_clock_is_replaced(monkeypatch):
    worker = mathverify._worker
    assert worker.ask("\\sqrt{8}", "2\\sqrt{2}")
    with monkeypatch.context() as patch:
        patch.setattr(mathverify, "PATIENCE", 0.01)
        assert not worker.ask("9^{9^{9^{9}}}", "2")
    assert worker._process is None
    assert worker.ask("\\sqrt{8}", "2\\sqrt{2}")


def test_from_many_threads():
    pairs = [(f"{n}\\sqrt{{8}}", f"{2 * (n + n % 2)}\\sqrt{{2}}") for n in range(1, 17)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda pair: same(*pair), pairs)) == [n % 2 == 0 for n in range(1, 17)]


def test_an_interrupted_question_is_not_answered_by_the_next(monkeypatch):
    worker = mathverify._worker
    assert worker.ask("\\sqrt{8}", "2\\sqrt{2}")

    def interrupted(process, limit):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mathverify, "_reply", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.ask("\\sqrt{8}", "2\\sqrt{2}")
    assert not worker.ask("\\sqrt{8}", "\\sqrt{2}")


def test_without_math_verify_the_user_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(mathverify, "_SCRIPT", tmp_path / "missing.py")
    worker = mathverify.Worker()
    with pytest.raises(MissingExtra, match="pip install math-verify"):
        worker.ask("1", "1")
    assert worker._process is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_both_sides_have_their_own():
    worker = mathverify._worker
    assert worker.ask("\\sqrt{8}", "2\\sqrt{2}")
    process = worker._process
    child = os.fork()
    if child == 0:
        right = worker._process is None and worker.ask("\\pi^2", "\\pi\\pi")
        worker.close()
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert worker.ask("\\sqrt{18}", "3\\sqrt{2}")
    assert worker._process is process


ORPHAN = """
import os, sys, threading, time
from ttsolve import mathverify
import ttsolve.grade, ttsolve.vote
assert mathverify.same("\\\\sqrt8", "2\\\\sqrt2")
assert not {"sympy", "math_verify"} & set(sys.modules)
threading.Thread(target=mathverify._worker.ask, args=("9^{9^{9^9}}", "2", 0.5)).start()
time.sleep(0.1)
print(mathverify._worker._process.pid, flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_the_busy_worker_dies_with_its_parent_which_knows_no_sympy():
    run = subprocess.run([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, check=True)
    stat = Path(f"/proc/{int(run.stdout)}/stat")
    for _ in range(600):
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("it lives on")


def test_exact_answers_never_start_the_worker(monkeypatch):
    def asked(*_):
        raise AssertionError("asked")

    monkeypatch.setattr(mathverify.Worker, "ask", asked)
    answers = [str(n) for n in range(100)] + [f"{n} + {m}" for n in range(9) for m in range(9)]
    classes = group([*answers, None, "yes", "1/7", "25%", "7%", "0.1234567"])
    assert len(set(classes)) == 100 + 9 * 10 / 2 + 4  # n + m is m + n; 25% joins 25


def test_grouping_ends_in_time(monkeypatch):
    monkeypatch.setattr("ttsolve.answers.GROUP_LIMIT", 0.0)
    assert group(["\\sqrt8", "2\\sqrt2", "1", "1.0"]) == [0, 1, 2, 2]


def test_long_answers_equal_themselves_only():
    assert same("0" * (MAX_LENGTH - 1) + "1", "1")
    assert not same("0" * MAX_LENGTH + "1", "1")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>\nAnswer: 1\n</think>\n\nAnswer: 2\n", "2"),
        ("Answer: 1\n</think>\nAnswer: 2\n", "2"),  # the prompt opened it
        ("<think>\nAnswer: 1\n", None),  # it still thinks
        ("<think>\n\\boxed{1}</think>\nI do not know.", None),
    ],
)
def test_the_answer_stands_behind_the_thoughts(text, answer):
    assert extract(text) == extract(text, "\\boxed") == answer


def test_a_chat_model_may_mark_its_answer_otherwise():
    assert extract("The sum:\n#### 4", "\\boxed") == "4"
    assert extract("Answer: 4", "\\boxed") == "4"
