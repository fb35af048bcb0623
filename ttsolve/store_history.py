"""Runs in the store, as they are read: what was asked, when, how it went, what it cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlite_utils import Database

from ttsolve.core import Problem, Usage
from ttsolve.errors import UsageError
from ttsolve.store_file import StoreFile
from ttsolve.store_steps import MODEL, read_steps, root_row

Status = Literal["running", "interrupted", "failed", "done"]

COLUMNS = (
    "id, asked, status, problem, problem_id, reference, pair, strategy, settings, seed, budget, "
    "answer, share, correct, error, votes, bill, tree"
)
LATEST = "ORDER BY asked DESC, id DESC LIMIT ?"
OF_SESSION = """
JOIN session_runs ON run = id WHERE session = (SELECT id FROM sessions WHERE name = ?)
ORDER BY place DESC LIMIT ?
"""
CANDIDATES = """
SELECT c.answer, c.score, c.finish, c.last, c.chain, c.scores, r.verifier
FROM run_candidates c JOIN runs r ON r.id = c.run WHERE c.run = ? ORDER BY c.place
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one problem, as it is kept."""

    id: int
    asked: str  # when it was last asked for, UTC: 2025-01-31T12:00:00.000Z
    status: Status  # "running" also when it was killed
    problem: str  # the question
    problem_id: str
    reference: str | None
    pair: str
    strategy: str
    settings: dict[str, Any]
    seed: int
    budget: int  # units
    answer: str | None
    share: float | None  # None: it has not finished
    correct: bool | None  # None: not graded
    error: str | None  # the sentence that ended it
    votes: tuple[tuple[str, float, int], ...]  # (answer, weight, candidates), the winner first
    bill: Usage  # of the last time that something was computed
    tree: str | None  # JSON: how the search went


class HistoryStore(StoreFile):
    """The part of a store that finds runs. Where nothing is kept, there are none."""

    def run(self, run: int) -> Run:
        """The run of that id.

        Raises:
            UsageError: when there is none.
        """
        if found := self._runs("WHERE id = ?", [run]):
            return found[0]
        raise UsageError(f"There is no run {run}: see `ttsolve history`.")

    def last_run(self) -> Run | None:
        """The run that was asked for last, of those whose steps are kept."""
        found = self._runs(f"WHERE tree IS NOT NULL {LATEST}", [1])
        return next(iter(found), None)

    def runs(self, limit: int, session: str | None = None) -> list[Run]:
        """The runs that were asked for last, of all or of one session, the last first."""
        if session is not None:
            return self._runs(OF_SESSION, [session, limit])
        return self._runs(LATEST, [limit])

    def unknown_words(self, question: str, generator: str) -> list[str] | None:
        """What an earlier run noted of the question's words; None: none did."""
        sql = (
            "SELECT unknown_words FROM runs WHERE root = ? AND unknown_words IS NOT NULL "
            f"AND generator = {MODEL} LIMIT 1"
        )
        values = [root_row(Problem(question).root)[0], generator]
        row = self.read(lambda db: db.execute(sql, values).fetchone(), None)
        return json.loads(row[0]) if row else None

    def export_runs(self) -> Iterator[dict[str, Any]]:
        """Every run with its candidates, in the order in which they first began."""
        ids: list[int] = []
        ids = self.read(lambda db: [row[0] for row in db.execute("SELECT id FROM runs")], ids)
        for run in ids:
            for found in self._runs("WHERE id = ?", [run]):  # it may have been pruned by now
                record = {k: v for k, v in asdict(found).items() if k != "tree"}
                yield {**record, "candidates": self.candidates(run)}

    def candidates(self, run: int) -> list[dict[str, Any]]:
        """The run's candidates, each as `--json` shows it."""

        def look(db: Database) -> list[dict[str, Any]]:
            return [_candidate(db, row) for row in list(db.query(CANDIDATES, [run]))]

        return self.read(look, [])

    def _runs(self, which: str, values: Sequence[object]) -> list[Run]:
        sql = f"SELECT {COLUMNS} FROM runs {which}"
        return self.read(lambda db: [_run(row) for row in db.query(sql, values)], [])


def _run(row: dict[str, Any]) -> Run:
    read = {
        "settings": json.loads(row["settings"]),
        "correct": None if row["correct"] is None else bool(row["correct"]),
        "votes": tuple((a, weight, n) for a, weight, n in json.loads(row["votes"] or "[]")),
        "bill": Usage(**json.loads(row["bill"])) if row["bill"] else Usage(),
    }
    return Run(**{**row, **read})


def _candidate(db: Database, row: dict[str, Any]) -> dict[str, Any]:
    steps = read_steps(db, row["last"])
    if row["scores"] is None:
        sql = "SELECT score FROM scores WHERE verifier = ? AND step = ?"
        found = [db.execute(sql, [row["verifier"], step]).fetchone() for step, _ in steps]
        scores = [score[0] if score else None for score in found]
    else:
        scores = json.loads(row["scores"])
    texts = [step.text for _, step in steps]
    record = {
        "answer": row["answer"],
        "score": row["score"],
        "steps": [{"text": t, "score": s} for t, s in zip(texts, scores, strict=True)],
        "finish": row["finish"],
    }
    return record if row["chain"] is None else {**record, "chain": row["chain"]}
