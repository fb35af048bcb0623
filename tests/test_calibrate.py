"""Fitting: the known table comes back, ties are cheap, promises are kept, nothing is overfitted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import eval_maker
from ttsolve.calibrate import (
    Table,
    after_probe,
    best_of,
    binned,
    cross_validated,
    fit_budget,
    fit_policy,
    oracle,
    probed,
    table_of,
)
from ttsolve.confidence import Calibration, features
from ttsolve.difficulty import thresholds
from ttsolve.fit_confidence import (
    BEYOND,
    PROMISES,
    Votes,
    _bound,
    fit_calibration,
    fit_confidence,
    fit_logistic,
    fit_stops,
    look_sizes,
    played,
    pool_votes,
    predict,
)
from ttsolve.measure import Pool
from ttsolve.policy import Policy
from ttsolve.pools import vote_among


def pools(count: int, size: int = 32, seed: int = 0, scored: bool = True) -> list[Pool]:
    """Problems whose chance to be right is spread evenly over 0..1; wrong answers are two."""
    rng = np.random.default_rng(seed)
    made = []
    for chance in rng.random(count):
        right = rng.random(size) < chance
        answers = np.where(right, 0, rng.integers(1, 3, size))
        noise = rng.normal(0, 1, size)
        scores = 1 / (1 + np.exp(-noise - np.where(right, 1, -1)))
        made.append(Pool(answers, right, scores if scored else np.full(size, np.nan)))
    return made


def table(rates: dict[str, Sequence[float]], costs: dict[str, float], budget: int = 16) -> Table:
    """One budget, one value a problem."""
    size = len(next(iter(rates.values())))
    return Table(
        tuple(f"{i:012x}" for i in range(size)),
        {(name, budget): np.array(values, dtype=float) for name, values in rates.items()},
        {(name, budget): np.full(size, cost) for name, cost in costs.items()},
        tuple(pools(size)),
    )


# --- the table --------------------------------------------------------------------------------


def test_a_tie_goes_to_the_cheaper_whatever_the_order() -> None:
    even = np.array([1.0, 0, 1, 0])
    for names in ("ab", "ba"):
        rates = dict.fromkeys(names, even)
        assert best_of(rates, {"a": even * 0 + 5, "b": even * 0 + 3}) == "b"


def test_a_lead_within_its_standard_error_is_a_tie_and_a_clear_one_is_not() -> None:
    cheap, costs = np.zeros(100), {"cheap": np.ones(100), "dear": np.full(100, 9.0)}
    for wins, chosen in ((1, "cheap"), (30, "dear")):
        dear = np.where(np.arange(100) < wins, 1.0, 0)
        dear[-1] -= 0.5  # one problem that it spoils
        assert best_of({"cheap": cheap, "dear": dear}, costs) == chosen
    assert (
        best_of({"cheap": cheap, "dear": np.where(np.arange(100) < 1, 1.0, 0)}, costs, 0) == "dear"
    )


def test_one_problem_alone_is_no_evidence_unless_every_lead_counts() -> None:
    rates = {"cheap": np.zeros(1), "dear": np.ones(1)}
    costs = {"cheap": np.ones(1), "dear": np.full(1, 9.0)}
    assert best_of(rates, costs) == "cheap"
    assert best_of(rates, costs, 0) == "dear"


def test_cross_validation_does_not_reward_luck() -> None:
    """Ten strategies that are all coins: the best of them is no better than a coin."""
    rng = np.random.default_rng(0)
    coins = {str(i): rng.integers(0, 2, 400).astype(float) for i in range(10)}
    free = {name: np.zeros(400) for name in coins}
    bins = np.repeat(np.arange(1, 6), 80)
    picked = {b: best_of({n: v[bins == b] for n, v in coins.items()}, free, 0) for b in range(1, 6)}
    lucky = np.mean([coins[picked[b]][bins == b].mean() for b in range(1, 6)])
    assert lucky > 0.55
    assert abs(cross_validated(coins, free, bins, 0).mean() - 0.5) < 0.05


def test_what_a_probe_leaves_is_worth_between_the_budgets_around_it() -> None:
    values = {("beam", 8): np.array([0.2]), ("beam", 16): np.array([0.8])}
    assert after_probe(values, "beam", 7) is None
    assert after_probe(values, "beam", 8) == pytest.approx([0.2])
    assert (
        after_probe(values, "beam", 16) == after_probe(values, "beam", 99) == pytest.approx([0.8])
    )
    assert 0.2 < float(after_probe(values, "beam", 12)[0]) < 0.8


def test_no_probe_is_bought_where_it_tells_nothing() -> None:
    rng = np.random.default_rng(1)
    alike = {name: rng.integers(0, 2, 100).astype(float) for name in ("beam", "best-of-n")}
    fit = fit_budget(table(alike, {"beam": 3.0, "best-of-n": 2.0}), 16)
    assert (fit.choice.probe, fit.choice.thresholds) == (0, ())


def test_the_known_table_of_the_known_world_comes_back() -> None:
    seen = eval_maker.measured(6, ("best-of-n", "beam:width=4"), (8, 16))
    policy, fits = fit_policy(table_of(seen), probes=(0, 4))
    choice = policy.at(16)
    ease = probed([outcome.pools[0] for outcome in seen], choice.probe)
    chosen = [choice.strategies[choice.bin(value) - 1] for value in ease]
    wanted = [eval_maker.BEST[entry.problem.question.split()[0]] for entry in eval_maker.entries(6)]
    assert sum(a != b for a, b in zip(chosen, wanted, strict=True)) <= 1
    assert fits[-1].gain.value > 0.1


def test_predicted_and_oracle_difficulty_of_pools() -> None:
    some = pools(20)
    assert probed(some, 4)[0] == pytest.approx(some[0].scores[:4].mean())
    assert oracle(some)[0] == some[0].right.mean()
    mute = Pool(np.full(4, -1), np.zeros(4, dtype=bool), np.full(4, 0.9))
    assert probed([mute], 4)[0] == 0
    values = probed(some, 8)
    assert np.bincount(binned(values, thresholds(list(values))))[1:].tolist() == [4] * 5


def test_the_policy_names_the_problems_it_was_fitted_on() -> None:
    one = table({"best-of-n": [1.0, 0, 1]}, {"best-of-n": 1.0})
    assert set(fit_policy(one)[0].fitted_on) == set(one.contents)
    assert isinstance(fit_policy(one)[0], Policy)


# --- confidence -------------------------------------------------------------------------------


def test_the_logistic_fit_finds_the_weights_that_made_the_data() -> None:
    rng = np.random.default_rng(2)
    x = np.column_stack([np.ones(20000), rng.normal(size=(20000, 3))])
    true = np.array([-0.5, 1.0, 2.0, -1.0])
    right = rng.random(20000) < predict(x, true)
    assert fit_logistic(Votes(x, right, np.arange(20000))) == pytest.approx(true, abs=0.08)


def test_probabilities_hold_out_of_fold() -> None:

    fit, reliable = fit_calibration("best-of-n", pool_votes(pools(160), look_sizes(32)))
    assert reliable.error < 0.06
    assert reliable.problems == 160
    assert fit.probability(0.95, 0.9, 16) > fit.probability(0.5, 0.5, 16)
    twin = predict(np.array(features(0.7, 0.6, 8)), np.array(fit.weights))
    assert fit.probability(0.7, 0.6, 8) == pytest.approx(float(twin))


@pytest.mark.parametrize("scored", [True, False])
def test_a_promise_holds_on_problems_that_were_not_seen(scored) -> None:
    """Runs are played with the thresholds fitted elsewhere, as `auto` would play them."""

    sizes = look_sizes(32)
    seen, new = pools(160, scored=scored), pools(160, seed=9, scored=scored)
    calibration, _ = fit_calibration("best-of-n", pool_votes(seen, sizes, scored))
    for kept in fit_stops(seen, sizes, scored)[1:4]:
        stopped, right, spent = play(new, sizes, calibration, kept.stop.threshold, scored)
        assert stopped > 20
        half_width = 1.96 * np.sqrt(right * (1 - right) / stopped)
        assert right >= kept.stop.promise - half_width
        assert spent < 0.9


def play(some, sizes, calibration: Calibration, threshold: float, scored: bool):
    """(runs stopped early, share of these that is right, mean part of the budget)."""

    hits, spent = [], []
    for pool in some:
        for size in sizes:
            share, place = vote_among(pool, size, "weighted" if scored else "majority")
            score = float(pool.scores[place]) if scored else None
            if calibration.probability(share, score, size) >= threshold and size < sizes[-1]:
                hits.append(bool(pool.right[place]))
                break
        spent.append(size / sizes[-1])
    return len(hits), np.mean(hits), np.mean(spent)


def test_what_cannot_be_promised_is_not() -> None:
    rng = np.random.default_rng(3)
    coins = []
    for _ in range(80):
        right = np.full(16, rng.random() < 0.5)  # all samples agree, and half of them are wrong
        coins.append(Pool(np.zeros(16, dtype=np.int64), right, np.full(16, 0.5)))
    assert all(kept.stop.threshold == BEYOND for kept in fit_stops(coins, look_sizes(16)))


@pytest.mark.parametrize(("count", "kept"), [(4, []), (49, []), (60, [*PROMISES])])
def test_few_problems_that_are_all_right_promise_little(count, kept) -> None:
    """However many votes are held in them, and though none is wrong."""
    right = np.ones(64, dtype=bool)
    some = [Pool(np.zeros(64, dtype=np.int64), right, np.full(64, 0.99))] * count
    calibrations, _, promised = fit_confidence(some, [], [])
    assert [each.strategy for each in calibrations] == ["best-of-n", "majority"] * bool(kept)
    assert [one.stop.promise for one in promised if one.stop.threshold < BEYOND] == kept


def test_the_error_of_a_promise_is_not_0_where_all_are_right() -> None:
    for count, bound in (4, 0.811), (50, 0.980), (500, 0.998):
        stopped = np.ones((count, 16), dtype=bool)
        assert _bound(stopped, stopped) == pytest.approx(bound, abs=5e-4)
        assert _bound(stopped, stopped) == pytest.approx(count / (count + 1), abs=0.02)


def test_a_promise_must_hold_at_every_budget_with_a_margin() -> None:
    """Two looks: stopping at the first is half wrong, at the last always right."""
    chance = np.full((40, 1, 2), 0.99)
    right = np.ones((40, 1, 2), dtype=bool)
    assert played(0.9, 0.95, chance, right, [4, 8])[0]
    right[:6, :, 0] = False  # 34 of 40: 0.85
    assert played(0.9, 0.95, chance, right, [4, 8]) == (False, 0.85, 1.0, 0.5)
    assert not played(0.84, 0.95, chance, right, [4, 8])[0]  # within one standard error
    chance[:, :, 0] = 0.5
    assert played(0.9, 0.95, chance, right, [4, 8]) == (True, 1.0, 1.0, 1.0)
    chance[:6, :, 0] = 0.99  # only the wrong ones stop at once
    assert not played(0.8, 0.95, chance, right, [4, 8])[0]


def test_looks_double_up_to_the_budget() -> None:
    assert look_sizes(64) == [4, 8, 16, 32, 64]
    assert look_sizes(40, 2) == [2, 4, 8, 16, 32, 40]
    assert look_sizes(3) == [3]
