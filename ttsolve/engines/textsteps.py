"""Steps and the end of a solution in a text that arrives in pieces: `request.Steps` for texts."""

from __future__ import annotations

from ttsolve.core import Finish, Step, Usage
from ttsolve.prompts import PromptFormat, thinks


class TextSteps:
    """What a continuation has grown into so far."""

    def __init__(self, prompt: PromptFormat, most: int | None, thinking: bool = False):
        self.steps: list[Step] = []
        self.finish: Finish | None = None
        self.prompt_tokens = self.cached_tokens = 0  # as the server says
        self.tokens = 0  # generated
        self._prompt = prompt
        self._most = most  # steps; None: to the end
        self._thinks = thinking
        self._hand = ""  # the step in hand
        self._hand_tokens = 0

    @property
    def usage(self) -> Usage:
        """What was computed for it."""
        return Usage(
            generated_tokens=self.tokens,
            prompt_tokens=max(0, self.prompt_tokens - self.cached_tokens),
            reused_tokens=self.cached_tokens,
        )

    def feed(self, text: str, tokens: int = 1) -> bool:
        """Add a piece; True: nothing more is wanted."""
        self._hand += text
        self._hand_tokens += tokens
        self.tokens += tokens
        while end := self._separated():
            if self._stopped(self._hand[:end]):
                return True
            self._close(end)
            if not self._thinks and self._prompt.ends_solution(self.steps[-1].text):
                self.finish = "stop"
                return True
            if len(self.steps) == self._most:
                return True
        return self._stopped(self._hand)

    def end(self, finish: Finish) -> None:
        """There is no more: what is in hand is the last step."""
        self._close(len(self._hand))
        self.finish = finish

    def _separated(self) -> int:
        """Where the first step in hand ends, after some text; 0: nowhere yet."""
        begun = len(self._hand) - len(self._hand.lstrip())
        place = self._hand.find(self._prompt.separator, begun)
        return place + len(self._prompt.separator) if place >= 0 else 0

    def _stopped(self, text: str) -> bool:
        place = self._prompt.stopped(text)
        if place is not None:
            self._hand = self._hand[:place]
            self.end("stop")
        return place is not None

    def _close(self, end: int) -> None:
        """Make a step of the text in hand up to `end`; a blank one joins the step before it."""
        text, self._hand = self._hand[:end], self._hand[end:]
        tokens, self._hand_tokens = self._hand_tokens, 0
        if text.strip():
            self.steps.append(Step(text, tokens))
            self._thinks = thinks(text, self._thinks)
        elif self.steps:
            last = self.steps.pop()
            self.steps.append(Step(last.text + text, last.tokens + tokens))
