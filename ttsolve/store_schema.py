"""The store's tables and views, and how a file becomes a store: opened, recognised, migrated.

Migrations are only ever appended: a file that knows more of them than we do is a newer version's.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlite_utils import Database, Migrations

from ttsolve.errors import UsageError

PATIENCE = 60.0  # seconds to wait for another process that is writing

MIGRATIONS = Migrations("ttsolve")

TABLES = """
CREATE TABLE models (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE          -- a generator's or verifier's: file and prompt format
);
CREATE TABLE samplings (
  id INTEGER PRIMARY KEY,
  settings TEXT NOT NULL UNIQUE      -- JSON: temperature, top_k, top_p, min_p, max_tokens, steps
);
CREATE TABLE pairs (
  key TEXT PRIMARY KEY,              -- hash of the pair's checksums and prompt format
  name TEXT NOT NULL,
  generator INTEGER NOT NULL REFERENCES models,
  verifier INTEGER REFERENCES models
) WITHOUT ROWID;
CREATE TABLE steps (
  id TEXT PRIMARY KEY,               -- hash of everything below and, through parent, above it
  parent TEXT REFERENCES steps,      -- NULL: the root, whose text is the problem
  text TEXT NOT NULL,
  tokens INTEGER NOT NULL,
  ids TEXT NOT NULL                  -- JSON: the generator's own token ids
) WITHOUT ROWID;
CREATE TABLE samples (
  generator INTEGER NOT NULL REFERENCES models,
  sampling INTEGER NOT NULL REFERENCES samplings,
  prefix TEXT NOT NULL REFERENCES steps,
  seed INTEGER NOT NULL,
  root TEXT NOT NULL REFERENCES steps,
  last TEXT NOT NULL REFERENCES steps,
  finish TEXT,                       -- stop, length; NULL: it may be continued
  PRIMARY KEY (generator, sampling, prefix, seed)
) WITHOUT ROWID;
CREATE TABLE scores (
  verifier INTEGER NOT NULL REFERENCES models,
  step TEXT NOT NULL REFERENCES steps,
  score REAL NOT NULL,               -- P(correct | up to and with this step), 0..1
  PRIMARY KEY (verifier, step)
) WITHOUT ROWID;
CREATE TABLE runs (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,          -- hash of all that was asked: asking it again is the same run
  asked TEXT NOT NULL,               -- UTC, last time
  status TEXT NOT NULL,              -- running (or killed), interrupted, done
  problem TEXT NOT NULL,
  root TEXT NOT NULL REFERENCES steps,
  problem_id TEXT NOT NULL,
  reference TEXT,
  pair TEXT NOT NULL,
  generator INTEGER NOT NULL REFERENCES models,
  verifier INTEGER REFERENCES models,
  strategy TEXT NOT NULL,
  settings TEXT NOT NULL,            -- JSON
  seed INTEGER NOT NULL,
  budget INTEGER NOT NULL,           -- units
  unknown_words TEXT,                -- JSON: those from outside the pair's world; NULL: not asked
  answer TEXT,
  share REAL,
  correct INTEGER,                   -- 1, 0; NULL: not graded
  bill TEXT,                         -- JSON: Usage, of the last time that something was computed
  tree TEXT                          -- JSON: how the search went
);
CREATE INDEX runs_by_time ON runs (asked);
CREATE INDEX runs_by_root ON runs (root);
CREATE TABLE run_candidates (
  run INTEGER NOT NULL REFERENCES runs,
  place INTEGER NOT NULL,            -- 0, 1, … as the strategy returned them
  last TEXT NOT NULL REFERENCES steps,
  finish TEXT,
  answer TEXT,
  score REAL,                        -- of the whole solution, as the vote used it
  PRIMARY KEY (run, place)
) WITHOUT ROWID;
"""

VIEWS = """
CREATE VIEW history AS
  SELECT id, asked, status, problem, answer, share, correct, pair, strategy, budget, seed,
    json_extract(bill, '$.units') AS units,
    json_extract(bill, '$.generated_tokens') AS generated_tokens,
    json_extract(bill, '$.recalled_tokens') AS recalled_tokens,
    json_extract(bill, '$.seconds') AS seconds
  FROM runs ORDER BY asked DESC, id DESC;
CREATE VIEW candidates AS
  SELECT c.run, c.place, r.problem, c.answer, c.score, c.finish, (
    WITH RECURSIVE up(parent, text, height) AS (
      SELECT parent, text, 0 FROM steps WHERE id = c.last
      UNION ALL
      SELECT s.parent, s.text, height + 1 FROM up JOIN steps s ON s.id = up.parent
    )
    SELECT group_concat(text, '') FROM
      (SELECT text FROM up WHERE parent IS NOT NULL ORDER BY height DESC)
  ) AS text
  FROM run_candidates c JOIN runs r ON r.id = c.run;
CREATE VIEW answers AS
  SELECT c.run, r.problem, c.answer, count(*) AS candidates, sum(c.score) AS weight,
    max(c.score) AS best
  FROM run_candidates c JOIN runs r ON r.id = c.run
  WHERE c.answer IS NOT NULL
  GROUP BY c.run, c.answer ORDER BY c.run, weight DESC, candidates DESC;
CREATE VIEW step_scores AS
  SELECT s.id, s.parent, s.text, v.score, m.name AS verifier
  FROM scores v JOIN steps s ON s.id = v.step JOIN models m ON m.id = v.verifier;
"""


@MIGRATIONS()
def m001_tables(db: Database) -> None:
    """Everything, as it was at first."""
    for statement in (TABLES + VIEWS).split(";\n"):
        if statement.strip():
            db.execute(statement)


def open_database(path: Path) -> Database:
    """The store in that file, begun where there is none, brought up to date where it is older.

    Raises:
        UsageError: the file is no store, or a newer version's.
        sqlite3.Error, OSError: it is damaged, or cannot be opened here.
    """
    if path.is_dir():
        raise UsageError(f"The store {path} is a folder: name a file in it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=PATIENCE, check_same_thread=False)
    try:
        db = Database(connection, execute_plugins=False)
        with transaction(db, writing=False):  # another process may just be making it
            _check(db, path)
        _write_ahead(connection)
        if MIGRATIONS.pending(db):
            with transaction(db, writing=True):
                MIGRATIONS.apply(db)
    except BaseException:
        connection.close()
        raise
    return db


@contextmanager
def transaction(db: Database, writing: bool) -> Iterator[None]:
    """All or nothing, on the store as it is at one moment.

    One that writes is the only one that does, from its beginning: so it never has to give way.
    """
    db.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.conn.in_transaction:
            db.execute("ROLLBACK")
        raise


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Readers and one writer side by side; a commit survives the process, not always the power."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            # SQLite does not wait by itself here, when two processes begin one file.
            if error_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    connection.execute("PRAGMA synchronous = NORMAL")


def _check(db: Database, path: Path) -> None:
    applied = {migration.name for migration in MIGRATIONS.applied(db)}
    known = {migration.name for migration in MIGRATIONS.pending(Database(memory=True))}
    if applied - known:
        raise UsageError(
            f"The store {path} was written by a newer ttsolve: update this one, or name another "
            "file with --cache."
        )
    if not applied and db.table_names():
        raise UsageError(f"{path} is a database of something else: name another file with --cache.")


def error_code(error: sqlite3.Error) -> int:
    """SQLite's own primary code of the error; 0: it has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
