"""Sessions: what is typed, what comes of it, what is remembered. No terminal is needed here."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from dice_maker import Counting, press, press_twice
from ttsolve import cli_store
from ttsolve.cli import main, with_command
from ttsolve.cli_session import COMMANDS, Conversation
from ttsolve.core import Problem, Solution, Usage
from ttsolve.engine import Engine
from ttsolve.engines import sim
from ttsolve.errors import ProblemTooLong
from ttsolve.line_editor import LineEditor
from ttsolve.session import Settings
from ttsolve.solve import SIM, solve
from ttsolve.store import Store
from ttsolve.store_care import prune
from ttsolve.store_sessions import keep_session, keep_typed, session_settings, typed
from ttsolve.strategies import STRATEGIES, BestOfN, strategy_named

QUESTION = "what is six times seven"


class Dice(Counting):
    """Dice that refuse long problems."""

    def sample(self, prefixes: Sequence[Solution], *rest: Any) -> Any:
        if any(len(prefix.problem.question) > 99 for prefix in prefixes):
            raise ProblemTooLong("The problem is too long: shorten it.")
        return super().sample(prefixes, *rest)


DICE = Dice()  # of all sessions of a test


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pairs that were opened."""
    names: list[str] = []
    real = cli_store.open_models
    monkeypatch.setattr(sim, "SimGenerator", lambda: DICE)
    monkeypatch.setattr(DICE, "drawn", 0)
    monkeypatch.setattr(DICE, "then", {})
    monkeypatch.setattr(
        cli_store, "open_models", lambda pair, layers: names.append(pair.name) or real(pair, layers)
    )
    return names


class Talk:
    """Types lines into a session, and keeps what was said."""

    def __init__(
        self, file: Path | None, capsys: pytest.CaptureFixture[str], *, passing: bool = False
    ) -> None:
        self.file, self.capsys, self.passing = file, capsys, passing

    def __call__(self, *lines: str, name: str | None = "homework", **given: Any) -> Talk:
        with Store(self.file, passing=self.passing) as store:
            talk = Conversation(store, name, {"pair": "sim", **given})
            waiting = iter(lines)
            talk.hold(lambda: next(waiting, None))
            self.session = talk.session
            self.left = list(waiting)
        self.out, self.err = self.capsys.readouterr()
        return self

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("Error: ")]


@pytest.fixture
def talk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Talk:
    return Talk(tmp_path / "ttsolve.db", capsys)


def state(talk: Talk) -> tuple[object, ...]:
    """What a session knows, but for the seconds that its last problem took."""
    session = talk.session
    last = session.last
    told = replace(session.why(), bill=Usage()) if last and last.account else None
    return session.settings, session.problems, last and replace(last, account=None), told


# --- /more ----------------------------------------------------------------------------------------


def test_more_pays_for_the_difference_only(talk: Talk) -> None:
    talk(QUESTION, "/more", "/more", budget=8)
    assert DICE.drawn == 32
    assert "what is six times seven, budget 16\n" in talk.err
    assert "spent  16 units, 400 tokens generated (400 recalled)" in talk.out
    assert "spent  32 units, 800 tokens generated (800 recalled)" in talk.out
    assert talk.session.settings.budget == 8


@pytest.mark.parametrize("name", STRATEGIES)
def test_more_is_the_run_of_twice_the_budget(talk: Talk, name: str) -> None:
    talk(QUESTION, "/more", budget=8, strategy=name)
    engine = Engine(sim.SimGenerator(), sim.SimVerifier(), budget=16)
    result = solve(Problem(QUESTION), engine, strategy_named(name, 16), SIM)
    told = talk.session.why()
    assert (told.tree.answer, told.tree.share) == (result.answer, result.share)
    assert told.votes == result.votes


def test_more_of_what_was_stopped_is_what_was_left(talk: Talk) -> None:
    DICE.then = {5: press}
    talk(QUESTION)
    assert "Interrupted: this is the vote over the candidates there were." in talk.err
    assert "5 of 5 candidates with an answer\nspent  5 units, 250 tokens" in talk.out
    assert "spent  5 units, 250 tokens" in talk("/why").out
    talk("/more")
    assert (
        talk.err.splitlines()[1]
        == f"The last: {QUESTION}, budget 16: stopped, /more goes on with it."
    )
    assert "550 tokens generated (250 recalled)" in talk.out
    assert "budget 32" in talk("/more").err


def test_more_goes_on_where_a_promise_was_kept(talk: Talk) -> None:
    with Store(None) as store:
        session = Conversation(store, None, {"pair": "sim", "strategy": "auto"}).session
        session.solve(session.asked(QUESTION))
        sure = session.settings.updated(strategy="auto", confidence=0.5)
        session.settings = sure  # dice have no calibration, so nobody could type this
        assert session.more().strategy.confidence is None  # type: ignore[attr-defined]


# --- what is remembered ---------------------------------------------------------------------------

LINES = (QUESTION, "/budget 4", "another", "/strategy beam width=2", "/more", "a third", "/more")


@pytest.mark.parametrize("cut", range(len(LINES) + 1))
def test_resumed_is_uninterrupted(talk: Talk, cut: int) -> None:
    whole = state(talk(*LINES, name="whole"))
    talk(*LINES[:cut], name="cut")
    assert state(talk(*LINES[cut:], name="cut")) == whole


def test_what_it_says_when_it_comes_back(talk: Talk) -> None:
    talk()
    assert talk.err.splitlines() == [
        "Session homework begins: pair sim, budget 16, strategy best-of-n.",
        "Type a problem; /help lists the commands, Ctrl-D ends the session.",
        "Kept: ttsolve --session homework goes on.",
    ]
    talk("one", "/more", QUESTION, "/budget 4", "/strategy beam width=2")
    assert talk().err.splitlines()[:2] == [
        "Session homework goes on: 2 problems so far, pair sim, budget 4, strategy beam width=2.",
        f"The last: {QUESTION}, budget 16: 42, {talk.session.why().tree.share:.2f} of the vote.",
    ]


def test_what_is_given_takes_the_place_of_what_is_kept(talk: Talk) -> None:
    talk("/strategy beam width=2", "/budget 4", seed=7)
    assert talk().session.settings == Settings(
        budget=4, strategy="beam", settings={"width": "2"}, pair="sim", seed=7
    )
    assert talk(budget=9, strategy="lookahead").session.settings == Settings(
        budget=9, strategy="lookahead", pair="sim", seed=7
    )
    kept = Settings(pair="mine", generator=None)
    assert kept.updated(generator="file.gguf") == Settings(generator="file.gguf")


def test_what_another_version_keeps_is_no_obstacle(talk: Talk) -> None:
    with Store(talk.file) as store:
        keep_session(store, "homework", {"budget": 4, "colour": "green"})
    assert talk().session.settings == Settings(budget=4, pair="sim")


def test_sessions_share_samples_but_nothing_else(talk: Talk) -> None:
    talk(QUESTION, name="a")
    talk(QUESTION, "/history", name="b", budget=4)
    assert DICE.drawn == 16
    assert [line.split()[0] for line in talk.out.splitlines()[-1:]] == ["2"]
    assert talk("/history", name="a").out.startswith("1 ")
    assert "begins" in talk(name="c").err


def test_a_session_without_a_name_is_not_kept(talk: Talk) -> None:
    talk(QUESTION, "/more", name=None)
    assert talk.err.splitlines()[0].startswith("A session begins: pair sim, ")
    assert "Kept" not in talk.err
    with Store(talk.file) as store:
        assert len(store.runs(9)) == 2
        assert store.read(lambda db: db.execute("SELECT * FROM sessions").fetchall(), []) == []


def test_where_nothing_is_kept_a_session_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    talk = Talk(None, capsys)(QUESTION, "/more", "/why", "/history", name=None)
    assert DICE.drawn == 48
    assert "share" in talk.out
    assert "ttsolve show" not in talk.out
    assert talk.errors == ["Error: Nothing is kept: begin with a readable store."]


def test_without_a_file_a_session_recalls_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    talk = Talk(None, capsys, passing=True)
    for _ in range(2):
        DICE.drawn = 0
        talk(QUESTION, "/more", "/history", "/why", name=None)
        assert DICE.drawn == 32
        assert "(800 recalled)" in talk.out
        assert [line.split()[0] for line in talk.out.splitlines() if "best-of-n" in line][:2] == [
            *("2", "1")
        ]
        assert "ttsolve show" not in talk.out
        assert talk.errors == []
    DICE.then = {DICE.drawn + 5: press}
    assert "550 tokens generated (250 recalled)" in talk(QUESTION, "/more", name=None).out


def test_a_killed_run_is_the_last_one(talk: Talk) -> None:
    """As the store is when the process ends between the beginning of a run and its end."""
    talk("one")
    with Store(talk.file) as store:
        engine = Engine(sim.SimGenerator(), sim.SimVerifier(), budget=4)
        run = store.begin_run(Problem("two"), engine, BestOfN(4), SIM)
        keep_session(store, "homework", {"pair": "sim"}, run)
    talk("/why", "/more", "/why")
    assert talk.err.splitlines()[1] == "The last: two, budget 4: stopped, /more goes on with it."
    stopped = "The last problem was stopped before a vote: /more goes on with it."
    assert talk.errors == [f"Error: {stopped}"]
    assert "4 of 4 candidates with an answer" in talk.out


def test_pruned_a_session_begins_anew(talk: Talk) -> None:
    talk(QUESTION)
    with Store(talk.file) as store:
        keep_typed(store, QUESTION)
        prune(store, datetime.now(UTC) + timedelta(days=1))
        assert (typed(store), session_settings(store, "homework")) == ([], None)
    assert "begins" in talk().err


# --- one problem after another --------------------------------------------------------------------


def test_the_models_are_opened_once_and_only_when_needed(talk: Talk, opened: list[str]) -> None:
    talk("/help", "/budget 4")
    assert opened == []
    talk("one", "/more", "two")
    assert opened == ["sim"]
    talk("one", "/why")  # all of it is kept
    assert opened == ["sim"]


def test_an_error_of_one_problem_is_one_sentence(talk: Talk) -> None:
    lengthy = "long " * 30
    talk("one", lengthy, "two", lengthy, "/more", "/history", lengthy, budget=4)
    assert talk.errors == ["Error: The problem is too long: shorten it."] * 3
    assert "two, budget 8" in talk.err
    assert talk.out.count("failed: The problem is too long: shorten it.") == 1  # asked twice
    assert "The last: two, budget 8: " in talk().err


def test_a_verifier_that_is_not_there(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_store, "open_models", lambda *_: (DICE, None))
    talk(QUESTION, "/strategy beam", QUESTION, "/strategy majority", QUESTION)
    [error] = talk.errors
    assert error.startswith("Error: The strategy 'beam' ranks steps by a verifier, and the pair")
    assert talk.out.count("share  ") == 2


def test_ctrl_c_twice_stops_at_once_and_the_session_goes_on(talk: Talk) -> None:
    before = signal.getsignal(signal.SIGINT)
    DICE.then = {5: press_twice}
    talk(QUESTION, "/why", "/more")
    assert "Stopped at once." in talk.err
    assert talk.errors == [
        "Error: The last problem was stopped before a vote: /more goes on with it."
    ]
    assert "16 of 16 candidates with an answer" in talk.out
    assert DICE.drawn == 16
    assert signal.getsignal(signal.SIGINT) is before


def test_the_unexpected_ends_the_session_and_nothing_else(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Dice, "sample", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            talk(QUESTION)
    talk("/history", "/more")
    assert "failed: Unexpected ZeroDivisionError (division by zero)" in talk.out
    assert talk.errors == ["Error: There is no problem yet to spend more on: type one first."]


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("/mroe", "There is no command '/mroe': type /more, or /help for the list."),
        ("/xyzzy", "There is no command '/xyzzy': type /help for the list."),
        ("/", "There is no command '/': type /help for the list."),
        ("/more 3", "The command /more stands alone: leave '3' out."),
        ("a\udcffb", "The line is not UTF-8 text: type it again."),
        ("/more", "There is no problem yet to spend more on: type one first."),
        ("/why", "There is no problem yet to tell of: type one first."),
        ("/budget many", "The budget 'many' cannot be spent: give a whole number from 1 to 65536."),
        ("/budget 4 5", "The budget '4 5' cannot be spent: give a whole number from 1 to 65536."),
        ("/strategy beems", "There is no strategy 'beems': use "),
        ("/strategy beam width", "The setting 'width' has no value: write width=VALUE."),
        ("/strategy beam wdith=4", "The strategy 'beam' has no setting 'wdith': use "),
        ("/strategy auto confidence=2", "The confidence '2' is not possible: give one between"),
        ("/strategy beam confidence=0.9", "A confidence needs a policy: use it with"),
        ("/strategy auto confidence=0.9", "The pair 'sim' has no calibration for 0.9: run"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_changes_nothing(
    talk: Talk, typed: str, sentence: str
) -> None:
    talk("/budget 4", typed, "/quit", "left")
    [error] = talk.errors
    assert error.startswith(f"Error: {sentence}")
    assert talk.session.settings == Settings(budget=4, pair="sim")
    assert talk.left == ["left"]


def test_the_largest_budget_is_not_doubled(talk: Talk) -> None:
    talk(QUESTION)
    with closing(sqlite3.connect(str(talk.file))) as db, db:
        db.execute("UPDATE runs SET budget = 65536")
    talk("/more")
    assert talk.errors[0].startswith("Error: The budget '131072' cannot be spent")


def test_help_names_every_command(talk: Talk) -> None:
    talk("/help")
    with Store(None) as store:
        commands = Conversation(store, None, {"pair": "sim"})._commands
    assert [command.split()[0] for command in COMMANDS] == list(commands)
    assert all(command in talk.out for command in COMMANDS)


# --- /why -----------------------------------------------------------------------------------------


def test_why(talk: Talk) -> None:
    talk("what is p=0.6", "/why", budget=8)
    why = talk.out.split("\n\n", 2)[2]
    head, rounds, vote, steps, tree = why.rstrip().split("\n\n")
    result = talk.session.why()
    assert head.splitlines()[0] == "what is p=0.6"
    assert head.splitlines()[1].startswith("best-of-n: n 8, temperature 1.0, vote weighted")
    assert head.splitlines()[2].startswith("spent  8 units, 400 tokens generated, ")
    assert rounds.splitlines()[0].split() == [
        "step",
        "sampled",
        "different",
        "dropped",
        "best",
        "score",
    ]
    assert [line.split()[:2] for line in rounds.splitlines()[1:]] == [
        [str(step), "8"] for step in range(1, 6)
    ]
    shares = [line.split() for line in vote.splitlines()[1:]]
    assert shares[0][0] == f"{result.tree.share:.2f}"
    assert shares[0][3] == result.tree.answer
    assert sum(int(count) for _, _, count, _ in shares) == 8
    assert steps.splitlines()[-1].endswith(f"Answer: {result.tree.answer}")
    assert tree == f"the whole tree: ttsolve show {result.run}"


def test_why_cuts_nothing_on_a_narrow_terminal(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    talk("what is p=0.6", "/why", budget=8)
    assert "…" not in talk.out
    assert all(len(line) <= 40 for line in talk.out.splitlines() if line.startswith((" ", "step")))
    assert "candidates" in talk.out


def test_why_counts_rollouts_and_what_was_dropped(talk: Talk) -> None:
    talk(QUESTION, "/why", strategy="lookahead", budget=16)
    [head] = [line for line in talk.out.splitlines() if line.startswith("step")]
    assert "rollouts" in head
    talk(QUESTION, "/why", strategy="auto", budget=4)
    assert "auto: " in talk.out


def test_why_is_the_same_another_day(talk: Talk) -> None:
    first = talk(QUESTION, "/why", budget=4).out.split("\n\n", 2)[2]
    assert talk("/why").out == first


# --- at the terminal ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("", "session"),
        ("--session homework", "session --session homework"),
        ("--budget 64 --strategy beam --set width=4", None),
        ("--debug --pair sim", "--debug session --pair sim"),
        ("--few-shot file", "session --few-shot file"),
        ("q --budget 4", "solve q --budget 4"),
        ("--session homework q", "solve --session homework q"),
        ("history", "history"),
        ("--help", "--help"),
        ("--version", "--version"),
    ],
)
def test_alone_on_a_terminal_it_is_a_session(typed: str, meant: str | None) -> None:
    expected = f"session {typed}" if meant is None else meant
    assert with_command(typed.split(), terminal=True) == expected.split()


@pytest.mark.parametrize("piped", [True, False])
def test_a_session_that_is_named_is_no_batch(piped: bool) -> None:
    for given in ("--session homework", "--budget 4 --session=homework"):
        assert with_command(given.split(), piped=piped) == f"session {given}".split()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--session", "a", "--no-cache"), "leave --session or --no-cache out."),
        (("--session", " "), "The session has no name: give one"),
        (("--session", "a\x1bb"), r"name 'a\x1bb' is no line of text: leave the rest out."),
        (("--session", "a\udcffb"), r"name 'a\udcffb' is no line of text"),
        (("--seed", str(2**63)), "The seed '9223372036854775808' is not possible"),
        ((), "A session needs a terminal: pipe problems into ttsolve batch instead."),
    ],
)
def test_options_that_cannot_be(
    capsys: pytest.CaptureFixture[str], arguments: Sequence[str], sentence: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["session", *arguments])
    out, err = capsys.readouterr()
    assert (ended.value.code, out, len(err.splitlines())) == (2, "", 1)
    assert sentence in err


def test_history_of_one_session(talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    talk("one", name="a")
    talk("two", name="b")
    for which, expected in (
        (["--session", "a"], ["one"]),
        ([], ["two", "one"]),
        (["--session", "c"], []),
    ):
        with pytest.raises(SystemExit):
            main(["history", "--cache", str(talk.file), *which])
        assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == expected


@pytest.fixture
def typing() -> Iterator[Callable[[str], LineEditor]]:
    """An editor at which those keys are pressed."""
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):

        def press(text: str) -> LineEditor:
            keys.send_text(text)
            return LineEditor("> ", ["last", "first"], kept.append, ["/more", "/budget"])

        kept: list[str] = []
        press.kept = kept  # type: ignore[attr-defined]
        yield press


@pytest.mark.parametrize(
    ("keys", "lines", "kept"),
    [
        ("abc\r", ["abc"], ["abc"]),
        ("abc\x03d\r", ["d"], ["d"]),  # Ctrl-C clears the line
        ("abd\x1b[Dc\r", ["abcd"], ["abcd"]),  # an arrow
        ("\x1b[A\r", ["last"], []),
        ("\x1b[A\x1b[A\r", ["first"], ["first"]),
        ("/m\t\r", ["/more"], ["/more"]),
        ("a\rb\r", ["a", "b"], ["a", "b"]),
        ("\x1b[200~two\nlines\x1b[201~\r", ["two\nlines"], ["two\nlines"]),  # pasted
    ],
)
def test_the_line_is_edited(
    typing: Callable[[str], LineEditor], keys: str, lines: list[str], kept: list[str]
) -> None:
    read = typing(f"{keys}\x04")
    assert [*iter(read, None)] == lines
    assert typing.kept == kept  # type: ignore[attr-defined]


def test_typed_lines_are_kept_the_last_first(tmp_path: Path) -> None:
    file = tmp_path / "ttsolve.db"
    with Store(file) as store:
        for line in ("one", "two", "one", "three", "a\udcffb"):
            keep_typed(store, line)
    with Store(file) as store:
        assert typed(store) == ["a?b", "three", "one", "two"]
        assert typed(store, limit=1) == ["a?b"]
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT count(*) FROM typed").fetchone() == (5,)
