"""`ttsolve reproduce`: the paper's experiments on a pair, and a report on its claims."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ttsolve import __version__, render
from ttsolve.cli_exchange import (
    FormulaName,
    LargerFile,
    LargerParams,
    LargerResults,
    Ratios,
    evidence,
    formula_named,
)
from ttsolve.cli_measure import Limit, Series, warn_of_seen
from ttsolve.cli_options import (
    AnswerField,
    GpuLayers,
    InFlight,
    PairName,
    QuestionField,
    Seed,
    Temperature,
    chosen_pair,
    chosen_sampling,
)
from ttsolve.cli_store import CacheFile, NoCache
from ttsolve.errors import UsageError
from ttsolve.eval_files import known_problems
from ttsolve.fields import Fields
from ttsolve.larger import larger_model
from ttsolve.pair import Pair, load_pair
from ttsolve.pair_files import file_sha256
from ttsolve.policy import Policy, policy_of
from ttsolve.strategies import STRATEGIES

if TYPE_CHECKING:  # they open numpy, and --help does without
    from ttsolve.grid import Grid
    from ttsolve.reproduce import Plan


def reproduce(
    dataset: Annotated[
        Path | None,
        typer.Argument(metavar="DATASET", help="Default: the test split of the pair."),
    ] = None,
    *,
    full: Annotated[
        bool, typer.Option("--full/--quick", help="All problems and budgets, or some (default).")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Default: report-PAIR, here."),
    ] = None,
    orm: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An ORM's ONNX, or the folder of a pair with it."),
    ] = None,
    larger: LargerFile = None,
    larger_results: LargerResults = None,
    larger_params: LargerParams = None,
    formula: FormulaName = "arxiv",
    ratios: Ratios = None,
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
    """Run the paper's experiments; report which claims hold.

    \b
    ttsolve reproduce --quick
    ttsolve reproduce --full --larger large.gguf --orm work/orm.onnx -o report

    The report is one HTML file, and Markdown beside its figures. Everything is kept as it comes: an
    interrupted run goes on where it stopped.
    """
    from ttsolve import paper_report, render_paper
    from ttsolve.claims import judge_all
    from ttsolve.files import check_folder
    from ttsolve.plots import check_plot
    from ttsolve.reproduce import FULL, QUICK, Parts

    check_plot(Path("report.png"))
    chosen = chosen_pair(pair, None)
    folder = output or Path(f"report-{chosen.name}")
    check_folder(folder, "--output")
    told = formula_named(formula, ratios)
    other = larger_model(larger, larger_results, larger_params, chosen)
    with_orm = _orm(orm, chosen)
    plan = FULL if full else QUICK
    file = dataset or chosen.folder / "data" / "test.jsonl"
    first, named = limit or plan.problems, Fields(question_field, answer_field)
    entries = known_problems(file, named, first, render.note)
    policy = policy_of(chosen)
    warn_of_seen(entries, policy, plan.search)
    series = Series(entries, seed, gpu_layers, cache, no_cache, in_flight)
    lacking = _lacking(chosen, orm)
    answers = series.greedy(other)  # first, as in `exchange`
    grids = [series.run("search", chosen, policy, _with_seed(plan.search, seed), temperature)]
    if "revisions" not in lacking:
        for grid in plan.revisions:
            again = _with_seed(grid, seed)
            grids.append(series.run("revisions", chosen, policy, again, temperature))
    scored = []
    if with_orm:
        only = replace(_with_seed(plan.search, seed), strategies=("best-of-n",))
        scored = series.run("ORM", with_orm, policy, only, temperature)
    parts = Parts(grids, scored, answers)
    e = evidence(parts, other, told, chosen, gpu_layers, lacking=lacking, timed=no_cache)
    rows = judge_all(e)
    render_paper.show_judged(rows)
    facts = {
        "problems": f"{len(e.table.contents)} of {file.name}, sha256 {file_sha256(file)}",
        **_facts(chosen, with_orm, policy, plan, temperature, series),
    }
    files = paper_report.write_report(e, rows, paper_report.About(chosen.name, facts), folder)
    render.progress(f"Written: {files[0]} and {files[1]}.")


def _orm(orm: Path | None, pair: Pair) -> Pair | None:
    """The pair's generator with an ORM: an ONNX that reads the pair's tokens, or another pair's.

    Raises:
        UsageError: when there is no such file or folder, the other pair's generator is another,
            or there is no verifier.
        PairError: when the folder cannot be used.
    """
    if orm is None:
        return None
    if not orm.exists():
        raise UsageError(f"There is no {orm}: name an ORM's ONNX, or the folder of a pair with it.")
    if orm.is_file():
        if pair.verifier is None:
            raise UsageError(
                f"{pair.name} has no verifier whose tokens {orm} could read: name the folder of a "
                "pair with an ORM."
            )
        file, sha256 = str(orm.resolve()), file_sha256(orm)
        with_orm = replace(pair.verifier, file=file, sha256=sha256, data_sha256=None)
        return replace(pair, verifier=with_orm)
    found = load_pair(orm)
    if found.verifier is None:
        raise UsageError(f"{orm} has no verifier: name the folder of a pair with an ORM.")
    if found.generator.sha256 != pair.generator.sha256 or found.prompt != pair.prompt:
        raise UsageError(
            f"{orm} has another generator, or prompt, than {pair.name}: both verifiers must "
            "judge the same samples, so give it the same ones."
        )
    return replace(found, sampling=pair.sampling)


def _lacking(pair: Pair, orm: Path | None) -> dict[str, str]:
    """Why what some claims need is not measured."""
    out = {"larger": "no larger generator was given (--larger)"}
    if orm is None:
        out["orm"] = "no ORM was given (--orm)"
    if "revisions" not in STRATEGIES or pair.reviser is None:
        out["revisions"] = out["chains"] = "the pair has no reviser"
    return out


def _with_seed(grid: Grid, seed: int) -> Grid:
    return replace(grid, seeds=(seed,))


def _facts(
    pair: Pair,
    orm: Pair | None,
    policy: Policy,
    plan: Plan,
    temperature: float | None,
    series: Series,
) -> dict[str, str]:
    """What a reader must know to measure the same again, and what it took."""
    models = {
        "generator": pair.generator.sha256,
        "verifier": pair.verifier.sha256 if pair.verifier else "none",
        "reviser": pair.reviser.sha256 if pair.reviser else "none",
        "ORM": orm.verifier.sha256 if orm and orm.verifier else "none",
    }
    how, usage = chosen_sampling(pair, temperature), series.usage
    wall, cpu = series.seconds
    return {
        **{f"{name}, sha256": sha or "unknown" for name, sha in models.items()},
        "sampling": f"temperature {how.temperature:g}, top-k {how.top_k}, top-p {how.top_p:g}, "
        f"min-p {how.min_p:g}, at most {how.max_tokens} tokens",
        "seed": str(series.seed),
        "budgets": ", ".join(map(str, plan.search.budgets)),
        "policy of auto": policy.about,
        "charged": f"{usage.units:,} units",
        "computed in this run": f"{usage.generated_tokens:,} tokens generated, "
        f"{usage.prompt_tokens:,} of prompts, {usage.verifier_tokens:,} verified",
        "recalled from earlier runs": f"{usage.recalled_tokens:,} tokens, "
        f"{usage.recalled_scores:,} scores of steps",
        "seconds of this run": f"{wall:,.0f} by the clock, {cpu:,.0f} of CPU",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "ttsolve": f"{__version__}, {datetime.now(UTC):%Y-%m-%d}",
    }
