"""Which loop takes which request: pictures of three loops, without a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from ttsolve.engine import Sampling
from ttsolve.engines import threads
from ttsolve.engines.cache import Ints
from ttsolve.engines.placing import Part, place
from ttsolve.engines.request import Request


class Caches:
    """What the caches of some loops hold, as texts."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def held(self, prefix: Ints) -> list[int]:
        text = "".join(map(chr, prefix))
        return [self.common(text, line) for line in self.texts]

    @staticmethod
    def common(text: str, other: str) -> int:
        return next((i for i in range(len(other)) if text[i : i + 1] != other[i]), len(other))


def asks(*prefixes: str) -> list[Request]:
    ids = (np.array([ord(c) for c in prefix], np.int32) for prefix in prefixes)
    return [Request(prefix, Sampling(), 9) for prefix in ids]


EMPTY = Caches("", "", "")
IDLE = (0, 0, 0)


def shares(n: int, load: Sequence[int], caches: Caches = EMPTY) -> list[int]:
    """How many of `n` samples of one problem each loop gets."""
    parts = place(asks(*["problem"] * n), load, caches.held)
    return [sum(len(p.requests) for p in parts if p.loop == i) for i in range(len(load))]


def loops(parts: Sequence[Part]) -> list[int]:
    return [part.loop for part in parts]


@pytest.mark.parametrize(
    ("n", "load", "expected"),
    [
        (1, IDLE, [1, 0, 0]),
        (15, IDLE, [15, 0, 0]),  # decoded once more, it would cost more than it brings
        (16, IDLE, [8, 8, 0]),
        (24, IDLE, [8, 8, 8]),
        (64, IDLE, [24, 24, 16]),
        (24, (0, 50, 0), [16, 0, 8]),  # who is busy gets none
        (24, (40, 50, 30), [0, 0, 24]),  # none would be idle: what they share is computed once
        (64, (40, 50, 30), [16, 8, 40]),
    ],
)
def test_samples_of_one_problem_are_shared_out_in_large_parts(n, load, expected):
    assert shares(n, load) == expected


def test_problems_go_where_there_is_least_to_do():
    assert loops(place(asks("a", "a", "b", "c", "d"), IDLE, EMPTY.held)) == [0, 1, 2, 1]
    assert loops(place(asks("a", "b"), (3, 1, 2), EMPTY.held)) == [1, 1]
    assert loops(place(asks("a", "b", "c"), (3, 1, 2), EMPTY.held)) == [1, 1, 2]


def test_among_the_idle_who_knows_a_problem_takes_it():
    caches = Caches("pears", "apples and", "apples")
    assert place(asks("apples and pears"), IDLE, caches.held)[0].loop == 1
    assert place(asks("apples and pears"), (0, 1, 0), caches.held)[0].loop == 2


def test_what_all_problems_begin_with_is_no_home():
    """A text before each of them, say, which one loop has decoded."""
    caches = Caches("Q: ", "", "")
    parts = place(asks(*(f"Q: {i} from the store" for i in range(6))), IDLE, caches.held)
    assert Counter(loops(parts)) == {0: 2, 1: 2, 2: 2}
    assert {part.source for part in parts} == {None}  # too little to copy


BEAMS = Caches("problem: step A step D", "problem: step B", "problem: step C")


def beams(*places: int) -> list[Request]:
    """So many beams of each prefix, side by side."""
    names = [name for name, n in zip("ABC", places, strict=True) for _ in range(n)]
    return asks(*(f"problem: step {name}" for name in names))


def test_beams_go_on_where_they_grew():
    parts = place(beams(4, 4, 4), IDLE, BEAMS.held)
    assert [(part.loop, part.source) for part in parts] == [(0, None), (1, None), (2, None)]
    parts = place(beams(4, 4, 4), (3, 0, 0), BEAMS.held)  # moved, they would change nothing
    assert loops(parts) == [0, 1, 2]


def test_beams_leave_a_busy_loop_with_their_cells():
    """As soon as the other has less to do even with them."""
    caches = Caches("problem: step A", "problem: step A or step B", "problem")
    few = place(asks(*["problem: step A or step B"] * 4), (9, 4, 0), caches.held)
    assert [(part.loop, part.source) for part in few] == [(2, 1)]
    many = place(asks(*["problem: step A or step B"] * 64), IDLE, caches.held)
    assert Counter(loops(many)) == {0: 3, 1: 3, 2: 2}
    assert {part.source for part in many if part.loop != 1} == {1}
    assert {part.source for part in many if part.loop == 1} == {None}


def test_an_equal_beam_of_two_loops_goes_to_the_idle_one():
    both = Caches("problem: step A", "problem: step A", "problem")
    [part] = place(asks("problem: step A"), (1, 0, 0), both.held)
    assert (part.loop, part.source) == (1, None)


def test_one_loop_gets_all():
    assert loops(place(asks("a", "b"), [7], Caches("a").held)) == [0, 0]
    assert place([], IDLE, EMPTY.held) == []


# --- how many loops and threads ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "width", "loops"),
    [(2, 64, 2), (8, 64, 4), (8, 128, 8), (2, 31, 1), (2, 1, 1), (1, 64, 1)],
)
def test_each_core_has_a_loop_with_enough_sequences(cores, width, loops, monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: cores)
    assert threads.loops_for(width) == loops


@pytest.mark.parametrize(("cores", "width"), [(2, 64), (4, 64), (8, 128), (64, 256)])
def test_nobody_named_a_width(cores, width, monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: cores)
    assert threads.most_lanes(256) == width


@pytest.mark.parametrize(
    ("alone", "together", "expected", "longest"),
    [
        (0.001, 0.0005, 8, 1),  # they help
        (0.001, 0.004, 1, 1),  # they wait for each other, or for other programs
        (7.0, 1.0, 8, 1),  # a large model: not timed with one
        (0.1, 0.07, 8, 1),
    ],
)
def test_threads_are_as_many_as_are_fastest(alone, together, expected, longest, monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 8)
    taken = []

    def seconds(n):
        taken.append(alone if n == 1 else together)
        return taken[-1]

    assert threads.fastest(seconds) == expected
    assert sum(taken) <= longest
