"""Test-time compute against parameters: the paper's multipliers, equal FLOPs, who wins."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttsolve.cli import main
from ttsolve.exchange import FORMULAS, matches, multiplier, overhead, reach


@pytest.fixture
def ttsolve(capsys):
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return ended.value.code, *capsys.readouterr()

    return run


# --- the arithmetic ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "m"),
    [
        ("arxiv", (257.8, 63.4, 15.8)),
        ("iclr", (257.8, 62.8, 15.8)),
        ("corrected", (250.8, 55.8, 8.8)),
    ],
)
def test_the_papers_multipliers_for_14_times_the_parameters(name, m) -> None:
    formula = FORMULAS[name]
    assert [multiplier(formula, 14, ratio) for ratio in formula.ratios] == pytest.approx(m, abs=0.1)


@given(
    st.sampled_from(sorted(FORMULAS)),
    st.floats(1, 100),
    st.floats(1e-3, 1e3),
    st.floats(0, 3),
)
def test_both_models_cost_the_same_in_all(name, times, ratio, extra) -> None:
    """N and D are 1: 6 for pretraining, 2·R for inference, what verifiers add to it apart."""
    formula = FORMULAS[name]
    v = extra if formula.small is None else formula.small
    m = multiplier(formula, times, ratio, extra)
    small = 6 + m * (1 + v) * 2 * ratio
    larger = times * (6 + (1 + formula.larger) * 2 * ratio)
    assert small == pytest.approx(larger)


@given(st.floats(1, 100), st.floats(1e-3, 1e3))
def test_the_two_versions_agree_where_r_is_halved(times, ratio) -> None:
    """What one version charges to a verifier the other has in twice the R."""
    arxiv, iclr = (
        multiplier(FORMULAS[name], times, r) for name, r in (("arxiv", ratio), ("iclr", ratio / 2))
    )
    assert arxiv == pytest.approx(iclr)


def test_a_verifier_costs_by_its_size_and_its_tokens() -> None:
    assert overhead((10, 5), (100.0, 100.0)) == 0.5
    assert overhead((10, 20), (100.0, 50.0)) == 1
    assert overhead((10, 20), (0.0, 0.0)) == 0


# --- who wins ---------------------------------------------------------------------------------


def test_each_bin_is_compared_where_the_larger_model_costs_as_much() -> None:
    easy, hard = np.repeat([[True], [False]], 20, axis=1).ravel()[:20], np.zeros(20, dtype=bool)
    bins = np.where(np.concatenate([easy, hard]), 1, 2)
    small = {b: np.where(bins == 1, rate, 0.0) for b, rate in ((1, 0.2), (4, 0.6), (16, 1.0))}
    larger = np.where(bins == 1, 0.5, 0.75)
    found = matches(small, larger, bins, {22.0: 2.0, 0.1: 100.0})
    assert [(m.ratio, m.bin, m.budget, m.short) for m in found] == [
        *((0.1, number, 16.0, True) for number in (None, 1, 2)),
        *((22.0, number, 2.0, False) for number in (None, 1, 2)),
    ]
    assert [m.wins for m in found] == [
        "cannot tell",
        "small",
        "larger",
        "larger",
        "larger",
        "larger",
    ]
    halfway = found[4]  # a budget of 2 is halfway from 1 to 4
    assert (halfway.small.value, halfway.larger.value) == pytest.approx((0.4, 0.5))
    assert halfway.lead.n == 20


def test_nobody_wins_among_too_few_problems() -> None:
    """The bootstrap knows no doubt of a single problem."""
    (one, *_) = matches({1: np.ones(3)}, np.zeros(3), np.ones(3, dtype=np.int64), {1.0: 1.0})
    assert (one.lead.low, one.wins) == (1, "cannot tell")


def test_a_budget_below_the_first_measured_is_not_compared() -> None:
    assert matches({4: np.ones(3)}, np.ones(3), np.ones(3, dtype=np.int64), {1.0: 2.0}) == []


def test_the_budget_that_reaches_a_target() -> None:
    curve = {1: np.array([0.2]), 4: np.array([0.6]), 16: np.array([0.5]), 64: np.array([0.9])}
    assert reach(curve, 0.7) == pytest.approx(16 * 4**0.5)
    assert reach(curve, 0.1) == 1
    assert reach(curve, 0.55) == pytest.approx(16 * 4**0.125)  # it stays there from here only
    assert reach(curve, 0.95) == math.inf


# --- the command line -------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """A file of problems for dice, and what a larger generator made of them."""
    dice, results = tmp_path / "dice.jsonl", tmp_path / "large.jsonl"
    problems = [
        {"id": f"d{i}", "problem": f"dice {i} p={(0.5, 0.8, 0.95)[i % 3]}", "answer": 42}
        for i in range(12)
    ]
    records = [{"id": f"d{i}", "answer": "42", "correct": i % 3 == 2} for i in range(12)]
    for file, lines in ((dice, problems), (results, [*records, {"id": "x", "error": "too long"}])):
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return dice, results


def test_a_larger_model_measured_elsewhere(files, tmp_path, ttsolve) -> None:
    dice, results = files
    plot = tmp_path / "stars.svg"
    code, out, err = ttsolve(
        *("exchange", dice, "--pair", "sim", "--budgets", "1,4,16", "--strategy", "best-of-n"),
        *("--larger-results", results, "--larger-params", "14e6", "--plot", plot),
    )
    assert code == 0, err
    first, head, *lines = out.splitlines()
    assert first.startswith("large.jsonl has 14 times the parameters of sim (14 M against 1 M)")
    assert head.split()[:5] == ["R", "m", "budget", "bin", "n"]
    cells = [words[:5] for line in lines if "all" in (words := line.split())]
    assert cells == [
        ["0.16", "257.8", "16<", "all", "12"],
        ["0.79", "63.4", "16<", "all", "12"],
        ["22", "15.8", "15.77", "all", "12"],
    ]
    assert plot.read_text().lstrip().startswith("<?xml")


def test_results_of_some_problems_say_of_how_many(files, tmp_path, ttsolve) -> None:
    dice, results = files
    some = tmp_path / "some.jsonl"
    some.write_text("".join(results.read_text().splitlines(keepends=True)[:5]))
    command = ("exchange", dice, "--pair", "sim", "--budgets", "1,4", "--larger-params", "14e6")
    said = "some.jsonl has 5 of the 12 problems: only these are compared."
    code, out, err = ttsolve(*command, "--larger-results", some)
    assert (code, said in err.splitlines()) == (0, True)
    assert {line.split()[4] for line in out.splitlines() if "all" in line.split()} == {"5"}
    assert "are compared" not in ttsolve(*command, "--larger-results", results)[2]


def test_a_larger_gguf_is_measured_greedily_with_the_pairs_prompt(
    pocket, tmp_path, ttsolve
) -> None:
    from dataclasses import replace

    from gguf_maker import POCKET, make_gguf

    shape = replace(POCKET, layers=2, width=256)
    larger = make_gguf(tmp_path / "large.gguf", shape, tokenizer=pocket.generator_path)
    code, out, err = ttsolve(
        *("exchange", pocket.folder / "data" / "test.jsonl", "--limit", 2, "--budgets", 1),
        *("--larger", larger, "--formula", "corrected", "--ratios", "0.2,9"),
    )
    assert code == 0, err
    assert "greedy answers of large.gguf: 2 problems, up to 1 units each" in err
    assert "times the parameters of pocket (" in out
    assert "corrected: the small model is charged what its verifier costs" in out
    lines = [line.split() for line in out.splitlines() if "all" in line.split()]
    assert [line[0] for line in lines] == ["0.2"]
    assert "R = 9: m = 0." in out
    assert "0.000" in lines[0]  # its weights are random


MEASURED = ("--larger-results", "RESULTS")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name --larger or --larger-results"),
        (["--larger", "no.gguf"], "no.gguf"),
        (["--larger-results", "RESULTS"], "say --larger-params"),
        (["--larger-params", "1e6"], "goes with --larger-results"),
        (["--larger", "RESULTS", "--larger-results", "RESULTS"], "leave --larger or"),
        (["--larger-results", "RESULTS", "--larger-params", "1e6"], "is no larger than sim"),
        (["--larger-results", "DICE", "--larger-params", "2e6"], 'write "right" or "correct"'),
        ([*MEASURED, "--larger-params", "inf"], "No model has inf parameters: give"),
        ([*MEASURED, "--larger-params", "1e400"], "No model has inf parameters: give"),
        ([*MEASURED, "--larger-params", "nan"], "greater than or equal to 1"),
        (["--formula", "mine"], "use --formula arxiv, iclr or corrected"),
        (["--ratios", "0.1,0"], "give numbers above 0"),
        (["--by-bin", "size"], "use --by-bin oracle or predicted"),
        (["--plot", "stars.gif"], "ends in .png or .svg"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(arguments, sentence, files, ttsolve) -> None:
    names = dict(zip(("DICE", "RESULTS"), files, strict=True))
    arguments = [names.get(word, word) for word in arguments]
    code, out, err = ttsolve("exchange", files[0], "--pair", "sim", "--budgets", "1", *arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err
    assert "problems, up to" not in err  # nothing was measured before it was told


def test_a_larger_gguf_that_is_cut_is_told_before_anything_is_measured(
    pocket, files, tmp_path, ttsolve
) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(pocket.generator_path.read_bytes()[:-1000])
    code, out, err = ttsolve("exchange", files[0], "--pair", "sim", "--larger", cut)
    assert (code, out) == (2, "")
    [line] = err.splitlines()
    assert "cut.gguf is a damaged GGUF file" in line
