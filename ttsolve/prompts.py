"""How a question becomes the generator's prompt, and where a step and a solution end.

Knows text only: tokens belong to the engines. It is given the question, never the `Problem`, so
that a reference answer cannot reach a generator.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

BOXED = "\\boxed"  # as the answer's mark: the answer is in \boxed{…}
THINK, THOUGHT = "<think>", "</think>"  # between them a model thinks; what it says stands behind
REASON = "Please reason step by step, and put your final answer within \\boxed{}."
AGAIN = (
    "Check this solution. Then solve the problem again from the beginning, in the same form, and "
    "correct what is wrong."
)
FORM = {  # by the separator: what makes a chat model write such steps
    "\n\n": "Separate the steps by blank lines.",
    "\n": "Write each step on a line of its own.",
}
NUMBERED = 'Begin each step with its number, as in "Step 1: ".'


@dataclass(frozen=True, slots=True, repr=False)
class PromptFormat:
    """The prompt format of a pair (the [prompt] table of its pair.toml).

    A plain prompt is the template, with examples of solved problems for a model that was not
    trained for chats. A chat prompt is the template as the user's turn, in the chat template of the
    generator's file (see `chat.ChatFormat`).
    """

    template: str = "{question}\n"
    separator: str = "\n"  # ends every step
    answer: str = "Answer:"  # begins the step that is the last one; or \boxed
    full_stop: bool = False  # a question that ends without . ? or ! gets a full stop
    chat: bool = False  # the prompt is a chat, laid out as the generator's file says
    system: str = ""  # of a chat: what the generator is told first
    stop: tuple[str, ...] = ()  # a line that begins with one ends the solution before it

    def __repr__(self) -> str:
        """All fields up to `full_stop`, and further ones that are set: names are made of it, and
        a format keeps its name when fields are added."""
        shown = [f for i, f in enumerate(fields(self)) if i < 4 or getattr(self, f.name)]
        return f"PromptFormat({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in shown)})"

    def render(self, question: str, attempts: Sequence[str] = ()) -> str:
        """The prompt's text; earlier attempts stand behind it, and behind each the question again.

        Line breaks in the question would read as steps, so they go.
        """
        prompt = self._asked(self.template, question)
        ended = (attempt.removesuffix(self.separator) + self.separator for attempt in attempts)
        return prompt + "".join(attempt + self.again(question) for attempt in ended)

    def again(self, question: str) -> str:
        """What asks for another attempt behind one: the prompt, without its examples."""
        *examples, asks = self.template.rsplit("\n\n", 1)
        if "{question}" not in asks:
            return self._asked(self.template, question)
        return self._asked("\n" * len(examples) + asks, question)

    def _asked(self, template: str, question: str) -> str:
        return template.replace("{question}", self.ended(" ".join(question.split())))

    def ended(self, question: str) -> str:
        """The question, with the full stop it may lack."""
        lacks = self.full_stop and not question.endswith((".", "?", "!"))
        return f"{question}." if lacks else question

    def ends_solution(self, step: str) -> bool:
        """True when this step states the answer, so that nothing is to follow."""
        said = step.rpartition(THOUGHT)[2]
        if self.answer.startswith(BOXED):
            return _closed(said)
        return said.lstrip().startswith(self.answer)

    def stopped(self, step: str) -> int | None:
        """Where in a step a line begins that is no part of the solution; None: nowhere."""
        if not self.stop:
            return None
        found = re.search(rf"^(?:{'|'.join(map(re.escape, self.stop))})", step, re.MULTILINE)
        return found.start() if found else None


def thinks(text: str, before: bool = False) -> bool:
    """Whether a model still thinks at the end of a text; `before`: whether it did at its start."""
    begun, ended = text.rfind(THINK), text.rfind(THOUGHT)
    return before if begun == ended else begun > ended


def system_prompt(separator: str, numbered: bool = False) -> str:
    """What makes a chat model write steps that end with the separator, and a boxed answer."""
    return " ".join([REASON, FORM.get(separator, ""), NUMBERED * numbered]).strip()


def plain_format(template: str, separator: str = "\n") -> PromptFormat:
    """The format of a template with solved examples: how they mark an answer, and begin a problem.

    Where no example shows it, the answer's mark is the default one.
    """
    marks = (BOXED, "####", "Answer:")
    answer = next((mark for mark in marks if mark in template), PromptFormat().answer)
    before = template.partition("{question}")[0]
    begins = before.rpartition("\n")[2].strip()
    # A word before the question, as "Problem:", comes again where the next problem would begin.
    stop = (begins,) if begins and before.count(begins) > 1 else ()
    return PromptFormat(template, separator, answer, stop=stop)


def _closed(text: str) -> bool:
    r"""Whether the last `\boxed{` of a text has its closing brace."""
    begun = text.rfind(BOXED + "{")
    depth = 0
    for brace in re.finditer(r"\\.|[{}]", text[begun + len(BOXED) :]) if begun >= 0 else ():
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0 and brace[0] == "}":
            return True
    return False
