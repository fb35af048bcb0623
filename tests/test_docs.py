"""README.md: every command stands in it, and every command in it runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import ttsolve
from ttsolve import paths
from ttsolve.arithmetic import NotArithmetic, leaves, parse, value
from ttsolve.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGE = Path(ttsolve.__file__).parent
POCKET = paths.carried_pairs() / "pocket" / "generator.gguf"

# They take minutes to hours; of these only the options are checked.
LONG = ("ttsolve train", "ttsolve models export-prm", "ttsolve reproduce")

needs_pocket = pytest.mark.skipif(not POCKET.exists(), reason="the embedded pair is not there")
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="the console lines are bash")


def commands(group: Any, name: str = "ttsolve") -> Iterator[tuple[str, Any]]:
    """(what the user types, the command) for every command of the app."""
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


COMMANDS = dict(commands(typer.main.get_command(app)))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


SHOWN = [
    line.removeprefix("$ ")
    for block in blocks("console")
    for line in block.splitlines()
    if line.startswith("$ ")
]


def run(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `ttsolve` is the package under test."""
    script = f'ttsolve() {{ "{sys.executable}" -m ttsolve "$@"; }}\nset -euo pipefail\n{command}\n'
    path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        ["bash", "-c", script],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "100", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


# --- the commands -----------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_has_help(command: str) -> None:
    assert COMMANDS[command].help
    silent = [p.name for p in COMMANDS[command].params if not getattr(p, "help", None)]
    assert silent == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_stands_in_the_readme(command: str) -> None:
    assert re.search(rf"\b{command}\b", README)


def test_the_readme_shows_commands() -> None:
    assert len(SHOWN) > 5
    assert any(line.startswith(LONG) for line in SHOWN)


@needs_bash
@pytest.mark.parametrize("line", [line for line in SHOWN if line.startswith(LONG)])
def test_a_long_command_has_the_options_shown(line: str, tmp_path: Path) -> None:
    done = run(f"{line} --help", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Usage: ttsolve " in done.stdout


@needs_bash
@needs_pocket
@pytest.mark.parametrize("line", [line for line in SHOWN if "questions.jsonl" in line])
def test_a_shown_batch_runs(line: str, tmp_path: Path) -> None:
    questions = '{"question": "What is 55% of 200?", "answer": "#### 110"}\n{"problem": "2 + 2"}\n'
    (tmp_path / "questions.jsonl").write_text(questions)
    done = run(line, tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("2 lines in ")
    first, second = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert list(json.loads(first)) == list(json.loads(blocks("json")[0].splitlines()[0]))
    assert "correct" not in json.loads(second)


@needs_bash
@needs_pocket
@pytest.mark.parametrize("line", [s for s in SHOWN if not s.startswith(LONG) and "jsonl" not in s])
def test_a_shown_command_runs(line: str, tmp_path: Path) -> None:
    done = run(line, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


@needs_bash
@needs_pocket
def test_the_game_of_24_is_solved(tmp_path: Path) -> None:
    line = next(line for line in SHOWN if "Make 24 from" in line)
    numbers = re.findall(r"\d+", line.split('"')[1])[1:]
    answer = run(line, tmp_path).stdout.splitlines()[0]
    try:
        tree = parse(answer)
    except NotArithmetic:
        pytest.fail(f"{answer!r} is no expression")
    assert value(tree) == 24
    assert sorted(map(str, leaves(tree))) == sorted(numbers)


# --- the rest ---------------------------------------------------------------------------------


@needs_pocket
@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_shown_runs(code: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_two_commands_to_begin_with() -> None:
    first, second = (line for block in blocks("bash")[:2] for line in block.splitlines())
    assert re.fullmatch(r'pip install \. && ttsolve ".+" --budget \d+', first)
    assert second == "pip install '.[dev]' && pytest"


def test_the_layout_names_every_module() -> None:
    (layout,) = [block for block in blocks("text") if block.startswith("ttsolve/")]
    named, folder = set(), ""
    for indent, word in re.findall(r"^( +)(\w+(?:\.py|/))", layout, flags=re.MULTILINE):
        if word.endswith("/"):
            folder = word
        else:
            named.add((folder if len(indent) > 2 else "") + word)
    there = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    assert named == {path for path in there if not Path(path).name.startswith("__")}


def test_the_readmes_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    files = [link for link in links if not link.startswith("http")]
    missing = [file for file in files if not (ROOT / file).exists()]
    if not POCKET.exists():
        missing = [file for file in missing if "pocket" not in file]
    assert files
    assert missing == []


def test_contributing_is_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 100


@pytest.mark.parametrize("name", ["CHANGELOG.md", "LICENSE", "models/README.md", "justfile"])
def test_the_project_has(name: str) -> None:
    assert (ROOT / name).stat().st_size > 0


def test_the_pair_shown_in_models_readme_has_the_real_keys_and_defaults() -> None:
    """What models/README.md says a key's default is, is its default."""
    import tomllib

    from ttsolve.engine import Sampling
    from ttsolve.prompts import PromptFormat

    text = (ROOT / "models" / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```toml\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    table = tomllib.loads(shown)
    assert PromptFormat(**table["prompt"]) == PromptFormat()
    assert Sampling(**table["sampling"]) == Sampling()
