"""Sessions in the store: under a name, its settings and the runs that were asked for in it.

Each change is committed at once: whatever ends the process, the session is as it was a moment ago.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlite_utils import Database

from ttsolve.store_file import StoreFile
from ttsolve.store_runs import timestamp

SESSION = "(SELECT id FROM sessions WHERE name = ?)"
KEEP = """
INSERT INTO sessions (name, settings) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET settings = excluded.settings
"""
ASKED = f"""
INSERT OR REPLACE INTO session_runs
VALUES ({SESSION}, ?, (SELECT 1 + coalesce(max(place), 0) FROM session_runs))
"""
PROBLEMS = f"""
SELECT count(DISTINCT root) FROM session_runs JOIN runs ON id = run WHERE session = {SESSION}
"""
TYPED = "SELECT line FROM typed GROUP BY line ORDER BY max(id) DESC LIMIT ?"


def session_settings(store: StoreFile, session: str) -> dict[str, Any] | None:
    """The settings of the session of that name; None: there is none."""
    sql = "SELECT settings FROM sessions WHERE name = ?"
    row = store.read(lambda db: db.execute(sql, [session]).fetchone(), None)
    return json.loads(row[0]) if row else None


def keep_session(
    store: StoreFile, session: str, settings: dict[str, Any], asked: int | None = None
) -> None:
    """Keep the settings of a session; and that the run `asked` is the one asked for last in it."""

    def keep(db: Database) -> None:
        db.conn.execute(KEEP, [session, json.dumps(settings)])
        if asked is not None:
            db.conn.execute(ASKED, [session, asked])

    store.write(keep, None)


def session_problems(store: StoreFile, session: str) -> int:
    """How many problems were asked in the session."""
    return store.read(lambda db: int(db.execute(PROBLEMS, [session]).fetchone()[0]), 0)


def keep_typed(store: StoreFile, line: str) -> None:
    """Keep a line that was typed in a session; what in it is no UTF-8 text as question marks."""
    values = [timestamp(datetime.now(UTC)), line.encode(errors="replace").decode()]
    sql = "INSERT INTO typed (at, line) VALUES (?, ?)"
    store.write(lambda db: db.conn.execute(sql, values), None)


def typed(store: StoreFile, limit: int = 1000) -> list[str]:
    """The lines typed last in any session, each once, the last first."""
    nothing: list[str] = []
    return store.read(lambda db: [row[0] for row in db.execute(TYPED, [limit])], nothing)
