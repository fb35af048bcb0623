"""The command line: parse, call, render. `main` is the one place where errors become sentences.

A problem needs no command: `ttsolve "…" --budget 16` is `ttsolve solve "…" --budget 16`.
"""

from __future__ import annotations

import errno
import io
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from ttsolve import __version__, render
from ttsolve.core import Problem
from ttsolve.engine import Engine
from ttsolve.errors import StorageError, TtsolveError, UsageError
from ttsolve.pair import DEFAULT, Pair, bare_pair, list_pairs, load_pair
from ttsolve.solve import SIM, Tokenizing, open_models, solve, unknown_words
from ttsolve.strategies import STRATEGIES, BestOfN, strategy_named
from ttsolve.train_cli import train

BUDGETS = range(1, 65536 + 1)
GLOBAL_OPTIONS = ("--debug", "--version", "--help")
INTERRUPTED = 130  # 128 + SIGINT, as shells report it

app = typer.Typer(
    name="ttsolve",
    subcommand_metavar='"PROBLEM" | COMMAND …',
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models = typer.Typer(help="The pairs of models on this machine.", no_args_is_help=True)
app.add_typer(models, name="models")
app.add_typer(train, name="train")


def _budget(text: str) -> int:
    """The number of units the user allows.

    Raises:
        UsageError: when it is no whole number, or out of range.
    """
    try:
        budget = int(str(text))
    except ValueError:
        budget = 0
    if budget not in BUDGETS:
        allowed = f"a whole number from {BUDGETS[0]} to {BUDGETS[-1]}"
        raise UsageError(f"The budget {text!r} cannot be spent: give {allowed}.")
    return budget


def _temperature(text: str) -> float:
    """The temperature the user wants.

    Raises:
        UsageError: when it is no number, or out of range.
    """
    try:
        temperature = float(text)
    except ValueError:
        temperature = math.nan
    if not 0 <= temperature < 100:
        raise UsageError(f"The temperature {text!r} is not possible: give a number from 0 to 100.")
    return temperature


Budget = Annotated[
    int, typer.Option(parser=_budget, metavar="N", help="How many solutions may be sampled.")
]
StrategyName = Annotated[
    str, typer.Option(metavar="NAME", help=f"How they are used: {' or '.join(STRATEGIES)}.")
]
PairName = Annotated[
    str,
    typer.Option(metavar="NAME", help="The pair: a name (see `ttsolve models list`) or a folder."),
]
GeneratorPath = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A GGUF file in place of a pair; majority vote.")
]
Seed = Annotated[int, typer.Option(help="Equal seeds give equal samples.")]
Temperature = Annotated[
    float | None,
    typer.Option(parser=_temperature, metavar="T", help="0: greedy; default: the pair's own."),
]
GpuLayers = Annotated[
    int, typer.Option(min=-1, help="Layers of the generator on the GPU; -1: all.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        render.line(f"ttsolve {__version__}")
        raise typer.Exit()


@app.callback()
def ttsolve(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Answer a reasoning problem with a local language model and test-time compute.

    \b
    ttsolve "Make 24 from 4, 7, 8, 8" --budget 64
    echo "Make 24 from 4, 7, 8, 8" | ttsolve - --json

    A problem needs no command; its options are those of solve (ttsolve solve --help).
    """


@app.command("solve")
def solve_command(
    problem: Annotated[str, typer.Argument(metavar="PROBLEM", help="Its text, or - for stdin.")],
    *,
    budget: Budget = 16,
    strategy: StrategyName = BestOfN.name,
    pair: PairName = DEFAULT,
    generator: GeneratorPath = None,
    seed: Seed = 0,
    temperature: Temperature = None,
    gpu_layers: GpuLayers = -1,
    steps: Annotated[bool, typer.Option("--steps", help="Show every candidate.")] = False,
    as_json: Json = False,
) -> None:
    """Solve one problem; the word `solve` may be left out.

    Ctrl-C ends the run with a vote over the candidates there are. The exit code is 0 with an
    answer, 1 without one, 130 after Ctrl-C.
    """
    question = _question(problem)
    plan = strategy_named(strategy, budget)
    chosen = _pair(pair, generator)
    with render.LiveLine(budget, chosen.prompt.answer) as live:
        engine = _engine(chosen, budget, seed, temperature, gpu_layers)
        engine.listen = live
        _warn_of_another_world(chosen, question, engine)
        live.begin()
        with _ctrl_c_sets(engine.stop):
            result = solve(Problem(question), engine, plan, chosen)
    if result.interrupted:
        render.note("Interrupted: this is the vote over the candidates there were.")
    if as_json:
        render.line(render.as_json(result, chosen))
    else:
        render.show_result(result, chosen, all_steps=steps)
    raise typer.Exit(INTERRUPTED if result.interrupted else int(result.answer is None))


def _question(problem: str) -> str:
    """The problem's text; `-` stands for all of stdin.

    Raises:
        UsageError: when it is empty, or not UTF-8.
    """
    try:
        data = sys.stdin.buffer.read() if problem == "-" else os.fsencode(problem)
        question = data.decode("utf-8").strip()
    except UnicodeError:
        raise UsageError("The problem is not UTF-8 text: convert it first.") from None
    if not question:
        raise UsageError(
            'The problem is empty: give its text, as in ttsolve "Make 24 from 4, 7, 8, 8".'
        )
    return question


def _pair(name: str, generator: Path | None) -> Pair:
    if generator is None:
        return SIM if name == SIM.name else load_pair(name)
    if name != DEFAULT:
        raise UsageError("--generator takes the place of a pair: leave --pair or --generator out.")
    return bare_pair(generator)


def _engine(
    pair: Pair, budget: int, seed: int, temperature: float | None, gpu_layers: int
) -> Engine:
    generator, verifier = open_models(pair, gpu_layers)
    sampling = pair.sampling
    if temperature is not None:
        sampling = replace(sampling, temperature=temperature)
    return Engine(generator, verifier, seed=seed, sampling=sampling, budget=budget)


@contextmanager
def _ctrl_c_sets(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C ends the run in good order, the second at once."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _warn_of_another_world(pair: Pair, question: str, engine: Engine) -> None:
    if pair.world is None or not isinstance(engine.generator, Tokenizing):
        return
    if words := unknown_words(question, engine.generator.tokenize):
        render.note(
            f"The pair {pair.name} knows no world but {pair.world.name}, and this problem has "
            f"words from outside it ({', '.join(words[:3])}): choose a larger pair, and do not "
            "trust this answer."
        )


@models.command("list")
def list_command() -> None:
    """List the pairs, one a line."""
    render.show_pairs(list_pairs())


@models.command("show")
def show_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, or its folder.")],
) -> None:
    """Show what a pair is made of, and what was measured of it."""
    render.show_pair(load_pair(name))


@app.command("bench")
def bench_command(
    *, pair: PairName = DEFAULT, generator: GeneratorPath = None, gpu_layers: GpuLayers = -1
) -> None:
    """Measure tokens/s on this machine: our engine and the plain loop, and the verifier."""
    chosen = _pair(pair, generator)
    if chosen is SIM:
        raise UsageError("Dice have no speed to measure: choose a pair of models.")
    from ttsolve.bench import run_pair

    render.show_speed(run_pair(chosen, gpu_layers=gpu_layers))


# --- the way in ---------------------------------------------------------------------------------


COMMANDS = {c.name for c in app.registered_commands} | {g.name for g in app.registered_groups}


def with_command(arguments: Sequence[str]) -> list[str]:
    """The arguments with `solve` put before a bare problem; no arguments ask for help.

    Only the options of ttsolve itself may stand before a command, and none of them takes a value:
    so whatever else comes first belongs to a bare problem.
    """
    if not arguments:
        return ["--help"]
    first = next((i for i, a in enumerate(arguments) if a not in GLOBAL_OPTIONS), len(arguments))
    if first == len(arguments) or arguments[first] in COMMANDS:
        return list(arguments)
    return [*arguments[:first], "solve", *arguments[first:]]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, and exit: 0 done, 1 failed, 2 not usable as typed, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = given[: given.index("--")] if "--" in given else given
    debug = "--debug" in options or os.environ.get("TTSOLVE_DEBUG", "0") not in ("", "0")
    given = [a for a in options if a != "--debug"] + given[len(options) :]
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal without UTF-8 shows ? for the rest
        sys.stdout.reconfigure(errors="replace")
    code = _code_of(lambda: _run(with_command(given)), debug)
    _settle_stdout()
    sys.exit(code)


def _run(arguments: Sequence[str]) -> int:
    try:
        code = app(arguments, prog_name="ttsolve", standalone_mode=False)
        sys.stdout.flush()  # here, where a closed pipe or a full disk can still be told
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise StorageError("No space is left on the disk: free some and run again.") from error
    return int(code or 0)


def _settle_stdout() -> None:
    """Let what cannot be written go, or Python would complain of it while it exits."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _code_of(run: Callable[[], int], debug: bool) -> int:
    """The exit code of `run`, after telling what ended it."""
    try:
        return run()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough
        return 1
    except (TtsolveError, typer.TyperException) as error:
        if debug:
            traceback.print_exc()
        render.error(
            error.format_message() if isinstance(error, typer.TyperException) else str(error)
        )
        return error.exit_code
    except Exception as error:
        if debug:
            traceback.print_exc()
        else:
            kind = type(error).__name__
            render.error(f"Unexpected {kind} ({error}): run again with --debug to see where.")
        return 1
