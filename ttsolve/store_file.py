"""The store's file: one connection for all threads of a process, and what may go wrong with it.

Trouble with the disk is told once and ends no run: what cannot be read is computed again, what
cannot be written is not kept but recalled, and a damaged file is moved aside.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from sqlite_utils import Database

from ttsolve.errors import UsageError
from ttsolve.paths import STORE
from ttsolve.store_open import error_code, open_database, open_passing, open_sealed, transaction

SEALED = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
OURS = (0, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISUSE)  # our mistakes
HEADER = b"SQLite format 3\0"

T = TypeVar("T")


class StoreFile:
    """The store in the file `path`; None: nowhere, so that it finds nothing and keeps nothing.

    `warn` is told, in one sentence, what went wrong. `passing`: where there is no file, it is in
    memory, and finds what it has kept for as long as it is open.

    Raises:
        UsageError: the file is no store, or a newer version's.
    """

    def __init__(
        self,
        path: Path | None,
        warn: Callable[[str], None] = lambda sentence: None,
        *,
        passing: bool = False,
    ) -> None:
        self.path = path
        self._warn = warn
        self._lock = threading.RLock()
        self._db: Database | None = None
        self._inode = 0  # of the file that we opened
        self._writable = True
        if path is not None:
            self._open(path)
        elif passing:
            self._db = open_passing()

    @property
    def usable(self) -> bool:
        """Can it be read?"""
        return self._db is not None

    @property
    def keeps(self) -> bool:
        """Can it be written?"""
        return self._db is not None and self._writable

    def flush(self) -> None:
        """Commit what was to be kept so far."""

    def read(self, work: Callable[[Database], T], otherwise: T) -> T:
        """What `work` finds, at one moment; `otherwise` when the store cannot be read."""
        return self._do(work, otherwise, writing=False)

    def write(self, work: Callable[[Database], T], otherwise: T) -> T:
        """Do `work`, all of it or nothing; `otherwise` when the store cannot be written."""
        return self._do(work, otherwise, writing=True)

    def shrink(self) -> None:
        """Give room back to the disk, unless another process writes or there is none for a copy."""
        with self._lock:
            if self._db is not None and self._writable:
                with contextlib.suppress(sqlite3.OperationalError):
                    self._db.vacuum()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            self._drop()

    def _do(self, work: Callable[[Database], T], otherwise: T, writing: bool) -> T:
        with self._lock:
            if self._db is None or (writing and not self._writable):
                return otherwise
            try:
                with transaction(self._db, writing):
                    return work(self._db)
            except sqlite3.Error as error:
                self._failed(error, writing)
                return otherwise

    def _open(self, path: Path) -> None:
        try:
            self._inode = path.stat().st_ino if path.exists() else 0
            self._db = open_database(path)
            self._inode = path.stat().st_ino
        except sqlite3.Error as error:
            if error_code(error) in OURS:
                raise
            if error_code(error) in DAMAGED:
                _check_ours(path)
                self._replace(path)
            else:
                self._cannot_keep(path, str(error))
                if error_code(error) in SEALED:
                    with contextlib.suppress(sqlite3.Error):
                        self._db = open_sealed(path)
        except OSError as error:
            self._cannot_keep(path, str(error.strerror))

    def _failed(self, error: sqlite3.Error, writing: bool) -> None:
        if error_code(error) in OURS or self.path is None:
            raise error
        if error_code(error) in DAMAGED and self._writable:
            self._replace(self.path)
            return
        if not writing:
            self._drop()
        self._cannot_keep(self.path, str(error))

    def _cannot_keep(self, path: Path, trouble: str) -> None:
        if self._writable:
            self._warn(
                f"Nothing more can be kept in the store {path} ({trouble}): make it writable and "
                "make room there, or name another file with --cache."
            )
        self._writable = False

    def _drop(self) -> None:
        if self._db is not None:
            self._db.close()
        self._db = None

    def _replace(self, path: Path) -> None:
        """Move a damaged file aside and begin a new one, unless another process has done so."""
        self._drop()
        aside = f"{path}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
        try:
            if path.stat().st_ino == self._inode:
                for end in ("", "-wal", "-shm"):
                    with contextlib.suppress(FileNotFoundError):
                        os.replace(f"{path}{end}", f"{aside}{end}")
                self._warn(
                    f"The store {path} was damaged: it was moved to {aside}, and a new one begun."
                )
            self._db = open_database(path)
            self._inode = path.stat().st_ino
        except (sqlite3.Error, OSError) as error:
            self._cannot_keep(path, str(error))


def _check_ours(path: Path) -> None:
    """Refuse to touch what the user may have named by mistake."""
    with path.open("rb") as file:
        if path.name != STORE and file.read(len(HEADER)) != HEADER:
            raise UsageError(f"{path} is no store and no database: name another file with --cache.")
