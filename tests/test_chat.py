"""Chat templates: what transformers makes of them, in a sandbox, with steps and attempts."""

from __future__ import annotations

from pathlib import Path

import pytest

from ttsolve.chat import ChatFormat, chat_format, render_chat
from ttsolve.errors import ModelError
from ttsolve.prompts import AGAIN, BOXED, PromptFormat, plain_format, system_prompt, thinks

TEMPLATES = sorted((Path(__file__).parents[2] / "shared" / "vocab").glob("*.jinja"))
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT = PromptFormat("{question}", "\n\n", BOXED, chat=True, system="Step by step.")
TURNS = [
    [("user", "What is 1 + 1?")],
    [("system", "Be brief.\n"), ("user", "  {{ 7 * 7 }} < 50 & 负数 🙂\n\nWhy? ")],
    [("user", "a"), ("assistant", "<think>\nhm\n</think>\n\nb"), ("user", "c")],
    [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d c")],
]

needs_templates = pytest.mark.skipif(not TEMPLATES, reason="no published chat templates here")


@needs_templates
@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.stem)
def test_a_published_template_renders_as_in_transformers(
    file: Path, turns: list[tuple[str, str]]
) -> None:
    transformers = pytest.importorskip("transformers.utils.chat_template_utils")
    template = file.read_text(encoding="utf-8")
    (expected,), _ = transformers.render_jinja_template(
        [[{"role": role, "content": content} for role, content in turns]],
        chat_template=template,
        add_generation_prompt=True,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        date_string="26 Jul 2024",
    )
    assert render_chat(template, turns, "<|begin_of_text|>", "<|eot_id|>") == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages | tojson }} {{ {'b': '<é>', 'a': [1]} | tojson(indent=2) }}",
        "{%- for m in messages -%}\n  {% if loop.index == 2 %}{% break %}{% endif %}\n  x\n"
        "{% endfor %}",
        "{% set ns = namespace(n=1) %}{% set ns.n = 2 %}{{ ns.n }}{{ dict(a=1) }}",
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
        "{{ bos_token }}{% if tools %}tools{% endif %}{{ messages[0]['content'][::-1] }}",
    ],
)
def test_what_templates_use_is_there(template: str) -> None:
    transformers = pytest.importorskip("transformers.utils.chat_template_utils")
    turns = TURNS[3]
    (expected,), _ = transformers.render_jinja_template(
        [[{"role": role, "content": content} for role, content in turns]],
        chat_template=template,
        add_generation_prompt=True,
        bos_token="<s>",
    )
    assert render_chat(template, turns, "<s>") == expected


def test_a_chat_prompt() -> None:
    chat = chat_format(CHAT, CHATML)
    assert chat.render("Is 7\nprime? ") == (
        "<|im_start|>system\nStep by step.<|im_end|>\n<|im_start|>user\nIs 7\nprime?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_earlier_attempts_are_turns() -> None:
    chat = chat_format(CHAT, CHATML)
    first = chat.render("q")
    both = chat.render("q", ["one\n\n", "two\n\n"])
    again = f"<|im_end|>\n<|im_start|>user\n{AGAIN}<|im_end|>\n<|im_start|>assistant\n"
    assert both == f"{first}one{again}two{again}"


@pytest.mark.parametrize(
    "template",
    [
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + CHATML,
        "{% for m in messages if m.role != 'system' %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
    ],
    ids=["refused", "ignored"],
)
def test_where_a_template_takes_no_system_turn_the_user_says_it(template: str) -> None:
    assert "user" in (text := chat_format(CHAT, template).render("Why?"))
    assert "Step by step.\n\nWhy?" in text


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% if %}", "Expected an expression"),
        ("{{ raise_exception('Only tools here') }}", "Only tools here"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "'append' of 'list' object is unsafe"),
        ("{{ namespace(__init__=1) }}", "underscore"),
        ("{{ messages[9].content + 1 }}", "has no element 9"),
        (
            "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
            "leaves out",
        ),
    ],
)
def test_a_template_that_cannot_be_used_is_one_sentence(template: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        chat_format(CHAT, template)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("with --few-shot FILE.")


def test_today_is_always_the_same_day() -> None:
    assert render_chat("{{ strftime_now('%d %b %Y') }}", []) == "26 Jul 2024"


def test_formats_have_names() -> None:
    """A plain format is named by its first four fields, as it was before it had more."""
    assert repr(PromptFormat()) == (
        "PromptFormat(template='{question}\\n', separator='\\n', answer='Answer:', full_stop=False)"
    )
    chat = chat_format(CHAT, CHATML)
    names = {repr(PromptFormat()), repr(CHAT), repr(chat), repr(chat_format(CHAT, CHATML, "<s>"))}
    assert len(names) == 4
    assert isinstance(chat, ChatFormat)
    assert chat_format(chat, CHATML) == chat


# --- plain prompts -----------------------------------------------------------------------------

EXAMPLES = "Problem: 1 + 1\nSolution: 2.\n#### 2\n\nProblem: {question}\nSolution:"


def test_a_plain_prompt_with_examples() -> None:
    how = plain_format(EXAMPLES)
    assert how == PromptFormat(EXAMPLES, "\n", "####", stop=("Problem:",))
    assert how.render("2 + 2\nis?").endswith("\n\nProblem: 2 + 2 is?\nSolution:")
    assert plain_format("{question}\n") == PromptFormat()
    assert plain_format("So \\boxed{1}.\n\n{question}\n").answer == BOXED


def test_earlier_attempts_stand_behind_a_plain_prompt_and_behind_each_the_question() -> None:
    how = PromptFormat(separator="\n\n")
    assert how.render("q", ["a\n\n", "b"]) == "q\na\n\nq\nb\n\nq\n"


def test_examples_are_given_once() -> None:
    how = plain_format(EXAMPLES)
    whole, asks = how.render("2 + 2?"), "\nProblem: 2 + 2?\nSolution:"
    assert whole.endswith(asks)
    assert how.render("2 + 2?", ["4"]) == f"{whole}4\n{asks}"


@pytest.mark.parametrize(
    ("answer", "step", "ends"),
    [
        ("Answer:", "  Answer: 4\n", True),
        ("Answer:", "The Answer: 4\n", False),
        ("####", "#### 4", True),
        (BOXED, "So $\\boxed{\\frac{1}{2}}$.", True),
        (BOXED, "So $\\boxed{\\frac{1}{2}$.", False),
        (BOXED, "So $\\boxed{\\}", False),
        (BOXED, "no box", False),
        (BOXED, "\\boxed{1}</think>", False),
        (BOXED, "hm</think>\\boxed{1}", True),
    ],
)
def test_which_step_is_the_last(answer: str, step: str, ends: bool) -> None:
    assert PromptFormat(answer=answer).ends_solution(step) is ends


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("<think>a", False, True),
        ("<think>a</think>b", False, False),
        ("a</think>b", True, False),
        ("a", True, True),
        ("a", False, False),
        ("</think><think>", False, True),
    ],
)
def test_whether_a_model_thinks(text: str, before: bool, after: bool) -> None:
    assert thinks(text, before) is after


@pytest.mark.parametrize(
    ("step", "place"),
    [("Problem: 2", 0), ("x\nProblem: 2", 2), ("a Problem: 2", None), ("Problem", None)],
)
def test_a_line_that_is_no_part_of_the_solution(step: str, place: int | None) -> None:
    assert plain_format(EXAMPLES).stopped(step) == place
    assert PromptFormat().stopped(step) is None


def test_a_system_prompt_asks_for_the_steps_that_the_verifier_knows() -> None:
    assert "blank lines" in system_prompt("\n\n")
    assert "line of its own" in system_prompt("\n")
    assert '"Step 1: "' in system_prompt("\n", numbered=True)
    assert "Step 1" not in system_prompt("\n")
