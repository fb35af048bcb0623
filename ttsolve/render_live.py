"""The live line on stderr: of samples; of a search, round by round; of chains, a line for each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ttsolve.answers import answer_of
from ttsolve.core import Solution
from ttsolve.engine import Event
from ttsolve.render import printable
from ttsolve.strategies import Strategy

CHAINS = 8  # lines, at most
ATTEMPTS = 5  # of each chain, the last


def live_line(strategy: Strategy, samples: int, mark: str) -> LiveLine:
    """The live line that suits the strategy."""
    return (SearchLine if strategy.ranks_steps else ChainLines)(samples, mark)


class LiveLine:
    """The live line: samples, speed, and the answer that most samples gave so far.

    Silent when stderr is no terminal. An `Engine` tells it what happens (it is a `listen`).
    """

    def __init__(self, samples: int, mark: str, clock: Callable[[], float] = time.perf_counter):
        self.samples, self.mark, self.clock = samples, mark, clock
        self.done = 0
        self.cut = 0  # of those that are done
        self.tokens = 0
        self.answers: Counter[str] = Counter()
        self._started: float | None = None  # None: the models are still being opened
        self._last = 0.0  # when the last sample ended: while they are scored the speed stands
        console = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(
                console=console,
                get_renderable=self.line,
                refresh_per_second=8,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )

    def begin(self) -> None:
        """The models are open: the clock of the speed starts, and what was recalled is no speed."""
        self._started = self._last = self.clock()
        self.tokens = 0

    def __call__(self, event: Event) -> None:
        if event.verb == "sample":
            begins = not event.parent.steps  # in the rounds of a search a sample only goes on
            self.done += begins
            self.cut += begins and event.child.finish == "budget"
            self.tokens += event.child.tokens - event.parent.tokens
            self._last = self.clock()
            if answer := answer_of(event.child, self.mark):
                self.answers[answer] += 1

    def rate(self) -> float:
        """Tokens sampled a second, since the models are open."""
        if self._started is None:
            return 0.0
        return self.tokens / max(self._last - self._started, 1e-6)

    def line(self) -> Text:
        """What the line says now."""
        if self._started is None:
            return Text("opening the models …", style="dim")
        text = Text.assemble(
            (f"{self.done - self.cut}/{self.samples}", "bold"),
            f" samples · {self.rate():,.0f} tokens/s",
        )
        if self.answers:
            answer, count = self.answers.most_common(1)[0]
            text.append(" · leading: ")
            text.append(printable(answer)[:60], style="bold")
            text.append(f" ({count / self.answers.total():.0%} of the answers)")
        if self.done >= self.samples:
            text.append(" · scoring")
        return text

    def __enter__(self) -> LiveLine:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()


class SearchLine(LiveLine):
    """The live line of a strategy that goes round after round: the beams alive, the best score."""

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
