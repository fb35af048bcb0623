"""`ttsolve batch`: many problems, from files or through a pipe; a line of JSON for each."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

import typer

from ttsolve import render, render_batch
from ttsolve.batch import Solver, enough, outcomes
from ttsolve.cli_options import (
    DEFAULT_STRATEGY,
    INTERRUPTED,
    AnswerField,
    Budget,
    Confidence,
    FewShot,
    GeneratorPath,
    GpuLayers,
    InFlight,
    ModelName,
    PairName,
    QuestionField,
    Seed,
    Settings,
    StrategyName,
    Temperature,
    chosen_pair,
    chosen_strategy,
    ctrl_c_sets,
)
from ttsolve.cli_store import CacheFile, NoCache, check_output, stored_pair
from ttsolve.dataset import Entry, Format, Source, read
from ttsolve.errors import UsageError
from ttsolve.fields import Fields
from ttsolve.files import LinesFile

STDIN = Path("-")


def batch(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="Text, JSON lines or CSV; none, or -: stdin."),
    ] = None,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="A file for the answers.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Take the first N problems only.")
    ] = None,
    unordered: Annotated[
        bool, typer.Option("--unordered", help="Write each answer as soon as it is there.")
    ] = False,
    question_field: QuestionField = None,
    answer_field: AnswerField = None,
    kind: Annotated[
        Format | None, typer.Option("--format", help="What FILE is; else that is found out.")
    ] = None,
    in_flight: InFlight = None,
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
) -> None:
    """Solve many problems: a line of JSON for each, in input order.

    \b
    ttsolve batch questions.jsonl -o answers.jsonl --budget 16
    cat questions.jsonl | ttsolve --budget 16 > answers.jsonl

    Text has a question a line; of JSON lines and CSV the fields of GSM8K, MATH-500, SVAMP and the
    like are known. Where a known answer stands beside the question, the line says whether
    the answer is correct. A line that cannot be used becomes a line with an error. The exit code is
    0, 1 when there were such lines or OUT takes no more, 2 for what cannot be used as typed, 130
    after Ctrl-C.
    """
    problems = _Input(tuple(files or [STDIN]), kind, Fields(question_field, answer_field), limit)
    problems.check()
    check_output(output, "the answers", cache, problems.files)
    chosen = chosen_pair(pair, generator, few_shot, model)
    plan = chosen_strategy(strategy, budget, settings, chosen, confidence, temperature)
    stop = threading.Event()
    shown = render_batch.bar_wanted(to_file=output is not None)
    with (
        render_batch.Bar(problems.count() if shown else None, shown=shown) as bar,
        stored_pair(chosen, gpu_layers, cache, no_cache) as models,
        problems.entries() as entries,
        _opened(output) as write,
        ctrl_c_sets(stop),
    ):
        new_engine = partial(models.engine, budget, seed=seed, temperature=temperature, stop=stop)
        solver = Solver(plan, models, new_engine)
        width = in_flight or enough(budget)
        bar.begin()
        solved = outcomes(entries, solver, stop, in_flight=width, ordered=not unordered)
        with closing(solved):  # whatever ends it, the models are at rest before they go
            for outcome in solved:
                write(json.dumps(outcome.record, allow_nan=False) + "\n")
                bar.add(outcome)
        if not stop.is_set():
            write("")  # without a problem there is no answer left of yesterday
        again = "goes on from here" if models.store.keeps else "starts anew"
    render_batch.show_summary(bar.tally, chosen, bar.seconds)
    if stop.is_set():
        render.note(f"Interrupted: the same command {again}.")
    raise typer.Exit(INTERRUPTED if stop.is_set() else int(bar.tally.errors > 0))


@dataclass(frozen=True)
class _Input:
    """The problems, as the user named them."""

    paths: tuple[Path, ...]
    kind: Format | None
    named: Fields
    limit: int | None

    @property
    def files(self) -> list[Path]:
        """Those of the paths that are not stdin."""
        return [path for path in self.paths if path != STDIN]

    def check(self) -> None:
        """Refuse what would wait for a terminal.

        Raises:
            UsageError: with the sentence for the user.
        """
        if STDIN in self.paths and (sys.stdin is None or sys.stdin.isatty()):
            raise UsageError("There are no problems: name a FILE, or pipe them into ttsolve.")

    def count(self) -> int | None:
        """How many there are; None where that shows only at the end."""
        if not all(path.is_file() for path in self.paths):
            return None
        with self.entries() as entries:
            return sum(1 for _ in entries)

    @contextmanager
    def entries(self) -> Iterator[Iterator[Entry]]:
        """The entries of all files.

        Raises:
            UsageError: when one cannot be opened; while reading, when one cannot be used.
        """
        with ExitStack() as stack:
            sources = [(_name(path), stack.enter_context(_source(path))) for path in self.paths]
            entries = islice(self._read(sources), self.limit)
            first = list(islice(entries, 1))  # what cannot be read is told before OUT is opened
            yield chain(first, entries)

    def _read(self, sources: Sequence[tuple[str, Source]]) -> Iterator[Entry]:
        for name, source in sources:
            for entry in read(source, name, self.kind, self.named):
                yield replace(entry, file=name) if len(sources) > 1 else entry


def _name(path: Path) -> str:
    return "stdin" if path == STDIN else str(path)


@contextmanager
def _source(path: Path) -> Iterator[Source]:
    """The file, unbuffered: a line is there as soon as it was written into a pipe."""
    if path == STDIN:
        stdin = sys.stdin.buffer
        yield getattr(stdin, "raw", stdin)
        return
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise UsageError(f"Cannot read {path} ({error.strerror}): give a readable file.") from error
    with file:
        yield file


@contextmanager
def _opened(output: Path | None) -> Iterator[Callable[[str], None]]:
    """What writes a line of the answers, there at once."""
    if output is None:
        yield _to_stdout
        return
    with LinesFile(output, "make room there or choose another file for the answers") as file:
        yield file.write


def _to_stdout(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()
