"""What the commands that measure share: their options, and the run over a file of problems."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ttsolve import render, render_batch
from ttsolve.auto import Auto, plan_for
from ttsolve.cli_options import BUDGETS, INTERRUPTED, ctrl_c_sets
from ttsolve.cli_store import stored_pair
from ttsolve.core import Usage
from ttsolve.dataset import Entry
from ttsolve.errors import UsageError
from ttsolve.larger import LargerModel, greedy_results
from ttsolve.pair import Pair
from ttsolve.policy import Policy, read_plan, shared
from ttsolve.strategies import Strategy

if TYPE_CHECKING:  # they open numpy or SQLite, and --help does without
    from ttsolve.engine import Engine
    from ttsolve.evaluate import Measured
    from ttsolve.grid import Grid


def budgets_of(text: str) -> tuple[int, ...]:
    """The budgets the user listed, rising.

    Raises:
        UsageError: when one is no whole number, or out of range.
    """
    try:
        budgets = tuple(sorted({int(part) for part in str(text).split(",")}))
    except ValueError:
        budgets = (0,)
    if not all(budget in BUDGETS for budget in budgets):
        allowed = f"whole numbers from {BUDGETS[0]} to {BUDGETS[-1]} with commas, as 4,16,64"
        raise UsageError(f"The budgets {text!r} cannot be spent: give {allowed}.")
    return budgets


DataSet = Annotated[
    Path, typer.Argument(metavar="DATASET", help="Problems with known answers: JSON lines or CSV.")
]
Strategies = Annotated[
    list[str] | None,
    typer.Option(
        "--strategy",
        metavar="NAME[:KEY=VALUE,…]",
        help="One to measure, as beam:width=4; to be repeated.",
    ),
]
Budgets = Annotated[
    str, typer.Option(metavar="N,N,…", help="The budgets, as in solve, each on its own.")
]
Limit = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Take the first N problems only.")
]


@dataclass(frozen=True)
class Job:
    """What is measured, with what."""

    pair: Pair
    policy: Policy
    grid: Grid
    entries: Sequence[Entry]
    seed: int
    temperature: float | None
    gpu_layers: int
    cache: Path | None
    no_cache: bool
    in_flight: int | None

    def run(self) -> tuple[list[Measured], bool]:
        """What was measured, and whether Ctrl-C cut it short."""
        from ttsolve.batch import enough, outcomes
        from ttsolve.evaluate import Evaluator, Measured

        stop = threading.Event()
        done: list[Measured] = []
        with (
            render_batch.Bar(len(self.entries), shown=render_batch.bar_wanted(to_file=True)) as bar,
            stored_pair(self.pair, self.gpu_layers, self.cache, self.no_cache) as models,
            ctrl_c_sets(stop),
        ):
            plan = partial(
                plan_of, pair=self.pair, policy=self.policy, temperature=self.temperature
            )

            def engine(seed: int, budget: int) -> Engine:
                return models.engine(budget, seed=seed, temperature=self.temperature, stop=stop)

            evaluator = Evaluator(self.pair, models, self.grid, self.policy, plan, engine)
            width = self.in_flight or enough(self.grid.budgets[-1])
            bar.begin()
            with closing(outcomes(self.entries, evaluator, stop, in_flight=width)) as measured:
                for outcome in measured:
                    bar.add(outcome)
                    if isinstance(outcome, Measured):
                        done.append(outcome)
            again = "goes on from here" if models.store.keeps else "starts anew"
        for outcome in done:
            if outcome.failed:
                render.note(f"Problem {outcome.record['id']}: {outcome.record['error']}")
        if stop.is_set():
            render.note(f"Interrupted: the same command {again}.")
        return done, stop.is_set()


@dataclass
class Series:
    """One job after the other on the same problems, and what was computed in all of them."""

    entries: Sequence[Entry]
    seed: int
    gpu_layers: int
    cache: Path | None
    no_cache: bool
    in_flight: int | None
    usage: Usage = Usage()
    started: tuple[float, float] = field(
        default_factory=lambda: (time.perf_counter(), time.process_time())
    )

    @property
    def seconds(self) -> tuple[float, float]:
        """Those that went by since it was made: by the clock, and of CPU."""
        clock, cpu = self.started
        return time.perf_counter() - clock, time.process_time() - cpu

    def run(
        self, what: str, pair: Pair, policy: Policy, grid: Grid, temperature: float | None
    ) -> list[Measured]:
        """What was measured; ends the command after Ctrl-C."""
        render.progress(f"{what}: {len(self.entries)} problems, up to {grid.units} units each")
        common = (self.seed, temperature, self.gpu_layers, self.cache, self.no_cache)
        job = Job(pair, policy, grid, self.entries, *common, self.in_flight)
        measured, interrupted = job.run()
        if interrupted:
            raise typer.Exit(INTERRUPTED)
        self.usage = sum((outcome.usage for outcome in measured), self.usage)
        return measured

    def greedy(self, larger: LargerModel | None) -> dict[str, float]:
        """How often a larger generator is right, by content hash; empty: there is none."""
        from ttsolve.reproduce import GREEDY

        if larger is None:
            return {}
        if larger.results:
            found = greedy_results(larger.results, self.entries)
            if len(found) < len(self.entries):
                count = f"{len(found)} of the {len(self.entries)} problems"
                render.note(f"{larger.name} has {count}: only these are compared.")
            return found
        assert larger.pair
        policy = Policy("none", ())
        measured = self.run(f"greedy answers of {larger.name}", larger.pair, policy, GREEDY, 0.0)
        return {row.content: row.rate for outcome in measured for row in outcome.rows}


def plan_of(
    text: str, budget: int, *, pair: Pair, policy: Policy, temperature: float | None = None
) -> Strategy:
    """The strategy of a text; `auto` may have a confidence, as in auto:confidence=0.95."""
    name, settings = read_plan(text)
    if name != Auto.name:
        return plan_for(name, budget, pair, settings)
    said = str(settings.pop("confidence", "")) or None
    try:
        confidence = None if said is None else float(said)
    except ValueError:
        raise UsageError(f"The confidence {said!r} is no number: give one from 0 to 1.") from None
    return plan_for(
        name,
        budget,
        pair,
        settings,
        confidence=confidence,
        policy=policy,
        temperature=temperature,
    )


def grid_of(
    strategies: Sequence[str],
    budgets: Sequence[int],
    seeds: Sequence[int],
    pair: Pair,
    policy: Policy,
    temperature: float | None = None,
) -> Grid:
    """What is measured.

    Raises:
        UsageError: when a strategy is none, or has no size for any of the budgets.
    """
    from ttsolve.grid import Grid, sizes

    for text in strategies:
        size = sizes(text, budgets)[-1]
        plan_of(text, size, pair=pair, policy=policy, temperature=temperature)
    return Grid(tuple(dict.fromkeys(strategies)), tuple(budgets), tuple(seeds))


def warn_of_seen(entries: Sequence[Entry], policy: Policy, grid: Grid) -> None:
    """A word where `auto` is measured on problems that its policy was fitted on."""
    if not any(text.startswith(Auto.name) for text in grid.strategies):
        return
    seen = shared([entry.problem for entry in entries if entry.problem], set(policy.fitted_on))
    if seen:
        render.note(
            f"The policy was fitted on {len(seen)} of these {len(entries)} problems: what auto "
            "reaches here says little of others."
        )
