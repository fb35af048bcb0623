"""Kill batches at random moments, and see the next one finish as if nothing had happened.

    python tests/kill_store.py [KILLS] [PAIR] [TEMPERATURE]

Each time 20 problems are begun on a new store and killed (-9); what the store holds then must be
whole, must all be there after the same command ran again, and must not be computed again. The
answers must be those of a run that was never killed: byte by byte, or, where models sample, from
the same seeds. Forked, for a batch of dice is over before Python has started.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import ttsolve.recall  # noqa: F401  (before the forks)
from ttsolve import cli_store
from ttsolve.cli import main
from ttsolve.core import Solution, Usage
from ttsolve.engine import Generator, Sampling, Verifier, Watch
from ttsolve.engines.sim import SimGenerator, SimVerifier
from ttsolve.pair import Pair
from ttsolve.solve import SIM, open_models

PROBLEMS = 20
BUDGET = 8
SAMPLES = "SELECT g.name, s.prefix, s.seed FROM samples s JOIN models g ON g.id = s.generator"


class Counting:
    """A generator that notes in a file how many continuations it was asked for."""

    def __init__(self, generator: Generator, note: Path):
        self.generator, self.note = generator, note
        self.name, self.params = generator.name, generator.params

    def sample(
        self,
        prefixes: Sequence[Solution],
        how: Sequence[Sampling],
        watch: Watch | None = None,
        stop: Event | None = None,
    ) -> tuple[list[Solution], Usage]:
        with self.note.open("a") as note:
            note.write("x" * len(prefixes))
        return self.generator.sample(prefixes, how, watch, stop)


def batch(folder: Path, pair: str, temperature: str, *more: str) -> int:
    """Begin the batch in a process of its own; its id."""
    if pid := os.fork():
        return pid

    def counted(chosen: Pair, gpu_layers: int) -> tuple[Generator, Verifier | None]:
        dice = SimGenerator(delay=0.01), SimVerifier()
        generator, verifier = dice if chosen is SIM else open_models(chosen, gpu_layers)
        return Counting(generator, folder / "asked"), verifier

    cli_store.open_models = counted
    os.dup2(os.open(folder / "errors", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    options = ["--pair", pair, "--temperature", temperature, "--budget", str(BUDGET), *more]
    try:
        main(["batch", str(folder.parent / "problems"), "-o", str(folder / "out"), *options])
    except SystemExit as done:
        os._exit(int(done.code or 0))


def finish(pid: int, folder: Path) -> None:
    """Wait for a batch that must end well."""
    status = os.waitpid(pid, 0)[1]
    errors = (folder / "errors").read_text()
    assert status == 0, errors
    assert "Nothing more can be kept" not in errors
    assert "damaged" not in errors


def samples(store: Path) -> list[tuple[object, ...]]:
    """What the store holds, which must be whole."""
    with closing(sqlite3.connect(store)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'samples'").fetchone():
            return []
        lost = "SELECT count(*) FROM samples WHERE last NOT IN (SELECT id FROM steps)"
        assert db.execute(lost).fetchone() == (0,)
        return db.execute(SAMPLES).fetchall()


def kill_once(folder: Path, dice: random.Random, pair: str, temperature: str) -> int:
    """Begin, kill, finish; how many samples the store held between."""
    store = folder / "ttsolve.db"
    pid = batch(folder, pair, temperature, "--cache", str(store))
    if dice.random() < 0.8:  # else while the store is still being made
        while not (folder / "asked").exists():
            time.sleep(0.002)
    time.sleep(dice.uniform(0, 0.4 if pair == "sim" else 4))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    kept = samples(store) if store.exists() else []
    (folder / "asked").write_text("")
    finish(batch(folder, pair, temperature, "--cache", str(store)), folder)
    asked = (folder / "asked").stat().st_size
    everything = samples(store)
    assert set(kept) <= set(everything)
    assert len(kept) + asked == len(everything) == len(set(everything))
    return len(kept)


def kill_often(kills: int, pair: str, temperature: str, base: Path) -> None:
    """Print what came of it; fail where anything was lost or changed."""
    names = [f"what is {i} times seven" for i in range(PROBLEMS)]
    if pair != "sim":
        names = [f"What is {5 * i + 10}% of {20 * i + 200}?" for i in range(PROBLEMS)]
    (base / "problems").write_text("\n".join(names) + "\n")
    whole = base / "whole"
    whole.mkdir()
    finish(batch(whole, pair, temperature, "--no-cache"), whole)
    finish(batch(whole, pair, temperature, "--cache", str(whole / "ttsolve.db")), whole)
    dice = random.Random(kills)
    held = []
    for number in range(kills):
        folder = base / str(number)
        folder.mkdir()
        held.append(kill_once(folder, dice, pair, temperature))
        if pair == "sim" or float(temperature) == 0:
            assert (folder / "out").read_bytes() == (whole / "out").read_bytes()
        assert set(samples(folder / "ttsolve.db")) == set(samples(whole / "ttsolve.db"))
    total = len(samples(whole / "ttsolve.db"))
    partly = sum(0 < kept < total for kept in held)
    print(
        f"{kills} kills: {partly} left a part of the {total} samples, {held.count(0)} none, "
        f"{held.count(total)} all; nothing lost, nothing computed twice"
    )


if __name__ == "__main__":
    given = [*sys.argv[1:], *("200", "sim", "1")[len(sys.argv) - 1 :]]
    with TemporaryDirectory() as folder:
        kill_often(int(given[0]), given[1], given[2], Path(folder))
