"""The command line: parse, call, render. `main` is the one place where errors become sentences.

A problem needs no command: `ttsolve "…" --budget 16` is `ttsolve solve "…" --budget 16`.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.main import get_group

from ttsolve import __version__, render, render_live, render_pairs, render_result
from ttsolve.cli_batch import batch
from ttsolve.cli_eval import calibrate, evaluate
from ttsolve.cli_exchange import exchange
from ttsolve.cli_options import (
    DEFAULT_STRATEGY,
    INTERRUPTED,
    Budget,
    Confidence,
    FewShot,
    GeneratorPath,
    GpuLayers,
    ModelName,
    PairName,
    Seed,
    Settings,
    StrategyName,
    Temperature,
    chosen_pair,
    chosen_strategy,
    ctrl_c_sets,
)
from ttsolve.cli_reproduce import reproduce
from ttsolve.cli_session import session
from ttsolve.cli_store import CacheFile, NoCache, history, show, stored_pair
from ttsolve.cli_store import cache as cache_group
from ttsolve.core import Problem
from ttsolve.dataset import LINE_LIMIT
from ttsolve.errors import StorageError, TtsolveError, UsageError
from ttsolve.models_cli import models as models_group
from ttsolve.solve import SIM
from ttsolve.train_cli import train

GLOBAL_OPTIONS = ("--debug", "--version", "--help")
OF_A_PROBLEM = {"--json", "--steps"}  # a batch and a session have none of these

app = typer.Typer(
    name="ttsolve",
    subcommand_metavar='"PROBLEM" | COMMAND …',
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

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
    ttsolve
    echo "Make 24 from 4, 7, 8, 8" | ttsolve - --json
    cat questions.jsonl | ttsolve --budget 16 > answers.jsonl

    A problem needs no command; its options are those of solve (ttsolve solve --help). Alone on a
    terminal, ttsolve opens a session (ttsolve session --help); problems that are piped in are a
    batch (ttsolve batch --help).
    """


def solve_command(
    problem: Annotated[str, typer.Argument(metavar="PROBLEM", help="Its text, or - for stdin.")],
    *,
    budget: Budget = 16,
    strategy: StrategyName = DEFAULT_STRATEGY,
    settings: Settings = None,
    confidence: Confidence = None,
    pair: PairName = None,
    generator: GeneratorPath = None,
    model: ModelName = None,
    few_shot: FewShot = None,
    seed: Seed = 0,
    temperature: Temperature = None,
    gpu_layers: GpuLayers = -1,
    cache: CacheFile = None,
    no_cache: NoCache = False,
    steps: Annotated[bool, typer.Option("--steps", help="Show every candidate.")] = False,
    as_json: Json = False,
) -> None:
    """Solve one problem; the word `solve` may be left out.

    Ctrl-C ends the run with a vote over the candidates there are. The exit code is 0 with an
    answer, 1 without one, 2 for what cannot be used as typed, 130 after Ctrl-C.
    """
    question = _question(problem)
    chosen = chosen_pair(pair, generator, few_shot, model)
    plan = chosen_strategy(strategy, budget, settings, chosen, confidence, temperature)
    with (
        render_live.live_line(plan, budget, chosen.prompt.answer) as live,
        stored_pair(chosen, gpu_layers, cache, no_cache, live.begin) as models,
    ):
        engine = models.engine(budget, seed=seed, temperature=temperature, listen=live)
        words = models.unknown_words(question)
        with ctrl_c_sets(engine.stop):
            result = models.solve(Problem(question), engine, plan, words).result
    render_result.warn_of_another_world(chosen, words)  # here: what is refused needs no other word
    if result.interrupted:
        render.note("Interrupted: this is the vote over the candidates there were.")
    if as_json:
        render.line(render_result.as_json(result, chosen))
    else:
        render_result.show_result(result, chosen, all_steps=steps)
    raise typer.Exit(INTERRUPTED if result.interrupted else int(result.answer is None))


def _question(problem: str) -> str:
    """The problem's text; `-` stands for all of stdin.

    Raises:
        UsageError: when it is empty, or no text.
    """
    try:
        read = sys.stdin.buffer.read
        data = read(LINE_LIMIT + 1) if problem == "-" else os.fsencode(problem)
        if len(data) > LINE_LIMIT:
            raise UsageError(f"The problem is longer than {LINE_LIMIT:,} bytes: shorten it.")
        question = data.decode("utf-8").strip()
    except UnicodeError:
        raise UsageError("The problem is not UTF-8 text: convert it first.") from None
    if not question:
        raise UsageError(
            'The problem is empty: give its text, as in ttsolve "Make 24 from 4, 7, 8, 8".'
        )
    if "\0" in question:
        raise UsageError("The problem has a NUL character: give a text.")
    return question


def bench_command(
    *,
    pair: PairName = None,
    generator: Annotated[
        str | None, typer.Option(metavar="FILE", help="A GGUF file in place of a pair.")
    ] = None,
    gpu_layers: GpuLayers = -1,
) -> None:
    """Measure tokens a second on this machine.

    Those of the generator in our engine stand beside those of the plain `llama_cpp.Llama` loop;
    below them the verifier's.
    """
    chosen = chosen_pair(pair, generator)
    if chosen is SIM or chosen.generator.endpoint:
        what = "Dice have" if chosen is SIM else "What runs on a server has"
        raise UsageError(f"{what} no speed to measure here: choose a pair of models.")
    from ttsolve.bench import run_pair

    render_pairs.show_speed(run_pair(chosen, gpu_layers=gpu_layers))


# --- the way in ---------------------------------------------------------------------------------


IN_ORDER: dict[str, Callable[..., None]] = {  # of --help
    "solve": solve_command,
    "batch": batch,
    "session": session,
    "show": show,
    "history": history,
    "eval": evaluate,
    "calibrate": calibrate,
    "reproduce": reproduce,
    "exchange": exchange,
    "bench": bench_command,
}
for name, command in IN_ORDER.items():
    app.command(name)(command)
GROUPS = {"models": models_group, "cache": cache_group, "train": train}
for name, group in GROUPS.items():
    app.add_typer(group, name=name)

COMMANDS = {*IN_ORDER, *GROUPS}


def with_command(
    arguments: Sequence[str], *, piped: bool = False, terminal: bool = False
) -> list[str]:
    """The arguments with the command put in that was left out; no arguments ask for help.

    Only the options of ttsolve itself may stand before a command, and none of them takes a value:
    so whatever else comes first belongs to a bare problem, or, where no word can be the problem,
    to a batch of what is piped in, or to a session on a terminal.
    """
    if not arguments and not (piped or terminal):
        return ["--help"]
    first = next((i for i, a in enumerate(arguments) if a not in GLOBAL_OPTIONS), len(arguments))
    if first < len(arguments) and arguments[first] in COMMANDS:
        if arguments[first] == "solve" and not _words(arguments[first + 1 :]):
            _check_dashes(arguments)
        alone = first == len(arguments) - 1 and arguments[first] in GROUPS
        return [*arguments, *["--help"] * alone]
    asks = {"--help", "--version"} & set(arguments)
    words = _words(arguments)
    if not words and not asks:
        _check_options(arguments)
    named = any(word.partition("=")[0] == "--session" for word in arguments)
    if (piped or terminal or named) and not asks and not words:
        command = "batch" if piped and not named else "session"
        return [*arguments[:first], command, *arguments[first:]]
    if first == len(arguments):
        return list(arguments)
    if words and not asks and "--" not in arguments:
        _check_problem([arguments[place] for place in words], words)
    return [*arguments[:first], "solve", *arguments[first:]]


def _words(arguments: Sequence[str]) -> list[int]:
    """The places of the arguments that are neither an option nor the value of one."""
    if "--" in arguments:
        return list(range(arguments.index("--"), len(arguments)))
    valued, before = _valued(), ["", *arguments]
    return [
        place
        for place, (option, word) in enumerate(zip(before, arguments, strict=False))
        if (not word.startswith("-") or word == "-") and option not in valued
    ]


def _valued() -> set[str]:
    """The options that are followed by a value."""
    return {
        name
        for command in get_group(app).commands.values()
        if command.name in ("solve", "batch", "session")
        for option in command.params
        if not getattr(option, "is_flag", True)
        for name in option.opts
    }


def _check_options(arguments: Sequence[str]) -> None:
    """Refuse what needs a problem, where no argument is one.

    Raises:
        UsageError: a problem looks like an option, or is missing beside an option of one.
    """
    _check_dashes(arguments)
    for option in OF_A_PROBLEM & set(arguments):
        raise UsageError(
            f"There is no problem for {option}: type one before it, or - for one that is piped in."
        )


def _check_dashes(arguments: Sequence[str]) -> None:
    """Refuse a problem that would be read as an option, as -5 + 3.

    Raises:
        UsageError: there is one.
    """
    valued = _valued()
    for before, word in pairwise(["", *arguments]):
        name = word.partition("=")[0]
        if before not in valued and re.match(r"-\s*[\d.(]|-.*\s", name, re.DOTALL):
            raise UsageError(
                f'The problem "{word}" begins like an option: type ttsolve solve -- "{word}".'
            )


def _check_problem(words: Sequence[str], places: Sequence[int]) -> None:
    """Refuse a bare problem that is hardly meant as one: `places` among the arguments.

    Raises:
        UsageError: it is a misspelt command, a file, or a text without quotes.
    """
    first = words[0]
    near = get_close_matches(first, COMMANDS, n=1, cutoff=0.8)
    if near and first not in COMMANDS and len(first.split()) == 1:
        raise UsageError(
            f"There is no command {first!r}: type {near[0]}, or `ttsolve solve {first}` where that "
            "is the problem."
        )
    if any(after == before + 1 for before, after in pairwise(places)):
        raise UsageError(
            f'The problem has to be one argument: put it in quotes, as "{" ".join(words)}".'
        )
    with suppress(OSError):  # a long text is no file name
        if Path(first).is_file():
            raise UsageError(
                f"{first} is a file: type ttsolve batch {first} for the problems in it."
            )


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, and exit: 0 done, 1 failed, 2 not usable as typed, 130 after Ctrl-C."""
    _open_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = given[: given.index("--")] if "--" in given else given
    debug = "--debug" in options or os.environ.get("TTSOLVE_DEBUG", "0") not in ("", "0")
    given = [a for a in options if a != "--debug"] + given[len(options) :]
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal without UTF-8 shows ? for the rest
        sys.stdout.reconfigure(errors="replace")
    piped = sys.stdin is not None and not sys.stdin.isatty()
    terminal = sys.stdin is not None and not piped and sys.stdout.isatty()
    code = _code_of(lambda: _run(with_command(given, piped=piped, terminal=terminal)), debug)
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


def _open_streams() -> None:
    """Nothing in place of the standard streams that are closed (`>&-`), of which Python has none.

    They are opened in the order of their numbers, which no other file may take.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115


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
        if _is_ctrl_c(error):
            return INTERRUPTED
        if debug:
            traceback.print_exc()
        else:
            kind = type(error).__name__
            render.error(f"Unexpected {kind} ({error}): run again with --debug to see where.")
        return 1


def _is_ctrl_c(error: BaseException) -> bool:
    """Whether Ctrl-C is behind it: a library that is being imported makes another error of that."""
    cause = error.__cause__ or error.__context__
    return isinstance(error, KeyboardInterrupt) or (cause is not None and _is_ctrl_c(cause))
