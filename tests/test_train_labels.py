"""Sampling solutions into a pool, and the labels of their steps."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from ttsolve.core import Problem, Solution, Step, Usage
from ttsolve.engine import Sampling
from ttsolve.engines.sim import SimGenerator
from ttsolve.errors import StorageError, UsageError
from ttsolve.train import labels
from ttsolve.train.alone import alone
from ttsolve.train.labels import draw, step_labels
from ttsolve.train.pool_file import Drawn, Sample, read_pool

PROBLEMS = [Problem(f"What is {n}?", "42", id=str(n), level=1, subject="s") for n in range(7)]


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch):
    monkeypatch.setattr(labels, "AT_ONCE", 3)


def sampled(file, problems=PROBLEMS, generator=None, report=lambda drawing: None) -> None:
    draw(generator or SimGenerator(), problems, 4, Sampling(), file, seed=1, report=report)


def test_a_pool_keeps_every_sample_with_its_grade(tmp_path) -> None:
    file = tmp_path / "new" / "pool.jsonl"
    reports: list[labels.Drawing] = []
    sampled(file, report=reports.append)
    pool = list(read_pool(file))
    assert [d.problem for d in pool] == PROBLEMS
    assert {len(d.samples) for d in pool} == {4}
    samples = [s for d in pool for s in d.samples]
    assert {s.answer == "42" for s in samples} == {True, False}
    assert all(s.right == (s.answer == "42") for s in samples)
    assert all(len(s.steps) == 5 and s.tokens == 50 for s in samples)
    assert len({s.text for s in pool[0].samples}) > 1  # every sample has a seed of its own
    assert [(r.problems, r.of) for r in reports] == [(3, 7), (6, 7), (7, 7)]
    assert reports[-1].seconds_left == 0
    assert reports[0].tokens_per_second > 0


@pytest.mark.parametrize("lines", [0, 2, 3, 5, 7])
@pytest.mark.parametrize("cut", ["", '{"problem": {"ques', "{}"])
def test_a_pool_that_was_cut_short_goes_on(tmp_path, lines: int, cut: str) -> None:
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    sampled(whole)
    kept = whole.read_text().splitlines(keepends=True)[:lines]
    broken.write_text("".join(kept) + cut)
    asked = SimGenerator()
    sampled(broken, generator=asked)
    assert broken.read_bytes() == whole.read_bytes()
    assert asked.batches == -(-(7 - lines) // 3)


def test_more_problems_are_added_to_those_that_are_there(tmp_path) -> None:
    whole, grown = tmp_path / "whole.jsonl", tmp_path / "grown.jsonl"
    sampled(whole)
    sampled(grown, PROBLEMS[:4])
    sampled(grown)
    assert grown.read_text() == whole.read_text()
    sampled(grown, PROBLEMS[:2])  # and none is taken away
    assert grown.read_text() == whole.read_text()


def test_a_pool_of_other_problems_is_not_touched(tmp_path) -> None:
    file = tmp_path / "pool.jsonl"
    sampled(file)
    before = file.read_text()
    with pytest.raises(UsageError, match="other problems"):
        sampled(file, PROBLEMS[::-1])
    assert file.read_text() == before


def test_no_space_is_one_sentence(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"^Could not write .* where it stopped\.$"):
        sampled(tmp_path / "file" / "pool.jsonl")


def test_two_processes_do_not_write_one_pool(tmp_path) -> None:
    file = tmp_path / "new" / "pool.jsonl"
    with alone(file), pytest.raises(UsageError, match=r"^Another process is writing .*pool\.jsonl"):
        sampled(file)
    assert not file.exists()
    sampled(file)
    assert len(list(read_pool(file))) == 7


class Says:
    """A generator that says what it is told to."""

    name, params = "says", 1

    def __init__(self, *solutions: tuple[str, str]):
        self.solutions = solutions

    def sample(self, prefixes, how, watch=None, stop=None):
        out = [
            Solution(p.problem, (Step(text, 5),), finish)
            for p, (text, finish) in zip(prefixes, self.solutions, strict=True)
        ]
        return out, Usage(generated_tokens=20)


def test_what_was_cut_has_no_answer_and_only_a_line_break_ends_a_step(tmp_path) -> None:
    file = tmp_path / "pool.jsonl"
    generator = Says(
        ("1 + 1 = 2\nAnswer: 42\n", "stop"),
        ("Answer: 42\n", "length"),
        ("no\n", "stop"),
        ("a\x0bb\u2028c\rd\n\nAnswer: 1", "stop"),
    )
    sampled(file, PROBLEMS[:1], generator)
    (drawn,) = read_pool(file)
    assert [s.steps for s in drawn.samples] == [
        ("1 + 1 = 2\n", "Answer: 42\n"),
        ("Answer: 42\n",),
        ("no\n",),
        ("a\x0bb\u2028c\rd\n", "\n", "Answer: 1"),
    ]
    assert [s.answer for s in drawn.samples] == ["42", None, None, "1"]
    assert [s.right for s in drawn.samples] == [True, False, False, False]
    assert json.loads(file.read_text())["problem"]["question"] == "What is 0?"


def test_rollouts_are_drawn_from_every_step_but_the_last(tmp_path) -> None:
    file, again = tmp_path / "pool.jsonl", tmp_path / "again.jsonl"
    for pool in (file, again):
        draw(SimGenerator(), PROBLEMS[:2], 2, Sampling(), pool, seed=1, rollouts=3)
    assert file.read_bytes() == again.read_bytes()
    for drawn in read_pool(file):
        own = [s for s in drawn.samples if not s.given]
        rolled = [s for s in drawn.samples if s.given]
        assert len(own) == 2
        beginnings = Counter(s.steps[: s.given] for s in rolled)
        assert beginnings == {s.steps[:end]: 3 for s in own for end in range(1, len(s.steps))}
        assert all(s.right == (s.answer == "42") for s in rolled)
        assert len({s.text for s in rolled}) > len(beginnings)  # every rollout has its own seed


def test_a_sample_without_an_answer_is_not_rolled_out(tmp_path) -> None:
    generator = Says(("1 + 1 = 2\nAnswer: 42\n", "length"), ("a\nb\n", "stop"))
    draw(generator, PROBLEMS[:1], 2, Sampling(), tmp_path / "pool.jsonl", rollouts=3)
    (drawn,) = read_pool(tmp_path / "pool.jsonl")
    assert [s.given for s in drawn.samples] == [0, 0]


def test_a_rollout_says_nothing_of_the_steps_it_was_given() -> None:
    def sample(text: str, answer: str, given: int = 0) -> Sample:
        return Sample(tuple(text.split()), answer, answer == "1", 1, given)

    rolled = [sample("a b x", "1", 2), sample("a b y", "2", 2), sample("a c x", "1", 1)]
    drawn = Drawn(PROBLEMS[0], (sample("a b y", "2"), *rolled))
    assert step_labels(drawn) == {
        ("a", "b", "y"): [1 / 2, 1 / 3, 0.0],  # the sample itself and the rollout from "a"; …
        ("a", "b", "x"): [1 / 2, 1 / 3, 1.0],
        ("a", "c", "x"): [1 / 2, 1.0, 1.0],
    }


def test_a_label_is_the_share_of_right_ones_behind_a_prefix() -> None:
    def sample(text: str, answer: str | None) -> Sample:
        return Sample(tuple(text.split()), answer, answer == "1", 1)

    drawn = Drawn(
        PROBLEMS[0],
        (
            sample("a b x", "1"),
            sample("a b x", "1"),  # equal samples all count
            sample("a b y", "2"),
            sample("a c x", "2"),
            sample("d b x", "1"),  # the same step behind another prefix is another
            sample("a b z", None),  # no answer: as if it were not there
            sample("a", "1"),
        ),
    )
    assert step_labels(drawn) == {
        ("a", "b", "x"): [3 / 5, 2 / 3, 1.0],
        ("a", "b", "y"): [3 / 5, 2 / 3, 0.0],
        ("a", "c", "x"): [3 / 5, 0.0, 0.0],
        ("d", "b", "x"): [1.0, 1.0, 1.0],
        ("a",): [3 / 5],
    }
