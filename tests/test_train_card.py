"""The model card's figures: complete, readable back, and between their marks only."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("matplotlib", reason="training needs the train extra")

from ttsolve.core import Problem
from ttsolve.measure import Pool
from ttsolve.train.card import (
    BEGIN,
    END,
    hands_figures,
    headline,
    slip_figures,
    split_figures,
    write_figures,
)
from ttsolve.train.figures import aggregation_table, vote_table

HANDS = [Problem("q", f"24: {n}") for n in ("1 2 3 4", "4 7 8 8", "1 1 1 8", "2 2 2 3")]


def pools(seed: int = 0) -> list[Pool]:
    """Twelve problems of three subjects; the verifier is a coin that leans the right way."""
    rng = np.random.default_rng(seed)

    def pool(subject: str) -> Pool:
        right = rng.random(64) < rng.random()
        steps = np.full((64, 4), np.nan)
        steps[:, :3] = np.clip(rng.random((64, 3)) * 0.6 + 0.4 * right[:, None], 0, 1)
        answers = np.where(right, 0, rng.integers(1, 9, 64))
        return Pool(answers, right, steps[:, 2], steps=steps, subject=subject)

    return [pool(subject) for subject in ("countdown", "coins", "rates") * 4]


def figures() -> dict[str, object]:
    some = pools()
    lines = {"log-likelihood": [replace(p, likelihood=p.scores) for p in some]}
    hands = hands_figures(HANDS * 3, some)
    return {
        "test": split_figures(some, lines),
        "game24": hands,
        "slips": slip_figures(some, lines),
    }


def test_the_base_line_is_measured_like_the_verifier() -> None:
    test = figures()["test"]
    assert isinstance(test, dict)
    same = test["auc on the problems of the base lines"]
    assert test["auc of base lines"]["log-likelihood"] == same == test["auc"]
    assert test["auc"]["choice"].value > 0.7


def test_the_slips_of_a_wilder_sampling_have_a_table(tmp_path: Path) -> None:
    measured = figures()
    write_figures(tmp_path, measured)
    card = (tmp_path / "README.md").read_text()
    slips = measured["slips"]
    assert isinstance(slips, dict)
    assert slips["samples"] == 64
    assert f"| verifier, last step | {slips['auc']} |\n| log-likelihood | " in card
    del measured["slips"]
    write_figures(tmp_path, measured)
    assert "wilder sampling" not in (tmp_path / "README.md").read_text()


def test_a_majority_knows_nothing_of_the_scores() -> None:
    """Two answers, one sample each: the first wins, though the verifier is for the other."""
    pool = Pool(np.array([0, 1]), np.array([False, True]), np.array([0.1, 0.9]), subject="coins")
    row = vote_table([pool] * 12)[-1]
    assert row["n"] == 2
    assert row["weighted"].value == 1.0
    assert 0.4 < row["majority"].value < 0.6  # whichever was drawn first


def test_aggregations_are_compared_on_the_same_votes() -> None:
    """A right solution whose first step is judged badly: only its last step's score finds it."""
    steps = np.repeat([[0.1, 0.9], [0.6, 0.6]], 2, axis=0)
    answers = np.array([0, 0, 1, 1])
    pool = Pool(answers, answers == 0, steps[:, 1], steps=steps, subject="coins")
    (row,) = aggregation_table([pool] * 12)
    assert row["n"] == 4
    assert [row[by].value for by in ("last", "min", "prod")] == [1, 0, 0]
    assert row["last - min"].value == row["last - prod"].value == 1


def test_the_hands_fall_into_two_halves() -> None:
    hands = figures()["game24"]
    assert isinstance(hands, dict)
    whole, *halves = (half["hands"] for half in hands.values())
    assert whole == sum(halves) == 12


def test_figures_are_json_and_stand_between_their_marks(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n", encoding="utf-8")
    for _ in range(2):  # the second time changes nothing
        write_figures(tmp_path, figures())
        words = card.read_text(encoding="utf-8")
        assert words.startswith(f"before\n\n{BEGIN}\n## Test split: 12 problems")
        assert words.endswith(f"{END}\n\nafter\n")
        assert "old" not in words
        assert words.count(BEGIN) == 1
    kept = json.loads((tmp_path / "measured.json").read_text(encoding="utf-8"))
    assert kept["test"]["votes"][-1]["n"] == 64
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")


def test_the_headline_is_plain_numbers() -> None:
    short = headline(figures())
    assert short["test"]["n"] == 64
    assert all(isinstance(v, int | float) for part in short.values() for v in part.values())
