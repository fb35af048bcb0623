"""`ttsolve eval` and `ttsolve calibrate`: what strategies are worth, and the policy of a pair."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ttsolve import render, render_batch
from ttsolve.auto import Auto, plan_for
from ttsolve.cli_options import (
    BUDGETS,
    INTERRUPTED,
    AnswerField,
    GeneratorPath,
    GpuLayers,
    PairName,
    QuestionField,
    Seed,
    Temperature,
    chosen_pair,
    chosen_sampling,
    ctrl_c_sets,
)
from ttsolve.cli_store import CacheFile, NoCache, stored_pair
from ttsolve.dataset import Entry
from ttsolve.engine import Engine
from ttsolve.errors import UsageError
from ttsolve.eval_files import known_problems, refuse_test, write_rows
from ttsolve.fields import Fields
from ttsolve.pair import DEFAULT, Pair
from ttsolve.policy import (
    FILE,
    Policy,
    models_of,
    policy_of,
    read_plan,
    read_policy,
    shared,
    write_policy,
)
from ttsolve.strategies import STRATEGIES, Strategy

if TYPE_CHECKING:  # they open numpy or SQLite, and --help does without
    from ttsolve.evaluate import Measured
    from ttsolve.grid import Grid
    from ttsolve.recall import StoredPair

SWEEP = tuple(  # the paper's section 5.3, and what came after it
    text
    for text in (
        *("best-of-n", "majority", "beam", "beam:width=4"),
        *("lookahead", "lookahead:lookahead=3,width=4", "dvts:width=4"),
    )
    if text.partition(":")[0] in STRATEGIES
)
SHORT = ("best-of-n", "majority", "beam:width=4", Auto.name)
LANES = 128  # samples in flight: twice what a generator decodes at once keeps it busy


def _budgets(text: str) -> tuple[int, ...]:
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
InFlight = Annotated[
    int | None, typer.Option(min=1, max=256, metavar="N", help="Problems solved side by side.")
]


@dataclass(frozen=True)
class _Job:
    """What is measured, with what: the common part of both commands."""

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
        from ttsolve.batch import outcomes
        from ttsolve.evaluate import Evaluator, Measured

        stop = threading.Event()
        done: list[Measured] = []
        with (
            render_batch.Bar(len(self.entries), shown=render_batch.bar_wanted(to_file=True)) as bar,
            stored_pair(self.pair, self.gpu_layers, self.cache, self.no_cache) as models,
            ctrl_c_sets(stop),
        ):
            plan = partial(_plan, pair=self.pair, policy=self.policy)
            engine = partial(self._engine, models=models, stop=stop)
            evaluator = Evaluator(self.pair, models, self.grid, self.policy, plan, engine)
            width = self.in_flight or max(LANES // self.grid.budgets[-1], 8)
            bar.begin()
            with closing(outcomes(self.entries, evaluator, stop, in_flight=width)) as measured:
                for outcome in measured:
                    bar.add(outcome)
                    if isinstance(outcome, Measured):
                        done.append(outcome)
            again = "goes on from here" if models.store.usable else "starts anew"
        for outcome in done:
            if outcome.failed:
                render.note(f"Problem {outcome.record['id']}: {outcome.record['error']}")
        if stop.is_set():
            render.note(f"Interrupted: the same command {again}.")
        return done, stop.is_set()

    def _engine(
        self, seed: int, budget: int, *, models: StoredPair, stop: threading.Event
    ) -> Engine:
        return Engine(
            models.generator,
            models.verifier,
            seed=seed,
            sampling=chosen_sampling(self.pair, self.temperature),
            budget=budget,
            stop=stop,
        )


def _plan(text: str, budget: int, *, pair: Pair, policy: Policy) -> Strategy:
    """The strategy of a text; `auto` may have a confidence, as in auto:confidence=0.95."""
    name, settings = read_plan(text)
    if name != Auto.name:
        return plan_for(name, budget, pair, settings)
    said = str(settings.pop("confidence", "")) or None
    try:
        confidence = None if said is None else float(said)
    except ValueError:
        raise UsageError(f"The confidence {said!r} is no number: give one from 0 to 1.") from None
    return plan_for(name, budget, pair, settings, confidence=confidence, policy=policy)


def evaluate(
    dataset: DataSet,
    *,
    strategy: Strategies = None,
    budgets: Budgets = "4,16,64",
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Runs of each, from --seed.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The rows: .jsonl, or .csv."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it: .png or .svg.")
    ] = None,
    by_bin: Annotated[
        str | None,
        typer.Option(metavar="oracle|predicted", help="By difficulty as well, in five bins."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="In place of the pair's own policy.toml.")
    ] = None,
    limit: Limit = None,
    question_field: QuestionField = None,
    answer_field: AnswerField = None,
    in_flight: InFlight = None,
    pair: PairName = DEFAULT,
    generator: GeneratorPath = None,
    seed: Seed = 0,
    temperature: Temperature = None,
    gpu_layers: GpuLayers = -1,
    cache: CacheFile = None,
    no_cache: NoCache = False,
) -> None:
    """Measure strategies at several budgets on problems with known answers.

    \b
    ttsolve eval test.jsonl --strategy best-of-n --strategy beam:width=4 --budgets 4,16,64
    ttsolve eval test.jsonl -o rows.csv --plot curves.png --by-bin predicted

    All strategies get the same problems. What was computed once is recalled: an interrupted
    evaluation goes on where it stopped. Best-of-n and majority are held among the samples of the
    largest budget; every figure has a 95 % interval over problems.
    """
    if by_bin not in (None, "oracle", "predicted"):
        raise UsageError(f"There are no {by_bin!r} bins: use --by-bin oracle or predicted.")
    if plot:
        from ttsolve.plots import check_plot

        check_plot(plot)
    chosen = chosen_pair(pair, generator)
    used = read_policy(policy) if policy else policy_of(chosen)
    entries = known_problems(dataset, Fields(question_field, answer_field), limit)
    grid = _grid(strategy or SHORT, _budgets(budgets), range(seed, seed + seeds), chosen, used)
    _warn_of_seen(entries, used, grid)
    common = (seed, temperature, gpu_layers, cache, no_cache, in_flight)
    measured, interrupted = _Job(chosen, used, grid, entries, *common).run()
    title = f"{dataset.name}, pair {chosen.name}"
    if any(outcome.rows for outcome in measured):
        _show(measured, by_bin, output, plot, title)
    raise typer.Exit(INTERRUPTED if interrupted else int(any(m.failed for m in measured)))


def _show(
    measured: Sequence[Measured],
    by_bin: str | None,
    output: Path | None,
    plot: Path | None,
    title: str,
) -> None:
    from ttsolve import plots, render_eval, report
    from ttsolve.calibrate import table_of

    rows = [row for outcome in measured for row in outcome.rows]
    if output:
        write_rows(rows, output)
    points = report.points(rows) + report.optimal_points(table_of(measured))
    render_eval.show_points(points)
    for name in dict.fromkeys(row.strategy for row in rows):
        if name != "best-of-n":
            differences = report.against(rows, name, "best-of-n")
            render_eval.show_differences(name, "best-of-n", differences)
    binned = report.points_by_bin(rows, by_bin) if by_bin else []  # type: ignore[arg-type]
    render_eval.show_points(binned)
    render_eval.show_stops(report.stopped(rows))
    reliable = report.reliabilities(rows)
    render_eval.show_reliabilities(reliable)
    if plot:
        plots.plot_budgets(points, plot, title)
        if binned:
            plots.plot_bins(binned, plots.beside(plot, "bins"), f"{title}, {by_bin} bins")
        if reliable:
            plots.plot_reliability(reliable, plots.beside(plot, "reliability"), title)


def calibrate(
    dataset: DataSet,
    *,
    strategy: Strategies = None,
    budgets: Budgets = "4,16,64",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help=f"Default: the pair's {FILE}."),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Problems that must not be seen; default: the pair's."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A reliability plot: .png or .svg.")
    ] = None,
    ties: Annotated[
        float, typer.Option(min=0, help="A lead of so many standard errors is none.")
    ] = 1.0,
    limit: Limit = None,
    question_field: QuestionField = None,
    answer_field: AnswerField = None,
    in_flight: InFlight = None,
    pair: PairName = DEFAULT,
    generator: GeneratorPath = None,
    seed: Seed = 0,
    temperature: Temperature = None,
    gpu_layers: GpuLayers = -1,
    cache: CacheFile = None,
    no_cache: NoCache = False,
) -> None:
    """Fit a pair's policy: which strategy at which difficulty and budget; and its confidence.

    \b
    ttsolve calibrate calibration.jsonl --pair mine --budgets 4,8,16,32,64

    What is shown is cross-validated, what is kept is fitted on all problems. Ties go to the cheaper
    strategy. `ttsolve --strategy auto` then uses it.
    """
    if plot:
        from ttsolve.plots import check_plot

        check_plot(plot)
    chosen = chosen_pair(pair, generator)
    target = output or (chosen.folder / FILE if chosen.generator.sha256 else None)
    if target is None:
        raise UsageError(f"{chosen.name} is no folder of models: say with -o where to keep {FILE}.")
    entries = known_problems(dataset, Fields(question_field, answer_field), limit)
    refuse_test(entries, test or chosen.folder / "data" / "test.jsonl", needed=test is not None)
    nothing = Policy("nothing yet", ())
    grid = _grid(strategy or SWEEP, _budgets(budgets), [seed], chosen, nothing)
    common = (seed, temperature, gpu_layers, cache, no_cache, in_flight)
    measured, interrupted = _Job(chosen, nothing, grid, entries, *common).run()
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    policy = _fit(measured, f"a fit on {len(entries)} problems of {dataset.name}", ties, plot)
    generator_sha, verifier_sha = models_of(chosen)
    write_policy(replace(policy, generator=generator_sha, verifier=verifier_sha), target)
    render.progress(f"Kept in {target}.")


def _fit(measured: Sequence[Measured], about: str, ties: float, plot: Path | None) -> Policy:
    from ttsolve import plots, render_eval
    from ttsolve.calibrate import PROBES, fit_policy, table_of
    from ttsolve.fit_confidence import fit_confidence

    table = table_of(measured)
    policy, fits = fit_policy(table, PROBES, ties, about)
    render_eval.show_fits(fits)
    pools = [pool for outcome in measured for pool in outcome.pools]
    rows = [row for outcome in measured for row in outcome.rows]
    calibrations, reliable, kept = fit_confidence(pools, rows, policy.choices)
    render_eval.show_reliabilities(reliable)
    render_eval.show_kept(kept, table.budgets[-1])
    if plot and reliable:
        plots.plot_reliability(reliable, plot, about)
    return replace(policy, calibrations=calibrations, stops=tuple(one.stop for one in kept))


# --- before it begins ----------------------------------------------------------------------------


def _grid(
    strategies: Sequence[str],
    budgets: Sequence[int],
    seeds: Sequence[int],
    pair: Pair,
    policy: Policy,
) -> Grid:
    """What is measured.

    Raises:
        UsageError: when a strategy is none, or has no size for the largest budget.
    """
    from ttsolve.grid import Grid

    for text in strategies:
        _plan(text, budgets[-1], pair=pair, policy=policy)
    return Grid(tuple(dict.fromkeys(strategies)), tuple(budgets), tuple(seeds))


def _warn_of_seen(entries: Sequence[Entry], policy: Policy, grid: Grid) -> None:
    if not any(text.startswith(Auto.name) for text in grid.strategies):
        return
    seen = shared([entry.problem for entry in entries if entry.problem], set(policy.fitted_on))
    if seen:
        render.note(
            f"The policy was fitted on {len(seen)} of these {len(entries)} problems: what auto "
            "reaches here says little of others."
        )
