"""`ttsolve exchange`: a pair against a larger generator, at equal FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ttsolve import render
from ttsolve.cli_measure import (
    Budgets,
    DataSet,
    Limit,
    Series,
    Strategies,
    budgets_of,
    grid_of,
)
from ttsolve.cli_options import (
    AnswerField,
    GpuLayers,
    InFlight,
    PairName,
    QuestionField,
    Seed,
    Temperature,
    chosen_pair,
)
from ttsolve.cli_store import CacheFile, NoCache, check_output
from ttsolve.errors import UsageError
from ttsolve.eval_files import known_problems
from ttsolve.fields import Fields
from ttsolve.larger import LargerModel, larger_model, params_of
from ttsolve.pair import Pair
from ttsolve.policy import policy_of
from ttsolve.solve import open_models
from ttsolve.strategies import one_of

if TYPE_CHECKING:  # they open numpy, and --help does without
    from ttsolve.evidence import Evidence
    from ttsolve.exchange import Formula
    from ttsolve.reproduce import Parts

BUDGETS = "1,4,16,64"
COMPARED = ("best-of-n", "beam:width=4")

LargerFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A larger generator's GGUF, to be measured greedily."),
]
LargerResults = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Or its greedy results: JSON lines of batch or eval."),
]
LargerParams = Annotated[
    float | None, typer.Option(min=1, metavar="N", help="Its parameters, with results only.")
]
FormulaName = Annotated[
    str,
    typer.Option("--formula", metavar="NAME", help="Who pays what: arxiv, iclr or corrected."),
]
Ratios = Annotated[
    str | None,
    typer.Option(metavar="R,R,…", help="Inference per pretraining tokens; default: the paper's."),
]


def exchange(
    dataset: DataSet,
    *,
    larger: LargerFile = None,
    larger_results: LargerResults = None,
    larger_params: LargerParams = None,
    formula: FormulaName = "arxiv",
    ratios: Ratios = None,
    strategy: Strategies = None,
    budgets: Budgets = BUDGETS,
    by_bin: Annotated[
        str, typer.Option(metavar="oracle|predicted", help="What the bins are made of.")
    ] = "oracle",
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the stars: .png or .svg.")
    ] = None,
    limit: Limit = None,
    question_field: QuestionField = None,
    answer_field: AnswerField = None,
    in_flight: InFlight = None,
    pair: PairName = None,
    seed: Seed = 0,
    temperature: Temperature = None,
    gpu_layers: GpuLayers = -1,
    cache: CacheFile = None,
    no_cache: NoCache = False,
) -> None:
    """Compare a pair with a larger generator at equal FLOPs.

    \b
    ttsolve exchange test.jsonl --pair small --larger large.gguf --plot stars.png
    ttsolve exchange test.jsonl --larger-results large.jsonl --larger-params 14e6 --formula iclr

    Of the strategies measured each bin gets its best one, chosen on the other half of its problems;
    a single one is taken as it is. The larger generator answers greedily, once, with the pair's
    prompt (the paper's section 7). What `eval` has measured is recalled.
    """
    from ttsolve.plots import check_plot
    from ttsolve.reproduce import Parts

    if by_bin not in ("oracle", "predicted"):
        raise UsageError(f"There are no {by_bin!r} bins: use --by-bin oracle or predicted.")
    if plot:
        check_plot(plot)
    check_output(plot, "the plot", cache, [dataset])
    told = formula_named(formula, ratios)
    chosen = chosen_pair(pair, None)
    other = larger_model(larger, larger_results, larger_params, chosen)
    if other is None:
        raise UsageError("There is nothing to compare with: name --larger or --larger-results.")
    entries = known_problems(dataset, Fields(question_field, answer_field), limit, render.note)
    names = list(strategy or COMPARED)
    policy = policy_of(chosen)
    # Independent samples tell the bins, also where another strategy is compared.
    spent = budgets_of(budgets)
    grid = grid_of([*names, "best-of-n"], spent, [seed], chosen, policy, temperature)
    series = Series(entries, seed, gpu_layers, cache, no_cache, in_flight)
    answers = series.greedy(other)  # first: it takes less time, and may turn out to be of no use
    measured = series.run(f"pair {chosen.name}", chosen, policy, grid, temperature)
    parts = Parts([measured], larger=answers)
    e = evidence(parts, other, told, chosen, gpu_layers)
    render.line(_about(e, chosen, other))
    _compare(e, names, by_bin, plot, f"{dataset.name}, pair {chosen.name}")


def _compare(e: Evidence, names: Sequence[str], by_bin: str, plot: Path | None, title: str) -> None:
    import numpy as np

    from ttsolve import render_paper
    from ttsolve.exchange import matches
    from ttsolve.measure import mean
    from ttsolve.plots_paper import plot_stars

    assert e.larger
    curve, bins = e.optimal(names, by_bin), e.bins(by_bin)  # type: ignore[arg-type]
    found = matches(curve, e.larger.right, bins, e.multipliers())
    render_paper.show_matches(found)
    for ratio in e.multipliers().keys() - {match.ratio for match in found}:
        m = e.multipliers()[ratio]
        render.line(f"R = {ratio:g}: m = {m:.2f} is less than the smallest budget: not compared")
    if plot:
        lines = {
            int(number): {b: mean(rates[bins == number]) for b, rates in curve.items()}
            for number in np.unique(bins)
        }
        plot_stars(lines, found, plot, f"{title}: {e.larger.name} at equal FLOPs")


def _about(e: Evidence, small: Pair, larger: LargerModel) -> str:
    assert e.larger
    sizes = f"{render.quantity(larger.params, '')} against {render.quantity(params_of(small), '')}"
    return (
        f"{larger.name} has {e.larger.times:.3g} times the parameters of {small.name} "
        f"({sizes}); {e.formula.name}: {e.formula.about}"
    )


def evidence(
    parts: Parts,
    larger: LargerModel | None,
    formula: Formula,
    pair: Pair,
    gpu_layers: int,
    **more: Any,
) -> Evidence:
    """What was measured as arrays, with a larger generator's answers where there is one.

    Args:
        more: see `reproduce.evidence_of`.

    Raises:
        UsageError: when no problem could be measured.
    """
    from ttsolve.evidence import BEST
    from ttsolve.exchange import overhead
    from ttsolve.reproduce import evidence_of

    if not all(any(outcome.rows for outcome in grid) for grid in parts.grids):
        raise UsageError("No problem could be measured: see above why.")
    if larger is None:
        return evidence_of(parts, **more)
    times = larger.params / params_of(pair)
    extra = 0.0
    if formula.small is None and pair.verifier:
        generator, verifier = open_models(pair, gpu_layers)
        rows = [row for grid in parts.grids for outcome in grid for row in outcome.rows]
        some = [row for row in rows if row.strategy == BEST]
        tokens = sum(row.tokens for row in some), sum(row.verifier_tokens for row in some)
        extra = overhead((generator.params, verifier.params if verifier else 0), tokens)
    named = larger.name, times
    return evidence_of(parts, larger=named, formula=formula, overhead=extra, **more)


def formula_named(name: str, ratios: str | None = None) -> Formula:
    """The formula of that name, with the user's own R.

    Raises:
        UsageError: when there is none of that name, or an R is no number above 0.
    """
    from ttsolve.exchange import FORMULAS

    if name not in FORMULAS:
        raise UsageError(f"There is no formula {name!r}: use --formula {one_of(FORMULAS)}.")
    if ratios is None:
        return FORMULAS[name]
    try:
        given = tuple(sorted({float(part) for part in ratios.split(",")}))
    except ValueError:
        given = (0.0,)
    if not all(0 < ratio < 1e6 for ratio in given):
        raise UsageError(
            f"The ratios {ratios!r} are not possible: give numbers above 0 with commas, as 0.16,22."
        )
    return replace(FORMULAS[name], ratios=given)
