"""The policy's file, its table, and `auto`, which follows it inside the budget."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

import pytest

from ttsolve.auto import Auto, plan_for
from ttsolve.confidence import Calibration, Stop, stop_for
from ttsolve.core import Problem
from ttsolve.engine import Engine, Sampling
from ttsolve.engines.sim import SimGenerator, SimVerifier
from ttsolve.errors import PairError, UsageError
from ttsolve.pair import GeneratorFile
from ttsolve.policy import (
    FILE,
    PAPER,
    Choice,
    Policy,
    content_hash,
    planned,
    policy_of,
    read_policy,
    write_policy,
)
from ttsolve.render_result import choice_line
from ttsolve.solve import SIM, solve
from ttsolve.strategies import BeamSearch, BestOfN, Lookahead

FITTED = Policy(
    "a fit",
    (
        Choice(4, ("best-of-n",)),
        Choice(16, ("best-of-n", "beam:width=4", "majority"), 4, (0.25, 0.5)),
    ),
    generator="a",
    calibrations=(Calibration("best-of-n", (-1.0, 0.5, 1.0, 0.25)),),
    stops=(Stop(0.9, 0.93), Stop(0.95, 2.0)),
    fitted_on=("00ff",),
)
SURE = Calibration("best-of-n", (9.0, 0.0, 0.0, 0.0))  # of everything


def run(strategy, question="dice", verifier=True, **engine):
    dice = Engine(SimGenerator(), SimVerifier() if verifier else None, **engine)
    return solve(Problem(question), dice, strategy, SIM), dice


def always(text: str, probe: int = 4, **more) -> Policy:
    """The policy that chooses the same in both its bins."""
    choice = Choice(16, (text, text), probe, (0.5,)) if probe else Choice(16, (text,))
    return Policy("a test", (choice,), **more)


# --- the file ---------------------------------------------------------------------------------


def test_a_policy_comes_back_as_it_was_written(tmp_path) -> None:
    write_policy(FITTED, tmp_path / FILE)
    assert read_policy(tmp_path / FILE) == FITTED


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("probe = 4", "prob = 4", "choices.1.prob is not a known key: use 'probe'"),
        ("[0.25, 0.5]", "[0.25]", "choices.1.strategies has an impossible value"),
        ("[0.25, 0.5]", "[0.5, 0.25]", "choices.1.thresholds has an impossible value"),
        ("[0.25, 0.5]", '["0.25", 0.5]', "choices.1.thresholds.0 is '0.25': write a number"),
        ("budget = 16", "budget = 2", "choices has an impossible value"),
        ("[-1.0, 0.5", "[0.5", "calibrations.0.weights has an impossible value: give 4 numbers"),
        ("beam:", "beem:", "choices.1.strategies has an impossible value"),
        ("width=4", "wide=4", "choices.1.strategies has an impossible value"),
    ],
)
def test_a_wrong_file_is_told_in_one_sentence(tmp_path, old, new, sentence) -> None:
    file = tmp_path / FILE
    write_policy(FITTED, file)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(PairError) as caught:
        read_policy(file)
    assert sentence in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_pair_follows_its_own_table_and_without_one_the_papers(tmp_path) -> None:
    pair = replace(SIM, folder=tmp_path, generator=GeneratorFile("g", sha256="a"))
    assert policy_of(pair) is PAPER
    write_policy(FITTED, tmp_path / FILE)
    assert policy_of(pair) == FITTED
    other = policy_of(replace(pair, generator=GeneratorFile("g", sha256="b")))
    assert other.choices == PAPER.choices
    assert "fitted for other models" in other.about


def test_texts_name_strategies_with_their_settings() -> None:
    assert planned("beam:width=4", 16) == BeamSearch(16, 4)
    assert planned("lookahead:lookahead=3,width=2", 16) == Lookahead(4, 2, 3)
    for text in ("beam:width", "beam:width=2,width=4", "beam:=4", "beam:", "nobody"):
        with pytest.raises(UsageError):
            planned(text, 16)


def test_the_choice_is_that_of_the_nearest_budget() -> None:
    assert [PAPER.at(budget).budget for budget in (1, 8, 11, 12, 4096)] == [8, 8, 8, 16, 16]


def test_the_content_hash_sees_what_is_asked_not_how_it_is_spaced() -> None:
    assert content_hash("What is  1 + 1?\n") == content_hash("what is 1 + 1?")
    assert content_hash("What is 1 + 1?") != content_hash("What is 1 + 2?")


# --- auto -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3, 7, 16, 40])
@pytest.mark.parametrize("policy", [PAPER, always("beam:width=4"), always("lookahead", probe=0)])
def test_never_more_units_than_the_budget_and_the_probe_is_inside(n, policy) -> None:
    result, engine = run(Auto(n, policy), budget=n)
    assert 0 < engine.usage.units <= n
    assert all(candidate.finish == "stop" for candidate in result.candidates)
    assert engine.usage.units == sum(
        1 for e in engine.trace if e.verb == "sample" and not e.parent.steps
    ) * (1 if "lookahead" not in policy.choices[0].strategies[0] or n < 2 else 2)


def test_where_it_chooses_best_of_n_it_is_best_of_n_sample_for_sample() -> None:
    auto, _ = run(Auto(16, always("best-of-n")), seed=3)
    plain, _ = run(BestOfN(16), seed=3)
    assert auto.candidates == plain.candidates
    assert (auto.answer, auto.share) == (plain.answer, plain.share)


def test_the_probe_stays_a_candidate_of_a_search() -> None:
    search, _ = run(Auto(16, always("beam:width=4")), seed=1)
    probe, _ = run(BestOfN(4), seed=1)
    assert search.candidates[:4] == probe.candidates
    assert len(search.candidates) > 4


def test_the_output_tells_bin_strategy_and_why() -> None:
    told = run(Auto(16, FITTED))[0].settings
    assert (told["probe"], told["bins"], told["policy"]) == (4, 3, "a fit")
    assert told["chosen"] == FITTED.choices[1].strategies[told["bin"] - 1]
    assert f"bin {told['bin']} of 3" in told["why"]
    assert 0 < told["difficulty"] < 1


def test_a_budget_that_was_not_fitted_is_told() -> None:
    one_bin = always("best-of-n", probe=0)
    for n, told in ((16, ", by"), (15, ", the nearest that was tried, by")):
        why = run(Auto(n, one_bin))[0].settings["why"]
        assert why.startswith(f"the best at a budget of 16{told}")


def test_easy_and_hard_problems_are_told_apart() -> None:
    easy, hard = (
        [run(Auto(16), f"{i} p={chance}")[0].settings["bin"] for i in range(12)]
        for chance in (0.95, 0.2)
    )
    assert mean(easy) + 1 < mean(hard)


def test_without_a_verifier_it_takes_the_majority_and_says_so() -> None:
    result, engine = run(Auto(16), verifier=False)
    assert engine.usage.units == 16
    assert result.settings["chosen"] == "majority"
    assert "no verifier" in result.settings["why"]


# --- confidence -------------------------------------------------------------------------------


def test_what_is_sure_enough_stops_early_and_returns_the_rest() -> None:
    sure = always("best-of-n", calibrations=(SURE,), stops=(Stop(0.9, 0.9),))
    result, engine = run(Auto(64, sure, confidence=0.9))
    assert engine.usage.units == len(result.candidates) == 4
    assert result.settings["stopped"] is True
    assert run(Auto(64, sure))[1].usage.units == 64


@pytest.mark.parametrize("n", [1, 3, 4])
@pytest.mark.parametrize("chosen", ["beam:width=4", "best-of-n"])
def test_a_budget_too_small_for_a_look_is_spent_as_without_a_promise(n: int, chosen: str) -> None:
    sure = always(chosen, probe=0, calibrations=(SURE,), stops=(Stop(0.9, 0.9),))
    result, engine = run(Auto(n, sure, confidence=0.9), budget=n, seed=3)
    assert result.candidates == run(Auto(n, sure), budget=n, seed=3)[0].candidates
    assert engine.usage.units == n
    if chosen == "best-of-n":
        assert result.settings["probability"] > 0.9
        assert result.settings["stopped"] is False


def test_a_promise_nobody_can_keep_never_stops() -> None:
    never = always("best-of-n", calibrations=(SURE,), stops=(Stop(0.9, 2.0),))
    result, engine = run(Auto(40, never, confidence=0.9))
    assert engine.usage.units == 40
    assert result.settings["stopped"] is False
    assert result.candidates == run(BestOfN(40))[0].candidates


@pytest.mark.parametrize(("n", "chosen"), [(1, "best-of-n"), (2, "lookahead")])
def test_what_is_told_is_what_ran(n: int, chosen: str) -> None:
    """Where the budget is too small for the policy's choice, samples stand in."""
    told = run(Auto(n, always("lookahead", probe=0)), budget=n)[0].settings
    assert told["chosen"] == chosen
    assert told["why"].startswith("too few units are left for lookahead, ") is (n == 1)


def test_a_stricter_promise_stands_in_for_one_that_was_not_fitted() -> None:
    stops = (Stop(0.8, 0.82), Stop(0.9, 0.95))
    used = [stop_for(p, stops).threshold for p in (0.5, 0.8, 0.85, 0.9)]
    assert used == [0.82, 0.82, 0.95, 0.95]
    assert stop_for(0.99, stops).threshold == float("inf")
    policy = always("best-of-n", calibrations=(SURE,), stops=stops)
    for asked, told in ((0.8, "; 0.8 was asked"), (0.3, "0.3 was asked for, 0.8 is the next that")):
        result, _ = run(Auto(64, policy, confidence=asked))
        assert result.settings["promise"] == 0.8
        assert told in choice_line(result)


def test_a_probability_is_told_at_the_temperature_it_was_fitted_at_alone() -> None:
    policy = always("best-of-n", calibrations=(SURE,), stops=(Stop(0.9, 0.9),))
    auto = plan_for("auto", 8, SIM, policy=policy)  # fitted at the pair's own: it says no other
    cold = Sampling(temperature=0.0)
    assert "right with probability 1.00" in choice_line(run(auto)[0])
    result, _ = run(auto, sampling=cold)
    assert result.settings["probability"] is None
    assert "how surely right is known for temperature 1 alone" in choice_line(result)
    auto = plan_for("auto", 8, SIM, policy=replace(policy, temperature=0.0))
    assert "right with probability 1.00" in choice_line(run(auto, sampling=cold)[0])
    for fitted, temperature in ((None, 0.5), (0.5, None)):
        other = replace(policy, temperature=fitted)
        with pytest.raises(UsageError, match=r"was fitted at temperature .*: sample at that, or"):
            plan_for("auto", 8, SIM, confidence=0.9, policy=other, temperature=temperature)
    plan_for("auto", 8, SIM, confidence=0.9, policy=policy, temperature=1.0)


@pytest.mark.parametrize(
    ("name", "settings", "confidence", "sentence"),
    [
        ("best-of-n", {}, 0.9, "use it with --strategy auto"),
        ("auto", {}, 0.9, "run `ttsolve calibrate` first"),
        ("auto", {"width": 4}, None, "has no settings: name .* as in --strategy beam"),
        ("nobody", {}, None, "use auto, best-of-n"),
    ],
)
def test_what_cannot_be_planned_is_told(name, settings, confidence, sentence) -> None:
    with pytest.raises(UsageError, match=sentence):
        plan_for(name, 16, SIM, settings, confidence=confidence)
