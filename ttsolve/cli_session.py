"""`ttsolve` alone on a terminal: a session, in which problems and commands are typed."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ttsolve import render, render_live, render_result, render_session, render_store
from ttsolve.cli_options import (
    SEED,
    Confidence,
    FewShot,
    GeneratorPath,
    GpuLayers,
    ModelName,
    PairName,
    Settings,
    Temperature,
    budget_of,
    chosen_pair,
    confidence_of,
    ctrl_c_sets,
    settings_of,
)
from ttsolve.cli_store import CacheFile, models_behind, open_store
from ttsolve.errors import TtsolveError, UsageError
from ttsolve.pair import default_pair
from ttsolve.pair_rules import NAME
from ttsolve.session import Asked, Session
from ttsolve.session import Settings as Kept

if TYPE_CHECKING:  # it opens SQLite
    from ttsolve.store import Store

Read = Callable[[], str | None]  # the next line; None: there is no more

COMMANDS = {
    "/more": "spend as much again on the last problem; where it was stopped, what was left",
    "/why": "what was spent where, the vote, the steps of the best solution",
    "/budget N": "units for each problem to come",
    "/strategy NAME KEY=VALUE …": "how they are used, as /strategy beam width=4",
    "/history": "the problems so far",
    "/help": "this list",
    "/quit": "end the session, as Ctrl-D does",
}
HISTORY = 20  # runs listed


def session(
    *,
    name: Annotated[
        str | None,
        typer.Option("--session", metavar="NAME", help="Keep the session under NAME, or go on."),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(parser=budget_of, metavar="N", help="How many solutions may be sampled."),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(metavar="NAME", help="How they are used: see solve --help.")
    ] = None,
    settings: Settings = None,
    confidence: Confidence = None,
    pair: PairName = None,
    generator: GeneratorPath = None,
    model: ModelName = None,
    few_shot: FewShot = None,
    seed: Annotated[int | None, SEED] = None,
    temperature: Temperature = None,
    gpu_layers: GpuLayers = -1,
    cache: CacheFile = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Keep nothing; recall only this session's samples.")
    ] = False,
) -> None:
    """Open a session; the word `session` may be left out.

    \b
    ttsolve
    ttsolve --session homework --budget 64

    Type a problem on the terminal and watch it being solved; /more spends as much again on it,
    /why tells what was spent where, /help lists the other commands. The models stay open from one
    problem to the next. Under a name everything is kept: options that are left out are then as they
    were.
    """
    if name is not None and no_cache:
        raise UsageError("A session is kept in the store: leave --session or --no-cache out.")
    if name is not None and not name.strip():
        raise UsageError("The session has no name: give one, as in --session homework.")
    if name is not None and not name.isprintable():
        raise UsageError(f"The session's name {name!r} is no line of text: leave the rest out.")
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("A session needs a terminal: pipe problems into ttsolve batch instead.")
    given = {
        "budget": budget,
        "strategy": strategy,
        "settings": settings_of(settings, "--set ") if settings else None,
        "confidence": confidence,
        "pair": pair if pair is None or re.fullmatch(NAME, pair) else _from_anywhere(pair),
        "generator": generator
        if generator is None or "://" in generator
        else _from_anywhere(generator),
        "model": model,
        "few_shot": _from_anywhere(few_shot) if few_shot else None,
        "seed": seed,
        "temperature": temperature,
    }
    from ttsolve.line_editor import LineEditor
    from ttsolve.store_sessions import keep_typed, typed

    chosen = {key: value for key, value in given.items() if value is not None}
    with open_store(cache, no_cache, passing=True) as store:  # /more pays for nothing twice
        talk = Conversation(store, name, chosen, gpu_layers)
        words = [command.split()[0] for command in COMMANDS]
        prompt = f"{render.printable(name)}> " if name else "> "
        talk.hold(LineEditor(prompt, typed(store), partial(keep_typed, store), words))


def _from_anywhere(path: str | Path) -> str:
    """The path as it is found from any folder: a session may go on elsewhere."""
    return str(Path(path).resolve())


class Conversation:
    """A session, and what is typed in it.

    `given`: settings in place of those that the session was kept with.
    """

    def __init__(
        self, store: Store, name: str | None, given: Mapping[str, Any], gpu_layers: int = -1
    ) -> None:
        from ttsolve.store_sessions import session_settings

        record = session_settings(store, name) if name else None
        kept = Kept() if record is None else Kept.from_json(record)
        settings = kept.updated(**given)
        few_shot = Path(settings.few_shot) if settings.few_shot else None
        pair = chosen_pair(settings.pair, settings.generator, few_shot, settings.model)
        if settings.pair is None and settings.generator is None:  # another may be it another day
            settings = replace(settings, pair=default_pair())
        self._live: render_live.LiveLine | None = None  # of the problem that is being solved
        models = partial(models_behind, store, pair, gpu_layers, self._opened)
        self.session = Session(pair, settings, store, models, name)
        self._commands = {
            "/more": self._more,
            "/why": self._why,
            "/budget": self._budget,
            "/strategy": self._strategy,
            "/history": self._history,
            "/help": self._help,
            "/quit": self._quit,
        }
        self._open = True

    def hold(self, read: Read) -> None:
        """Do what is typed, until there is no more, or /quit; an error ends only what it is of."""
        render_session.greet(self.session)
        while self._open and (text := read()) is not None:
            try:
                self._do(text.strip())
            except TtsolveError as error:
                render.error(str(error))
            except KeyboardInterrupt:
                render.note("Stopped at once.")
        if self.session.name is not None and self.session.store.keeps:
            render_session.take_leave(self.session.name)

    def _do(self, text: str) -> None:
        if any("\ud800" <= c <= "\udfff" for c in text):  # so bytes that are no UTF-8 arrive
            raise UsageError("The line is not UTF-8 text: type it again.")
        if not text.startswith("/"):
            if text:
                self._solve(self.session.asked(text))
            return
        command, *words = text.split()
        if command not in self._commands:
            near = get_close_matches(command, self._commands, n=1)
            use = f"{near[0]}, or /help for the list" if near else "/help for the list"
            raise UsageError(f"There is no command {command!r}: type {use}.")
        if words and command not in ("/budget", "/strategy"):
            raise UsageError(f"The command {command} stands alone: leave {words[0]!r} out.")
        self._commands[command](words)

    def _solve(self, asked: Asked) -> None:
        session = self.session
        stop = threading.Event()
        mark = session.pair.prompt.answer
        with render_live.live_line(asked.strategy, asked.budget, mark) as self._live:
            if session.models.models is not None:  # they are open since an earlier problem
                self._live.begin()
            words = session.models.unknown_words(asked.question)
            with ctrl_c_sets(stop):
                result = session.solve(asked, unknown_words=words, stop=stop, listen=self._live)
        render_result.warn_of_another_world(session.pair, words)
        if result.interrupted:
            render.note("Interrupted: this is the vote over the candidates there were.")
        render_result.show_result(result, session.pair)
        render.line("")

    def _opened(self) -> None:
        if self._live is not None:
            self._live.begin()

    def _more(self, words: Sequence[str]) -> None:
        asked = self.session.more()
        budget_of(str(asked.budget))
        render.progress(f"{render.printable(asked.question)}, budget {asked.budget}")
        self._solve(asked)

    def _why(self, words: Sequence[str]) -> None:
        render_session.show_account(self.session.why())

    def _budget(self, words: Sequence[str]) -> None:
        if words:
            self.session.change(self.session.settings.updated(budget=budget_of(" ".join(words))))
        render.progress(str(self.session.settings))

    def _strategy(self, words: Sequence[str]) -> None:
        if words:
            name, *rest = words
            settings = settings_of(rest)
            promise = settings.pop("confidence", None)
            confidence = None if promise is None else confidence_of(promise)
            how = {"strategy": name, "settings": settings, "confidence": confidence}
            self.session.change(self.session.settings.updated(**how))
        render.progress(str(self.session.settings))

    def _history(self, words: Sequence[str]) -> None:
        store = self.session.store
        if not store.usable:
            raise UsageError("Nothing is kept: begin with a readable store.")
        if runs := store.runs(HISTORY, self.session.name):
            render_store.show_runs(runs)
        else:
            render.note("No run is kept yet.")

    def _help(self, words: Sequence[str]) -> None:
        render_session.show_help(COMMANDS)

    def _quit(self, words: Sequence[str]) -> None:
        self._open = False
