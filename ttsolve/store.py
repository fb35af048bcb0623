"""The store: every sample, score and run, kept in one SQLite file, so that none is computed twice.

Samples and scores are committed by a thread of their own, a few times a second: a killed process
loses no more than that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sqlite_utils import Database

from ttsolve.core import Finish, Step
from ttsolve.store_runs import RunStore
from ttsolve.store_steps import MODEL, Row, put_model, put_rows, read_steps, step_rows

PAUSE = 0.2  # seconds between two commits

SAMPLING = "(SELECT id FROM samplings WHERE settings = ?)"
FIND_SAMPLE = f"""
SELECT last, finish, root FROM samples
WHERE generator = {MODEL} AND sampling = {SAMPLING} AND prefix = ? AND seed = ?
"""
PUT_SAMPLE = f"INSERT OR IGNORE INTO samples VALUES ({MODEL}, {SAMPLING}, ?, ?, ?, ?, ?)"
FIND_SCORE = f"SELECT score FROM scores WHERE verifier = {MODEL} AND step = ?"
PUT_SCORE = f"INSERT OR IGNORE INTO scores VALUES ({MODEL}, ?, ?)"
FIND_PAIR = """
SELECT g.name, v.name FROM pairs p
JOIN models g ON g.id = p.generator LEFT JOIN models v ON v.id = p.verifier WHERE p.key = ?
"""
PUT_PAIR = f"INSERT OR REPLACE INTO pairs VALUES (?, ?, {MODEL}, {MODEL})"


@dataclass(frozen=True, slots=True)
class SampleKey:
    """All that a continuation depends on."""

    generator: str
    settings: str  # JSON: how it is drawn, but for the seed
    seed: int
    root: Row  # the problem, with the earlier attempts to be shown
    prefix: str  # the id of its last step


@dataclass(frozen=True, slots=True)
class Grown:
    """What a prefix grew by."""

    steps: tuple[Step, ...]
    finish: Finish | None
    shown: str | None = None  # the root, where fewer earlier attempts were shown than asked for


class Store(RunStore):
    """The store in the file `path`: see `StoreFile`."""

    def __init__(
        self,
        path: Path | None,
        warn: Callable[[str], None] = lambda sentence: None,
        *,
        passing: bool = False,
    ) -> None:
        super().__init__(path, warn, passing=passing)
        self._changed = threading.Condition()
        self._flushing = threading.Lock()
        self._samples: list[tuple[SampleKey, Grown]] = []  # to be committed
        self._scores: list[tuple[str, str, float]] = []  # to be committed: verifier, step, score
        self._closing = False
        self._thread: threading.Thread | None = None

    def samples(self, keys: Sequence[SampleKey]) -> list[Grown | None]:
        """The continuation kept under each key; None: there is none."""
        return self.read(lambda db: [_find_sample(db, key) for key in keys], [None] * len(keys))

    def keep_sample(self, key: SampleKey, grown: Grown) -> None:
        """Keep a continuation that ended by itself: within a moment it is committed."""
        with self._changed:
            if self.keeps:
                self._samples.append((key, grown))
                self._wake()

    def scores(self, verifier: str, steps: Sequence[str]) -> list[float | None]:
        """The score kept of each step (its id); None: there is none."""

        def look(db: Database) -> list[float | None]:
            rows = (db.execute(FIND_SCORE, [verifier, step]).fetchone() for step in steps)
            return [row[0] if row else None for row in rows]

        return self.read(look, [None] * len(steps))

    def keep_scores(self, verifier: str, scores: Iterable[tuple[str, float]]) -> None:
        """Keep scores of steps (by their ids): within a moment they are committed."""
        with self._changed:
            if self.keeps:
                self._scores += ((verifier, step, score) for step, score in scores)
                self._wake()

    def names(self, pair: str) -> tuple[str, str | None] | None:
        """The names of the generator and verifier of the pair with that key, if they are known."""
        row = self.read(lambda db: db.execute(FIND_PAIR, [pair]).fetchone(), None)
        return (row[0], row[1]) if row else None

    def keep_names(self, pair: str, name: str, generator: str, verifier: str | None) -> None:
        """Keep the names of a pair's models, so that next time they need not be opened for them."""

        def put(db: Database) -> None:
            put_model(db, generator, verifier)
            db.conn.execute(PUT_PAIR, [pair, name, generator, verifier])

        self.write(put, None)

    def flush(self) -> None:
        """Commit what was to be kept so far."""
        with self._flushing:  # what another thread is just committing is to be there as well
            with self._changed:
                samples, self._samples = self._samples, []
                scores, self._scores = self._scores, []
            if samples or scores:
                self.write(lambda db: _put(db, samples, scores), None)

    def close(self) -> None:
        """Commit, and close the file; safe to call twice."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread:
            self._thread.join()
        self.flush()
        super().close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._commit, name="ttsolve-store", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _commit(self) -> None:
        """The thread: commit what there is, then let some more gather."""
        while True:
            with self._changed:
                while not (self._samples or self._scores or self._closing):
                    self._changed.wait()
                if self._closing:
                    return
            self.flush()
            with self._changed:
                self._changed.wait_for(lambda: self._closing, PAUSE)


def _find_sample(db: Database, key: SampleKey) -> Grown | None:
    values = [key.generator, key.settings, key.prefix, key.seed]
    row = db.execute(FIND_SAMPLE, values).fetchone()
    if row is None:
        return None
    last, finish, root = row
    shown = None if root == key.root[0] else root
    steps = tuple(step for _, step in read_steps(db, last, shown or key.prefix))
    return Grown(steps, cast(Finish | None, finish), shown)


def _put(
    db: Database,
    samples: Sequence[tuple[SampleKey, Grown]],
    scores: Sequence[tuple[str, str, float]],
) -> None:
    put_model(db, *{key.generator for key, _ in samples}, *{verifier for verifier, _, _ in scores})
    settings = {(key.settings,) for key, _ in samples}
    db.conn.executemany("INSERT OR IGNORE INTO samplings (settings) VALUES (?)", settings)
    steps: dict[Row, None] = {}  # each once, in order
    values = []
    for key, grown in samples:
        parent = grown.shown or key.prefix
        root = (grown.shown or key.root[0], *key.root[1:])
        rows = step_rows(parent, grown.steps)
        steps.update(dict.fromkeys([key.root, root, *rows]))
        last = rows[-1][0] if rows else parent
        where = (key.generator, key.settings, key.prefix, key.seed, root[0])
        values.append((*where, last, grown.finish))
    put_rows(db, steps)
    db.conn.executemany(PUT_SAMPLE, values)
    db.conn.executemany(PUT_SCORE, scores)
