"""The store, as the user chose it; `ttsolve history` and `ttsolve cache`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ttsolve import paths, render, render_store, render_tree
from ttsolve.errors import UsageError
from ttsolve.files import replacing
from ttsolve.pair import Pair
from ttsolve.solve import open_models, open_reviser
from ttsolve.tree import Tree

if TYPE_CHECKING:  # they open SQLite, and most of --help does without
    from ttsolve.recall import Models, StoredPair
    from ttsolve.store import Store

CacheFile = Annotated[
    Path | None, typer.Option("--cache", metavar="FILE", help="The file that keeps all results.")
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Recall nothing and keep nothing.")]

cache = typer.Typer(help="What is kept of all runs.", no_args_is_help=True)


def open_store(file: Path | None = None, no_cache: bool = False, *, passing: bool = False) -> Store:
    """The store in `file`; None: in the usual place. To be closed, or used in a `with`.

    With `no_cache` it is nowhere, or, `passing`, in memory.

    Raises:
        UsageError: the file is no store, or a newer version's; or both options are given.
    """
    from ttsolve.store import Store

    if file and no_cache:
        raise UsageError("--no-cache keeps nothing in a file: leave --cache or --no-cache out.")
    where = None if no_cache else file or paths.store_file()
    return Store(where, render.note, passing=passing)


@contextmanager
def stored_pair(
    pair: Pair,
    gpu_layers: int,
    file: Path | None,
    no_cache: bool,
    opened: Callable[[], None] = lambda: None,
) -> Iterator[StoredPair]:
    """The pair's models behind the user's store: see `models_behind`."""
    with open_store(file, no_cache) as store:
        yield models_behind(store, pair, gpu_layers, opened)


def models_behind(
    store: Store, pair: Pair, gpu_layers: int, opened: Callable[[], None]
) -> StoredPair:
    """The pair's models behind a store; `opened` hears of it when they are open."""
    from ttsolve.recall import StoredPair

    def opens(some: Callable[[Pair, int], Models]) -> Models:
        models = some(pair, gpu_layers)
        opened()
        return models

    return StoredPair(pair, store, partial(opens, open_models), partial(opens, open_reviser))


def check_output(
    output: Path | None, what: str, cache: Path | None, problems: Sequence[Path] = ()
) -> None:
    """Refuse, before anything is computed, to write over the problems or the store.

    Args:
        what: is to be written, as "the answers".
        cache: the file of the store; None: the usual one.

    Raises:
        UsageError: it would be; or the output is a folder.
    """
    if output is None:
        return
    if output.is_dir():
        raise UsageError(f"{output} is a folder: choose a file for {what}.")
    if output.exists() and not output.is_file():  # a device or a pipe, where nothing is lost
        return
    if any(problem.exists() and _same(output, problem) for problem in problems):
        raise UsageError(f"{output} holds the problems: choose another file for {what}.")
    if _same(output, cache or paths.store_file()):
        raise UsageError(f"{output} is the store: choose another file for {what}.")


def _same(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.samefile(other)  # by whatever links
    return os.path.realpath(one) == os.path.realpath(other)


@contextmanager
def _existing(file: Path | None, *, writing: bool = False) -> Iterator[Store]:
    """The store, for a command that is of no use where it cannot be read, or written."""
    with open_store(file) as store:
        if not (store.keeps if writing else store.usable):  # it has told why
            raise typer.Exit(1)
        yield store


def history(
    *,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many, the last first.")] = 20,
    session: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only those of that session.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each.")] = False,
    file: CacheFile = None,
) -> None:
    """List the runs that were asked for last."""
    with _existing(file) as store:
        runs = store.runs(limit, session)
    if as_json:
        for run in runs:
            render.line(render_store.run_json(run))
    elif not runs and session is not None:
        render.note(f"No run of a session {session!r} is kept: see `ttsolve history` for all.")
    elif not runs:
        render.note("No run is kept yet.")
    else:
        render_store.show_runs(runs)


def show(
    run: Annotated[
        int | None,
        typer.Argument(metavar="RUN", max=2**63 - 1, help="Its number in `ttsolve history`."),
    ] = None,
    *,
    whole: Annotated[bool, typer.Option("--all", help="Every step, however many.")] = False,
    file: CacheFile = None,
) -> None:
    """Show a run's steps as a tree: kept and dropped, with scores.

    Without a number: of the last run that came to an answer or to its end.
    """
    with _existing(file) as store:
        found = store.last_run() if run is None else store.run(run)
    if found is None:
        raise UsageError("No run with its steps is kept yet: solve a problem first.")
    if found.tree is None:
        raise UsageError(f"Run {found.id} keeps no steps: solve its problem again to see them.")
    render_tree.show_tree(Tree.from_json(found.tree), whole=whole)


@cache.command("stats")
def stats(*, file: CacheFile = None) -> None:
    """Show where the store is, and how much it holds."""
    from ttsolve.store_care import holdings

    with _existing(file) as store:
        assert store.path is not None
        render_store.show_holdings(store.path, holdings(store))


@cache.command("prune")
def prune(
    *,
    older_than: Annotated[
        int | None,
        typer.Option(min=0, max=36500, metavar="DAYS", help="What was not asked for so long."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    file: CacheFile = None,
) -> None:
    """Forget runs, with all samples and scores that no other run asks for."""
    from ttsolve import store_care

    if everything == (older_than is not None):
        raise UsageError("Say what is to be forgotten: --older-than DAYS, or --all.")
    now = datetime.now(UTC)
    before = now + timedelta(days=1) if everything else now - timedelta(days=older_than or 0)
    with _existing(file, writing=True) as store:
        removed = store_care.prune(store, before)
    render.line(f"Forgotten: {render_store.counted(removed)}.")


@cache.command("export")
def export(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="To be written; - is stdout.")],
    *,
    file: CacheFile = None,
) -> None:
    """Write every run with its candidates, a line of JSON for each."""
    if str(target) != "-":
        check_output(target, "the runs", file)
    with _existing(file) as store:
        lines = (json.dumps(record) for record in store.export_runs())
        if str(target) == "-":
            for text in lines:
                render.line(text)
            return
        with replacing(target) as part, part.open("w", encoding="utf-8", newline="\n") as out:
            for text in lines:
                out.write(text + "\n")
