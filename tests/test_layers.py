"""The layers of the package, as pyproject.toml declares them; what may be imported when."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ttsolve

ROOT = Path(__file__).parent.parent
HEAVY = (
    *("llama_cpp", "onnxruntime", "torch", "sympy", "math_verify", "numpy", "sqlite_utils"),
    "prompt_toolkit",
)


def test_imports_point_downward() -> None:
    pytest.importorskip("importlinter", reason="import-linter comes with the dev extra")
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as run; run()",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["solve", "--help"], ["train", "--help"]])
def test_help_loads_no_runtime(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from ttsolve.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as done: assert not done.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
    assert "Usage: ttsolve" in done.stdout


def test_each_runtime_has_one_door() -> None:
    """Which files name a runtime in an import, found by reading them."""
    package = ROOT / "ttsolve"
    doors = {
        "llama_cpp": {"bench.py", *(f"engines/{p.name}" for p in package.glob("*/llama_*.py"))},
        "onnxruntime": {"engines/onnx_model.py", "engines/onnx_pool.py"},
        "typer": {path.name for path in package.glob("*cli*.py")},
        "rich": {path.name for path in package.glob("render*.py")},
        "sqlite_utils": {path.name for path in package.glob("store*.py")},
        "prompt_toolkit": {"line_editor.py"},
    }
    for runtime, allowed in doors.items():
        users = {
            path.relative_to(package).as_posix()
            for path in package.rglob("*.py")
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.strip().startswith((f"import {runtime}", f"from {runtime}"))
        }
        assert users <= allowed, runtime


@pytest.mark.skipif(sys.platform == "win32", reason="there it keeps no files in the home")
def test_onnx_runtime_reports_to_nobody(tmp_path: Path) -> None:
    """What it would report it keeps in the home folder first, but not where CI is set."""
    pytest.importorskip("onnxruntime")
    kept_out = ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    fresh = {key: value for key, value in os.environ.items() if key not in kept_out}
    code = "import ttsolve.engines.onnx_model, os; print(os.listdir(os.environ['HOME']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=fresh | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_torch_stays_in_training() -> None:
    package = ROOT / "ttsolve"
    users = {
        path.relative_to(package).parts[0]
        for path in package.rglob("*.py")
        if "import torch" in path.read_text(encoding="utf-8")
    }
    assert users <= {"train"}


def test_the_changelog_begins_with_what_is_new() -> None:
    first = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("## [", 2)[1]
    assert first.startswith(("Unreleased]", f"{ttsolve.__version__}]"))
