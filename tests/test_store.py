"""The store's file and tables: what is kept, what is forgotten, what may go wrong."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlite_utils import Migrations

import ttsolve
from ttsolve import store_open, store_schema
from ttsolve.core import Finish, Problem, Result, Solution, Step, Usage
from ttsolve.engine import Engine
from ttsolve.engines.sim import SimGenerator, SimVerifier
from ttsolve.errors import StorageError, UsageError
from ttsolve.solve import SIM, solve
from ttsolve.store import Grown, SampleKey, Store
from ttsolve.store_care import holdings, prune
from ttsolve.store_steps import path, root_row
from ttsolve.strategies import BestOfN

PROBLEM = Problem("what is six times seven")
LATER = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "ttsolve.db"


def key_of(prefix: Solution, generator: str = "g", seed: int = 0) -> SampleKey:
    return SampleKey(generator, '{"temperature":1.0}', seed, root_row(prefix), path(prefix)[-1])


def solved(store: Store, question: str = PROBLEM.question, n: int = 4) -> tuple[int, Result]:
    """A run of dice, noted in the store; its samples are not kept, only its candidates."""
    problem, strategy = Problem(question), BestOfN(n)
    engine = Engine(SimGenerator(), SimVerifier(), budget=n)
    run = store.begin_run(problem, engine, strategy, SIM)
    assert run is not None
    result = solve(problem, engine, strategy, SIM)
    store.finish_run(run, result, SIM)
    return run, result


def sql(file: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(file)) as db:
        return db.execute(statement).fetchall()


# --- samples and scores -------------------------------------------------------------------------

STEPS = st.lists(
    st.builds(
        Step,
        text=st.text(max_size=20),
        tokens=st.integers(0, 2**31),
        ids=st.lists(st.integers(0, 2**31 - 1), max_size=5).map(tuple),
    ),
    max_size=4,
).map(tuple)


@given(question=st.text(), prefix=STEPS, steps=STEPS, finish=st.sampled_from([None, "stop"]))
@settings(max_examples=50, deadline=None)
def test_what_is_kept_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory,
    question: str,
    prefix: tuple[Step, ...],
    steps: tuple[Step, ...],
    finish: Finish | None,
) -> None:
    file = tmp_path_factory.mktemp("store") / "ttsolve.db"
    key = key_of(Solution(Problem(question), prefix))
    with Store(file) as store:
        assert store.samples([key]) == [None]
        store.keep_sample(key, Grown(steps, finish))
    with Store(file) as store:
        others = [replace(key, **other) for other in ({"generator": "h"}, {"seed": 1})]
        assert store.samples([key, *others]) == [Grown(steps, finish), None, None]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
@settings(max_examples=20, deadline=None)
def test_scores_come_back_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, scores: list[float]
) -> None:
    file = tmp_path_factory.mktemp("store") / "ttsolve.db"
    with Store(file) as store:
        store.keep_scores("v", ((str(i), score) for i, score in enumerate(scores)))
    with Store(file) as store:
        found = store.scores("v", [str(i) for i in range(len(scores) + 1)])
    assert found == [*scores, None]


def test_equal_prefixes_are_one_row(file: Path) -> None:
    a, b, c = (Step(f"{letter}\n", 1, (ord(letter),)) for letter in "abc")
    with Store(file) as store:
        for seed, steps in enumerate([(a, b), (a, c), (b, a), (a,)]):
            store.keep_sample(key_of(PROBLEM.root, seed=seed), Grown(steps, "stop"))
    assert sorted(text for (text,) in sql(file, "SELECT text FROM steps")) == [
        # the root, a—b, a—c, b—a
        *("a\n", "a\n", "b\n", "b\n", "c\n", PROBLEM.question)
    ]


def test_a_step_is_named_by_all_that_stands_before_it() -> None:
    step, other = Step("x\n", 1, (1,)), Step("x\n", 1, (2,))
    names = {
        path(solution)[-1]
        for solution in (
            PROBLEM.root.grow(step),
            PROBLEM.root.grow(other),  # the same text in other tokens
            PROBLEM.root.grow(step, step),
            Problem("another").root.grow(step),
            replace(PROBLEM.root, attempts=(PROBLEM.root.grow(other),)).grow(step),
        )
    }
    assert len(names) == 5
    scored = PROBLEM.root.grow(replace(step, score=0.5), finish="stop")
    assert path(scored)[-1] in names


def test_a_sample_is_committed_within_a_moment(file: Path) -> None:
    with Store(file) as store:
        store.keep_sample(key_of(PROBLEM.root), Grown((Step("x\n", 1),), "stop"))
        for _ in range(500):
            if sql(file, "SELECT count(*) FROM samples") == [(1,)]:
                break
            threading.Event().wait(0.02)
        else:
            pytest.fail("it was not committed")


def test_nowhere_keeps_nothing() -> None:
    with Store(None) as store:
        store.keep_sample(key_of(PROBLEM.root), Grown((), "stop"))
        store.keep_scores("v", [("s", 0.5)])
        store.flush()
        assert store.samples([key_of(PROBLEM.root)]) == [None]
        assert store.scores("v", ["s"]) == [None]
        engine = Engine(SimGenerator())
        assert store.begin_run(PROBLEM, engine, BestOfN(1), SIM) is None
        assert (store.last_run(), store.usable) == (None, False)


# --- runs -----------------------------------------------------------------------------------------


def test_the_last_run_is_one_whose_steps_are_kept(file: Path) -> None:
    with Store(file) as store:
        engine = Engine(SimGenerator(), SimVerifier(), budget=2)
        assert store.last_run() is None
        shown, failed = (store.begin_run(Problem(q), engine, BestOfN(2), SIM) for q in "ab")
        store.finish_run(shown, solve(Problem("a"), engine, BestOfN(2), SIM), SIM, tree="{}")
        assert {run.id for run in store.runs(5)} == {shown, failed}
        assert (last := store.last_run()) is not None
        assert last.id == shown


def test_a_run(file: Path) -> None:
    with Store(file) as store:
        engine = Engine(SimGenerator(), SimVerifier(), seed=7, budget=4)
        problem = Problem(PROBLEM.question, reference="42", id="p1")
        id_ = store.begin_run(problem, engine, BestOfN(4), SIM, ["six"])
        assert id_ is not None
        begun = store.run(id_)
        assert (begun.status, begun.answer, begun.bill) == ("running", None, Usage())
        result = solve(problem, engine, BestOfN(4), SIM)
        store.finish_run(id_, result, SIM, tree="{}", correct=True)
        run = store.run(id_)
        assert store.runs(5) == [run] == [store.last_run()]
        assert (run.status, run.problem, run.problem_id, run.reference) == (
            *("done", problem.question, "p1", "42"),
        )
        assert (run.pair, run.strategy, run.settings) == ("sim", "best-of-n", result.settings)
        assert (run.seed, run.budget, run.correct, run.tree) == (7, 4, True, "{}")
        assert (run.answer, run.share, run.bill) == (result.answer, result.share, result.usage)
        assert store.unknown_words(problem.question, "sim") == ["six"]
        assert store.unknown_words(problem.question, "other") is None
        candidates = store.candidates(id_)
        assert [c["answer"] for c in candidates] == [
            c.text.split("Answer: ")[1].strip() for c in result.candidates
        ]
        assert [[s["text"] for s in c["steps"]] for c in candidates] == [
            [s.text for s in c.steps] for c in result.candidates
        ]
        [record] = store.export_runs()
        assert record["candidates"] == candidates
        with pytest.raises(UsageError, match=r"There is no run 99: see `ttsolve history`\."):
            store.run(99)


def test_the_same_again_is_the_same_run(file: Path) -> None:
    with Store(file) as store:
        first, result = solved(store)
        again, _ = solved(store)
        larger, _ = solved(store, n=8)
        other, _ = solved(store, "another problem")
        assert again == first
        assert [run.id for run in store.runs(9)] == [other, larger, first]
        recalled = replace(result, usage=Usage(units=4, recalled_tokens=200))
        store.finish_run(first, recalled, SIM)
        assert store.run(first).bill.generated_tokens == 200  # of the time it was computed


def test_a_finished_run_stays_finished(file: Path) -> None:
    with Store(file) as store:
        run, result = solved(store)
        cut = replace(result, interrupted=True, answer=None, candidates=())
        store.finish_run(run, cut, SIM)
        assert (store.run(run).status, len(store.candidates(run))) == ("done", 4)
        other, _ = solved(store, "another")
        sql_file = sqlite3.connect(file)
        with closing(sql_file), sql_file:
            sql_file.execute("UPDATE runs SET status = 'running' WHERE id = ?", [other])
        store.finish_run(other, cut, SIM)
        assert (store.run(other).status, store.candidates(other)) == ("interrupted", [])


def test_a_run_that_fails_says_why_until_it_succeeds(file: Path) -> None:
    engine = Engine(SimGenerator(), SimVerifier(), budget=4)
    with Store(file) as store:
        run = store.begin_run(PROBLEM, engine, BestOfN(4), SIM)
        assert run is not None
        with pytest.raises(UsageError), store.noting_errors(run):
            raise UsageError("Too long: shorten it.")
        assert (store.run(run).status, store.run(run).error) == ("failed", "Too long: shorten it.")
        again, result = solved(store)
        assert (again, store.run(run).status, store.run(run).error) == (run, "done", None)
        assert store.run(run).votes == result.votes
        with pytest.raises(ZeroDivisionError), store.noting_errors(run):
            raise ZeroDivisionError
        assert store.run(run).status == "done"


def test_what_was_sampled_before_an_error_is_committed(file: Path) -> None:
    key = key_of(PROBLEM.root)
    with Store(file) as store:
        store.keep_sample(key, Grown((Step("x\n", 1),), "stop"))
        with pytest.raises(KeyboardInterrupt), store.noting_errors(None):
            raise KeyboardInterrupt
        assert [bool(found) for found in store.samples([key])] == [True]


def test_views_read_well(file: Path) -> None:
    with Store(file) as store:
        _, result = solved(store)
    [row] = sql(file, "SELECT status, problem, answer, units, generated_tokens FROM history")
    assert row == ("done", PROBLEM.question, result.answer, 4, 200)
    texts = [text for (text,) in sql(file, "SELECT text FROM candidates ORDER BY place")]
    assert texts == [candidate.text for candidate in result.candidates]
    assert sql(file, "SELECT answer FROM answers LIMIT 1") == [(result.answer,)]
    assert sql(file, "SELECT sum(candidates) FROM answers") == [(4,)]


def test_prune_forgets_what_no_run_asks_for(file: Path) -> None:
    kept = key_of(PROBLEM.root)
    lost = key_of(Problem("old").root)
    with Store(file) as store:
        for key in (kept, lost):
            store.keep_sample(key, Grown((Step("x\n", 1), Step(key.prefix, 1)), "stop"))
        step = path(Problem("old").root.grow(Step("x\n", 1)))[-1]
        store.keep_scores("v", [(step, 0.5)])
        store.flush()
        solved(store, "old")
        moment = datetime.now(UTC) + timedelta(seconds=1)
        old = moment - timedelta(days=2)
        with closing(sqlite3.connect(file)) as db, db:
            db.execute("UPDATE runs SET asked = ?", [old.isoformat()])
        run, _ = solved(store)
        removed = prune(store, moment - timedelta(days=1))
        assert (removed["runs"], removed["samples"], removed["scores"]) == (1, 1, 1)
        assert [r.id for r in store.runs(9)] == [run]
        assert len(store.candidates(run)) == 4
        assert [bool(found) for found in store.samples([kept, lost])] == [True, False]
        prune(store, LATER)
        assert set(holdings(store).counts.values()) == {0}
    assert sql(file, "SELECT count(*) FROM steps") == [(0,)]
    assert sql(file, "PRAGMA integrity_check") == [("ok",)]


# --- trouble ------------------------------------------------------------------------------------


HERE = Path(__file__).parent


def started(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program that imports the package under test."""
    where = {**os.environ, "PYTHONPATH": str(Path(ttsolve.__file__).parent.parent)}
    return subprocess.run(command, capture_output=True, text=True, env=where)


class Told(list[str]):
    """What a store told its user."""

    def __call__(self, sentence: str) -> None:
        self.append(sentence)


@pytest.fixture
def told() -> Told:
    return Told()


def fill(file: Path, n: int = 300) -> list[SampleKey]:
    keys = [key_of(PROBLEM.root, seed=seed) for seed in range(n)]
    with Store(file) as store:
        for key in keys:
            store.keep_sample(key, Grown((Step(f"{key.seed}\n" * 9, 1),), "stop"))
    return keys


@pytest.mark.parametrize(
    "damage", ["all of it", "its header", "its inside", "its end", "its length"]
)
def test_a_damaged_store_is_moved_aside(file: Path, told: Told, damage: str) -> None:
    keys = fill(file)
    content = bytearray(file.read_bytes())
    if damage == "all of it":
        content[:] = os.urandom(len(content))
    elif damage == "its header":
        content[:16] = bytes(16)
    elif damage == "its inside":
        content[4096:] = bytes(len(content) - 4096)
    elif damage == "its end":  # it opens, and goes wrong later
        content[-40_000:] = bytes(40_000)
    else:
        del content[5000:]
    file.write_bytes(content)
    with Store(file, told) as store:
        assert store.samples(keys) == [None] * len(keys)
        store.keep_sample(keys[0], Grown((), "stop"))
    [sentence] = told
    [aside] = file.parent.glob("*.corrupt-*")
    assert (
        sentence == f"The store {file} was damaged: it was moved to {aside}, and a new one begun."
    )
    assert aside.read_bytes() == content
    assert sql(file, "SELECT count(*) FROM samples") == [(1,)]


def test_an_empty_file_is_a_new_store(file: Path, told: Told) -> None:
    file.parent.mkdir()
    file.touch()
    with Store(file, told) as store:
        solved(store)
    assert told == []


def test_a_file_that_is_no_store_is_not_touched(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine\n" * 1000)
    with pytest.raises(UsageError, match="is no store and no database: name another file"):
        Store(notes)
    assert notes.read_text() == "mine\n" * 1000


def test_another_programs_database_is_not_touched(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as db, db:
        db.execute("CREATE TABLE mine (x)")
    with pytest.raises(UsageError, match="is a database of something else: name another file"):
        Store(other)
    assert sql(other, "SELECT name FROM sqlite_master") == [("mine",)]
    assert sql(other, "PRAGMA journal_mode") == [("delete",)]


def test_a_newer_store_is_refused(file: Path) -> None:
    fill(file, 1)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) "
            "VALUES ('ttsolve', 'm999_wonders', '2099-01-01')"
        )
    with pytest.raises(UsageError, match="was written by a newer ttsolve: update this one"):
        Store(file)


def test_an_older_store_is_brought_up_to_date(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the first version, with a run in it."""
    first = Migrations("ttsolve")
    first()(store_schema.m001_tables)
    with monkeypatch.context() as patch:
        patch.setattr(store_open, "MIGRATIONS", first)
        Store(file).close()
    with closing(sqlite3.connect(file)) as db, db:
        values = "'done', 'q', 'r', '', 'sim', 1, 'best-of-n', '{}', 0, 4"
        columns = "status, problem, root, problem_id, pair, generator, strategy, settings, seed"
        db.execute(f"INSERT INTO runs (key, asked, {columns}, budget) VALUES ('k', 't', {values})")
    with Store(file) as store:
        [run] = store.runs(9)
        assert (run.problem, run.status, run.error, run.votes) == ("q", "done", None, ())
        assert solved(store)[0] == 2
    assert sql(file, "SELECT count(*), max(error) FROM history") == [(2, None)]


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder: name a file in it"):
        Store(tmp_path)


def test_where_no_file_can_be_nothing_is_kept(tmp_path: Path, told: Told) -> None:
    (tmp_path / "file").touch()
    with Store(tmp_path / "file" / "ttsolve.db", told) as store:
        assert not store.usable
        store.keep_scores("v", [("s", 0.5)])
        assert store.scores("v", ["s"]) == [None]
    [sentence] = told
    assert sentence.startswith("Nothing more can be kept in the store")


@pytest.fixture
def seal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes SQLite fail as it does where neither the file nor its folder can be written."""
    error = sqlite3.OperationalError("attempt to write a readonly database")
    error.sqlite_errorcode = sqlite3.SQLITE_READONLY
    name = "ttsolve.store_file.open_database"
    return lambda: monkeypatch.setattr(name, Mock(side_effect=error))


def test_what_cannot_be_written_is_recalled(
    file: Path, told: Told, seal: Callable[[], None]
) -> None:
    keys = fill(file, 3)
    before = file.read_bytes()
    seal()
    with Store(file, told) as store:
        assert (store.usable, store.keeps) == (True, False)
        assert None not in store.samples(keys)
        store.keep_sample(key_of(PROBLEM.root, seed=9), Grown((), "stop"))
        store.flush()
        assert store.samples([key_of(PROBLEM.root, seed=9)]) == [None]
        with pytest.raises(StorageError, match="Nothing was forgotten"):
            prune(store, LATER)
    [sentence] = told
    assert sentence.startswith(f"Nothing more can be kept in the store {file} (attempt to write a ")
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("why", ["a log", "older", "damaged", "not there"])
def test_what_cannot_be_read_so_is_computed(
    file: Path, told: Told, seal: Callable[[], None], why: str
) -> None:
    """What was committed last may stand in a log, and is not to be missed."""
    keys = fill(file)
    if why == "a log":
        Path(f"{file}-wal").write_bytes(b"")
    elif why == "older":
        with closing(sqlite3.connect(file)) as db, db:
            db.execute("DELETE FROM _sqlite_migrations WHERE name = 'm003_chains'")
    elif why == "damaged":
        file.write_bytes(file.read_bytes()[:-40_000] + bytes(40_000))
    else:
        file.unlink()
    seal()
    with Store(file, told) as store:
        assert store.samples(keys) == [None] * len(keys)
        assert not store.usable
    assert len(told) == 1
    assert not list(file.parent.glob("*.corrupt-*"))


def test_a_newer_store_is_refused_also_where_it_cannot_be_written(
    file: Path, seal: Callable[[], None]
) -> None:
    fill(file, 1)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE _sqlite_migrations SET name = 'm999' WHERE name = 'm003_chains'")
    seal()
    with pytest.raises(UsageError, match="was written by a newer ttsolve"):
        Store(file)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs util-linux")
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_disk_that_takes_no_more(tmp_path: Path, how: str) -> None:
    """On a disk of 1 MB of its own: what was committed stays, is found, and a run goes on."""
    program = f"{sys.executable} {HERE}/store_on_small_disk.py {tmp_path}/ttsolve.db {how}"
    script = f"mount -t tmpfs -o size=1m tmpfs {tmp_path} && {program}"
    done = started(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script])
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"this system lets nobody mount: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    [sentence] = done.stdout.splitlines()
    assert sentence.startswith(f"Nothing more can be kept in the store {tmp_path}/ttsolve.db (")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("program", ["kill_store.py 8", "share_store.py 20"])
def test_at_length(program: str) -> None:
    """Killed at random moments; used by four processes at once. See the programs."""
    name, number = program.split()
    done = started([sys.executable, str(HERE / name), number])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(number if name == "kill_store.py" else "80 problems, 10 shared")


@pytest.mark.parametrize("cut", [0, 1, 31, 32, 33, 5000, 20_000, -1])
def test_a_write_ahead_log_cut_short(file: Path, tmp_path: Path, told: Told, cut: int) -> None:
    """As after a power cut: a prefix of what was committed is there, and whole."""
    with Store(file) as store:  # it stays open, so the log is not folded into the file
        for seed in range(60):
            store.keep_sample(key_of(PROBLEM.root, seed=seed), Grown((Step("x\n", 1),), "stop"))
            if seed % 10 == 9:
                store.flush()
        copy = tmp_path / "copy" / "ttsolve.db"
        copy.parent.mkdir()
        copy.write_bytes(file.read_bytes())
        log = Path(f"{file}-wal").read_bytes()
        Path(f"{copy}-wal").write_bytes(log[:cut])
    with Store(copy, told) as store:
        found = store.samples([key_of(PROBLEM.root, seed=seed) for seed in range(60)])
        solved(store)
    here = [one is not None for one in found]
    assert here == sorted(here, reverse=True)
    assert told == []
    assert sql(copy, "PRAGMA integrity_check") == [("ok",)]
