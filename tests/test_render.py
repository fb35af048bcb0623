"""What is shown, typed so that the eye can check it."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from ttsolve import render, render_live, render_pairs, render_result
from ttsolve.core import Finish, Problem, Result, Solution, Step, Usage
from ttsolve.engine import Event
from ttsolve.solve import SIM

PROBLEM = Problem("What is 6 * 7?", reference="42")
SETTINGS = {"n": 4, "temperature": 1.0, "vote": "weighted", "verifier": "v"}


def candidate(*steps: tuple[str, float | None]) -> Solution:
    return Solution(PROBLEM).grow(*(Step(t, 4, score=s) for t, s in steps), finish="stop")


GOOD = candidate(("6 * 7 = 42\n", 0.75), ("Answer: 42\n", 0.9))
BAD = candidate(("6 + 7 = 13\n", 0.25), ("Answer: 13\n", 0.1))
CUT = Solution(PROBLEM).grow(Step("6 *", 2, score=0.5), finish="budget")
RESULT = Result(
    problem=PROBLEM,
    answer="42",
    share=0.947,
    candidates=(BAD, GOOD, GOOD, CUT),
    best=GOOD,
    strategy="best-of-n",
    settings=SETTINGS,
    seed=3,
    pair="sim",
    usage=Usage(4, 1234, 7, 21, 26, 0.5, 2.5e9, 4e7),
)


def shown(capsys: pytest.CaptureFixture[str], result: Result, **how: bool) -> str:
    render_result.show_result(result, SIM, **how)
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, RESULT) == (
        "42\n"
        "share  0.95 of the weighted vote, 3 of 4 candidates with an answer\n"
        "spent  4 units, 1,234 tokens generated, 7 of prompts (21 reused), 26 verified, 0.50 s, "
        "2.5 GFLOP + 40 MFLOP\n"
        "\n"
        "solution, score 0.90, sampled 2 times\n"
        "  0.75 6 * 7 = 42\n"
        "  0.90 Answer: 42\n"
    )


def test_all_steps(capsys: pytest.CaptureFixture[str]) -> None:
    _, *blocks = shown(capsys, RESULT, all_steps=True).split("\n\n")
    assert blocks == [
        "solution, score 0.90, sampled 2 times\n  0.75 6 * 7 = 42\n  0.90 Answer: 42",
        "solution not ended, score 0.50\n  0.50 6 *",
        "solution, score 0.10\n  0.25 6 + 7 = 13\n  0.10 Answer: 13\n",
    ]


def test_without_a_verifier_or_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    settings = SETTINGS | {"vote": "majority", "verifier": None}
    result = Result(PROBLEM, None, 0.0, (Solution(PROBLEM, finish="budget"),), None, "x", settings)
    lines = shown(capsys, result, all_steps=True).splitlines()
    assert lines[:2] == [
        "(no answer)",
        "share  0.00 of the majority vote, 0 of 1 candidates with an answer; there is no verifier",
    ]
    assert len(lines) == 3


def cut(*tokens: int, finish: Finish = "length") -> Solution:
    return Solution(PROBLEM).grow(*(Step("6 *\n", n) for n in tokens), finish=finish)


@pytest.mark.parametrize(
    ("strategy", "candidates", "line"),
    [
        ("majority", [cut(300, 212)], "cut    all solutions were cut at 512 tokens: raise max_tok"),
        ("majority", [cut(300), cut(9)], "cut    all solutions reached the end of the generator's"),
        ("beam", [cut(300, 300)], "cut    all solutions reached the end of the generator's"),
        ("beam", [cut(9, 512)], "cut    all solutions were cut at 512 tokens: raise max_tokens"),
        ("majority", [cut(), cut()], "cut    all solutions reached the end of the generator's"),
        ("majority", [cut(9), cut(8), cut(9, finish="stop")], "cut    2 of 3 solutions reached"),
        ("majority", [cut(9), cut(9, finish="stop")], "spent  "),
        ("majority", [], "spent  "),
    ],
)
def test_why_there_is_no_answer(
    strategy: str, candidates: list[Solution], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = Result(PROBLEM, None, 0.0, tuple(candidates), None, strategy, SETTINGS)
    assert shown(capsys, result).splitlines()[2].startswith(line)


def test_what_never_began_is_no_candidate_of_an_interrupted_run() -> None:
    never = Solution(PROBLEM, finish="budget")
    result = replace(RESULT, candidates=(GOOD, CUT, never, never), interrupted=True)
    assert "1 of 2 candidates" in render_result.share_line(result, SIM)


def test_settings_in_words() -> None:
    settings = {"n": 4, "confidence": None, "probability": 0.4432504615, "plan": "", "verifier": 1}
    assert render.in_words(settings, "verifier") == "n 4, probability 0.44"


def test_generated_text_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    evil = candidate(("\x1b[2J[red]½ of\tit\r\n", None), ("Answer: \x07é\n", None))
    result = Result(PROBLEM, "\x07é", 1.0, (evil,), evil, "majority", SETTINGS)
    out = shown(capsys, result)
    assert out.startswith("\N{REPLACEMENT CHARACTER}é\n")
    assert "     - \N{REPLACEMENT CHARACTER}[2J[red]½ of it\n" in out
    assert "\x1b" not in out


def test_json_is_one_line_with_these_keys() -> None:
    line = render_result.as_json(RESULT, SIM)
    assert "\n" not in line
    assert json.loads(line) == {
        "problem": "What is 6 * 7?",
        "answer": "42",
        "share": 0.947,
        "strategy": "best-of-n",
        "settings": SETTINGS,
        "seed": 3,
        "pair": "sim",
        "units": 4,
        "bill": {
            "generated_tokens": 1234,
            "prompt_tokens": 7,
            "reused_tokens": 21,
            "verifier_tokens": 26,
            "seconds": 0.5,
            "generator_flops": 2.5e9,
            "verifier_flops": 4e7,
            "recalled_tokens": 0,
            "recalled_scores": 0,
        },
        "candidates": [
            {
                "answer": "13",
                "score": 0.1,
                "steps": [
                    {"text": "6 + 7 = 13\n", "score": 0.25},
                    {"text": "Answer: 13\n", "score": 0.1},
                ],
                "finish": "stop",
            },
            good := {
                "answer": "42",
                "score": 0.9,
                "steps": [
                    {"text": "6 * 7 = 42\n", "score": 0.75},
                    {"text": "Answer: 42\n", "score": 0.9},
                ],
                "finish": "stop",
            },
            good,
            {
                "answer": None,
                "score": 0.5,
                "steps": [{"text": "6 *", "score": 0.5}],
                "finish": "budget",
            },
        ],
    }


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0 FLOP"),
        (999, "999 FLOP"),
        (999.6, "1 kFLOP"),
        (12_340, "12.3 kFLOP"),
        (6.125e9, "6.12 GFLOP"),
        (2e20, "200 EFLOP"),
    ],
)
def test_quantity(value: float, words: str) -> None:
    assert render.quantity(value, "FLOP") == words


def test_the_live_line() -> None:
    now = 10.0
    live = render_live.LiveLine(4, "Answer:", clock=lambda: now)
    assert live.line().plain == "opening the models …"
    live.begin()
    assert live.line().plain == "0/4 samples · 0 tokens/s"
    root = PROBLEM.root
    for now, solution in ((10.5, BAD), (11.0, GOOD), (12.0, GOOD)):  # noqa: B007
        live(Event("sample", root, solution))
    expected = "3/4 samples · 12 tokens/s · leading: 42 (67% of the answers)"
    assert live.line().plain == expected
    live(Event("sample", root, CUT))
    now = 99.0
    live(Event("score", CUT, CUT))
    assert live.line().plain == (  # what was cut is no sample
        "3/4 samples · 13 tokens/s · leading: 42 (67% of the answers) · scoring"
    )
    live(Event("sample", root.grow(GOOD.steps[0]), GOOD))  # nor what goes on, as in a search
    assert live.line().plain.startswith("3/4 samples")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "drawn"), [(Terminal(), True), (io.StringIO(), False)])
def test_the_live_line_is_for_terminals(
    stream: io.StringIO, drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    with render_live.LiveLine(4, "Answer:"):
        pass
    assert ("opening the models" in stream.getvalue()) == drawn


def test_errors_are_red_and_go_to_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    render.error("No [such] thing: buy one.")
    assert capsys.readouterr() == ("", "Error: No [such] thing: buy one.\n")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Console(stderr=True).is_terminal
    render.error("No.")
    assert stream.getvalue() == "\x1b[31mError: No.\x1b[0m\n"


def test_speeds_are_a_table_of_rates_and_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    from ttsolve.bench import Report, Speed, VerifierSpeed

    report = Report(
        generator="g.gguf",
        params=1_080_000,
        device="CPU",
        threads=2,
        kv="split",
        context=512,
        plain=Speed(1, 2000, 1.0),
        engine=(
            Speed(1, 3000, 1.0, outside=0.5, decoded=3000),
            Speed(64, 10_000, 1.0, outside=0.15, loops=4, decoded=2000),
        ),
        verifier=VerifierSpeed(9000.0, 20_000.0, tokens=1000, device="CUDA (A)"),
    )
    render_pairs.show_speed(report)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "                tokens/s  ratio  loops shared  outside llama_decode",
        "plain loop         2,000   1.00      1",
        "width 1            3,000   1.50      1    1.0  50%",
        "width 64          10,000   5.00      4    5.0  15%",
        "verifier          20,000                whole solutions, CUDA (A)",
        "                   9,000                step by step",
    ]
