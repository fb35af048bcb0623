"""Evaluation: pools stand for runs, resumed equals uninterrupted, no reference leaks."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest

import eval_maker
from dice_maker import Counting
from ttsolve import plots, report
from ttsolve.answers import answer_of
from ttsolve.auto import Auto
from ttsolve.calibrate import fit_policy, table_of
from ttsolve.cli import main
from ttsolve.confidence import Calibration, Stop
from ttsolve.core import Problem
from ttsolve.dataset import Entry
from ttsolve.engine import Engine
from ttsolve.engines.sim import RIGHT_ANSWER, SimGenerator, SimVerifier
from ttsolve.errors import UsageError
from ttsolve.eval_files import known_problems
from ttsolve.fields import Fields
from ttsolve.grid import Grid, sizes
from ttsolve.policy import Choice, Policy, content_hash, policy_of, read_policy
from ttsolve.pools import pool_of, rescored, unscored, vote_among
from ttsolve.solve import SIM, solve
from ttsolve.store import Store
from ttsolve.strategies import STRATEGIES, BestOfN, Majority
from ttsolve.vote import best_of_n_weighted, majority, score_of

BOTH = ("best-of-n", "beam:width=4")


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def ttsolve(capsys):
    """Runs the command line in this process."""

    def run(*arguments: object) -> Done:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return Done(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def dice(tmp_path):
    """A file of problems for dice."""
    file = tmp_path / "dice.jsonl"
    chances = (0.5, 0.7, 0.9)
    records = [{"id": i, "problem": f"dice {i} p={chances[i % 3]}", "answer": 42} for i in range(9)]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


# --- rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 4, 16])
@pytest.mark.parametrize("strategy", [BestOfN, Majority])
def test_a_pools_first_samples_are_the_run_of_that_budget(n, strategy) -> None:
    for number in range(8):
        problem = Problem(f"dice {number} p=0.7", reference=RIGHT_ANSWER)
        pool_run, run = (
            solve(problem, Engine(SimGenerator(), SimVerifier()), kind, SIM)
            for kind in (BestOfN(16), strategy(n))
        )
        pool = pool_of(pool_run.candidates, problem, SIM)
        method = "weighted" if strategy is BestOfN else "majority"
        share, place = vote_among(pool if strategy is BestOfN else unscored(pool), n, method)
        assert answer_of(pool_run.candidates[place]) == run.answer
        assert share == pytest.approx(run.share)
        vote = (best_of_n_weighted if strategy is BestOfN else majority)(run.candidates)
        assert bool(pool.right[place]) == (vote.answer == RIGHT_ANSWER)


@pytest.mark.parametrize("by", ["last", "min", "prod"])
def test_a_rescored_pool_has_the_scores_that_its_solutions_have(by) -> None:
    problem = Problem("dice p=0.7", reference=RIGHT_ANSWER)
    result = solve(problem, Engine(SimGenerator(), SimVerifier()), BestOfN(8), SIM)
    pool = rescored(pool_of(result.candidates, problem, SIM), by)
    assert pool.scores == pytest.approx([score_of(c, by) for c in result.candidates])
    blind = solve(problem, Engine(SimGenerator()), BestOfN(8), SIM)
    assert np.isnan(rescored(pool_of(blind.candidates, problem, SIM), by).scores).all()


def test_every_cell_has_a_row_and_no_row_more_units_than_its_budget() -> None:
    grid = ((*BOTH, "auto", "majority", "lookahead"), (1, 4, 16))
    (outcome, *_) = eval_maker.measured(1, *grid, seeds=(0, 1))
    cells = {(row.strategy, row.budget, row.seed) for row in outcome.rows}
    assert len(cells) == len(outcome.rows) == 2 * (4 * 3 + 2)  # a lookahead takes 2 units
    assert all(0 < row.units <= row.budget for row in outcome.rows)
    assert all(row.oracle is not None and 0 <= row.rate <= 1 for row in outcome.rows)


def test_a_row_says_how_well_the_scores_of_its_candidates_tell_right_from_wrong() -> None:
    outcomes = eval_maker.measured(12, (*BOTH, "majority"), (1, 16))
    rows = [row for outcome in outcomes for row in outcome.rows]
    told = report.areas(rows)
    assert set(told) == {(16, name) for name in BOTH}  # no scores; one candidate is not two
    for outcome in outcomes:
        (pool,) = outcome.pools
        (own,) = (r for r in outcome.rows if (r.strategy, r.budget) == ("best-of-n", 16))
        a, b = pool.scores[pool.right][:, None], pool.scores[~pool.right]
        expected = ((a > b) + (a == b) / 2).mean() if a.size and b.size else None
        assert own.auc == pytest.approx(expected)
    assert told[16, "best-of-n"].value > 0.5  # the dice's verifier is worth something


def test_a_budget_too_small_for_a_strategy_is_left_out() -> None:
    assert sizes("lookahead:lookahead=3", (2, 4, 16)) == [4, 16]
    assert sizes("auto:confidence=0.9", (2, 4)) == [2, 4]
    with pytest.raises(UsageError):
        sizes("lookahead:lookahead=3", (1, 2))
    assert Grid((*BOTH, "majority"), (4, 16)).units == 16 + 4 + 16


def test_a_problem_without_a_known_answer_cannot_be_measured() -> None:
    evaluator = eval_maker.evaluator(BOTH, (4,))
    with pytest.raises(UsageError, match=r"line 7.*known answer"):
        evaluator(Entry(7, "a", Problem("dice")))


# --- the store --------------------------------------------------------------------------------


def timeless(outcomes):
    return [replace(row, seconds=0.0) for outcome in outcomes for row in outcome.rows]


def test_interrupted_and_resumed_is_uninterrupted_and_computes_nothing_twice(tmp_path) -> None:
    grid = ((*BOTH, "auto"), (4, 8))
    whole = Counting()
    expected = timeless(eval_maker.measured(1, *grid, models=(whole, SimVerifier())))
    stop = threading.Event()
    first = Counting(then={whole.drawn // 2: stop.set})
    with Store(tmp_path / "store.db") as store:
        models = (first, SimVerifier())
        part = eval_maker.measured(1, *grid, models=models, store=store, stop=stop)
    assert 0 < len(timeless(part)) < len(expected)
    second = Counting()
    with Store(tmp_path / "store.db") as store:
        rest = eval_maker.measured(1, *grid, models=(second, SimVerifier()), store=store)
    assert timeless(rest) == expected
    assert second.drawn < whole.drawn * 0.6
    third = Counting()
    with Store(tmp_path / "store.db") as store:
        again = eval_maker.measured(1, *grid, models=(third, SimVerifier()), store=store)
    assert (timeless(again), third.drawn) == (expected, 0)
    assert all(row.seconds > 0 for outcome in again for row in outcome.rows)


# --- leaks ------------------------------------------------------------------------------------

POISON = "the reference must not be read"


def clean(solutions) -> None:
    attempts = [attempt for solution in solutions for attempt in solution.attempts]
    for solution in (*solutions, *attempts):
        problem = solution.problem
        known = (problem.reference, problem.check, problem.level, problem.subject)
        assert known == (None, None, None, None), POISON
        assert POISON not in problem.question


@dataclass
class WaryGenerator(SimGenerator):
    def sample(self, prefixes, how, watch=None, stop=None):
        clean(prefixes)
        return super().sample(prefixes, how, watch, stop)


@dataclass
class WaryVerifier(SimVerifier):
    def score(self, solutions):
        clean(solutions)
        return super().score(solutions)


def test_a_poisoned_reference_reaches_no_generator_verifier_or_policy() -> None:
    policy = Policy(
        "a test",
        (Choice(8, ("best-of-n", "beam:width=4"), 4, (0.5,)),),
        calibrations=(Calibration("best-of-n", (0.0, 1.0, 1.0, 0.1)),),
        stops=(Stop(0.9, 0.95),),
    )
    rows = []
    for reference in (POISON, RIGHT_ANSWER):
        problem = Problem("dice", reference, level=5, subject=POISON)
        evaluator = eval_maker.evaluator(
            (*STRATEGIES, "auto", "auto:confidence=0.9"),
            (4, 8),
            models=(WaryGenerator(), WaryVerifier()),
            policy=policy,
        )
        rows.append(evaluator(Entry(1, "a", problem)).rows)
    blind = [
        [replace(row, right=0, rate=0, oracle=None, auc=None, seconds=0) for row in each]
        for each in rows
    ]
    assert blind[0] == blind[1]
    assert not any(row.right for row in rows[0])


def test_calibrate_refuses_a_pairs_own_test_split_unasked(pocket, tmp_path, ttsolve) -> None:
    target = tmp_path / "policy.toml"
    done = ttsolve("calibrate", pocket.folder / "data" / "test.jsonl", "--limit", 7, "-o", target)
    assert (done.code, done.out, target.exists()) == (2, "", False)
    assert "7 of the problems are in" in done.err
    assert "must stay unseen" in done.err


def test_a_trial_on_a_few_problems_spares_a_fit_on_many(pocket, tmp_path, ttsolve) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(pocket.folder, mine)
    before = (mine / "policy.toml").read_bytes()
    few = ("calibrate", mine / "data" / "calibration.jsonl", "--pair", mine, "--limit", 7)
    done = ttsolve(*few)
    assert (done.code, (mine / "policy.toml").read_bytes()) == (2, before)
    assert re.search(
        r"is a fit on \d+ problems of calibration.jsonl, and these are 7: say", done.err
    )
    done = ttsolve(*few, "--budgets", 4, "--strategy", "majority", "-o", tmp_path / "few.toml")
    assert (done.code, len(read_policy(tmp_path / "few.toml").fitted_on)) == (0, 7), done.err


def test_what_ships_was_fitted_on_the_calibration_split_alone(pocket) -> None:
    hashes = {}
    for split in ("calibration", "test"):
        known = known_problems(pocket.folder / "data" / f"{split}.jsonl", Fields(), None)
        hashes[split] = {content_hash(entry.problem.question) for entry in known}
    assert not hashes["calibration"] & hashes["test"]
    fitted_on = set(policy_of(pocket).fitted_on)  # empty: there is no policy of its own
    assert fitted_on <= hashes["calibration"]


def test_calibrate_refuses_the_test_split_by_what_it_asks(dice, tmp_path, ttsolve) -> None:
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"problem": "Dice  4 P=0.7", "answer": "no matter"}) + "\n")
    target = tmp_path / "policy.toml"
    done = ttsolve(
        *("calibrate", dice, "--pair", "sim", "--budgets", "4", "-o", target, "--test", test)
    )
    assert (done.code, done.out) == (2, "")
    assert "1 of the problems are in" in done.err
    assert not target.exists()


# --- reports ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def some():
    return eval_maker.measured(2, (*BOTH, "auto"), (4, 8))


def test_a_report_has_every_strategy_by_budget_and_by_bin(some, tmp_path) -> None:
    rows = [row for outcome in some for row in outcome.rows]
    points = report.points(rows) + report.optimal_points(table_of(some))
    assert {point.strategy for point in points} == {
        *(*BOTH, "auto"),
        *(f"compute-optimal, {kind} bins" for kind in ("oracle", "predicted")),
    }
    assert all(point.right.low <= point.right.value <= point.right.high for point in points)
    binned = report.points_by_bin(rows, "predicted")
    assert {point.bin for point in binned} == set(report.bins_of(rows, "predicted").values())
    one = [p.right.n for p in binned if (p.strategy, p.budget) == ("auto", 4)]
    assert sum(one) == len(some)
    same = report.against(rows, "auto", "auto")
    assert {budget: each.value for budget, each in same.items()} == {4: 0, 8: 0}
    for suffix in (".png", ".svg"):
        plots.plot_budgets(points, tmp_path / f"a{suffix}", "a title")
        plots.plot_bins(binned, tmp_path / f"b{suffix}", "a title")
        assert (tmp_path / f"b{suffix}").stat().st_size > 5000
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_auto_with_the_fitted_policy_beats_the_best_single_strategy() -> None:
    """On problems of the known world that the fit has not seen."""
    policy, _ = fit_policy(table_of(eval_maker.measured(6, BOTH, (8, 16))), probes=(0, 4))
    evaluator = eval_maker.evaluator((*BOTH, "auto"), (16,), policy=policy)
    new = [
        Entry(1, str(i), Problem(f"{word} new {i} p={p}", reference=RIGHT_ANSWER))
        for i in range(4)
        for word, p in eval_maker.LEVELS.items()
    ]
    assert not {content_hash(e.problem.question) for e in new} & set(policy.fitted_on)
    rows = [row for entry in new for row in evaluator(entry).rows]
    right = {
        name: sum(row.right for row in rows if row.strategy == name) for name in (*BOTH, Auto.name)
    }
    assert right["auto"] > max(right[name] for name in BOTH)


# --- the command line -------------------------------------------------------------------------


def test_eval_and_calibrate_as_a_user_runs_them(dice, tmp_path, ttsolve) -> None:
    rows, policy, plot = (tmp_path / name for name in ("rows.csv", "policy.toml", "plot.svg"))
    common = ("--pair", "sim", "--budgets", "4,8", "--strategy", "best-of-n")
    fitted = ttsolve(*("calibrate", dice, *common, "--strategy", "beam:width=4", "-o", policy))
    assert (fitted.code, policy.exists()) == (0, True), fitted.err
    assert "budget 8: right 0." in fitted.out
    assert read_policy(policy).temperature == 1.0  # the dice's own
    done = ttsolve(
        *("eval", dice, *common, "--strategy", "auto", "--policy", policy, "-o", rows),
        *("--plot", plot, "--by-bin", "oracle"),
    )
    assert done.code == 0, done.err
    assert "The policy was fitted on 9 of these 9 problems" in done.err
    assert "auto over best-of-n, budget 8: " in done.out
    assert len(rows.read_text().splitlines()) == 1 + 9 * 2 * 2
    assert plot.read_text().lstrip().startswith("<?xml")
    assert (tmp_path / "plot-bins.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--budgets", "4,x"], "The budgets '4,x' cannot be spent"),
        (["--strategy", "nobody"], "There is no strategy 'nobody'"),
        (["--strategy", "auto:confidence=1.5"], "has no calibration for 1.5"),
        (["--by-bin", "size"], "There are no 'size' bins"),
        (["--plot", "a.gif"], "name a file that ends in .png or .svg"),
        (["--answer-field", "solution"], "There is no field 'solution'"),
        (["-o", "rows.xls"], "Cannot write rows into rows.xls: name a file in .jsonl or .csv."),
        (["--policy", "nope.toml"], "name a file that `ttsolve calibrate` has written"),
        (["-o", "here"], "here is a folder: choose a file for the rows."),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    arguments, sentence, dice, ttsolve, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    done = ttsolve("eval", dice, "--pair", "sim", *arguments)
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(("again", "said"), [(1, "1 of the 10 problems"), (3, "3 of the 12")])
def test_what_is_there_twice_is_measured_once_and_told(again, said, dice, ttsolve) -> None:
    lines = dice.read_text().splitlines(keepends=True)
    dice.write_text("".join([*lines, *lines[:again]]))
    done = ttsolve("eval", dice, "--pair", "sim", "--budgets", "4", "--strategy", "best-of-n")
    (line,) = [line for line in done.err.splitlines() if "measured once" in line]
    assert (done.code, line.startswith(said)) == (0, True)
    assert ("repeats another" if again == 1 else "repeat another") in line
    assert " 9 " in done.out


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
@pytest.mark.parametrize("way", ["itself", "symbolic", "hard"])
@pytest.mark.parametrize("command", ["eval", "calibrate"])
def test_nothing_that_is_read_is_overwritten(command, way, dice, tmp_path, ttsolve) -> None:
    """Neither the problems nor the store, nor the problems that must stay unseen."""
    store, seen, output = (tmp_path / name for name in ("s.db", "seen.jsonl", "out.jsonl"))
    seen.write_text('{"problem": "unseen", "answer": 1}\n')
    common = (dice, "--pair", "sim", "--budgets", "4", "--strategy", "best-of-n", "--cache", store)
    assert ttsolve("eval", *common).code == 0
    more = ("--test", seen) if command == "calibrate" else ()
    files = [(dice, "holds the problems"), (store, "is the store"), (seen, "holds the problems")]
    for file, sentence in files if more else files[:2]:
        content = file.read_bytes()
        if way != "itself":
            output.unlink(missing_ok=True)
            (output.symlink_to if way == "symbolic" else output.hardlink_to)(file)
        target = file if way == "itself" else output
        done = ttsolve(command, *common, *more, "-o", target)
        assert (done.code, sentence in done.err, file.read_bytes()) == (2, True, content)


def test_auto_says_what_it_chose_and_why(ttsolve) -> None:
    done = ttsolve("solve", "dice p=0.9", "--pair", "sim", "--strategy", "auto", "--no-cache")
    (line,) = [line for line in done.out.splitlines() if line.startswith("auto ")]
    assert "of 5 (1 is easy), as 4 probes have a mean score of" in line
    assert line.endswith("by the paper's findings, with the verifier's scores cut into equal parts")
    assert "spent  16 units, " in done.out
    never = ("--strategy", "best-of-n", "--confidence", "0.9")
    refused = ttsolve("solve", "dice", "--pair", "sim", *never)
    assert (refused.code, "use it with --strategy auto" in refused.err) == (2, True)
    refused = ttsolve("solve", "dice", "--pair", "sim", "--strategy", "auto", "--confidence", "2")
    assert (refused.code, "give one between 0 and 1" in refused.err) == (2, True)
