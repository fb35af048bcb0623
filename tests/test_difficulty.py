"""Bins of difficulty: equal parts, none empty, 1 the easiest."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttsolve.core import Problem, Solution, Step
from ttsolve.difficulty import bin_of, predicted, thresholds

chances = st.lists(st.floats(0, 1), min_size=1, max_size=60)
few = st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), min_size=1, max_size=60)


def solution(score: float | None, last: str = "Answer: 1\n") -> Solution:
    return Solution(Problem("q"), (Step(last, 3, score=score),), "stop")


def test_distinct_values_make_equal_bins_and_the_easiest_is_1() -> None:
    values = [i / 100 for i in range(100)]
    cuts = thresholds(values)
    counts = Counter(bin_of(value, cuts) for value in values)
    assert counts == {1: 20, 2: 20, 3: 20, 4: 20, 5: 20}
    assert (bin_of(0.99, cuts), bin_of(0.0, cuts)) == (1, 5)


@given(chances | few)
def test_no_bin_is_empty_and_easier_never_counts_as_harder(values) -> None:
    cuts = thresholds(values)
    bins = [bin_of(value, cuts) for value in sorted(values)]
    assert set(bins) == set(range(1, len(cuts) + 2))
    assert bins == sorted(bins, reverse=True)


def test_predicted_difficulty_is_the_mean_score_and_no_answer_counts_nothing() -> None:
    assert predicted([solution(0.8), solution(0.4)]) == pytest.approx(0.6)
    assert predicted([solution(0.8), solution(0.9, "no idea\n")]) == pytest.approx(0.4)
    assert predicted([solution(None)]) is predicted([]) is None
