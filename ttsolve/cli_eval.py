"""`ttsolve eval` and `ttsolve calibrate`: what strategies are worth, and the policy of a pair."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ttsolve import render
from ttsolve.auto import Auto
from ttsolve.cli_measure import (
    Budgets,
    DataSet,
    Job,
    Limit,
    Strategies,
    budgets_of,
    grid_of,
    warn_of_seen,
)
from ttsolve.cli_options import (
    INTERRUPTED,
    AnswerField,
    FewShot,
    GeneratorPath,
    GpuLayers,
    InFlight,
    ModelName,
    PairName,
    QuestionField,
    Seed,
    Temperature,
    chosen_pair,
    chosen_sampling,
)
from ttsolve.cli_store import CacheFile, NoCache, check_output
from ttsolve.errors import PairError, UsageError
from ttsolve.eval_files import check_rows, known_problems, refuse_test, write_rows
from ttsolve.fields import Fields
from ttsolve.pair import Pair
from ttsolve.policy import (
    FILE,
    Policy,
    bound_to,
    policy_of,
    read_policy,
    write_policy,
)
from ttsolve.strategies import STRATEGIES

if TYPE_CHECKING:  # they open numpy or SQLite, and --help does without
    from ttsolve.evaluate import Measured

SWEEP = tuple(  # the paper's section 5.3, and what came after it
    text
    for text in (
        *("best-of-n", "majority", "beam", "beam:width=4"),
        *("lookahead", "lookahead:lookahead=3,width=4", "dvts:width=4", "rebase"),
    )
    if text.partition(":")[0] in STRATEGIES
)
SHORT = ("best-of-n", "majority", "beam:width=4", "rebase", Auto.name)


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
    pair: PairName = None,
    generator: GeneratorPath = None,
    model: ModelName = None,
    few_shot: FewShot = None,
    seed: Seed = 0,
    temperature: Temperature = None,
    gpu_layers: GpuLayers = -1,
    cache: CacheFile = None,
    no_cache: NoCache = False,
) -> None:
    """Measure strategies at several budgets on known answers.

    \b
    ttsolve eval test.jsonl --strategy best-of-n --strategy beam:width=4 --budgets 4,16,64
    ttsolve eval test.jsonl -o rows.csv --plot curves.png --by-bin predicted

    All strategies get the same problems. What was computed once is recalled: an interrupted
    evaluation goes on where it stopped. Best-of-n and majority are held among the samples of the
    largest budget; every figure has a 95 % interval over problems.
    """
    if by_bin not in (None, "oracle", "predicted"):
        raise UsageError(f"There are no {by_bin!r} bins: use --by-bin oracle or predicted.")
    check_output(output, "the rows", cache, [dataset])
    check_output(plot, "the plot", cache, [dataset])
    if output:
        check_rows(output)
    if plot:
        from ttsolve.plots import check_plot

        check_plot(plot)
    chosen = chosen_pair(pair, generator, few_shot, model)
    used = read_policy(policy) if policy else policy_of(chosen)
    entries = known_problems(dataset, Fields(question_field, answer_field), limit, render.note)
    runs = range(seed, seed + seeds)
    grid = grid_of(strategy or SHORT, budgets_of(budgets), runs, chosen, used, temperature)
    warn_of_seen(entries, used, grid)
    common = (seed, temperature, gpu_layers, cache, no_cache, in_flight)
    measured, interrupted = Job(chosen, used, grid, entries, *common).run()
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
    render_eval.show_areas(report.areas(rows))
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
    pair: PairName = None,
    generator: GeneratorPath = None,
    seed: Seed = 0,
    temperature: Temperature = None,
    gpu_layers: GpuLayers = -1,
    cache: CacheFile = None,
    no_cache: NoCache = False,
) -> None:
    """Fit a pair's policy and confidence on known answers.

    \b
    ttsolve calibrate calibration.jsonl --pair mine --budgets 4,8,16,32,64

    The policy says which strategy is best at which difficulty and budget, the confidence how likely
    an answer is right; `ttsolve --strategy auto` uses both. What is shown is cross-validated, what
    is kept is fitted on all problems. Ties go to the cheaper strategy.
    """
    if plot:
        from ttsolve.plots import check_plot

        check_plot(plot)
    chosen = chosen_pair(pair, generator)
    target = output or (chosen.folder / FILE if chosen.generator.sha256 else None)
    if target is None:
        raise UsageError(f"{chosen.name} is no folder of models: say with -o where to keep {FILE}.")
    read = [dataset, test] if test else [dataset]
    check_output(target, "the policy", cache, read)
    check_output(plot, "the plot", cache, read)
    entries = known_problems(dataset, Fields(question_field, answer_field), limit, render.note)
    refuse_test(entries, test or chosen.folder / "data" / "test.jsonl", needed=test is not None)
    if output is None:
        _spare(target, len(entries))
    nothing = Policy("nothing yet", ())
    spent = budgets_of(budgets)
    grid = grid_of(strategy or sweep_of(chosen, spent), spent, [seed], chosen, nothing)
    common = (seed, temperature, gpu_layers, cache, no_cache, in_flight)
    measured, interrupted = Job(chosen, nothing, grid, entries, *common).run()
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    policy = _fit(measured, f"a fit on {len(entries)} problems of {dataset.name}", ties, plot)
    policy = replace(policy, temperature=chosen_sampling(chosen, temperature).temperature)
    write_policy(bound_to(policy, chosen), target)
    render.progress(f"Kept in {target}.")


def _spare(file: Path, problems: int) -> None:
    """Let a trial on a few problems not take the place of a fit on many.

    Raises:
        UsageError: the file is a fit on more problems.
    """
    known = None
    with suppress(PairError):  # one that cannot be read is no loss
        known = read_policy(file) if file.is_file() else None
    if known and len(known.fitted_on) > problems:
        raise UsageError(
            f"{file} is {known.about}, and these are {problems}: say with -o where to keep a fit "
            "on fewer."
        )


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


def sweep_of(pair: Pair, budgets: Sequence[int]) -> list[str]:
    """What is swept: with a reviser, chains of revisions as well, in the paper's ratios."""
    from ttsolve.grid import ratios

    return [*SWEEP, *(f"revisions:ratio={ratio}" for ratio in ratios(budgets) if pair.reviser)]
