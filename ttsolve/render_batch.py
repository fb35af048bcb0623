"""What a batch shows beside its records, on stderr: a bar while it runs, a summary at its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ttsolve import render
from ttsolve.batch import Outcome, Tally
from ttsolve.pair import Pair
from ttsolve.render_result import bill_line


def bar_wanted(*, to_file: bool) -> bool:
    """Whether there is someone to see a bar: not where records scroll over the same terminal."""
    console = Console(stderr=True)
    seen = console.is_terminal and not console.is_dumb_terminal
    return seen and (to_file or not sys.stdout.isatty())


class Bar:
    """The bar: how many lines are done, how fast, how many right, how long it will take.

    total: None, where it shows only at the end. The `tally` is counted also where no bar is shown.
    """

    def __init__(
        self, total: int | None, *, shown: bool, clock: Callable[[], float] = time.perf_counter
    ):
        self.tally = Tally()
        self._total, self._clock = total, clock
        self._started = clock()
        self._progress = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True, highlight=False),
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not shown,
        )
        self._task = self._progress.add_task("opening the models …", total=total)

    def begin(self) -> None:
        """The first problem is begun: the clock of the speed starts."""
        self._started = self._clock()

    @property
    def seconds(self) -> float:
        """The time since then."""
        return self._clock() - self._started

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        self.tally.add(outcome)
        text = bar_text(self.tally, self._total, self.seconds)
        self._progress.update(self._task, completed=self.tally.lines, description=text)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def bar_text(tally: Tally, total: int | None, seconds: float) -> str:
    """What stands beside the bar."""
    done = f"{tally.lines:,}" if total is None else f"{tally.lines:,}/{total:,}"
    parts = [done, f"{tally.lines / max(seconds, 1e-6):.3g}/s"]
    parts += [f"{tally.correct / tally.graded:.0%} correct"] if tally.graded else []
    parts += [_count(tally.errors, "error")] if tally.errors else []
    return " · ".join(parts)


def show_summary(tally: Tally, pair: Pair, seconds: float) -> None:
    """What a batch came to, and what was computed for it in `seconds` by the clock."""
    render.progress(summary(tally, seconds))
    spent = bill_line(replace(tally.usage, seconds=seconds))
    if tokens := tally.usage.generated_tokens:
        spent += f"; {tokens / max(seconds, 1e-6):,.0f} tokens generated a second"
    render.progress(f"spent {spent}")
    if tally.foreign and pair.world:
        render.note(
            f"The pair {pair.name} knows no world but {pair.world.name}, and {tally.foreign} of "
            f"{_count(tally.lines, 'problem')} had words, numbers or signs from outside it: choose "
            "a larger pair, and do not trust these answers."
        )


def summary(tally: Tally, seconds: float) -> str:
    """The figures, in words."""
    silent = tally.lines - tally.answers - tally.errors
    parts = [f"{_count(tally.lines, 'line')} in {seconds:.1f} s: {_count(tally.answers, 'answer')}"]
    parts += [f"{silent} without one"] if silent else []
    parts += [_count(tally.errors, "error")] if tally.errors else []
    if tally.graded:
        share = tally.correct / tally.graded
        parts += [f"{tally.correct} of {tally.graded} correct ({share:.1%})"]
    return ", ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
