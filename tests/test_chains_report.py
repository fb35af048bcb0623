"""The report on chains of revisions: every number is that of its slow twin."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ttsolve import pools
from ttsolve.chain_runs import run_chains
from ttsolve.chains import Chains, chains_of, pass_by_attempt, select_rates
from ttsolve.chains_report import draw, revised, written
from ttsolve.core import Problem
from ttsolve.engines.sim import SimGenerator, SimVerifier
from ttsolve.errors import UsageError
from ttsolve.grade import grade
from ttsolve.measure import mean, paired
from ttsolve.recall import StoredPair
from ttsolve.solve import SIM
from ttsolve.store import Store

Tables = list[list[list[str]]]


def tables(report: str) -> Tables:
    """The cells of each table, its heads first."""
    found: Tables = [[]]
    for line in report.splitlines():
        if line.startswith("| "):
            found[-1].append([cell.strip() for cell in line[1:-1].split("|")])
        elif found[-1] and not line.startswith("|"):
            found.append([])
    return [table for table in found if table]


def solved(problems: list[Problem], folder: Path, chains: int, length: int) -> list[Chains]:
    with Store(folder / "ttsolve.db") as store:
        models = StoredPair(SIM, store, lambda: (SimGenerator(), SimVerifier()))
        results = list(run_chains(problems, models, chains=chains, length=length))
    pairs = zip(results, problems, strict=True)
    return [chains_of(r.candidates, p, SIM) for r, p in pairs]


def report_on(
    problems: list[Problem],
    folder: Path,
    chains: int,
    length: int,
    said: list[str] | None = None,
    figures: Path | None = None,
) -> str:
    say = [].append if said is None else said.append
    with Store(folder / "ttsolve.db") as store:
        models = StoredPair(SIM, store, lambda: (SimGenerator(), SimVerifier()))
        found = revised(problems, models, chains, length, say=say)
    if figures:
        draw(found, figures, "dice")
    return written(found)


def many(count: int) -> list[Problem]:
    """Problems of five difficulties; one in three is of a subject of its own."""
    return [
        Problem(
            f"question {i} p={(0.1, 0.4, 0.6, 0.8, 0.98)[i % 5]}",
            reference="42",
            subject=f"rare {i}" if i % 3 == 2 else "common",
        )
        for i in range(count)
    ]


def test_it_says_of_every_selector_what_its_votes_came_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = [Problem(f"question {i} p=0.7", reference="42") for i in range(3)]
    graded: Counter[tuple[str, str | None]] = Counter()

    def counted(problem: Problem, answer: str | None) -> bool:
        graded[problem.question, answer] += 1
        return grade(problem, answer)

    with monkeypatch.context() as patch:
        patch.setattr(pools, "grade", counted)
        report = report_on(problems, tmp_path, 2, 4)
    assert set(graded.values()) == {1}  # whoever judges: an answer is right or it is not
    known = solved(problems, tmp_path, 2, 4)
    assert report.splitlines()[0] == "3 problems, 2 chains of 4, seed 0."
    attempts, subjects, votes, sequential = tables(report)
    assert attempts[1] == ["1", str(pass_by_attempt([one.right for one in known])[0]), ""]
    lead = np.mean([one.right[:, 3].mean() - one.right[:, 0].mean() for one in known])
    assert attempts[4][2].startswith(f"{lead:.3f} [")
    assert [row[0] for row in subjects] == ["right in attempt", "all"]  # they have no subjects
    assert subjects[0][2:5] == ["1", "4", "4 over 1"]  # nothing is beyond training
    assert votes[0] == ["chains × length", "the pair's", "majority", "pass@N"]  # it has no reviser
    assert [row[0] for row in votes[1:]] == ["1 × 1", "1 × 2", "2 × 1", "1 × 4", "2 × 2", "2 × 4"]
    voted = select_rates(known, 2, 4, "verifier").mean()
    assert votes[-1][1].startswith(f"{voted:.3f} [")
    some = np.mean([one.right.any() for one in known])
    assert votes[-1][3].startswith(f"{some:.3f} [")
    assert [row[0] for row in sequential[1:]] == ["2"]  # of four attempts in a row, no four first
    for cell, selector in zip(sequential[1][1:], ("verifier", "majority", "any"), strict=True):
        one, two = (select_rates(known, *size, selector) for size in ((1, 2), (2, 1)))
        assert cell == paired(one, two).brief


def test_it_has_the_ratios_by_fifths(tmp_path: Path) -> None:
    said: list[str] = []
    report = report_on(many(30), tmp_path, 8, 4, said)
    assert said == ["25/30 problems"]
    known = solved(many(30), tmp_path, 8, 4)
    table = tables(report)[-1]
    hardest, *_, easiest = (float(cell) for cell in table[0][1:])
    assert hardest < 0.1
    assert easiest > 0.8
    assert [row[0] for row in table[1:]] == ["4 × 4", "8 × 2"]  # 16 attempts
    easy = np.argsort([one.right.mean() for one in known], kind="stable")[24:]
    voted = select_rates([known[i] for i in easy], 4, 4, "verifier").mean()
    assert table[1][5].startswith(f"{voted:.3f} [")


def test_it_tells_subjects_and_attempts_beyond_training(tmp_path: Path) -> None:
    heads, *rows = tables(report_on(many(90), tmp_path, 2, 8))[1]
    assert heads[2:8] == ["1", "5", "5 over 1", "6 to 8", "6 to 8 over 1", "6 to 8 over 5"]
    named = [["all", "90"], ["common", "60"], ["subjects under 25", "30"]]
    assert [row[:2] for row in rows] == named
    known = solved(many(90), tmp_path, 2, 8)
    right = np.array([one.right.mean(axis=0) for one in known if one.subject == "common"])
    assert rows[1][2] == mean(right[:, 0]).brief
    assert rows[1][6] == paired(right[:, 5:].mean(axis=1), right[:, 0]).brief
    assert rows[1][7] == paired(right[:, 5:].mean(axis=1), right[:, 4]).brief
    alone = tables(report_on(many(30), tmp_path, 2, 6))[1]  # the rest would be too few to tell of
    assert [row[0] for row in alone] == ["right in attempt", "all"]
    assert alone[0][5:8] == ["6", "6 over 1", "6 over 5"]


def test_no_problems_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no problems to measure"):
        report_on([], tmp_path, 2, 2)


def test_it_draws_what_it_tells(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need the eval extra")
    figures = tmp_path / "figures"
    report_on(many(30), tmp_path, 4, 8, figures=figures)
    drawn = sorted(file.name for file in figures.iterdir())
    assert drawn == ["attempts.png", "parallel.png", "ratios-16.png"]
    for name in drawn:
        assert (figures / name).read_bytes().startswith(b"\x89PNG")
