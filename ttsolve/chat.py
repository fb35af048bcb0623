"""The chat template of a generator's file: Jinja, rendered as transformers renders it.

A template is code from somewhere: it runs in Jinja's sandbox, where it can change nothing and reach
nothing but the messages.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ttsolve.errors import ModelError
from ttsolve.prompts import AGAIN, PromptFormat

if TYPE_CHECKING:
    from jinja2 import Template

Turn = tuple[str, str]  # role, content
# What a template takes for now: on another day the same problem must have the same prompt.
TODAY = datetime(2024, 7, 26)


@dataclass(frozen=True, slots=True, repr=False)
class ChatFormat(PromptFormat):
    """A prompt format with the chat template of a generator's file."""

    jinja: str = ""  # the template
    bos: str = ""  # the texts of the tokens that begin and end a text
    eos: str = ""

    def __repr__(self) -> str:
        return f"{PromptFormat.__repr__(self)} in {(self.jinja, self.bos, self.eos)!r}"

    def render(self, question: str, attempts: Sequence[str] = ()) -> str:
        """The chat up to where the generator's turn begins.

        Earlier attempts are turns of the generator's, each followed by the demand for a better one.

        Raises:
            ModelError: the template cannot be used.
        """
        user = self.template.replace("{question}", self.ended(question.strip()))
        turns: list[Turn] = [("user", user)]
        for attempt in attempts:
            turns += [("assistant", attempt.strip()), ("user", AGAIN)]
        if not self.system:
            return self._rendered(turns)
        try:
            text = self._rendered([("system", self.system), *turns])
        except ModelError:
            text = ""  # a template may refuse a system turn
        if self.system in text:
            return text
        return self._rendered([("user", f"{self.system}\n\n{user}"), *turns[1:]])

    def _rendered(self, turns: Sequence[Turn]) -> str:
        try:
            return render_chat(self.jinja, turns, self.bos, self.eos)
        except Exception as error:  # of Jinja, or anything a template's own code may raise
            reason = " ".join(str(error).split())[:200]
            raise ModelError(
                f"The generator's chat template cannot be used ({reason}): give examples for a "
                "plain prompt with --few-shot FILE."
            ) from error


def chat_format(prompt: PromptFormat, jinja: str, bos: str = "", eos: str = "") -> ChatFormat:
    """The prompt format with a chat template, which is tried.

    Raises:
        ModelError: the template cannot be used.
    """
    own = {f.name: getattr(prompt, f.name) for f in fields(PromptFormat)}
    chat = ChatFormat(**own, jinja=jinja, bos=bos, eos=eos)
    if "1 + 1" not in chat.render("1 + 1"):  # as where a content must be a list of parts
        raise ModelError(
            "The generator's chat template leaves out what the user says: give examples for a "
            "plain prompt with --few-shot FILE."
        )
    return chat


def render_chat(jinja: str, turns: Sequence[Turn], bos: str = "", eos: str = "") -> str:
    """The turns in the template, up to where the generator's next turn begins."""
    messages = [{"role": role, "content": content} for role, content in turns]
    return _compiled(jinja).render(
        messages=messages,
        tools=None,
        documents=None,
        add_generation_prompt=True,
        bos_token=bos,
        eos_token=eos,
    )


@lru_cache(maxsize=8)
def _compiled(jinja: str) -> Template:
    from jinja2 import TemplateError, nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """The tag {% generation %} marks what a training learns; here it is only its contents."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    class Names(Namespace):
        """Names that a template sets; none of Python's inner ones."""

        def __init__(self, **names: Any):
            Namespace.__init__(self)
            for name, value in names.items():
                self[name] = value

        def __setitem__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                raise SecurityError(f"the name {name!r} begins with an underscore")
            Namespace.__setitem__(self, name, value)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def as_json(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    def as_dict(*pairs: Any, **names: Any) -> dict[Any, Any]:
        return dict(*pairs, **names)

    sandbox = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    sandbox.filters["tojson"] = as_json
    sandbox.globals["raise_exception"] = refuse
    sandbox.globals["strftime_now"] = TODAY.strftime
    sandbox.globals["dict"] = as_dict
    sandbox.globals["namespace"] = Names
    return sandbox.from_string(jinja)
