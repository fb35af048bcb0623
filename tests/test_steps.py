"""How tokens become steps, and where a solution ends."""

from __future__ import annotations

import numpy as np
import pytest

from decode_maker import ENDS, PIECES, PROMPT, ask
from ttsolve.engines.request import Request, Steps
from ttsolve.prompts import PromptFormat


def cut(text_ids: list[int], steps: int | None = None, room: int = 99) -> Request:
    """Feed tokens to `Steps` one by one."""
    request = ask([2], room, steps=steps)  # type: ignore[arg-type]
    grown = Steps(PIECES, ENDS, PROMPT)
    tokens = [2]
    for i, token in enumerate(text_ids):
        tokens.append(token)
        if grown.grow(request, tokens[request.begun :], i + 1 == room):
            break
    return request


A, B, C_LINE, BLANK, ANSWER, ONE = 2, 3, 4, 5, 6, 7


@pytest.mark.parametrize(
    ("tokens", "room", "texts", "finish"),
    [
        ([A, 1, B, 1, 0], 99, ["a\n", "b\n"], "stop"),  # ended by the end token
        ([A, C_LINE, 0], 99, ["ac\n"], "stop"),  # the separator inside a token
        ([A, 1, 1, BLANK, B, 1, 0], 99, ["a\n", "\n\n\nb\n"], "stop"),  # blank lines
        ([A, 1, BLANK, 0], 99, ["a\n\n\n"], "stop"),  # blank lines at the end
        ([A, 1, ANSWER, ONE, 1, B, B], 99, ["a\n", "Answer: 1\n"], "stop"),  # the answer ends it
        ([A, 1, ANSWER, ONE, 0], 99, ["a\n", "Answer: 1"], "stop"),  # in the middle of a line
        ([A, 1, B, B, B], 4, ["a\n", "bb"], "length"),
        ([0], 99, [], "stop"),
        ([A, 8, 9, 1, 0], 99, ["aé\n"], "stop"),  # a character of two tokens
        ([A, 8, 9, 1, 0], 2, ["a\N{REPLACEMENT CHARACTER}"], "length"),  # half of it
    ],
)
def test_how_tokens_become_steps(
    tokens: list[int], room: int, texts: list[str], finish: str
) -> None:
    request = cut(tokens, room=room)
    assert [step.text for step in request.steps] == texts
    assert request.finish == finish
    assert all(step.tokens == len(step.ids) for step in request.steps)


def test_a_limit_of_steps_leaves_a_prefix() -> None:
    request = cut([A, 1, B, 1, A, 1], steps=2)
    assert [step.text for step in request.steps] == ["a\n", "b\n"]
    assert request.finish is None


WORDS = [b"", b"\n", b"a", b"Pro", b"blem: ", b".\nPro", b"<think>", b"</think>", b"Answer: 1\n"]


def grown(prompt: PromptFormat, words: list[int], thinks: bool = False) -> Request:
    """Feed `WORDS` as the loop does: only the last of those after which something may end."""
    steps = Steps(WORDS, np.array([word == b"" for word in WORDS]), prompt)
    request = ask([2], 99)
    request.thinks = thinks
    for i, word in enumerate(words):
        if steps.marks[word] and steps.grow(request, words[request.begun - 1 : i + 1], False):
            break
    return request


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        ([2, 1, 1, 3, 4, 2], ["a\n\n"]),  # at the beginning of a step, in two tokens
        ([2, 5, 4, 2], ["a"]),  # in the middle of a step; the token that holds both goes
        ([2, 3, 4, 1, 0], ["aProblem: \n"]),  # no line begins so
        ([3, 4], []),  # nothing else
    ],
)
def test_a_line_that_begins_another_problem_ends_a_solution(
    words: list[int], texts: list[str]
) -> None:
    request = grown(PromptFormat(separator="\n\n", stop=("Problem:",)), words)
    assert [step.text for step in request.steps] == texts
    assert request.finish == "stop"


def test_an_answer_within_thoughts_ends_nothing() -> None:
    expected = ["<think>Answer: 1\n", "a</think>\n", "Answer: 1\n"]
    for words, begun in ([6, 8, 2, 7, 1, 8, 2], False), ([8, 2, 7, 1, 8, 2], True):
        request = grown(PromptFormat(), words, thinks=begun)
        assert [step.text for step in request.steps] == [expected[0][7 * begun :], *expected[1:]]
        assert request.finish == "stop"
