"""Batches: order, bounds and endings of problems solved side by side, and the command as typed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import ttsolve
from ttsolve.batch import WINDOW, Outcome, Solver, Tally, enough, outcomes
from ttsolve.cli import main, with_command
from ttsolve.core import Problem, Solution, Usage
from ttsolve.dataset import Entry
from ttsolve.engine import Engine, Sampling, Watch
from ttsolve.engines import sim
from ttsolve.errors import ProblemTooLong
from ttsolve.pair import Pair
from ttsolve.recall import StoredPair
from ttsolve.render_batch import bar_text, show_summary, summary
from ttsolve.solve import SIM
from ttsolve.store import Store
from ttsolve.strategies import BestOfN

N = 20
PUBLISHED = Path(__file__).parent.parent.parent / "shared" / "data"


def entries(count: int = N) -> list[Entry]:
    return [Entry(i, i, Problem(f"problem {i}", reference="42")) for i in range(1, count + 1)]


def ids(found: Iterable[Outcome]) -> list[object]:
    return [outcome.record["id"] for outcome in found]


def done(entry: Entry) -> Outcome:
    return Outcome({"id": entry.id})


class Steps:
    """A solver whose entries wait until they are let go."""

    def __init__(self, stop: threading.Event):
        self.stop = stop
        self.begun = threading.Semaphore(0)
        self.gates: dict[object, threading.Event] = {}

    def gate(self, entry: object) -> threading.Event:
        return self.gates.setdefault(entry, threading.Event())

    def __call__(self, entry: Entry) -> Outcome | None:
        self.begun.release()
        while not self.gate(entry.id).wait(0.01):
            if self.stop.is_set():
                return None
        return done(entry)


# --- side by side -----------------------------------------------------------------------------


def test_how_many_problems_keep_a_generator_busy() -> None:
    """Whatever the budget, and whether they are solved or measured."""
    found = {budget: enough(budget) for budget in (1, 2, 16, 64, 65536)}
    assert found == {1: 128, 2: 64, 16: 8, 64: 8, 65536: 8}


@pytest.mark.parametrize("in_flight", [1, 3, 30])
@pytest.mark.parametrize("count", [0, 1, N])
def test_outcomes_come_in_the_order_of_the_entries(in_flight: int, count: int) -> None:
    found = outcomes(entries(count), done, threading.Event(), in_flight=in_flight)
    assert ids(found) == list(range(1, count + 1))


@pytest.mark.parametrize(("ordered", "expected"), [(True, [1, 2, 3]), (False, [3, 1, 2])])
def test_a_slow_problem_holds_up_the_others_only_where_order_is_asked_for(
    ordered: bool, expected: list[int]
) -> None:
    stop = threading.Event()
    solver = Steps(stop)
    found = outcomes(entries(3), solver, stop, in_flight=3, ordered=ordered)
    solver.gate(3).set()
    order: list[object] = []
    if not ordered:
        order += ids([next(found)])
    solver.gate(1).set()
    order += ids([next(found)])
    solver.gate(2).set()
    assert [*order, *ids(found)] == expected


def test_nothing_is_read_far_ahead_of_a_slow_problem() -> None:
    stop = threading.Event()
    solver = Steps(stop)
    read: list[int] = []

    def source() -> Iterator[Entry]:
        for entry in entries(1000):
            read.append(entry.line)
            if entry.line > 1:
                solver.gate(entry.id).set()
            yield entry

    found = outcomes(source(), solver, stop, in_flight=2)
    threading.Timer(0.3, solver.gate(1).set).start()
    next(found)
    assert len(read) <= 2 * WINDOW + 2
    assert ids(found) == list(range(2, 1001))


def test_100_000_lines() -> None:
    read = 0

    def source() -> Iterator[Entry]:
        nonlocal read
        for entry in entries(100_000):
            read = entry.line
            yield entry

    ahead = 0
    for last, outcome in enumerate(outcomes(source(), done, threading.Event(), in_flight=4), 1):
        assert outcome.record["id"] == last
        ahead = max(ahead, read - last)
    assert read == last == 100_000
    assert ahead <= 4 * WINDOW + 4


def test_an_answer_is_there_before_the_next_problem_is() -> None:
    come: dict[int, threading.Event] = {i: threading.Event() for i in (1, 2, 3)}

    def source() -> Iterator[Entry]:
        for entry in entries(3):
            assert come[entry.line].wait(10)
            yield entry

    found = outcomes(source(), done, threading.Event(), in_flight=3)
    for i, event in come.items():
        event.set()
        assert next(found).record["id"] == i


@pytest.mark.parametrize("where", ["reading", "solving"])
def test_what_goes_wrong_comes_out_and_nothing_goes_on(where: str) -> None:
    stop = threading.Event()

    def source() -> Iterator[Entry]:
        yield from entries(3)
        if where == "reading":
            raise ZeroDivisionError
        yield from entries(100)

    def solver(entry: Entry) -> Outcome:
        if where == "solving" and entry.id == 3:
            raise ZeroDivisionError
        return done(entry)

    with pytest.raises(ZeroDivisionError):
        list(outcomes(source(), solver, stop, in_flight=2))
    assert stop.is_set()


def test_stopped_what_is_done_comes_out_and_what_is_in_flight_does_not() -> None:
    stop = threading.Event()
    solver = Steps(stop)
    for i in (1, 3):
        solver.gate(i).set()
    found = outcomes(entries(100), solver, stop, in_flight=4)
    first = next(found)
    for _ in range(5):  # 1 to 5; 2, 4 and 5 wait, and one of 6 ..
        assert solver.begun.acquire(timeout=10)
    stop.set()
    assert ids([first, *found]) == [1, 3]


def test_stopped_while_the_input_is_silent() -> None:
    stop, silence = threading.Event(), threading.Event()
    spoke = False

    def source() -> Iterator[Entry]:
        nonlocal spoke
        yield from entries(2)
        spoke = not silence.wait(20)

    found = outcomes(source(), done, stop, in_flight=2)
    assert ids([next(found), next(found)]) == [1, 2]
    stop.set()
    assert list(found) == []
    assert not spoke
    silence.set()


def test_given_up_everything_in_flight_ends_first() -> None:
    stop = threading.Event()
    running = 0

    def solver(entry: Entry) -> Outcome:
        nonlocal running
        running += 1
        if entry.line > 1:
            stop.wait(10)
        running -= 1
        return done(entry)

    found = outcomes(entries(100), solver, stop, in_flight=1)
    next(found)
    found.close()
    assert (stop.is_set(), running) == (True, 0)


# --- one entry --------------------------------------------------------------------------------


def solver_of(generator: Any, budget: int = 4, **how: Any) -> Solver:
    models = StoredPair(SIM, Store(None), lambda: (generator, sim.SimVerifier()))
    new_engine = partial(Engine, models.generator, models.verifier, budget=budget, **how)
    return Solver(BestOfN(budget), models, new_engine)


def test_the_record_of_a_problem() -> None:
    solver = solver_of(sim.SimGenerator(p_step=1.0))
    outcome = solver(Entry(3, "x", Problem("q", reference="42.0")))
    assert outcome
    bill = {"units": 4, "generated_tokens": 200, "verifier_tokens": 200}
    assert outcome.record == {
        **{"id": "x", "answer": "42", "confidence": 1.0, "strategy": "best-of-n"},
        **{"bill": bill, "correct": True},
    }
    wrong = solver(Entry(3, 3, Problem("q", reference="41"), file="f.csv"))
    unknown = solver(Entry(3, 3, Problem("q")))
    assert wrong
    assert unknown
    assert (wrong.record["file"], wrong.record["correct"]) == ("f.csv", False)
    assert "correct" not in unknown.record


class Spy(sim.SimGenerator):
    """Dice that look at all they are given."""

    def sample(self, prefixes: Sequence[Solution], *rest: Any) -> Any:
        for prefix in prefixes:
            assert prefix.problem == Problem(prefix.problem.question)
        return super().sample(prefixes, *rest)


def test_the_reference_is_shown_to_nothing_that_solves() -> None:
    problem = Problem("q", reference="42", check=None, id="a", level=3, subject="s")
    outcome = solver_of(Spy())(Entry(1, 1, problem))
    assert outcome
    assert "correct" in outcome.record


class Strict(sim.SimGenerator):
    """Dice that refuse long problems."""

    def sample(self, prefixes: Sequence[Solution], *rest: Any) -> Any:
        if any(len(prefix.problem.question) > 20 for prefix in prefixes):
            raise ProblemTooLong("The problem is too long: shorten it.")
        return super().sample(prefixes, *rest)


def test_a_problem_too_long_ends_no_run() -> None:
    solver = solver_of(Strict())
    problems = [Problem("short"), Problem("long " * 9), Problem("short too")]
    lines = [Entry(i, f"n{i}", p) for i, p in enumerate(problems, 1)]
    found = list(outcomes(lines, solver, threading.Event(), in_flight=2))
    error = "The problem is too long: shorten it."
    assert found[1].record == {"id": "n2", "line": 2, "error": error}
    assert [outcome.failed for outcome in found] == [False, True, False]


def test_side_by_side_is_one_after_another() -> None:
    def records(in_flight: int) -> list[dict[str, object]]:
        solver = solver_of(sim.SimGenerator())
        stop = threading.Event()
        return [o.record for o in outcomes(entries(), solver, stop, in_flight=in_flight)]

    assert records(1) == records(8)


def test_the_embedded_pair_side_by_side(run: Run, pocket: Pair) -> None:
    data = pocket.folder / "data" / "test.jsonl"
    how = ("--limit", "3", "--budget", "2", "--temperature", "0", "--no-cache")
    one = run("batch", str(data), *how, "--in-flight", "1").out
    assert run("batch", str(data), *how, "--in-flight", "3").out == one
    assert [set(record) for record in run.records] == [
        {"id", "answer", "confidence", "strategy", "bill", "correct"}
    ] * 3


# --- as typed ---------------------------------------------------------------------------------


class Run:
    """Runs the command line in this process, and keeps what it wrote."""

    def __init__(self, capsys: pytest.CaptureFixture[str], pipe: Callable[[bytes], None]) -> None:
        self.capsys, self.pipe = capsys, pipe

    def __call__(self, *arguments: str, stdin: str | bytes = b"") -> Run:
        self.pipe(stdin.encode() if isinstance(stdin, str) else stdin)
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        self.code = ended.value.code
        self.out, self.err = self.capsys.readouterr()
        return self

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def pipe(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return Run(capsys, pipe)


SIMULATED = ("--pair", "sim", "--budget", "2", "--strategy", "best-of-n")
QUESTIONS = '{"id": 7, "question": "a", "answer": "#### 42"}\n{"id": 7, "question": "b"}\n'


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("", "batch"),
        ("--budget 16", "batch --budget 16"),
        ("--budget=16 --debug", "batch --budget=16 --debug"),
        ("--debug --pair sim", "--debug batch --pair sim"),
        ("--limit 5 --unordered -o out", "batch --limit 5 --unordered -o out"),
        ("q --budget 4", "solve q --budget 4"),
        ("--budget 4 q", "solve --budget 4 q"),
        ("--json q", "solve --json q"),
        ("-", "solve -"),
        ("--seed 1 -", "solve --seed 1 -"),
        ("-- bench", "solve -- bench"),
        ("bench", "bench"),
        ("batch f", "batch f"),
        ("--help", "--help"),
        ("--version", "--version"),
    ],
)
def test_what_is_piped_in_without_a_problem_is_a_batch(typed: str, meant: str) -> None:
    assert with_command(typed.split(), piped=True) == meant.split()


def test_through_a_pipe(run: Run) -> None:
    run(*SIMULATED, stdin=QUESTIONS)
    assert run.code == 0
    first, second = run.records
    assert list(first) == ["id", "answer", "confidence", "strategy", "bill", "correct"]
    assert list(second) == ["id", "answer", "confidence", "strategy", "bill"]
    assert (first["id"], second["id"]) == (7, 7)
    assert run.err.startswith("2 lines in ")
    assert "of 1 correct" in run.err
    alone = run("a", *SIMULATED, "--json", stdin="").records[0]
    assert (alone["answer"], round(alone["share"], 4)) == (first["answer"], first["confidence"])


def test_files(run: Run, tmp_path: Path) -> None:
    text, table, out = (tmp_path / name for name in ("a.txt", "b.csv", "out.jsonl"))
    text.write_text("one\ntwo\nthree\n")
    table.write_text("n,frage,wert\n1,vier,42\n2,fünf,41\n", encoding="utf-8")
    how = ("--question-field", "frage", "--answer-field", "wert")
    run("batch", str(text), str(table), *SIMULATED, "-o", str(out), *how, "--limit", "4")
    assert (run.code, run.out) == (0, "")
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(r["file"], r["id"]) for r in records] == [
        *((str(text), i) for i in (1, 2, 3)),
        (str(table), 2),
    ]
    assert ["correct" in r for r in records] == [False, False, False, True]


def test_a_bad_line_is_an_error_record_and_exit_code_1(run: Run) -> None:
    data = b'{"question": "a"}\r\n{"id": "x", "problem": ""}\r\n\xff\r\n{"question": "b"}\r\n'
    run(*SIMULATED, stdin=data)
    assert run.code == 1
    assert [list(record)[:3] for record in run.records] == [
        ["id", "answer", "confidence"],
        ["id", "line", "error"],
        ["id", "line", "error"],
        ["id", "answer", "confidence"],
    ]
    assert [(r["id"], r.get("line")) for r in run.records] == [
        *((1, None), ("x", 2), (3, 3), (4, None)),
    ]
    assert "2 answers, 2 errors" in run.err


def test_a_file_that_has_seen_better_days(run: Run) -> None:
    """A BOM, Windows line ends, no UTF-8, a NUL, 10 MB on a line, an id twice, no last line end."""
    lines = [
        b'\xef\xbb\xbf{"id": "x", "question": "one"}',
        b'{"question": "\xff"}',
        b"",
        b'{"question": "a \\u0000 NUL"}',
        b'{"question": "' + b"1 + " * 2_500_000 + b'1"}',
        b'{"id": "x", "question": "two"}',
    ]
    run(*SIMULATED, stdin=b"\r\n".join(lines))
    assert run.code == 1
    assert [(record["id"], record.get("line")) for record in run.records] == [
        *(("x", None), (2, 2), (4, 4), (5, 5), ("x", None)),
    ]
    errors = [record["error"] for record in run.records if "error" in record]
    for error, word in zip(errors, ("UTF-8", "NUL", "1,048,576 bytes"), strict=True):
        assert word in error
    assert "2 answers, 3 errors" in run.err


@pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="the published data sets are not beside the checkout"
)
@pytest.mark.parametrize(("name", "answer"), [("gsm8k_test.jsonl", "18"), ("math500.jsonl", "42")])
def test_published_files_are_graded(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, answer: str
) -> None:
    """By dice that often give an answer which is that of at least one of the first problems."""
    monkeypatch.setattr(sim, "RIGHT_ANSWER", answer)
    run(*SIMULATED, "--limit", "50", stdin=(PUBLISHED / name).read_bytes())
    assert run.code == 0
    assert len(run.records) == 50
    assert {record["correct"] for record in run.records} == {True, False}
    assert " of 50 correct (" in run.err


def test_an_empty_input_is_no_error(run: Run, tmp_path: Path) -> None:
    assert (run(*SIMULATED).code, run.out) == (0, "")
    assert run.err.startswith("0 lines in ")
    (tmp_path / "empty.jsonl").touch()
    assert run("batch", str(tmp_path / "empty.jsonl"), *SIMULATED).code == 0


def test_unordered_gives_the_same_records(run: Run) -> None:
    questions = "\n".join(f"question {i}" for i in range(30))
    ordered = run(*SIMULATED, stdin=questions).out.splitlines()
    loose = run(*SIMULATED, "--unordered", "--in-flight", "9", stdin=questions).out.splitlines()
    assert sorted(ordered) == sorted(loose)


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nosuch.jsonl",), "Cannot read nosuch.jsonl (No such file or directory)"),
        (("here",), "Cannot read here (Is a directory)"),
        (("a.jsonl", "-o", "a.jsonl"), "a.jsonl holds the problems: choose another file"),
        (("a.jsonl", "-o", "here"), "here is a folder: choose a file for the answers."),
        (("a.jsonl", "-o", ""), ". is a folder: choose a file for the answers."),
        (("a.jsonl", "-o", "new.db", "--cache", "new.db"), "new.db is the store: choose another"),
        (("utf16.txt",), "utf16.txt is UTF-16 text: convert it"),
        (("a.jsonl", "--in-flight", "0"), "'--in-flight'"),
        (("a.jsonl", "--format", "xml"), "'--format'"),
        (("a.jsonl", "--strategy", "beems"), "There is no strategy 'beems'"),
        ((), "There are no problems: name a FILE"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    arguments: Sequence[str], sentence: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    Path("a.jsonl").write_text(QUESTIONS)
    Path("utf16.txt").write_bytes("What is 5% of 200?".encode("utf-16"))
    if not arguments:
        monkeypatch.setattr(run, "pipe", lambda _: None)
        monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO()))
    run("batch", *arguments, "--pair", "sim")
    assert (run.code, run.out) == (2, "")
    assert len(run.err.splitlines()) == 1
    assert sentence in run.err
    assert Path("a.jsonl").read_text() == QUESTIONS


def test_problems_of_the_wrong_kind_leave_the_output_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"question": "a"}]')
    (tmp_path / "out.jsonl").write_text("answers of yesterday\n")
    run("batch", *SIMULATED, str(tmp_path / "a.json"), "-o", str(tmp_path / "out.jsonl"))
    assert (run.code, "one JSON array" in run.err) == (2, True)
    assert (tmp_path / "out.jsonl").read_text() == "answers of yesterday\n"


def test_an_output_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run("batch", *SIMULATED, "-o", str(tmp_path / "file" / "out"), stdin="a")
    assert run.code == 1
    assert "choose another file for the answers" in run.err


def test_an_output_in_a_new_folder(run: Run, tmp_path: Path) -> None:
    run("batch", *SIMULATED, "-o", str(tmp_path / "new" / "out"), stdin="a")
    assert (run.code, len((tmp_path / "new" / "out").read_text().splitlines())) == (0, 1)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ('[{"question": "a"}]', "stdin is one JSON array: make a line of each record"),
        ("a,b\n1,2\n", "No column of stdin holds the question (there are: a, b)"),
        (b"\xff\xfea\0", "stdin is UTF-16 text: convert it"),
    ],
)
def test_a_pipe_of_the_wrong_kind_is_one_sentence(
    run: Run, data: str | bytes, sentence: str
) -> None:
    kind = ("--format", "csv") if "No column" in sentence else ()
    run(*SIMULATED, *kind, stdin=data)
    assert (run.code, run.out, len(run.err.splitlines())) == (2, "", 1)
    assert sentence in run.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_sentence(run: Run) -> None:
    run("batch", *SIMULATED, "-o", "/dev/full", stdin="a\nb\n")
    remedy = "make room there or choose another file for the answers"
    assert (run.code, run.err) == (
        1, f"Error: Cannot write /dev/full (No space left on device): {remedy}.\n",
    )  # fmt: skip


class Broken(sim.SimGenerator):
    """Dice that break."""

    def sample(self, *_: object, **__: object) -> Any:
        raise ProblemTooShort


class ProblemTooShort(Exception):
    """Nobody foresaw it."""


def test_the_answers_of_yesterday_stay_until_there_is_one_of_today(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("answers of yesterday\n" * 100)
    with monkeypatch.context() as patch:
        patch.setattr(sim, "SimGenerator", Broken)
        assert run("batch", *SIMULATED, "-o", str(out), stdin="a\nb\n").code == 1
    assert out.read_text() == "answers of yesterday\n" * 100
    run("batch", *SIMULATED, "-o", str(out), stdin="a\nb\n")
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [1, 2]
    assert run("batch", *SIMULATED, "-o", str(out)).code == 0
    assert out.read_text() == ""


class Interrupted(sim.SimGenerator):
    """Dice that press Ctrl-C once as they come to problem 5."""

    def sample(
        self,
        prefixes: Sequence[Solution],
        how: Sequence[Sampling],
        watch: Watch | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[list[Solution], Usage]:
        if prefixes[0].problem.question == "problem 5":
            os.kill(os.getpid(), signal.SIGINT)
            assert stop
            stop.wait(10)
        return super().sample(prefixes, how, watch, stop)


@pytest.mark.skipif(os.name == "nt", reason="a process cannot press Ctrl-C to itself")
def test_interrupted_and_resumed_is_uninterrupted(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    questions = "\n".join(f"problem {i}" for i in range(1, N + 1))
    plain = run(*SIMULATED, "--no-cache", stdin=questions).out
    how = (*SIMULATED, "-o", str(out), "--in-flight", "2")
    with monkeypatch.context() as patch:
        patch.setattr(sim, "SimGenerator", Interrupted)
        run(*how, stdin=questions)
    assert run.code == 130
    assert run.err.endswith("Interrupted: the same command goes on from here.\n")
    cut = out.read_text().splitlines()
    assert set(cut) < set(plain.splitlines())
    assert run(*how, stdin=questions).code == 0
    assert out.read_text() == plain
    assert "recalled" in run.err


def piped(command: str, **how: Any) -> subprocess.CompletedProcess[str]:
    script = f'set -o pipefail\nttsolve() {{ "{sys.executable}" -m ttsolve "$@"; }}\n{command}\n'
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, **how)


@pytest.mark.skipif(os.name == "nt", reason="the pipes are bash")
def test_a_reader_that_has_seen_enough() -> None:
    done = piped("seq 100000 | ttsolve --pair sim --budget 1 --no-cache | head -3")
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1, 2, 3]
    assert done.stderr == ""
    assert done.returncode == 1


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals")
def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    import pty

    (tmp_path / "q.txt").write_text("a\nb\nc\n")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ttsolve", "batch", "q.txt", "-o", "out", *SIMULATED]
    package = str(Path(ttsolve.__file__).parent.parent)
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "PYTHONPATH": package}
    done = subprocess.run(command, cwd=tmp_path, stderr=theirs, env=env, timeout=120)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "opening the models" in shown
    assert "3 lines in" in shown
    assert len((tmp_path / "out").read_text().splitlines()) == 3


# --- what is said -----------------------------------------------------------------------------


def tally(*records: dict[str, object]) -> Tally:
    total = Tally()
    for record in records:
        total.add(Outcome(record, Usage(units=2, generated_tokens=50), foreign=True))
    return total


RIGHT = {"id": 1, "answer": "42", "correct": True}
SILENT = {"id": 1, "answer": None, "correct": False}
UNKNOWN = {"id": 1, "answer": "42"}
FAILED = {"id": 1, "line": 1, "error": "The question is empty."}


@pytest.mark.parametrize(
    ("records", "bar", "closing"),
    [
        ([], "0/4 · 0/s", "0 lines in 2.0 s: 0 answers"),
        ([UNKNOWN], "1/4 · 0.5/s", "1 line in 2.0 s: 1 answer"),
        (
            [RIGHT, SILENT, FAILED, RIGHT],
            "4/4 · 2/s · 67% correct · 1 error",
            "4 lines in 2.0 s: 2 answers, 1 without one, 1 error, 2 of 3 correct (66.7%)",
        ),
    ],
)
def test_bar_and_summary(records: list[dict[str, object]], bar: str, closing: str) -> None:
    total = tally(*records)
    assert bar_text(total, 4, seconds=2.0) == bar
    assert bar_text(total, None, seconds=2.0) == bar.replace("/4", "", 1)
    assert summary(total, seconds=2.0) == closing


def test_the_bill_of_a_batch(capsys: pytest.CaptureFixture[str], pocket: Pair) -> None:
    show_summary(tally(RIGHT, SILENT), pocket, seconds=2.0)
    shown = capsys.readouterr().err
    assert "spent 4 units, 100 tokens generated" in shown
    assert "2.00 s" in shown
    assert "50 tokens generated a second" in shown
    assert "no world but PocketMath, and 2 of 2 problems had words, " in shown
    assert "problems had words, numbers or signs from outside it" in shown
