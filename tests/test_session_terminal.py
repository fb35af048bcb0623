"""A session as a person has it: in a terminal, with the embedded pair, killed and resumed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ttsolve
from ttsolve.pair import Pair

PATIENCE = 90.0  # seconds for what takes one on an idle machine
PROMPT = r"\nhomework>$"
PROBLEM = "Make 24 from 4, 7, 8, 8"

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Terminal:
    """A terminal of tmux, 100 columns wide, in which `ttsolve` runs."""

    def __init__(self, folder: Path, options: str) -> None:
        self.socket = str(folder / f"tmux{len(list(folder.glob('tmux*')))}")
        package = Path(ttsolve.__file__).parent.parent
        env = {"TTSOLVE_HOME": str(folder), "PYTHONPATH": str(package), "NO_COLOR": "1"}
        command = ["env", *(f"{k}={v}" for k, v in env.items()), sys.executable, "-m", "ttsolve"]
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "60", "-s", "test",
                   f"{shlex.join(command)} {options}")  # fmt: skip

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", self.socket, *arguments]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=PATIENCE)
        return done.stdout

    @property
    def screen(self) -> str:
        """What stands on the screen, and above it; lines that were wrapped are one."""
        shown = self._tmux("capture-pane", "-p", "-J", "-S", "-1000", "-t", "test")
        return "\n".join(line.rstrip() for line in shown.rstrip().splitlines())

    def type(self, text: str) -> None:
        """Type a line."""
        self._tmux("send-keys", "-t", "test", "-l", text)
        self.press("Enter")

    def press(self, key: str) -> None:
        """Press a key, as tmux names it."""
        self._tmux("send-keys", "-t", "test", key)

    def sees(self, pattern: str) -> re.Match[str]:
        """Wait until the pattern is on the screen."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.screen):
                return found
            time.sleep(0.1)
        pytest.fail(f"{pattern!r} did not come:\n{self.screen}")

    def kill(self) -> None:
        """Kill the process, and close the terminal."""
        pid = self._tmux("display-message", "-p", "-t", "test", "#{pane_pid}").strip()
        if pid:
            os.kill(int(pid), signal.SIGKILL)
        self._tmux("kill-server")


@pytest.fixture
def home(tmp_path: Path, pocket: Pair) -> Iterator[Path]:
    """The folder of a store, and of the models."""
    (tmp_path / "models").mkdir()
    yield tmp_path
    for socket in tmp_path.glob("tmux*"):
        subprocess.run(["tmux", "-S", str(socket), "kill-server"], capture_output=True)


def answered(terminal: Terminal, units: int | str) -> str:
    """The answer after a problem was solved with so many units."""
    found = terminal.sees(rf"(?m)^(.+)\nshare .+\nspent  {units} units, (?s:.)*\n\nhomework>$")
    return found[1]


def test_solve_more_kill_resume_why(home: Path) -> None:
    terminal = Terminal(home, "--session homework")
    terminal.sees("Session homework begins: pair pocket, budget 16, strategy best-of-n.")
    terminal.sees(PROMPT)
    terminal.type(PROBLEM)
    answered(terminal, 16)
    terminal.type("/more")
    answer = answered(terminal, 32)
    assert re.search(rf"homework> /more\n{PROBLEM}, budget 32\n", terminal.screen)
    spent = re.findall(r"([\d,]+) tokens generated(?: \(([\d,]+) recalled\))?", terminal.screen)
    assert spent[1][1] == spent[0][0]  # what the first half cost was not paid again
    terminal.kill()

    terminal = Terminal(home, "--session homework")
    terminal.sees("Session homework goes on: 1 problem so far, pair pocket, budget 16, strategy ")
    terminal.sees(rf"The last: {PROBLEM}, budget 32: {re.escape(answer)}, 0\.\d\d of the vote\.")
    terminal.type("/why")
    terminal.sees(r"the whole tree: ttsolve show 2")
    screen = terminal.screen
    assert re.search(r"best-of-n: n 32, temperature", screen)
    assert f"spent  32 units, {spent[1][0]} tokens generated ({spent[1][1]} recalled)" in screen
    assert re.search(r"step +sampled +different +dropped +best score\n +1 +32 ", screen)
    assert re.search(
        rf"share +weight +candidates +answer\n 0\.\d\d +\d+\.\d\d +\d+  {re.escape(answer)}", screen
    )
    assert re.search(rf"  \d\.\d\d Answer: {re.escape(answer)}\n", screen)
    terminal.press("Up")
    terminal.press("Up")
    terminal.sees("homework> /more$")
    terminal.press("C-c")  # it clears the line
    terminal.press("C-d")
    deadline = time.monotonic() + PATIENCE
    while terminal.screen and time.monotonic() < deadline:
        time.sleep(0.1)
    assert terminal.screen == ""


def test_ctrl_c_stops_the_problem_and_not_the_session(home: Path) -> None:
    terminal = Terminal(home, "--session homework --budget 8192")
    terminal.sees(PROMPT)
    terminal.type(PROBLEM)
    terminal.sees(r"[1-9]\d*/8192 samples")
    terminal.press("C-c")
    terminal.sees("Interrupted: this is the vote over the candidates there were.")
    answered(terminal, r"\d+")
    terminal.type("/nonsense")
    terminal.sees("Error: There is no command '/nonsense': type /help for the list.")
    terminal.type("/history")
    terminal.sees(r"\n1 .*, best-of-n 8192 +interrupted +Make 24")
    terminal.kill()
