"""How each family of reward models lays a solution out, in its own code's way and in ttsolve's.

`…_reading` is what the family's own code does with a whole solution and a transformers tokenizer;
`…_layout` is what goes into verifier.toml, by which ttsolve builds the same tokens step by step. An
export compares the two. All are given the tokenizer and the mark that ends a step.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

Reading = tuple[list[int], list[int]]  # the tokens of a solution, and where in them the scores are
Layout = dict[str, Any]  # fields of a PrmFormat
Turn = tuple[str, str]  # role, content

QUESTION, STEP, NEXT, SIGN = "\ue000", "\ue001", "\ue002", "\ue003"  # stand-ins in a chat
APART: Layout = {"apart": True}
SYSTEM: Turn = (
    "system",
    "Please reason step by step, and put your final answer within \\boxed{}.",
)
INSTRUCTION = (
    "Below is an instruction that describes a task.\nWrite a response that appropriately completes "
    "the request.\n\n### Instruction:\n{question}\n\n### Response: Let's think step by step"
)


def numbered(steps: Sequence[str]) -> list[str]:
    """Steps that begin with "Step 1: ", "Step 2: ", …"""
    texts = (re.sub(r"^Step \d+:\s*", "", step) for step in steps)
    return [f"Step {i}: {text}" for i, text in enumerate(texts, start=1)]


def _at(ids: list[int], mark: int) -> Reading:
    return ids, [i for i, token in enumerate(ids) if token == mark]


def _begin(tokenizer: Any) -> str:
    """What the tokenizer puts before every text."""
    return "".join(tokenizer.convert_ids_to_tokens(tokenizer("")["input_ids"]))


def _rendered(tokenizer: Any, *turns: Turn) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    return str(tokenizer.apply_chat_template(messages, tokenize=False))


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _pad(tokenizer: Any) -> str:
    return str(tokenizer.pad_token or "")


# --- marks in a text: Math-Shepherd, ER-PRM, OpenR, PQM -----------------------------------------


def shepherd_layout(tokenizer: Any, mark: str) -> Layout:
    step = f"Step {{number}}: {{step}} {mark}"
    return {"prompt": _begin(tokenizer) + "{question}", "first": f" {step}", "step": f"\n{step}"}


def shepherd_reading(tokenizer: Any, mark: str, question: str, steps: Sequence[str]) -> Reading:
    text = f"{question} " + f" {mark}\n".join(numbered(steps)) + f" {mark}"
    return _at(tokenizer.encode(text), tokenizer.encode(mark)[-1])


def erprm_layout(tokenizer: Any, mark: str) -> Layout:
    step = f"Step {{number}}: {{step}} {mark}"
    return {"prompt": _begin(tokenizer) + "{question}", "first": f" {step}", "step": step}


def erprm_reading(tokenizer: Any, mark: str, question: str, steps: Sequence[str]) -> Reading:
    text = f"{question} " + "".join(f"{step} {mark}" for step in numbered(steps))
    return _at(tokenizer.encode(text), tokenizer.encode(f" {mark}")[-1])


def openr_layout(tokenizer: Any, mark: str) -> Layout:
    return {"prompt": _begin(tokenizer) + "{question}", "step": f" {{step}} {mark}"}


def openr_reading(tokenizer: Any, mark: str, question: str, steps: Sequence[str]) -> Reading:
    text = f"{question} " + f" {mark} ".join(steps) + f" {mark}"
    return _at(tokenizer.encode(text), tokenizer.encode(f" {mark}")[-1])


def pqm_layout(tokenizer: Any, mark: str) -> Layout:
    step = f"Step {{number}}: {{step}} {mark}"
    return {"prompt": f"{INSTRUCTION}\n", "first": step, "step": f"\n{step}"}


def pqm_reading(tokenizer: Any, mark: str, question: str, steps: Sequence[str]) -> Reading:
    answer = f" {mark}\n".join(numbered(steps)) + f" {mark}"
    ids = _plain(tokenizer, INSTRUCTION.replace("{question}", question) + "\n" + answer)
    return _at(ids, _plain(tokenizer, mark)[-1])


# --- ids put together: Skywork, TRL, PURE --------------------------------------------------------


def skywork_layout(tokenizer: Any, mark: str) -> Layout:
    prompt = f"{tokenizer.bos_token or ''}{{question}}{mark}"
    return {"prompt": prompt, "step": f"{{step}}{mark}", "lines": True, "strip": "newlines"} | APART


def skywork_reading(tokenizer: Any, mark: str, question: str, steps: Sequence[str]) -> Reading:
    ids = list(tokenizer.encode(f"{tokenizer.bos_token or ''}{question}{mark}"))
    ends = []
    for step in steps:
        for line in step.split(mark):
            ids += (tokenizer.encode(line) if line else []) + tokenizer.encode(mark)[-1:]
        ends.append(len(ids) - 1)
    return ids, ends


def trl_layout(tokenizer: Any, mark: str) -> Layout:
    prompt = f"{tokenizer.bos_token or ''}{{question}}"
    return {"prompt": prompt, "step": f"{{step}}{mark}", "strip": "newlines"} | APART


def pure_layout(tokenizer: Any, mark: str) -> Layout:
    return {"prompt": "{question}", "step": f"{{step}}{mark}", "strip": "right"} | APART


def trl_reading(
    tokenizer: Any, mark: str, question: str, steps: Sequence[str], bos: bool = True
) -> Reading:
    ids = [tokenizer.bos_token_id] if bos and tokenizer.bos_token_id is not None else []
    ids += _plain(tokenizer, question)
    ends = []
    for step in steps:
        ids += _plain(tokenizer, step) + _plain(tokenizer, mark)
        ends.append(len(ids) - 1)
    return ids, ends


def pure_reading(tokenizer: Any, mark: str, question: str, steps: Sequence[str]) -> Reading:
    return trl_reading(tokenizer, mark, question, [s.rstrip() for s in steps], bos=False)


# --- chats: RLHFlow, Qwen, outcome reward models -------------------------------------------------


def rlhflow_layout(tokenizer: Any, mark: str) -> Layout:
    """The model's answer to a step is the sign, which the token before it predicts."""
    turns = [("user", f"{QUESTION} {STEP}"), ("assistant", SIGN)]
    chat = _rendered(tokenizer, *turns, ("user", NEXT), ("assistant", SIGN))
    head, body = chat.split(f"{QUESTION} {STEP}")
    answered, after, _ = body.split(SIGN)
    between = after.split(NEXT)[0]
    step = f"{{step}}{answered}{mark}"
    layout = {"prompt": f"{head}{{question}}", "first": f" {step}", "step": f"{between}{step}"}
    return layout | {"read": -2}


def rlhflow_reading(tokenizer: Any, mark: str, question: str, steps: Sequence[str]) -> Reading:
    turns: list[Turn] = []
    ids: list[int] = []
    places = []
    for i, step in enumerate(steps):
        turns += [("user", f"{question} {step}" if i == 0 else step), ("assistant", mark)]
        ids = _plain(tokenizer, _rendered(tokenizer, *turns))
        places.append(len(ids) - 3)  # …, predicts the sign, the sign, end of turn
    return ids, places


def rlhflow_orm_layout(tokenizer: Any, mark: str) -> Layout:
    layout = rlhflow_layout(tokenizer, mark)
    return {**layout, "step": layout["first"], "first": "", "whole": True}


def rlhflow_orm_reading(tokenizer: Any, mark: str, question: str, steps: Sequence[str]) -> Reading:
    return rlhflow_reading(tokenizer, mark, question, ["".join(steps).strip()])


def qwen_layout(tokenizer: Any, mark: str) -> Layout:
    chat = _rendered(tokenizer, SYSTEM, ("user", QUESTION), ("assistant", STEP))
    return {
        "prompt": chat.split(STEP)[0].replace(QUESTION, "{question}"),
        "step": f"{{step}}{mark}",
    }


def qwen_reading(tokenizer: Any, mark: str, question: str, steps: Sequence[str]) -> Reading:
    answer = mark.join(steps) + mark
    chat = _rendered(tokenizer, SYSTEM, ("user", question), ("assistant", answer))
    return _at(tokenizer.encode(chat), tokenizer.encode(mark)[0])


def orm_layout(tokenizer: Any, mark: str, *system: Turn) -> Layout:
    """A chat that ends with the solution; the score is at its last token that pads nothing."""
    chat = _rendered(tokenizer, *system, ("user", QUESTION), ("assistant", STEP))
    head, tail = chat.split(STEP)
    prompt, tail = head.replace(QUESTION, "{question}"), tail.removesuffix(_pad(tokenizer))
    return {"prompt": prompt, "step": f"{{step}}{tail}", "whole": True}


def orm_reading(
    tokenizer: Any, mark: str, question: str, steps: Sequence[str], *system: Turn
) -> Reading:
    turns = [*system, ("user", question), ("assistant", "".join(steps).strip())]
    ids = _plain(tokenizer, _rendered(tokenizer, *turns).removesuffix(_pad(tokenizer)))
    return ids, [len(ids) - 1]


def qwen_orm_layout(tokenizer: Any, mark: str) -> Layout:
    return orm_layout(tokenizer, mark, SYSTEM)


def qwen_orm_reading(tokenizer: Any, mark: str, question: str, steps: Sequence[str]) -> Reading:
    return orm_reading(tokenizer, mark, question, steps, SYSTEM)
