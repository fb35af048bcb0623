"""Steps in the store, by content: a step's id is a hash of what it says and of what stands before.

The root of a tree of steps is its problem (with the attempts the generator was shown); two
solutions that begin alike share the rows of their beginning.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b

from sqlite_utils import Database

from ttsolve.core import Solution, Step

STEP = "SELECT parent, text, tokens, ids FROM steps WHERE id = ?"
MODEL = "(SELECT id FROM models WHERE name = ?)"
Row = tuple[str, str | None, str, int, str]  # id, parent, text, tokens, ids


_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


def canonical(value: object) -> str:
    """The one JSON text of a value."""
    return _encode(value)


def digest(*content: object) -> str:
    """A name for the content: 96 bits, as 24 hexadecimal digits."""
    return blake2b(canonical(content).encode(), digest_size=12).hexdigest()


def root_id(solution: Solution) -> str:
    """The id of the problem from which the solution grew."""
    return _root_id(solution.problem.question, *(path(a)[-1] for a in solution.attempts))


@lru_cache(maxsize=1024)
def _root_id(question: str, *attempts: str) -> str:
    return digest("problem", question, attempts)


def path(solution: Solution) -> list[str]:
    """The ids of the root and of every step, first to last."""
    root = root_id(solution)
    return [root, *grow_path(root, solution.steps)]


def grow_path(parent: str, steps: Iterable[Step]) -> list[str]:
    """The ids of steps that follow the step (or root) `parent`."""
    ids = []
    for step in steps:
        parent = _step_id(parent, step.text, step.tokens, step.ids)
        ids.append(parent)
    return ids


@lru_cache(maxsize=8192)  # a step is named when it is looked for, kept, scored and voted on
def _step_id(parent: str, text: str, tokens: int, ids: tuple[int, ...]) -> str:
    return digest(parent, text, tokens, ids)


def shown(prefix: Solution, root: str | None) -> Solution:
    """The prefix with the attempts that this root has: the oldest may have been left out."""
    while root is not None and root_id(prefix) != root and prefix.attempts:
        prefix = replace(prefix, attempts=prefix.attempts[1:])
    return prefix


def root_row(solution: Solution) -> Row:
    """The root of the solution as a row of `steps`."""
    return root_id(solution), None, solution.problem.question, 0, "[]"


def step_rows(parent: str, steps: Sequence[Step]) -> list[Row]:
    """Steps that follow `parent` as rows of `steps`."""
    ids = grow_path(parent, steps)
    parents = [parent, *ids[:-1]] if ids else []
    return [
        (id_, before, step.text, step.tokens, canonical(step.ids))
        for id_, before, step in zip(ids, parents, steps, strict=True)
    ]


def put_rows(db: Database, rows: Iterable[Row]) -> None:
    """Write rows that may be there already."""
    db.conn.executemany("INSERT OR IGNORE INTO steps VALUES (?, ?, ?, ?, ?)", rows)


def read_steps(db: Database, last: str, prefix: str | None = None) -> list[tuple[str, Step]]:
    """The steps after `prefix` (None: all) up to and with `last`: their ids, and what they were."""
    steps: list[tuple[str, Step]] = []
    while last != prefix:
        row = db.execute(STEP, [last]).fetchone()
        if row is None:  # a step is never kept without those before it
            lost = sqlite3.DatabaseError("a step is lost")
            lost.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise lost
        parent, text, tokens, ids = row
        if parent is None:
            break
        steps.append((last, Step(text, tokens, tuple(json.loads(ids)))))
        last = parent
    return steps[::-1]


def put_model(db: Database, *names: str | None) -> None:
    """Write names of models that may be there already; None is no name."""
    rows = [(name,) for name in names if name is not None]
    db.conn.executemany("INSERT OR IGNORE INTO models (name) VALUES (?)", rows)
