"""Chains of revisions, as they are shown: growing, ended, and in JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ttsolve import render_result
from ttsolve.core import Problem, Result, Solution, Step, Usage
from ttsolve.engine import Engine, Event
from ttsolve.engines.sim import SimGenerator, SimVerifier
from ttsolve.render_chains import marks
from ttsolve.render_live import ChainLines, live_line
from ttsolve.render_session import show_account
from ttsolve.render_tree import show_tree
from ttsolve.session import Account
from ttsolve.solve import SIM, solve
from ttsolve.strategies import Revisions
from ttsolve.tree import Attempt, Tree, tree_of

PROBLEM = Problem("What is 2 * 21?")
SETTINGS = {"aggregation": "last", "vote": "hierarchical", "verifier": "v", "reviser": "r"}


def attempt(chain: int | None, *steps: tuple[str, float], shown: int = 0) -> Solution:
    earlier = (Solution(PROBLEM),) * shown
    made = tuple(Step(f"{text}\n", 2, score=score) for text, score in steps)
    return Solution(PROBLEM, made, "stop", earlier, chain)


CANDIDATES = (
    attempt(None, ("Answer: 40", 0.25)),
    attempt(0, ("20 * 2 = 40", 0.5), ("40 + 1 = 41", 0.25), ("Answer: 41", 0.125)),
    attempt(0, ("20 * 2 = 40", 0.5), ("40 + 2 = 42", 0.875), ("Answer: 42", 0.75), shown=1),
    attempt(1, ("Answer: 43", 0.0625)),
    attempt(1, shown=1),
)
RESULT = Result(
    PROBLEM, "42", 0.75, CANDIDATES, CANDIDATES[2], "revisions", {**SETTINGS, "ratio": ""}
)


def shown(tree: Tree, capsys: pytest.CaptureFixture[str], **how: bool) -> str:
    show_tree(tree, **how)
    return capsys.readouterr().out


def test_a_run_of_chains(capsys: pytest.CaptureFixture[str]) -> None:
    """A probe in the tree; of each attempt what the one before it did not say."""
    trace = [Event("sample", PROBLEM.root, candidate) for candidate in CANDIDATES]
    tree = tree_of([*trace, Event("score", CANDIDATES[0], CANDIDATES[0])], RESULT)
    assert (
        shown(tree, capsys)
        == """\
What is 2 * 21?
└── +  0.25 Answer: 40
* the winner's way, + kept, - dropped; the number is the verifier's score of the prefix
chain 1 of 2
  attempt 1
    0.50   20 * 2 = 40
    0.25   40 + 1 = 41
    0.12   Answer: 41
  attempt 2  (the winner)
    0.50 = 20 * 2 = 40
    0.88 + 40 + 2 = 42
    0.75 + Answer: 42
chain 2 of 2
  attempt 1  (its chain's winner)
    0.06   Answer: 43
  attempt 2  (it says nothing)
+ is not in the attempt before, = is; the number is the verifier's score up to there
revisions: aggregation last, vote hierarchical, reviser r
answer 42, 0.75 of the vote
"""
    )
    assert Tree.from_json(tree.to_json()) == tree
    assert [chain[-1].shown for chain in tree.chains] == [1, 1]


def many() -> Tree:
    engine = Engine(SimGenerator(), SimVerifier())
    return tree_of(engine.trace, solve(PROBLEM, engine, Revisions(64, chains=16), SIM))


def test_many_chains_are_cut_down_to_the_winners(capsys: pytest.CaptureFixture[str]) -> None:
    tree = many()
    text = shown(tree, capsys)
    assert text.count("of 16") == 8
    assert text.count("  attempt ") == 4  # of the winner's chain; of the others the ends
    assert text.count("(the winner)") == 1
    assert text.count("Answer: ") == 8 * 4
    assert "… 8 more chains\n" in text
    whole = shown(tree, capsys, whole=True)
    assert whole.count("  attempt ") == 64
    assert "more" not in whole


def test_what_an_attempt_changed() -> None:
    def one(*texts: str) -> Attempt:
        return Attempt(0, tuple((text, None) for text in texts), 0, "stop")

    assert marks(one("a", "b"), None) == [" ", " "]
    assert marks(one("a", "x", "b", "c"), one("a", "b", "c")) == ["=", "+", "=", "="]
    assert marks(one("c", "a"), one("a", "b", "c")).count("=") == 1  # in another order
    assert marks(one(), one("a")) == []


def test_the_live_lines_of_chains() -> None:
    now = 0.0
    live = live_line(Revisions(8), 8, "Answer:")
    assert isinstance(live, ChainLines)
    live.clock = lambda: now
    live.begin()
    assert "chain" not in str(live.line())
    for candidate in CANDIDATES:
        bare = Solution(
            PROBLEM,
            tuple(Step(s.text, s.tokens) for s in candidate.steps),
            "stop",
            (),
            candidate.chain,
        )
        live(Event("sample", PROBLEM.root, bare))
        if candidate is not CANDIDATES[3]:
            live(Event("score", bare, candidate))
    now = 2.0
    first, *chains = str(live.line()).splitlines()
    assert first.startswith("5/8 samples · ")
    assert chains == ["chain 1  41 0.12 → 42 0.75", "chain 2  43 → ?"]
    for number in range(2, 11):
        for _ in range(7):
            live(Event("sample", PROBLEM.root, attempt(number, ("Answer: 1", 0.5))))
    lines = str(live.line()).splitlines()
    assert lines[3] == "chain 3  … 1 0.50" + " → 1 0.50" * 4
    assert (len(lines), lines[-1]) == (1 + 8 + 1, "… 3 more")


def test_chains_in_json_and_among_all_steps(capsys: pytest.CaptureFixture[str]) -> None:
    result = solve(PROBLEM, Engine(SimGenerator(), SimVerifier()), Revisions(6, chains=2), SIM)
    record = json.loads(render_result.as_json(result, SIM))
    assert [(c["chain"], c["shown"]) for c in record["candidates"]] == [
        (chain, number) for chain in (0, 1) for number in range(3)
    ]
    assert record["settings"]["reviser"] == "untrained"
    render_result.show_result(result, SIM, all_steps=True)
    text = capsys.readouterr().out
    assert "(chains 2, length 3, memory 4)" in text
    assert "\nrevise by prompt: this pair has no reviser" in text
    titles = [line.partition(":")[0] for line in text.splitlines() if line.startswith("chain ")]
    assert titles == [f"chain {c}, attempt {i}" for c in (1, 2) for i in (1, 2, 3)]


def test_a_sessions_account_of_chains(capsys: pytest.CaptureFixture[str]) -> None:
    trace = [Event("sample", PROBLEM.root, candidate) for candidate in CANDIDATES[1:]]
    tree = tree_of(trace, replace(RESULT, candidates=CANDIDATES[1:], best=CANDIDATES[2]))
    show_account(Account(7, tree, Usage(), ()))
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("attempt"))
    table = [line.split() for line in lines[start : start + 3]]
    assert table[1:] == [["1", "2", "2", "0.12"], ["2", "2", "2", "0.75"]]
    assert lines[-5:-2] == ["  0.50 20 * 2 = 40", "  0.88 40 + 2 = 42", "  0.75 Answer: 42"]
    assert tree.steps_of(None) == []
