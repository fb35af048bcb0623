"""Strategies × budgets × problems, paired: what `ttsolve eval` and `ttsolve calibrate` measure.

Every run goes through the store, so that what was measured once is never computed again. Samples
that know nothing of each other are drawn once, for the largest budget: smaller votes are held
among them. The reference answer stays here: what solves a problem is given its question only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from ttsolve.batch import Outcome, tokens_of
from ttsolve.chains import chains_of
from ttsolve.core import Problem, Result, Usage
from ttsolve.dataset import Entry
from ttsolve.difficulty import predicted
from ttsolve.engine import Engine
from ttsolve.errors import ProblemTooLong, UsageError
from ttsolve.grade import grade
from ttsolve.grid import Grid, Row, sizes
from ttsolve.measure import Floats, Method, Pool, separation, vote_rates
from ttsolve.pair import Pair
from ttsolve.policy import Policy, content_hash
from ttsolve.pools import pool_of, unscored, vote_among
from ttsolve.recall import StoredPair
from ttsolve.solve import aggregation_of, solve
from ttsolve.strategies import Strategy
from ttsolve.vote import score_of

METHODS: dict[str, Method] = {"best-of-n": "weighted", "majority": "majority"}


@dataclass(frozen=True, slots=True)
class Measured(Outcome):
    """A problem's rows, its pool for each seed where there is one, and its chains of revisions."""

    rows: tuple[Row, ...] = ()
    pools: tuple[Pool, ...] = ()
    chains: dict[tuple[str, int], Floats] = field(default_factory=dict)  # by strategy and budget


@dataclass(frozen=True)
class Evaluator:
    """Measures problems, in any thread: a `batch` solver whose outcomes are `Measured`."""

    pair: Pair
    models: StoredPair
    grid: Grid
    policy: Policy
    plan: Callable[[str, int], Strategy]
    new_engine: Callable[[int, int], Engine]  # of a seed and a budget

    def __call__(self, entry: Entry) -> Measured | None:
        """The problem's rows; None when it was stopped before its end.

        Raises:
            UsageError: the problem has no reference, or is none.
        """
        problem = entry.problem
        if problem is None or problem.reference is None:
            reason = entry.error or "It has no known answer: name its field with --answer-field."
            raise UsageError(f"Problem {entry.id} (line {entry.line}) cannot be measured. {reason}")
        problem = replace(problem, id=str(entry.id))
        rows, pools, usage = [], [], Usage()
        chains: dict[tuple[str, int], Floats] = {}
        try:
            for seed in self.grid.seeds:
                pool = self._pool(problem, seed) if self.grid.pooled else None
                if pool:
                    rows += pool.rows
                    pools.append(pool.pool)
                    usage += pool.usage
                for text in self.grid.searches:
                    for budget in sizes(text, self.grid.budgets):
                        run = self._run(problem, text, budget, seed)
                        ends = pool_of(run.result.candidates, problem, self.pair)
                        rows.append(run.row(self.policy, pool, separation(ends.scores, ends.right)))
                        usage += run.result.usage
                        found = chains_of(run.result.candidates, problem, self.pair).right
                        if found.size:
                            chains.setdefault((text, budget), found)  # of the first seed
        except ProblemTooLong as error:
            return Measured({"id": entry.id, "line": entry.line, "error": str(error)}, usage)
        except _Stopped:
            return None
        return Measured({"id": entry.id}, usage, False, tuple(rows), tuple(pools), chains)

    def _run(self, problem: Problem, text: str, budget: int, seed: int) -> _Run:
        engine = self.new_engine(seed, budget)
        strategy = self.plan(text, budget)
        store = self.models.store
        run = store.begin_run(problem, engine, strategy, self.pair)
        with store.noting_errors(run):
            result = solve(Problem(problem.question), engine, strategy, self.pair)
        right = not result.interrupted and grade(problem, result.answer)
        store.finish_run(run, result, self.pair, correct=right)
        if result.interrupted:
            raise _Stopped
        tokens = tokens_of(engine.trace)
        seconds = result.usage.seconds
        if run is not None and not result.usage.generated_tokens + result.usage.verifier_tokens:
            seconds = store.run(run).bill.seconds  # of when it was computed
        return _Run(problem, text, budget, seed, result, right, tokens, seconds, self.pair)

    def _pool(self, problem: Problem, seed: int) -> _Pooled:
        run = self._run(problem, self.grid.pooled[0], self.grid.budgets[-1], seed)
        pool = pool_of(run.result.candidates, problem, self.pair)
        return _Pooled(run, pool, self.grid, self.policy)


class _Stopped(Exception):
    """Ctrl-C came while a problem was measured."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of one problem, and how it is judged."""

    problem: Problem
    strategy: str
    budget: int
    seed: int
    result: Result
    right: bool
    tokens: dict[str, int]
    seconds: float
    pair: Pair

    def row(self, policy: Policy, pool: _Pooled | None, auc: float | None = None) -> Row:
        """The run as a row."""
        result, by = self.result, aggregation_of(self.pair)
        score = score_of(result.best, by) if result.best else None
        count = len(result.candidates)
        probability = _probability(policy, self.strategy, result.share, score, count)
        return Row(
            problem=self.problem.id,
            content=content_hash(self.problem.question),
            strategy=self.strategy,
            budget=self.budget,
            seed=self.seed,
            right=float(self.right),
            rate=float(self.right),
            share=result.share,
            score=score,
            candidates=count,
            probability=result.settings.get("probability", probability),  # type: ignore[arg-type]
            units=result.usage.units,
            tokens=self.tokens["generated_tokens"],
            verifier_tokens=self.tokens["verifier_tokens"],
            seconds=self.seconds,
            oracle=pool.oracle if pool else None,
            predicted=pool.predicted if pool else None,
            auc=auc,
        )


@dataclass(frozen=True, slots=True)
class _Pooled:
    """The run of independent samples, and the votes held among them."""

    run: _Run
    pool: Pool
    grid: Grid
    policy: Policy

    @property
    def usage(self) -> Usage:
        return self.run.result.usage

    @property
    def oracle(self) -> float:
        return float(self.pool.right.mean())

    @property
    def predicted(self) -> float | None:
        pair = self.run.pair
        return predicted(self.run.result.candidates, aggregation_of(pair), pair.prompt.answer)

    @property
    def rows(self) -> list[Row]:
        """A row for each strategy and budget: the run that the first samples make."""
        return [
            self._row(name, budget) for name in self.grid.pooled for budget in self.grid.budgets
        ]

    def _row(self, name: str, budget: int) -> Row:
        method = METHODS[name]
        pool = self.pool if name != "majority" else unscored(self.pool)
        share, place = vote_among(pool, budget, method)
        score = float(pool.scores[place]) if place >= 0 else None
        score = None if score is None or np.isnan(score) else score
        whole, size = self.run.row(self.policy, self), len(pool.right)
        judged = 0.0 if name == "majority" else whole.verifier_tokens * budget / size
        return replace(
            whole,
            strategy=name,
            budget=budget,
            right=float(place >= 0 and pool.right[place]),
            rate=float(vote_rates([pool], method, budget, seed=self.run.seed)[0]),
            share=share,
            score=score,
            candidates=budget,
            probability=_probability(self.policy, name, share, score, budget),
            units=budget,
            tokens=whole.tokens * budget / size,
            verifier_tokens=judged,
            seconds=whole.seconds * budget / size,
            auc=separation(pool.scores[:budget], pool.right[:budget]),
        )


def _probability(
    policy: Policy, strategy: str, share: float, score: float | None, count: int
) -> float | None:
    calibration = policy.calibration(strategy)
    if calibration is None or not share:
        return None
    return calibration.probability(share, score, count)
