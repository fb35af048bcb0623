"""Runs of long chains of revisions, as `chains` takes them apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from ttsolve.core import Problem, Result
from ttsolve.recall import StoredPair
from ttsolve.strategies import Revisions

BESIDE = 8  # problems in flight


def run_chains(
    problems: Sequence[Problem],
    models: StoredPair,
    *,
    chains: int = 16,
    length: int = 16,
    memory: int = 4,
    seed: int = 0,
    beside: int = BESIDE,
) -> Iterator[Result]:
    """Solve each problem by so many chains of that length; results in the order of the problems.

    Every run is kept in the models' store, and goes on from there when it is asked for again.
    """
    strategy = Revisions(chains * length, chains, length, memory=memory)

    def solved(problem: Problem) -> Result:
        return models.solve(problem, models.engine(strategy.n, seed=seed), strategy).result

    with ThreadPoolExecutor(beside) as pool:
        yield from pool.map(solved, problems)
