"""Dice that count what they draw, and to which something may happen in the middle of a run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ttsolve.core import Solution, Usage
from ttsolve.engine import Sampling, Watch
from ttsolve.engines.sim import SimGenerator


@dataclass
class Counting(SimGenerator):
    """Dice that count their samples. After so many, `then` says what happens."""

    then: dict[int, Callable[[], None]] = field(default_factory=dict)
    drawn: int = 0

    def sample(
        self,
        prefixes: Sequence[Solution],
        how: Sequence[Sampling],
        watch: Watch | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[list[Solution], Usage]:
        def heard(lane: int, solution: Solution) -> None:
            self.drawn += 1
            if watch:
                watch(lane, solution)
            if self.drawn in self.then:
                self.then[self.drawn]()

        return super().sample(prefixes, how, heard, stop)


def die() -> None:
    """As a killed process does, or one that hears Ctrl-C twice."""
    raise KeyboardInterrupt


def press() -> None:
    """Press Ctrl-C."""
    signal.raise_signal(signal.SIGINT)


def press_twice() -> None:
    """Press Ctrl-C, and again."""
    press()
    press()
