"""How a run went, as a tree: made from its trace, to JSON and back, and shown."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ttsolve.cli import main
from ttsolve.core import Problem
from ttsolve.engine import Engine, Event
from ttsolve.engines.sim import SimGenerator, SimVerifier
from ttsolve.render_live import SearchLine, live_line
from ttsolve.render_tree import show_tree
from ttsolve.solve import SIM, solve
from ttsolve.strategies import (
    STRATEGIES,
    BeamSearch,
    BestOfN,
    Dvts,
    Lookahead,
    Strategy,
    strategy_named,
)
from ttsolve.tree import Node, Tree, tree_of
from world_maker import World

PROBLEM = Problem("which way")

WORLD = """
a 0.9
  c 0.1
    Answer: 1 0.1
b 0.4
  d 0.8
    Answer: 2 0.9
    Answer: 3 0.2
  e 0.3
"""


def tree(strategy: Strategy, drawing: str = WORLD) -> Tree:
    world = World(drawing)
    engine = Engine(world, world)
    return tree_of(engine.trace, solve(PROBLEM, engine, strategy, SIM))


def test_the_tree_of_a_beam_search() -> None:
    """The place of c went to d; e had ended, and so became a candidate whatever its score."""
    found = tree(BeamSearch(4, width=2))
    assert found.nodes == (
        Node(),
        Node(0, "a\n", 0.9, count=2),
        Node(0, "b\n", 0.4, count=2),
        Node(1, "c\n", 0.1, count=2),
        Node(2, "d\n", 0.8, count=1),
        Node(2, "e\n", 0.3, count=1, finish="stop", candidates=(0,)),
        Node(4, "Answer: 2\n", 0.9, count=2, finish="stop", candidates=(1,)),
        Node(4, "Answer: 3\n", 0.2, count=1, finish="stop", candidates=(2,)),
    )
    assert (found.answer, found.winner) == ("2", 1)
    assert found.way_to(1) == {0, 2, 4, 6}
    assert found.way_to(None) == set()
    assert found.children()[2] == [4, 5]


def test_a_rollout_lends_its_score_and_is_no_step() -> None:
    """a is worth what c is, and b what d is, though neither c nor d stood there yet."""
    found = tree(Lookahead(2, width=2))
    assert found.nodes[1:4] == (
        Node(0, "a\n", 0.9, value=0.1, count=1),
        Node(0, "b\n", 0.4, value=0.8, count=1),
        Node(2, "d\n", 0.8, value=0.9, count=1),
    )
    assert "c\n" not in {node.text for node in found.nodes}


@pytest.mark.parametrize("name", STRATEGIES)
def test_to_json_and_back(name: str) -> None:
    engine = Engine(SimGenerator(), SimVerifier(), budget=16)
    result = solve(PROBLEM, engine, strategy_named(name, 16), SIM)
    found = tree_of(engine.trace, result)
    assert Tree.from_json(text := found.to_json()) == found
    assert "\n" not in text
    places = [c for node in found.nodes for c in node.candidates]
    places += [attempt.candidate for chain in found.chains for attempt in chain]
    assert sorted(places) == list(range(len(result.candidates)))
    samples = [event for event in engine.trace if event.verb == "sample"]
    grown = sum(len(event.child.steps) - len(event.parent.steps) for event in samples)
    in_chains = sum(len(attempt.steps) for chain in found.chains for attempt in chain)
    assert sum(node.count for node in found.nodes) + in_chains == grown
    assert all(node.parent < number for number, node in enumerate(found.nodes))


def test_a_run_without_an_answer_has_a_tree() -> None:
    engine = Engine(SimGenerator(), SimVerifier(), budget=0)
    found = tree_of(engine.trace, solve(PROBLEM, engine, BestOfN(3), SIM))
    assert (found.winner, found.answer, found.nodes[0].candidates) == (None, None, (0, 1, 2))
    assert Tree.from_json(found.to_json()) == found


# --- shown ------------------------------------------------------------------------------------


def shown(capsys: pytest.CaptureFixture[str], tree: Tree, **how: bool) -> list[str]:
    show_tree(tree, **how)
    return capsys.readouterr().out.splitlines()


def test_a_tree_in_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, tree(BeamSearch(4, width=2))) == [
        "which way",
        "├── *  0.40 b  (sampled 2 times)",
        "│   ├── *  0.80 d",
        "│   │   ├── *  0.90 Answer: 2  (sampled 2 times, the winner)",
        "│   │   └── +  0.20 Answer: 3",
        "│   └── +  0.30 e",
        "└── +  0.90 a  (sampled 2 times)",
        "    └── -  0.10 c  (sampled 2 times)",
        "* the winner's way, + kept, - dropped; the number is the verifier's score of the prefix",
        "beam: n 4, width 2, lookahead 0, rounds 40, temperature 1.0, vote weighted, "
        "aggregation last",
        "answer 2, 0.82 of the vote",
    ]


def test_lookahead_in_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, tree(Lookahead(2, width=2)))
    assert "└── -  0.90 → 0.10 a" in lines
    assert any(line.endswith(", → where its rollout ends") for line in lines)


def test_diverse_trees_in_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A step may be kept that is worse than one dropped beside it: they were no rivals."""
    lines = shown(capsys, tree(Dvts(4, width=2)))
    assert "each subtree keeps its own best step, whatever the others have" in lines
    assert lines != shown(capsys, tree(BeamSearch(4, width=2)))


def test_what_was_stopped_is_not_said_to_be_cut_by_its_budget(
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine = Engine(SimGenerator(), SimVerifier())
    engine.listen = lambda event: engine.stop.set()
    result = solve(PROBLEM, engine, BeamSearch(1), SIM)
    assert shown(capsys, tree_of(engine.trace, result))[1].endswith("(not ended)")


def test_a_pipe_gets_long_steps_whole(capsys: pytest.CaptureFixture[str]) -> None:
    long = " ".join(["and"] * 100)
    assert shown(capsys, tree(BestOfN(1), f"{long} 0.5\n"))[1] == f"└── +  0.50 {long}"


def test_a_large_tree_is_cut_down_along_the_winners_way(
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = "".join(
        f"{i} 0.{i:02}\n" + "".join(f"  Answer: {i}{j} 0.{j}5\n" for j in range(1, 4))
        for i in range(10, 30)
    )
    found = tree(BeamSearch(24, width=3), steps)
    assert len(found.nodes) > 40
    lines = shown(capsys, found)
    assert lines[:9] == [
        "which way",
        "├── *  0.29 29",
        "│   ├── *  0.35 Answer: 293  (the winner)",
        "│   ├── +  0.25 Answer: 292",
        "│   └── +  0.15 Answer: 291",
        "├── +  0.28 28  (leads to 3 candidates)",
        "├── +  0.27 27  (leads to 3 candidates)",
        "├── +  0.26 26  (leads to 3 candidates)",
        "├── … 4 more kept",
    ]
    assert lines[12] == "└── … 9 more dropped"
    whole = shown(capsys, found, whole=True)
    assert len(whole) == len(found.nodes) + 3
    assert not any("more" in line for line in whole)


def test_what_a_generator_wrote_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    drawing = "\x1b[2J[red]½ 0.5\n  Answer: \x07é 0.5\n"
    text = "\n".join(shown(capsys, tree(BestOfN(2), drawing)))
    assert "\N{REPLACEMENT CHARACTER}[2J[red]½" in text
    assert "\x1b" not in text
    assert "\x07" not in text


@pytest.fixture
def ttsolve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[object, str, str]]:
    """The command line with an empty store; gives exit code, stdout and stderr."""
    monkeypatch.setenv("TTSOLVE_HOME", str(tmp_path))

    def run(*arguments: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return (ended.value.code, *capsys.readouterr())

    return run


BEAM = ("--pair", "sim", "--strategy", "beam", "--set", "width=2")


def test_show(ttsolve: Callable[..., tuple[object, str, str]]) -> None:
    assert ttsolve("show")[0] == 2
    ttsolve("which way", *BEAM, "--budget", "4")
    ttsolve("another way", *BEAM, "--budget", "64", "--set", "width=16")
    code, out, err = ttsolve("show")
    assert (code, out.splitlines()[0], err) == (0, "another way", "")
    assert "beam: n 64, width 16, lookahead 0, rounds 40" in out
    assert len(ttsolve("show", "--all")[1]) > len(out)
    assert ttsolve("show", "1")[1].startswith("which way\n")
    code, out, err = ttsolve("show", "99")
    assert (code, out) == (2, "")
    assert err.startswith("Error: There is no run 99")


def test_settings_on_the_command_line(ttsolve: Callable[..., tuple[object, str, str]]) -> None:
    code, out, _ = ttsolve("which way", *BEAM, "--set", "rounds=7", "--budget", "9")
    assert code == 0
    assert "spent  9 units (width 2, lookahead 0, rounds 7), " in out
    out = ttsolve("which way", *BEAM, "--set", "rounds=7", "--budget", "9", "--json")[1]
    assert '"settings": {"n": 9, "width": 2, "lookahead": 0, "rounds": 7, ' in out
    for wrong, sentence in {
        "widht=4": "The strategy 'beam' has no setting 'widht': use width, lookahead or rounds.",
        "width=four": "The setting width=four is not possible: give a whole number, 0 or more.",
        "width": "The setting 'width' has no value: write --set width=VALUE.",
    }.items():
        assert ttsolve("q", *BEAM, "--set", wrong) == (2, "", f"Error: {sentence}\n")


# --- live -------------------------------------------------------------------------------------


def test_the_live_line_of_a_search() -> None:
    now = 0.0
    live = SearchLine(4, "Answer:", clock=lambda: now)
    live.begin()
    assert live.line().plain == "0/4 samples · 0 tokens/s"
    world = World(WORLD)
    lines = []

    def listen(event: Event) -> None:
        nonlocal now
        now += 0.5
        live(event)
        lines.append(live.line().plain)

    engine = Engine(world, world, listen=listen)
    BeamSearch(4, width=2)(PROBLEM, engine)
    assert lines[0] == "round 1 · 1 beam alive · 2 tokens/s"
    assert lines[3] == "round 1 · 2 beams alive · 2 tokens/s"
    assert lines[7] == "round 1 · 2 beams alive · best score 0.90 · 2 tokens/s"
    assert lines[-1].startswith("round 3 · 0 beams alive, 3 ended · best score 0.90 · ")
    assert lines[11].startswith("round 2 · 2 beams alive, 1 ended · ")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_live_line_of_a_search_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    with live_line(BeamSearch(4), 4, "Answer:") as live:
        live.begin()
        BeamSearch(4)(PROBLEM, Engine(SimGenerator(), SimVerifier(), listen=live))
    assert "beams alive" in stream.getvalue()


def test_only_searches_have_rounds() -> None:
    kinds = {name: type(live_line(strategy_named(name, 4), 4, "Answer:")) for name in STRATEGIES}
    assert [name for name in kinds if kinds[name] is SearchLine] == [
        *("beam", "lookahead", "dvts", "rebase")
    ]
