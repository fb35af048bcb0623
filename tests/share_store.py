"""Four processes on one store, from its making on: `python tests/share_store.py [PROBLEMS]`.

Half of the problems are shared. No process may hear of a lock, every sample is kept once, and a
shared one is computed twice only where both were at it at the same moment.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import sys
import time
import traceback
from collections import Counter
from contextlib import closing
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

from ttsolve.core import Problem
from ttsolve.engine import Engine
from ttsolve.engines.sim import SimGenerator, SimVerifier
from ttsolve.solve import SIM, solve
from ttsolve.store import Store
from ttsolve.stored import StoredGenerator, StoredVerifier
from ttsolve.strategies import BestOfN

PROCESSES = 4
N = 4


def work(folder: Path, number: int, problems: int) -> None:
    """Solve this process's problems, and note when each was begun, committed, and computed."""
    half = problems // 2
    mine = [f"shared {i}" for i in range(half)] + [f"of {number}: {i}" for i in range(half)]
    random.Random(number % 2).shuffle(mine)  # two go the same way, and meet
    told: list[str] = []
    notes = []
    with Store(folder / "ttsolve.db", told.append) as store:
        for question in mine:
            began = time.monotonic()
            engine = Engine(
                StoredGenerator(SimGenerator(delay=0.002), store),
                StoredVerifier(SimVerifier(), store),
                budget=N,
            )
            run = store.begin_run(Problem(question), engine, BestOfN(N), SIM)
            result = solve(Problem(question), engine, BestOfN(N), SIM)
            store.finish_run(run, result, SIM)
            store.flush()
            computed = result.usage.generated_tokens > 0
            notes.append((question, computed, began, time.monotonic(), result.share))
    (folder / str(number)).write_text(json.dumps([told, notes]))


def main(problems: int, folder: Path) -> None:
    """Run them side by side; print how often two met; fail where they disturbed each other."""
    children = []
    for number in range(PROCESSES):
        if not (child := os.fork()):
            try:
                work(folder, number, problems)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * PROCESSES
    reports = [json.loads((folder / str(number)).read_text()) for number in range(PROCESSES)]
    assert [told for told, _ in reports] == [[]] * PROCESSES
    notes = [tuple(note) for _, notes in reports for note in notes]
    met = 0
    for a, b in combinations([note for note in notes if note[1]], 2):
        if a[0] == b[0]:
            assert max(a[2], b[2]) < min(a[3], b[3]), (a, b)
            met += 1
    assert len({(question, share) for question, *_, share in notes}) == len({n[0] for n in notes})
    with closing(sqlite3.connect(folder / "ttsolve.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        different = problems // 2 * (PROCESSES + 1)
        assert db.execute("SELECT count(*) FROM samples").fetchone() == (N * different,)
        assert db.execute("SELECT count(*), min(status) FROM runs").fetchone() == (
            different,
            "done",
        )
    shared = Counter(question for question, *_ in notes if question.startswith("shared"))
    print(f"{len(notes)} problems, {len(shared)} shared: {met} computed twice, at the same moment")


if __name__ == "__main__":
    with TemporaryDirectory() as place:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 50, Path(place))
