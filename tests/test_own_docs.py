"""README's commands about models of one's own, on twins of theirs with random weights.

The rule: a block of README that is called `shell-session` shows models that have to be fetched. Its
lines run in their order, in one folder where each model that they name has a twin; of exports only
the options are checked. A twin says nothing of worth, so that no answer is an answer.
"""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gguf_maker import TINY, make_gguf
from test_chat import CHATML
from test_docs import LONG, blocks
from test_endpoint import Fake
from ttsolve.cli import main

URL = "http://localhost:8000/v1"
LINES = [
    line.removeprefix("$ ") for block in blocks("shell-session") for line in block.splitlines()
]
SERVED = "First, 15 / 100 = 0.15.\n\nSo 0.15 * 80 = 12.\n\nThe answer is $\\boxed{12}$."


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a twin of every model that the lines name."""
    pytest.importorskip("torch")
    maker = pytest.importorskip("prm_maker")
    from ttsolve.train.export_prm import export_prm

    folder = tmp_path_factory.mktemp("twins")
    for name in re.findall(r"\S+\.gguf", " ".join(LINES)):
        make_gguf(folder / name, TINY, chat_template=CHATML)
    for line in LINES:
        if line.startswith("ttsolve models export-prm"):
            _, _, _, source, _, out, *_ = line.split()
            family = next(f for f, (name, _) in maker.WRITERS.items() if source.endswith(name))
            (folder / source).mkdir(parents=True)
            maker.WRITERS[family][1](folder / source)
            export_prm(str(folder / source), folder / out)
    return folder


@pytest.fixture
def served() -> Iterator[str]:
    """An endpoint that knows how to solve one problem."""
    fake = Fake()
    fake.continues = lambda body: SERVED[_overlap(body["prompt"], SERVED) :]
    fake.answers["/props"] = {"chat_template": CHATML}
    threading.Thread(target=fake.serve_forever, daemon=True).start()
    yield fake.url
    fake.shutdown()
    fake.server_close()


def _overlap(prompt: str, text: str) -> int:
    """How much of the text stands at the end of the prompt already."""
    return next(n for n in range(len(text), -1, -1) if prompt.endswith(text[:n]))


def test_the_commands_run_on_twins(
    twins: Path,
    served: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TTSOLVE_HOME", str(tmp_path))
    monkeypatch.chdir(twins)
    told = {}
    for line in LINES:
        words = shlex.split(line.replace(URL, served))[1:]
        with pytest.raises(SystemExit) as ended:
            main([*words, "--help"] if line.startswith(LONG) else words)
        told[line], err = capfd.readouterr()
        assert ended.value.code in (0, 1), f"{line}\n{err}"
        assert "Error" not in err, f"{line}\n{err}"
        assert told[line], line
    answers = [told[line].splitlines()[0] for line in LINES if URL in line or "served" in line]
    assert answers == ["12", answers[1], "12"]
    made = {path.name for path in (tmp_path / "models").iterdir()}
    assert made == {"default", "llama", "qwen", "served"}


def test_every_command_about_own_models_is_shown() -> None:
    text = " ".join(LINES)
    for words in ("models add", "models check", "models default", "--generator http://", "--pair"):
        assert words in text
