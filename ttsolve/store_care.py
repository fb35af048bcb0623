"""How much a store holds, and how to make it forget."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlite_utils import Database

from ttsolve.errors import StorageError
from ttsolve.store_file import StoreFile
from ttsolve.store_runs import timestamp

COUNTS = {
    "runs": "SELECT count(*) FROM runs",
    "problems": "SELECT count(DISTINCT root) FROM runs",
    "samples": "SELECT count(*) FROM samples",
    "steps": "SELECT count(*) FROM steps WHERE parent IS NOT NULL",
    "scores": "SELECT count(*) FROM scores",
}

OLD = ("DELETE FROM runs WHERE asked < ?", "DELETE FROM typed WHERE at < ?")

# What no run asks for goes: samples by their problem, steps and scores by what leads to them.
PRUNE = (
    "DELETE FROM session_runs WHERE run NOT IN (SELECT id FROM runs)",
    "DELETE FROM sessions WHERE id NOT IN (SELECT session FROM session_runs)",
    "DELETE FROM run_candidates WHERE run NOT IN (SELECT id FROM runs)",
    """
    DELETE FROM samples WHERE root NOT IN
      (SELECT id FROM steps WHERE parent IS NULL AND text IN (SELECT problem FROM runs))
    """,
    """
    WITH RECURSIVE kept (id) AS (
      SELECT root FROM runs
      UNION SELECT last FROM run_candidates
      UNION SELECT last FROM samples
      UNION SELECT prefix FROM samples
      UNION SELECT parent FROM kept JOIN steps USING (id) WHERE parent IS NOT NULL
    )
    DELETE FROM steps WHERE id NOT IN (SELECT id FROM kept)
    """,
    "DELETE FROM scores WHERE step NOT IN (SELECT id FROM steps)",
)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a store holds."""

    counts: dict[str, int]  # runs, problems, samples, steps, scores
    samples: dict[str, int]  # of each pair
    bytes: int


def holdings(store: StoreFile) -> Holdings:
    """What the store holds now."""

    def look(db: Database) -> Holdings:
        pages, size = (
            db.execute(f"PRAGMA page_{what}").fetchone()[0] for what in ("count", "size")
        )
        by_pair = db.execute(
            "SELECT name, count(*) FROM samples JOIN (SELECT DISTINCT name, generator FROM pairs) "
            "USING (generator) GROUP BY name"
        )
        return Holdings(_counts(db), dict(by_pair.fetchall()), pages * size)

    return store.read(look, Holdings(dict.fromkeys(COUNTS, 0), {}, 0))


def prune(store: StoreFile, before: datetime) -> dict[str, int]:
    """Forget the runs last asked for before that time, and what only they use.

    Returns how much of each was removed. The file shrinks with it, unless it is in use elsewhere.

    Raises:
        StorageError: nothing could be: the store has warned why.
    """

    def forget(db: Database) -> dict[str, int]:
        held = _counts(db)
        for statement in OLD:
            db.conn.execute(statement, [timestamp(before)])
        for statement in PRUNE:
            db.conn.execute(statement)
        left = _counts(db)
        return {name: held[name] - left[name] for name in COUNTS}

    nothing: dict[str, int] = {}
    removed = store.write(forget, nothing)
    if not removed:
        raise StorageError("Nothing was forgotten: mend what the line before tells, and try again.")
    store.shrink()
    return removed


def _counts(db: Database) -> dict[str, int]:
    return {name: db.execute(sql).fetchone()[0] for name, sql in COUNTS.items()}
