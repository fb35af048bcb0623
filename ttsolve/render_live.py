"""The live line of a search, its round, the beams alive, the best score among them; and of chains
of revisions, a line for each.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.text import Text

from ttsolve.answers import answer_of
from ttsolve.core import Solution
from ttsolve.engine import Event
from ttsolve.render import LiveLine, printable
from ttsolve.strategies import Strategy

CHAINS = 8  # lines, at most
ATTEMPTS = 5  # of each chain, the last


def live_line(strategy: Strategy, samples: int, mark: str) -> LiveLine:
    """The live line that suits the strategy."""
    return (SearchLine if strategy.ranks_steps else ChainLines)(samples, mark)


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


class ChainLines(LiveLine):
    """A live line that becomes one for each chain, where there are chains: each attempt's answer,
    and its score as soon as it has one."""

    def __init__(self, samples: int, mark: str, clock: Callable[[], float] = time.perf_counter):
        self.chains: dict[int, list[Solution]] = {}
        super().__init__(samples, mark, clock)

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if event.child.chain is None:
            return
        chain = self.chains.setdefault(event.child.chain, [])
        if event.verb == "score" and chain:
            chain.pop()  # the same attempt, not yet scored
        chain.append(event.child)

    def line(self) -> Text:
        """What the lines say now."""
        text = super().line()
        text.no_wrap, text.overflow = True, "ellipsis"
        for number, chain in sorted(self.chains.items())[:CHAINS]:
            text.append(f"\nchain {number + 1:<2}", style="bold")
            for i, attempt in enumerate(chain[-ATTEMPTS:]):
                text.append(" → " if i else " … " if len(chain) > ATTEMPTS else " ")
                answer = answer_of(attempt, self.mark)
                text.append("?" if answer is None else printable(answer)[:24])
                score = attempt.steps[-1].score if attempt.steps else None
                text.append(f" {score:.2f}" if score is not None else "", style="dim")
        if (more := len(self.chains) - CHAINS) > 0:
            text.append(f"\n… {more} more", style="dim")
        return text
