"""Runs in the store: what was asked, when, how it went, what it cost.

Asking the same again is the same run: same problem, models, strategy, settings, seed and budget.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from sqlite_utils import Database

from ttsolve.answers import answer_of
from ttsolve.core import Problem, Result, Usage
from ttsolve.engine import Engine
from ttsolve.errors import UsageError
from ttsolve.pair import Pair
from ttsolve.store_file import StoreFile
from ttsolve.store_steps import (
    MODEL,
    Row,
    canonical,
    digest,
    path,
    put_model,
    put_rows,
    read_steps,
    root_row,
    step_rows,
)
from ttsolve.strategies import Strategy
from ttsolve.vote import Aggregation, score_of

Status = Literal["running", "interrupted", "done"]

BEGIN = f"""
INSERT INTO runs (key, asked, status, problem, root, problem_id, reference, pair, generator,
  verifier, strategy, settings, seed, budget, unknown_words)
VALUES (?, ?, 'running', ?, ?, ?, ?, ?, {MODEL}, {MODEL}, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET asked = excluded.asked, problem_id = excluded.problem_id,
  reference = excluded.reference, pair = excluded.pair,
  unknown_words = coalesce(excluded.unknown_words, unknown_words),
  status = CASE status WHEN 'done' THEN 'done' ELSE 'running' END
"""
FINISH = """
UPDATE runs SET status = :status, settings = :settings, answer = :answer, share = :share,
  correct = :correct, tree = coalesce(:tree, tree),
  bill = CASE WHEN :computed THEN :bill ELSE coalesce(bill, :bill) END
WHERE id = :id AND NOT (status = 'done' AND :status = 'interrupted')
"""
COLUMNS = (
    "id, asked, status, problem, problem_id, reference, pair, strategy, settings, seed, budget, "
    "answer, share, correct, bill, tree"
)
CANDIDATES = """
SELECT c.answer, c.score, c.finish, c.last, r.verifier
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
    bill: Usage  # of the last time that something was computed
    tree: str | None  # JSON: how the search went


class RunStore(StoreFile):
    """The part of a store that keeps runs. Where nothing is kept, there are none."""

    def begin_run(
        self,
        problem: Problem,
        engine: Engine,
        strategy: Strategy,
        pair: Pair,
        unknown_words: Sequence[str] | None = None,
    ) -> int | None:
        """Note that this run begins; its id, or None where nothing is kept.

        `unknown_words`: see `solve.unknown_words`; None: nobody looked.
        """
        verifier = engine.verifier.name if engine.verifier else None
        settings = canonical({**asdict(strategy), **asdict(engine.sampling)})
        asked = (engine.generator.name, verifier, strategy.name, settings, engine.seed)
        row = root_row(problem.root)
        key = digest(row[0], asked, engine.budget)
        words = None if unknown_words is None else canonical(unknown_words)
        values = [
            *(
                key,
                timestamp(datetime.now(UTC)),
                problem.question,
                row[0],
                problem.id,
                problem.reference,
                pair.name,
            ),
            *(engine.generator.name, verifier, strategy.name, settings),
            *(engine.seed, engine.budget, words),
        ]

        def begin(db: Database) -> int:
            put_rows(db, [row])
            put_model(db, engine.generator.name, verifier)
            db.conn.execute(BEGIN, values)
            (run,) = db.conn.execute("SELECT id FROM runs WHERE key = ?", [key]).fetchone()
            return cast(int, run)

        return self.write(begin, None)

    def finish_run(
        self,
        run: int | None,
        result: Result,
        pair: Pair,
        *,
        tree: str | None = None,
        correct: bool | None = None,
    ) -> None:
        """Note how the run ended. One that had ended by itself stays so, if now interrupted."""
        bill = result.usage
        values = {
            "id": run,
            "status": "interrupted" if result.interrupted else "done",
            "settings": json.dumps(result.settings),
            "answer": result.answer,
            "share": result.share,
            "correct": correct,
            "tree": tree,
            "computed": bill.generated_tokens + bill.prompt_tokens + bill.verifier_tokens > 0,
            "bill": json.dumps(asdict(bill)),
        }

        def finish(db: Database) -> None:
            if db.conn.execute(FINISH, values).rowcount:
                _put_candidates(db, run, result, pair)

        if run is not None:
            self.flush()  # its samples first
            self.write(finish, None)

    def run(self, run: int) -> Run:
        """The run of that id.

        Raises:
            UsageError: when there is none.
        """
        if found := self._runs("WHERE id = ?", [run]):
            return found[0]
        raise UsageError(f"There is no run {run}: see `ttsolve history`.")

    def last_run(self) -> Run | None:
        """The run that was asked for last."""
        return next(iter(self.runs(1)), None)

    def runs(self, limit: int) -> list[Run]:
        """The runs that were asked for last, the last first."""
        return self._runs("ORDER BY asked DESC, id DESC LIMIT ?", [limit])

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


def timestamp(when: datetime) -> str:
    """A time as it is kept: such texts sort as their times do."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _run(row: dict[str, Any]) -> Run:
    bill = Usage(**json.loads(row["bill"])) if row["bill"] else Usage()
    correct = None if row["correct"] is None else bool(row["correct"])
    return Run(**{**row, "settings": json.loads(row["settings"]), "correct": correct, "bill": bill})


def _put_candidates(db: Database, run: int | None, result: Result, pair: Pair) -> None:
    by = cast(Aggregation, result.settings["aggregation"])
    rows: dict[Row, None] = {}  # each once, in order
    candidates = []
    for place, candidate in enumerate(result.candidates):
        root = root_row(candidate)
        rows.update(dict.fromkeys([root, *step_rows(root[0], candidate.steps)]))
        answer = answer_of(candidate, pair.prompt.answer)
        last = path(candidate)[-1]
        candidates.append((run, place, last, candidate.finish, answer, score_of(candidate, by)))
    put_rows(db, rows)
    db.conn.execute("DELETE FROM run_candidates WHERE run = ?", [run])
    db.conn.executemany("INSERT INTO run_candidates VALUES (?, ?, ?, ?, ?, ?)", candidates)


def _candidate(db: Database, row: dict[str, Any]) -> dict[str, Any]:
    sql = "SELECT score FROM scores WHERE verifier = ? AND step = ?"
    steps = []
    for step, content in read_steps(db, row.pop("last")):
        score = db.execute(sql, [row["verifier"], step]).fetchone()
        steps.append({"text": content.text, "score": score[0] if score else None})
    return {
        "answer": row["answer"],
        "score": row["score"],
        "steps": steps,
        "finish": row["finish"],
    }
