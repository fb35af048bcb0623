"""How a question becomes the generator's prompt, and where a step and a solution end.

Knows text only: tokens belong to the engines. It is given the question, never the `Problem`, so
that a reference answer cannot reach a generator.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PromptFormat:
    """The prompt format of a pair (the [prompt] table of its pair.toml)."""

    template: str = "{question}\n"
    separator: str = "\n"  # ends every step
    answer: str = "Answer:"  # the step that begins with it is the last one
    full_stop: bool = False  # a question that ends without . ? or ! gets a full stop

    def render(self, question: str) -> str:
        """The prompt's text; line breaks in the question would read as steps, so they go."""
        line = " ".join(question.split())
        if self.full_stop and not line.endswith((".", "?", "!")):
            line += "."
        return self.template.replace("{question}", line)

    def ends_solution(self, step: str) -> bool:
        """True when this step states the answer, so that nothing is to follow."""
        return step.lstrip().startswith(self.answer)
