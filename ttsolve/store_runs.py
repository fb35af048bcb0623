"""Runs in the store, as they are written: begun, ended, failed.

Asking the same again is the same run: same problem, models, strategy, settings, seed and budget.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import cast

from sqlite_utils import Database

from ttsolve.answers import answer_of
from ttsolve.core import Problem, Result
from ttsolve.engine import Engine
from ttsolve.errors import TtsolveError
from ttsolve.pair import Pair
from ttsolve.store_history import HistoryStore
from ttsolve.store_steps import (
    MODEL,
    Row,
    canonical,
    digest,
    path,
    put_model,
    put_rows,
    root_row,
    step_rows,
)
from ttsolve.strategies import Strategy
from ttsolve.vote import Aggregation, score_of

BEGIN = f"""
INSERT INTO runs (key, asked, status, problem, root, problem_id, reference, pair, generator,
  verifier, strategy, settings, seed, budget, unknown_words)
VALUES (?, ?, 'running', ?, ?, ?, ?, ?, {MODEL}, {MODEL}, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET asked = excluded.asked, problem_id = excluded.problem_id,
  reference = excluded.reference, pair = excluded.pair, error = NULL,
  unknown_words = coalesce(excluded.unknown_words, unknown_words),
  status = CASE status WHEN 'done' THEN 'done' ELSE 'running' END
"""
PUT_CANDIDATE = """
INSERT INTO run_candidates (run, place, last, finish, answer, score, chain, scores)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
FINISH = """
UPDATE runs SET status = :status, settings = :settings, answer = :answer, share = :share,
  correct = :correct, votes = :votes, tree = coalesce(:tree, tree),
  bill = CASE WHEN :computed OR status <> 'done' THEN :bill ELSE coalesce(bill, :bill) END
WHERE id = :id AND NOT (status = 'done' AND :status = 'interrupted')
"""
FAIL = "UPDATE runs SET status = 'failed', error = ? WHERE id = ? AND status <> 'done'"


class RunStore(HistoryStore):
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
        # By its files: a name is known once a model is open, and most runs revise nothing.
        reviser = [asdict(pair.reviser)] if pair.reviser and engine.reviser else []
        row = root_row(problem.root)
        key = digest(row[0], asked, engine.budget, *reviser)
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
            "votes": json.dumps(result.votes),
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

    @contextmanager
    def noting_errors(self, run: int | None) -> Iterator[None]:
        """Note the sentence that ends the run, where one does; commit what there is by then."""
        try:
            yield
        except BaseException as error:
            self.flush()
            if run is not None and isinstance(error, Exception):  # Ctrl-C is no failure
                told = isinstance(error, TtsolveError)
                sentence = str(error) if told else f"Unexpected {type(error).__name__} ({error})"
                self.write(lambda db: db.conn.execute(FAIL, [sentence, run]), None)
            raise


def timestamp(when: datetime) -> str:
    """A time as it is kept: such texts sort as their times do."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _put_candidates(db: Database, run: int | None, result: Result, pair: Pair) -> None:
    by = cast(Aggregation, result.settings["aggregation"])
    rows: dict[Row, None] = {}  # each once, in order
    candidates = []
    for place, candidate in enumerate(result.candidates):
        root = root_row(candidate)
        rows.update(dict.fromkeys([root, *step_rows(root[0], candidate.steps)]))
        answer = answer_of(candidate, pair.prompt.answer)
        last = path(candidate)[-1]
        score, chain = score_of(candidate, by), candidate.chain
        steps = canonical([step.score for step in candidate.steps])
        scores = None if chain is None else steps
        candidates.append((run, place, last, candidate.finish, answer, score, chain, scores))
    put_rows(db, rows)
    db.conn.execute("DELETE FROM run_candidates WHERE run = ?", [run])
    db.conn.executemany(PUT_CANDIDATE, candidates)
