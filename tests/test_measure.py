import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttsolve import measure, vote
from ttsolve.core import Problem, Solution, Step
from ttsolve.measure import Estimate, Pool

VOTES = {"weighted": vote.best_of_n_weighted, "best": vote.best_of_n, "majority": vote.majority}


def pool(answers, right, scores, **more):
    """Of lists; `right` are the classes that are right."""
    classes = np.array(answers)
    return Pool(classes, np.isin(classes, list(right)), np.array(scores, dtype=float), **more)


def judged(right, scores, **more):
    right = np.array(right, dtype=bool)
    return Pool(np.arange(len(right)), right, np.array(scores, dtype=float), **more)


# --- intervals --------------------------------------------------------------------------------


def test_an_estimate_reads_well():
    assert str(Estimate(0.4123, 0.38, 0.4449, 500)) == "0.412 [0.380, 0.445], n=500"


def test_mean_has_the_interval_of_the_normal_law():
    x = np.random.default_rng(1).normal(0.3, 0.2, 2000)
    out, half = measure.mean(x), 1.96 * x.std() / math.sqrt(len(x))
    assert (out.value, out.n) == (pytest.approx(x.mean()), 2000)
    assert out.high - out.value == pytest.approx(half, rel=0.1)
    assert out.value - out.low == pytest.approx(half, rel=0.1)
    assert out == measure.mean(x) != measure.mean(x, seed=1)


def test_mean_of_one_and_of_none():
    assert measure.mean([0.5]) == Estimate(0.5, 0.5, 0.5, 1)
    assert str(measure.mean([])) == "nan [nan, nan], n=0"


def test_pairing_removes_what_the_problems_share():
    rng = np.random.default_rng(0)
    difficulty = rng.random(400)
    a, b = difficulty + 0.02 + rng.normal(0, 0.02, 400), difficulty
    out = measure.paired(a, b)
    assert 0.01 < out.low < out.value < out.high < 0.03
    with pytest.raises(ValueError, match="same problems"):
        measure.paired(a, b[:1])


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson(right, total, low, high):
    """The third row of figures is of Newcombe (1998), table I."""
    out = measure.wilson(right, total)
    assert (out.value, out.n) == (right / total, total)
    assert (out.low, out.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_wilson_of_none():
    assert math.isnan(measure.wilson(0, 0).value)


# --- pass@k -----------------------------------------------------------------------------------


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(right, data):
    k = data.draw(st.integers(1, len(right)))
    subsets = list(itertools.combinations(right, k))
    expected = sum(map(any, subsets)) / len(subsets)
    assert measure.pass_rates([judged(right, right)], k)[0] == pytest.approx(expected)


def test_pass_at():
    pools = [judged([1, 0, 0, 0], [0] * 4), judged([1, 1, 1, 1], [0] * 4)]
    assert measure.pass_at(pools).value == 0.625
    assert measure.pass_at(pools, 2).value == 0.75
    assert measure.pass_at(pools, 4) == Estimate(1.0, 1.0, 1.0, 2)
    with pytest.raises(ValueError, match="at least 5"):
        measure.pass_at(pools, 5)


def test_quintiles():
    rates = [0, 0.25, 0.25, 0.5, 0.5, 0.5, 0.75, 0.75, 1, 1]
    pools = [judged([i < 4 * rate for i in range(4)], [0] * 4) for rate in rates[::-1]]
    assert measure.quintiles(pools) == [0.125, 0.375, 0.5, 0.75, 1]


# --- votes ------------------------------------------------------------------------------------

ballots = st.lists(
    st.tuples(st.sampled_from([-1, 0, 1, 2]), st.integers(0, 8).map(lambda n: n / 8)),
    min_size=1,
    max_size=8,
)


@given(st.lists(ballots, min_size=1, max_size=4), st.sampled_from(list(VOTES)))
@settings(deadline=None)
def test_many_votes_at_once_are_the_votes_of_vote(rows, method):
    n = min(map(len, rows))
    rows = [row[:n] for row in rows]
    answers = np.array([[a for a, _ in row] for row in rows])
    scores = np.array([[s for _, s in row] for row in rows])
    places = measure.winners(answers, scores, method)
    for row, place in zip(rows, places, strict=True):
        candidates = [_candidate(f"{i} {a}", a, s) for i, (a, s) in enumerate(row)]
        best = VOTES[method](candidates).best
        assert (None if place < 0 else candidates[place]) == best


def _candidate(question, answer, score):
    text = "none\n" if answer < 0 else f"Answer: {answer}\n"
    return Solution(Problem(question), (Step(text, 1, score=score),), "stop")


def test_unscored_votes_are_majorities():
    answers, nothing = np.array([[0, 1, 1, -1]]), np.full((1, 4), np.nan)
    assert [measure.winners(answers, nothing, method)[0] for method in VOTES] == [1, 1, 1]


@pytest.mark.parametrize("method", VOTES)
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_vote_rates_tend_to_the_mean_over_all_subsets(method, n):
    one = pool([0, 0, 1, 1, -1], {1}, [0.75, 0.125, 0.5, 0.25, 1.0])
    rows = np.array(list(itertools.permutations(range(5), n)))
    places = measure.winners(one.answers[rows], one.scores[rows], method)
    hits = [p >= 0 and one.right[row[p]] for row, p in zip(rows, places, strict=True)]
    rate = measure.vote_rates([one], method, n, draws=20_000)[0]
    assert rate == pytest.approx(np.mean(hits), abs=0.015)


def test_one_vote_is_pass_at_1_and_a_perfect_score_is_pass_at_n():
    rng = np.random.default_rng(0)
    pools = []
    for share in (0.1, 0.3, 0.7):
        right = rng.random(64) < share
        pools.append(judged(right, right + 0.1 * rng.random(64)))
    for n in (1, 4, 16):
        rates = measure.vote_rates(pools, "best", n, draws=4000)
        assert rates == pytest.approx(measure.pass_rates(pools, n), abs=0.03)
    assert measure.vote_rates(pools, "best", 64).tolist() == [1, 1, 1]


def test_votes_are_seeded_and_do_not_depend_on_the_other_pools_sizes():
    rng = np.random.default_rng(0)
    pools = [pool(rng.integers(-1, 4, 32), {0}, rng.random(32)) for _ in range(5)]
    rates = measure.vote_rates(pools, "weighted", 8)
    assert (rates == measure.vote_rates(pools, "weighted", 8)).all()
    assert (rates != measure.vote_rates(pools, "weighted", 8, seed=1)).any()
    assert (rates[:2] == measure.vote_rates(pools[:2], "weighted", 8)).all()
    with pytest.raises(ValueError, match="among 33"):
        measure.vote_rates(pools, "weighted", 33)


# --- AUC --------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.5, 1.0, np.nan])), max_size=10),
)
def test_separation_counts_pairs(samples):
    right = np.array([r for r, _ in samples], dtype=bool)
    values = np.array([v for _, v in samples], dtype=float)
    known = [(r, v) for r, v in samples if not math.isnan(v)]
    pairs = [(a, b) for (r, a), (w, b) in itertools.product(known, known) if r and not w]
    out = measure.separation(values, right)
    if pairs:
        assert out == pytest.approx(sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs))
    else:
        assert out is None


def test_auc_of_two_normals():
    rng = np.random.default_rng(0)
    right = rng.random(4000) < 0.5
    one = judged(right, rng.normal(right * 1.0, 1.0))
    expected = 0.5 * (1 + math.erf(1 / 2))  # Phi(distance / sqrt 2)
    assert measure.auc([one]).value == pytest.approx(expected, abs=0.02)


def test_auc_is_within_problems():
    """Scores that know a problem's difficulty and nothing else are worth nothing."""
    easy, hard = judged([1, 1, 1, 0], [0.9] * 4), judged([1, 0, 0, 0], [0.1] * 4)
    solved = judged([1, 1, 1, 1], [0.99] * 4)
    assert measure.auc([easy, hard, solved]) == Estimate(0.5, 0.5, 0.5, 2)


def test_auc_by_subject_and_by_any_value():
    a = judged([1, 0], [0.9, 0.1], subject="a", likelihood=np.array([-5.0, -2.0]))
    b = judged([1, 0], [0.5, 0.5], subject="b")
    out = measure.auc_by_subject([b, a, a])
    assert {subject: (e.value, e.n) for subject, e in out.items()} == {"a": (1, 2), "b": (0.5, 1)}
    likely = measure.auc([a, b], measure.likelihood_of)
    assert (likely.value, likely.n) == (0, 1)


def test_auc_by_step():
    nan = np.nan
    a = judged(
        [1, 0, 1], [0] * 3, steps=np.array([[0.5, 0.9, nan], [0.5, 0.1, 0.3], [0.5, 0.2, 0.4]])
    )
    b = judged([1, 0], [0] * 2, steps=np.array([[0.1], [0.2]]))
    out = measure.auc_by_step([a, b, judged([1, 0], [0, 0])])
    assert [(e.value, e.n) for e in out] == [(0.25, 2), (1.0, 1), (1.0, 1)]
    assert measure.auc_by_step([]) == []


# --- calibration ------------------------------------------------------------------------------


def test_calibration():
    scores = np.array([0.05, 0.1, 0.15, 0.95, 1.0, np.nan])
    table = measure.calibration(scores, np.array([0, 0, 1, 1, 1, 0], dtype=bool))
    rows = [(b.low, b.count, b.score, b.right) for b in table if b.count]
    assert rows == [
        (0.0, 1, 0.05, 0.0),
        (0.1, 2, pytest.approx(0.125), 0.5),
        (0.9, 2, pytest.approx(0.975), 1.0),
    ]
    assert len(table) == 10
    assert measure.calibration_error(table) == pytest.approx((0.05 + 2 * 0.375 + 2 * 0.025) / 5)


def test_honest_scores_have_little_error():
    rng = np.random.default_rng(0)
    scores = rng.random(50_000)
    table = measure.calibration(scores, rng.random(50_000) < scores)
    assert measure.calibration_error(table) < 0.02
    assert math.isnan(measure.calibration_error(measure.calibration(scores[:0], scores[:0] > 1)))
