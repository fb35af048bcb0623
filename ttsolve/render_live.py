"""The live line of a search: its round, the beams alive, the best score among them."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.text import Text

from ttsolve.engine import Event
from ttsolve.render import LiveLine
from ttsolve.strategies import Strategy


def live_line(strategy: Strategy, samples: int, mark: str) -> LiveLine:
    """The live line that suits the strategy."""
    return (SearchLine if strategy.ranks_steps else LiveLine)(samples, mark)


class SearchLine(LiveLine):
    """The live line of a strategy that goes round after round, a step a round."""

    def __init__(self, samples: int, mark: str, clock: Callable[[], float] = time.perf_counter):
        self.round = 0  # steps of the longest beam
        self.best: float | None = None  # of the round's scores
        self.alive: set[str] = set()  # the round's beams that have not ended
        self.ended: set[str] = set()  # all beams that have
        super().__init__(samples, mark, clock)  # last: a terminal asks for the line at once

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if event.verb == "sample" and len(event.child.steps) > self.round:
            self.round, self.best, self.alive = len(event.child.steps), None, set()
        if event.verb != "rollout" and len(event.child.steps) == self.round:
            (self.ended if event.child.done else self.alive).add(event.child.text)
            score = event.child.steps[-1].score if event.child.steps else None
            self.best = max((s for s in (self.best, score) if s is not None), default=None)

    def line(self) -> Text:
        """What the line says now."""
        if not self.round:
            return super().line()
        alive = len(self.alive)
        text = Text.assemble((f"round {self.round}", "bold"))
        text.append(f" · {alive} beam{'' if alive == 1 else 's'} alive")
        text.append(f", {len(self.ended)} ended" if self.ended else "")
        if self.best is not None:
            text.append(f" · best score {self.best:.2f}")
        return text.append(f" · {self.rate():,.0f} tokens/s")
