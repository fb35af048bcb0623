"""The store as a user meets it: --cache, --no-cache, history, cache."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import pytest

from dice_maker import Counting, press
from ttsolve import paths
from ttsolve.cli import main
from ttsolve.engines import sim

QUESTION = "what is six times seven"


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in this process."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))

    def run(*arguments: str) -> Done:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    return run


def solve(run: Run, *options: str, question: str = QUESTION) -> Done:
    return run("solve", question, "--pair", "sim", "--strategy", "best-of-n", *options)


def test_the_same_again_computes_nothing(run: Run) -> None:
    first, again = solve(run), solve(run)
    assert (again.code, again.err, len(again.lines)) == (0, "", len(first.lines))
    assert [*again.lines[:2], *again.lines[3:]] == [*first.lines[:2], *first.lines[3:]]
    assert first.lines[2].startswith("spent  16 units, 800 tokens generated, 5 of prompts")
    assert again.lines[2].startswith(
        "spent  16 units, 0 tokens generated (800 recalled), "
        "0 of prompts (0 reused), 0 verified (80 scores recalled), "
    )
    bill = json.loads(solve(run, "--json", "--budget", "17").out)["bill"]
    assert (bill["generated_tokens"], bill["recalled_tokens"]) == (50, 800)


def test_where_it_is_kept(run: Run, tmp_path: Path) -> None:
    solve(run, "--no-cache")
    assert not paths.store_file().exists()
    file = tmp_path / "new" / "mine.db"
    solve(run, "--cache", str(file))
    assert "(800 recalled)" in solve(run, "--cache", str(file)).out
    assert not paths.store_file().exists()
    assert "recalled" not in solve(run).out
    assert "(800 recalled)" in solve(run).out
    assert "recalled" not in solve(run, "--no-cache").out


def test_history(run: Run) -> None:
    for question in ("one", "two\nlines", "three"):
        solve(run, "--budget", "4", question=question)
    solve(run, "--budget", "4", question="one")
    listed = run("history")
    assert [line.split()[0] for line in listed.lines] == ["1", "3", "2"]
    assert listed.lines[2].endswith("two lines")
    assert "sim, best-of-n 4" in listed.lines[0]
    assert run("history", "--limit", "1").lines == listed.lines[:1]
    [record] = map(json.loads, run("history", "--limit", "1", "--json").lines)
    assert (record["id"], record["problem"], record["status"]) == (1, "one", "done")


def test_no_history_yet(run: Run) -> None:
    assert run("history") == Done(0, "", "No run is kept yet.\n")
    assert run("history", "--json") == Done(0, "", "")
    solve(run)
    said = "No run of a session 'nope' is kept: see `ttsolve history` for all.\n"
    assert run("history", "--session", "nope") == Done(0, "", said)


def test_an_interrupted_run_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sim, "SimGenerator", lambda: Counting(then={5: press}))
        assert solve(run).code == 130
    assert "interrupted" in run("history").out
    [cut] = map(json.loads, run("history", "--json").lines)
    assert (cut["status"], cut["bill"]["units"], cut["budget"]) == ("interrupted", 5, 16)
    assert "spent  16 units, 550 tokens generated (250 recalled)" in solve(run).out
    [line] = run("history").lines
    assert "interrupted" not in line


def test_what_another_run_finished_is_billed_as_finished(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sim, "SimGenerator", lambda: Counting(then={5: press}))
        assert solve(run).code == 130
    solve(run, "--budget", "32")
    assert "spent  16 units, 0 tokens generated (800 recalled)" in solve(run).out
    [done] = map(json.loads, run("history", "--limit", "1", "--json").lines)
    assert (done["status"], done["bill"]["units"], done["budget"]) == ("done", 16, 16)


def test_stats_export_and_prune(run: Run, tmp_path: Path) -> None:
    for budget in ("2", "4"):
        solve(run, "--budget", budget)
    where, kept, of = run("cache", "stats").lines
    assert where.startswith(f"store  {paths.store_file()}, ")
    assert kept.startswith("kept   2 runs, 1 problem, 4 samples, ")
    assert of == "       4 samples of sim"
    assert run("cache", "export", str(tmp_path / "runs.jsonl")) == Done(0, "", "")
    exported = (tmp_path / "runs.jsonl").read_text()
    assert run("cache", "export", "-").out == exported
    records = [json.loads(line) for line in exported.splitlines()]
    assert [len(record["candidates"]) for record in records] == [2, 4]
    assert run("cache", "prune", "--older-than", "1").out.startswith("Forgotten: 0 runs, ")
    assert run("cache", "prune", "--all").out.startswith("Forgotten: 2 runs, 1 problem, 4 samples")
    assert run("cache", "stats").lines[1].startswith("kept   0 runs, ")
    assert "recalled" not in solve(run).out


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_the_store_is_not_exported_over_itself(run: Run, tmp_path: Path) -> None:
    store, link, twin = (tmp_path / name for name in ("s.db", "link", "twin"))
    solve(run, "--cache", str(store))
    link.symlink_to(store)
    twin.hardlink_to(store)
    for target in (store, link, twin):
        done = run("cache", "export", str(target), "--cache", str(store))
        said = f"Error: {target} is the store: choose another file for the runs.\n"
        assert done == Done(2, "", said)
    assert len(run("history", "--cache", str(store)).lines) == 1


def test_bad_input_is_one_sentence_and_exit_code_2(run: Run, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_text("mine\n" * 1000)
    solve(run)
    with closing(sqlite3.connect(paths.store_file())) as db, db:
        db.execute("UPDATE _sqlite_migrations SET name = 'm999_wonders' WHERE name LIKE 'm001%'")
    for arguments, sentence in [
        (("solve", QUESTION, "--pair", "sim", "--cache", "x", "--no-cache"), "leave --cache or"),
        (("solve", QUESTION, "--pair", "sim", "--cache", str(notes)), "is no store and no"),
        (("solve", QUESTION, "--pair", "sim", "--cache", str(tmp_path)), "is a folder"),
        (("solve", QUESTION, "--pair", "sim"), "was written by a newer ttsolve"),
        (("history",), "was written by a newer ttsolve"),
        (("history", "--limit", "0"), "'--limit'"),
        (("show", str(2**63)), "RUN"),
        (
            ("solve", QUESTION, "--seed", str(2**63)),
            "The seed '9223372036854775808' is not possible",
        ),
        (("cache", "prune"), "--older-than DAYS, or --all."),
        (("cache", "prune", "--all", "--older-than", "3"), "--older-than DAYS, or --all."),
    ]:
        done = run(*arguments)
        assert (done.code, done.out) == (2, "")
        [line] = done.err.splitlines()
        assert line.startswith("Error: ")
        assert sentence in line


def test_where_nothing_can_be_kept_a_run_goes_on(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = str(tmp_path / "file" / "ttsolve.db")
    done = solve(run, "--cache", file)
    assert (done.code, done.lines[0]) == (0, sim.RIGHT_ANSWER)
    [line] = done.err.splitlines()
    assert line.startswith(f"Nothing more can be kept in the store {file} (")
    done = run("history", "--cache", file)
    assert (done.code, done.out, len(done.err.splitlines())) == (1, "", 1)


def test_what_cannot_be_written_is_recalled(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    solve(run)
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    monkeypatch.setattr("ttsolve.store_file.open_database", Mock(side_effect=error))
    told = f"Nothing more can be kept in the store {paths.store_file()} ("
    for budget, cost in ((16, "0 tokens generated (800 recalled)"), (17, "50 tokens generated")):
        done = solve(run, "--budget", str(budget))
        assert (done.code, done.lines[0], len(done.err.splitlines())) == (0, sim.RIGHT_ANSWER, 1)
        assert done.err.startswith(told)
        assert cost in done.out
    assert [line.split()[0] for line in run("history").lines] == ["1"]
    assert "42" in run("show").out
    done = run("cache", "prune", "--all")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(told)
    assert "(800 recalled)" in solve(run).out


def test_on_a_full_disk_nothing_is_forgotten(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    solve(run)
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    with monkeypatch.context() as patch:
        patch.setattr("ttsolve.store_care._counts", Mock(side_effect=error))
        done = run("cache", "prune", "--all")
    assert (done.code, done.out) == (1, "")
    why, sentence = done.err.splitlines()
    assert "(database or disk is full): make it writable and make room there" in why
    assert sentence.startswith("Error: Nothing was forgotten: ")
    assert len(run("history").lines) == 1


def test_a_damaged_store_is_told_of_and_the_run_goes_on(run: Run) -> None:
    solve(run)
    paths.store_file().write_bytes(b"\0" * 9999)
    done = solve(run)
    assert (done.code, done.lines[0]) == (0, sim.RIGHT_ANSWER)
    [line] = done.err.splitlines()
    assert "was damaged: it was moved to" in line
    assert "(800 recalled)" in solve(run).out
