"""How a file becomes a store: opened, recognised, brought up to date; and its transactions."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlite_utils import Database

from ttsolve.errors import UsageError
from ttsolve.store_schema import MIGRATIONS

PATIENCE = 60.0  # seconds to wait for another process that is writing


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
    with _closed_on_error(connection) as db:
        with transaction(db, writing=False):  # another process may just be making it
            _check(db, path)
        _write_ahead(connection)
        if MIGRATIONS.pending(db):
            with transaction(db, writing=True):
                MIGRATIONS.apply(db)
        return db


def open_passing() -> Database:
    """An empty store in memory, which goes with its connection."""
    db = Database(sqlite3.connect(":memory:", check_same_thread=False), execute_plugins=False)
    MIGRATIONS.apply(db)
    return db


def open_sealed(path: Path) -> Database:
    """The store in a file that nobody can write, for reading: not even beside it is there room.

    Raises:
        UsageError: the file is no store, or a newer version's.
        sqlite3.Error: it cannot be read so, or it is older than this version.
    """
    if Path(f"{path}-wal").exists():  # what was committed last is there, and would be missed
        raise sqlite3.OperationalError("its log cannot be read")
    uri = f"{path.resolve().as_uri()}?immutable=1"
    with _closed_on_error(sqlite3.connect(uri, uri=True, check_same_thread=False)) as db:
        _check(db, path)
        if MIGRATIONS.pending(db):
            raise sqlite3.OperationalError("it is an older version's")
        return db


@contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[Database]:
    try:
        yield Database(connection, execute_plugins=False)
    except BaseException:
        connection.close()
        raise


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
