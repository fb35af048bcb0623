"""The command line, run as a user runs it: through `main`, mostly on the simulator."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from dice_maker import Counting, press, press_twice
from ttsolve import cli, cli_store
from ttsolve.cli import COMMANDS, main, with_command
from ttsolve.engines import sim
from ttsolve.pair import GeneratorFile, Pair, World, write_pair
from ttsolve.pair_files import file_sha256

QUESTION = "what is six times seven"
HERE = Path(__file__)
SIM = ("--pair", "sim")
HEAVY = ["llama_cpp", "onnxruntime", "torch", "sympy", "math_verify", "numpy"]


class Run:
    """Runs the command line in this process, and keeps what it wrote."""

    def __init__(self, capsys: pytest.CaptureFixture[str]):
        self.capsys = capsys

    def __call__(self, *arguments: str) -> Run:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        self.code = ended.value.code
        self.out, self.err = self.capsys.readouterr()
        return self

    @property
    def json(self) -> dict[str, Any]:
        [line] = self.out.splitlines()
        return json.loads(line)


class Terminal(io.TextIOWrapper):
    """A stdin at which somebody sits."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO()))
    for variable in ("TTSOLVE_DEBUG", "FORCE_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    return Run(capsys)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for the user's pairs."""
    monkeypatch.setenv("TTSOLVE_HOME", str(tmp_path))
    return tmp_path


# --- the bare form ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("", "--help"),
        ("--help", "--help"),
        ("--version", "--version"),
        ("models list", "models list"),
        ("--debug models list", "--debug models list"),
        ("q", "solve q"),
        ("q --budget 4", "solve q --budget 4"),
        ("--budget 4 q", "solve --budget 4 q"),
        ("--budget 4 bench", "solve --budget 4 bench"),
        ("--debug q", "--debug solve q"),
        ("--seed 1", "solve --seed 1"),
        ("models", "models --help"),
        ("-", "solve -"),
        ("-- bench", "solve -- bench"),
        ("--seed 1 -- bench", "solve --seed 1 -- bench"),
        ("solve bench", "solve bench"),
        ("q --help", "solve q --help"),
    ],
)
def test_where_solve_is_put(typed: str, meant: str) -> None:
    assert with_command(typed.split()) == meant.split()


@pytest.mark.parametrize(
    "arguments",
    [
        ("solve", QUESTION, *SIM),
        (QUESTION, *SIM),
        (*SIM, QUESTION),
        (*SIM, "--budget", "16", "--", QUESTION),
        ("--debug", QUESTION, *SIM),
        (QUESTION, *SIM, "--debug"),
    ],
)
def test_every_form_gives_the_same_answer_and_gives_it_first(
    run: Run, arguments: Sequence[str]
) -> None:
    run(*arguments)
    assert (run.code, run.err) == (0, "")
    answer, share, spent, *_ = run.out.splitlines()
    assert answer == sim.RIGHT_ANSWER
    assert share.startswith("share  ")
    assert spent.startswith("spent  16 units, 800 tokens generated")


@pytest.mark.parametrize("problem", [*sorted(COMMANDS), "--budget", "-5 + 3"])
def test_a_problem_may_look_like_a_command_or_an_option(run: Run, problem: str) -> None:
    assert run(*SIM, "--json", "--", problem).json["problem"] == problem
    assert run("solve", *SIM, "--json", "--", problem).json["problem"] == problem


def test_a_problem_from_stdin(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    data = "  Ünter\nzwei Zeilen \n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))
    assert run("-", *SIM, "--json").json["problem"] == "Ünter\nzwei Zeilen"


# --- what it prints ---------------------------------------------------------------------------


def test_json(run: Run) -> None:
    options = ("--budget", "4", "--seed", "9", "--temperature", "0.5")
    run(QUESTION, *SIM, "--json", "--strategy", "best-of-n", *options)
    record = run.json
    assert list(record) == [
        *("problem", "answer", "share", "strategy", "settings", "seed", "pair", "units", "bill"),
        "candidates",
    ]
    assert list(record["bill"]) == [
        *("generated_tokens", "prompt_tokens", "reused_tokens", "verifier_tokens", "seconds"),
        *("generator_flops", "verifier_flops", "recalled_tokens", "recalled_scores"),
    ]
    assert [list(c) for c in record["candidates"]] == [["answer", "score", "steps", "finish"]] * 4
    assert list(record["candidates"][0]["steps"][0]) == ["text", "score"]
    chosen = (record["strategy"], record["seed"], record["units"], record["pair"])
    assert chosen == ("best-of-n", 9, 4, "sim")
    assert record["settings"]["temperature"] == 0.5


def test_the_policy_chooses_where_nothing_is_named(run: Run) -> None:
    run(QUESTION, *SIM, "--json", "--budget", "4")
    assert run.json["strategy"] == "auto"
    assert run.json["settings"]["chosen"] == "beam:width=4"  # as the paper found at small budgets


def test_equal_seeds_repeat_a_run(run: Run) -> None:
    def candidates(seed: int) -> Any:
        return run(QUESTION, *SIM, "--json", "--seed", str(seed)).json["candidates"]

    assert candidates(1) == candidates(1) != candidates(2)


def test_steps_shows_every_distinct_candidate(run: Run) -> None:
    assert run(QUESTION, *SIM).out.count("Answer: ") == 1
    texts = {
        "".join(step["text"] for step in candidate["steps"])
        for candidate in run(QUESTION, *SIM, "--json").json["candidates"]
    }
    assert run(QUESTION, *SIM, "--steps").out.count("Answer: ") == len(texts) > 1


def test_majority_spends_nothing_on_the_verifier(run: Run) -> None:
    record = run(QUESTION, *SIM, "--json", "--strategy", "majority").json
    assert record["settings"]["vote"] == record["strategy"] == "majority"
    assert record["bill"]["verifier_tokens"] == 0


def test_no_answer_is_exit_code_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim, "TOKENS", 10_000)
    run(QUESTION, *SIM)
    assert (run.code, run.out.splitlines()[0]) == (1, "(no answer)")


def test_every_command_has_help(run: Run) -> None:
    def walk(command: Any, path: tuple[str, ...]) -> None:
        assert command.help, path
        assert run(*path, "--help").code == 0
        for name, child in getattr(command, "commands", {}).items():
            walk(child, (*path, name))

    walk(get_command(cli.app), ())
    assert '"PROBLEM"' in run().out


def test_version(run: Run) -> None:
    assert run("--version").out.startswith("ttsolve ")


# --- bad input --------------------------------------------------------------------------------

NO_BUDGET = "cannot be spent: give a whole number from 1 to 65536."


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("",), "The problem is empty"),
        ((" \n\t",), "The problem is empty"),
        (("\udcff",), "The problem is not UTF-8 text"),
        (("a\0b",), "The problem has a NUL character"),
        (("x" * (2**20 + 1),), "The problem is longer than 1,048,576 bytes: shorten it."),
        ((QUESTION, "--budget", "0"), f"The budget '0' {NO_BUDGET}"),
        ((QUESTION, "--budget", "-1"), f"The budget '-1' {NO_BUDGET}"),
        ((QUESTION, "--budget", "1e9"), f"The budget '1e9' {NO_BUDGET}"),
        ((QUESTION, "--budget", "1000000000"), f"The budget '1000000000' {NO_BUDGET}"),
        ((QUESTION, "--budget", "9" * 5000), NO_BUDGET),
        ((QUESTION, "--budget", "many"), f"The budget 'many' {NO_BUDGET}"),
        ((QUESTION, "--budget", "2.5"), f"The budget '2.5' {NO_BUDGET}"),
        ((QUESTION, "--temperature", "-0.5"), "The temperature '-0.5' is not possible"),
        ((QUESTION, "--temperature", "nan"), "The temperature 'nan' is not possible"),
        ((QUESTION, "--temperature", "hot"), "The temperature 'hot' is not possible"),
        ((QUESTION, "--gpu-layers", "-2"), "'--gpu-layers'"),
        ((QUESTION, "--seed", "x"), "The seed 'x' is not possible: give a whole number"),
        ((QUESTION, "--strategy", "beems"), "use auto, best-of-n, majority, beam, "),
        ((QUESTION, "--pair", "nosuch"), "There is no pair 'nosuch'"),
        ((QUESTION, "--generator", "nosuch.gguf"), "There is no file nosuch.gguf"),
        ((QUESTION, "--generator", "http://"), "http:// is no address, as it has no host: write"),
        ((QUESTION, "--generator", "https:///"), "https:/// is no address, as it has no host"),
        (("models", "add", "http://", "--name", "hh"), "http:// is no address, as it has no host"),
        ((QUESTION, "--generator", "x.gguf", "--pair", "sim"), "leave --pair or --generator out"),
        ((QUESTION, "--budgte", "4"), "No such option: --budgte"),
        (("models", "show", "nosuch"), "There is no pair 'nosuch'"),
        (("bench", *SIM), "choose a pair of models"),
        (("two", "words"), 'put it in quotes, as "two words".'),
        (("hsitory",), "There is no command 'hsitory': type history, or `ttsolve solve hsitory`"),
        (("modles", "list"), "There is no command 'modles': type models, or"),
        ((str(HERE),), f"{HERE} is a file: type ttsolve batch {HERE} for the problems in it."),
        (("--seed", "1"), "Missing argument 'PROBLEM'"),
        (("--json",), "There is no problem for --json: type one before it, or - for one"),
        (("-5 + 3",), 'The problem "-5 + 3" begins like an option: type ttsolve solve -- "-5 + 3"'),
        (("-x = 4",), 'type ttsolve solve -- "-x = 4".'),
        (("-7", "--budget", "4"), 'type ttsolve solve -- "-7".'),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    run: Run, arguments: Sequence[str], sentence: str
) -> None:
    if "--pair" not in arguments and "--generator" not in arguments and arguments[0] != "models":
        arguments = (*SIM, *arguments)
    run(*arguments)
    assert (run.code, run.out) == (2, "")
    [line] = run.err.splitlines()
    assert line.startswith("Error: ")
    assert sentence in line


def test_a_problem_behind_its_command_that_looks_like_an_option(run: Run) -> None:
    run("solve", *SIM, "-5 + 3")
    assert (run.code, run.out) == (2, "")
    assert 'type ttsolve solve -- "-5 + 3".' in run.err


def test_a_group_alone_shows_its_help(run: Run) -> None:
    for group in cli.GROUPS:
        run(group)
        assert (run.code, run.err) == (0, "")
        assert run.out.startswith(f"Usage: ttsolve {group} ")


def test_an_unknown_pair_is_told_the_known_ones(run: Run, home: Path) -> None:
    a_pair(home, "tiny")
    assert "'tiny'" in run(QUESTION, "--pair", "tinny").err


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator of random weights: it never gets to an answer."""
    pytest.importorskip("gguf", reason="makes a GGUF file")
    from gguf_maker import TINY, make_gguf

    return make_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", TINY)


def test_a_generator_alone(run: Run, gguf: Path) -> None:
    run(QUESTION, "--generator", str(gguf), "--budget", "2", "--json")
    assert (run.code, run.err) == (1, "")
    assert (run.json["pair"], run.json["answer"], run.json["units"]) == ("tiny", None, 2)
    assert run.json["settings"]["verifier"] is None
    assert run.json["settings"]["vote"] == "majority"
    assert run.json["bill"]["generated_tokens"] > 0


@pytest.mark.parametrize("size", [0, 3, 3000])
def test_a_truncated_generator(run: Run, gguf: Path, tmp_path: Path, size: int) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(gguf.read_bytes()[:size])
    run(QUESTION, "--generator", str(cut))
    assert (run.code, run.out) == (2, "")
    assert len(run.err.splitlines()) == 1


def test_a_problem_longer_than_the_context(run: Run, gguf: Path) -> None:
    run("what " * 500, "--generator", str(gguf))
    assert (run.code, run.out) == (2, "")
    assert "shorten" in run.err
    assert len(run.err.splitlines()) == 1


# --- models -----------------------------------------------------------------------------------


def a_pair(home: Path, name: str, world: World | None = None) -> Pair:
    """A pair without a verifier, whose generator is no model at all."""
    folder = home / "models" / name
    folder.mkdir(parents=True)
    file = folder / "generator.gguf"
    file.write_bytes(b"GGUF")
    generator = GeneratorFile(file.name, file_sha256(file))
    pair = Pair(
        folder=folder, name=name, about=f"The pair {name}.", world=world, generator=generator
    )
    write_pair(pair)
    return pair


def test_models(run: Run, home: Path) -> None:
    a_pair(home, "tiny")
    a_pair(home, "other", World("Testland", "Nothing but tests."))
    lines = [line.split(maxsplit=1) for line in run("models", "list").out.splitlines()]
    assert {("other", "The pair other."), ("tiny", "The pair tiny.")} <= {tuple(x) for x in lines}
    run("models", "show", "other")
    assert run.code == 0
    assert "Testland" in run.out
    assert "none: the vote is by majority" in run.out


# --- what it warns of -------------------------------------------------------------------------


class Reader(sim.SimGenerator):
    """Dice that know a closed list of words."""

    def tokenize(self, text: str) -> list[int]:
        return [0] if text.strip() in {"what", "is", "six", "times", "seven"} else [0, 1]


def test_a_problem_from_another_world(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_pair(home, "worldly", World("Testland", "Nothing but tests."))
    monkeypatch.setattr(cli_store, "open_models", lambda pair, gpu_layers: (Reader(), None))
    assert run(QUESTION, "--pair", "worldly").err == ""
    run("who wrote what", "--pair", "worldly")
    assert run.code == 0
    assert "no world but Testland" in run.err
    assert "who, wrote" in run.err
    assert run.out.splitlines()[1].endswith("there is no verifier")


# --- how it ends ------------------------------------------------------------------------------


def test_ctrl_c_gives_the_vote_over_what_there_is(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim, "SimGenerator", lambda: Counting(then={5: press}))
    before = signal.getsignal(signal.SIGINT)
    run(QUESTION, *SIM, "--json", "--strategy", "best-of-n")
    assert run.code == 130
    assert run.err == "Interrupted: this is the vote over the candidates there were.\n"
    assert run.json["interrupted"] is True
    assert [c["finish"] for c in run.json["candidates"]] == ["stop"] * 5 + ["budget"] * 11
    assert run.json["answer"] == sim.RIGHT_ANSWER
    assert run.json["units"] == 5
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_twice_ends_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim, "SimGenerator", lambda: Counting(then={5: press_twice}))
    run(QUESTION, *SIM)
    assert (run.code, run.out, run.err) == (130, "", "")


@pytest.mark.parametrize("module", ["typer", "ttsolve.cli_batch", "rich.console"])
def test_ctrl_c_while_modules_are_imported_is_quiet(module: str) -> None:
    program = (
        "import os, signal, sys\n"
        "class Press:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Press())\n"
        "from ttsolve.__main__ import main; main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


class Interrupted(sim.SimGenerator):
    def sample(self, *_: object) -> Any:
        raise ImportError("initialization failed") from KeyboardInterrupt()


def test_ctrl_c_while_a_runtime_is_imported_is_quiet(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim, "SimGenerator", Interrupted)
    run(QUESTION, *SIM)
    assert (run.code, run.out, run.err) == (130, "", "")


class Broken(sim.SimGenerator):
    def sample(self, *_: object) -> Any:
        raise ZeroDivisionError("boom")


@pytest.mark.parametrize("arguments", [(QUESTION, *SIM, "--debug"), ("--debug", QUESTION, *SIM)])
def test_the_unexpected(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]
) -> None:
    monkeypatch.setattr(sim, "SimGenerator", Broken)
    run(QUESTION, *SIM)
    sentence = "Error: Unexpected ZeroDivisionError (boom): run again with --debug to see where.\n"
    assert (run.code, run.out, run.err) == (1, "", sentence)
    run(*arguments)
    assert run.code == 1
    assert "Traceback" in run.err
    monkeypatch.setenv("TTSOLVE_DEBUG", "1")
    assert "Traceback" in run(QUESTION, *SIM).err


def ttsolve(*arguments: str, **how: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ttsolve", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **how)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_error(unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    how = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with ttsolve(QUESTION, *SIM, "--json", "--budget", "1", stdout=write, env=how) as process:
        os.close(write)
        assert process.communicate()[1] == ""
        assert process.returncode == 1


@pytest.mark.skipif(os.name != "posix", reason="a shell closes the streams")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str) -> None:
    line = ["sh", "-c", f'"$0" -m ttsolve "$@" {closed}', sys.executable, QUESTION, *SIM]
    done = subprocess.run(line, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    empty = subprocess.run([*line[:4], "-"], capture_output=True, text=True)
    assert empty.returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full, ttsolve(QUESTION, *SIM, stdout=full) as process:
        error = process.communicate()[1]
    assert error == "Error: No space is left on the disk: free some and run again.\n"
    assert process.returncode == 1


def test_a_terminal_without_utf8() -> None:
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    for arguments in (["é²", *SIM, "--json"], ["--help"]):
        with ttsolve(*arguments, stdout=subprocess.PIPE, env=ascii_only) as process:
            out, error = process.communicate()
        assert (process.returncode, error) == (0, "")
    assert "PROBLEM" in out


def test_help_loads_no_runtime() -> None:
    program = (
        "import sys; from ttsolve.cli import main\n"
        "for line in ('--help', 'solve --help', '--version', 'models list', 'train --help'):\n"
        "    try: main(line.split())\n"
        f"    except SystemExit: print(line, *(m for m in {HEAVY} if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    lines = ["--help", "solve --help", "--version", "models list", "train --help"]
    assert [line for line in done.stdout.splitlines() if line.startswith(tuple(lines))] == lines


def test_the_embedded_pair(run: Run, pocket: Pair) -> None:
    run("Make 24 from 4, 7, 8, 8", "--budget", "16", "--json")
    assert run.code == 0
    assert run.err == ""
    assert {step["score"] is None for c in run.json["candidates"] for step in c["steps"]} == {False}
    run("Prove that there are infinitely many primes", "--budget", "1")
    assert "no world but PocketMath" in run.err
    run("1 + " * 600 + "eleven")  # what is refused gets no other word
    assert run.code == 2
    assert run.err.count("\n") == 1
    assert pocket.world is not None


def test_training_without_its_packages(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in [name for name in sys.modules if name.startswith("ttsolve.train.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torch", None)
    run("train", "generator", str(tmp_path / "work"))
    assert (run.code, run.out) == (2, "")
    assert "pip install 'ttsolve[train]'" in run.err
    assert len(run.err.splitlines()) == 1
    assert not (tmp_path / "work").exists()
