"""Where pairs and the cache are: three ways to have ttsolve, three answers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from ttsolve import paths
from ttsolve.errors import UsageError


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pyproject.toml").touch()
    return place(tmp_path, monkeypatch)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return place(tmp_path, monkeypatch)


def place(parent: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("TTSOLVE_HOME", raising=False)
    monkeypatch.setattr(paths, "PACKAGE", parent / "ttsolve")
    return parent


def test_in_a_checkout(checkout: Path) -> None:
    assert paths.pair_folders() == [checkout / "models"]
    assert paths.store_file() == checkout / "cache" / "ttsolve.db"


def test_installed(installed: Path) -> None:
    data = platformdirs.user_data_path("ttsolve", appauthor=False)
    assert paths.pair_folders() == [data / "models", installed / "ttsolve" / "_models"]
    assert paths.store_file() == data / "ttsolve.db"


def test_the_variable_moves_both_but_keeps_the_carried_pairs(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTSOLVE_HOME", str(installed / "my home"))
    carried = installed / "ttsolve" / "_models"
    assert paths.pair_folders() == [installed / "my home" / "models", carried]
    assert paths.store_file() == installed / "my home" / "cache" / "ttsolve.db"


def test_the_variable_in_a_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTSOLVE_HOME", str(checkout / "elsewhere"))
    assert paths.pair_folders() == [checkout / "elsewhere" / "models", checkout / "models"]
    assert paths.store_file() == checkout / "elsewhere" / "cache" / "ttsolve.db"


def test_an_empty_variable_is_none(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTSOLVE_HOME", "")
    assert paths.store_file() == checkout / "cache" / "ttsolve.db"


def test_the_variable_knows_the_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTSOLVE_HOME", "~/ttsolve")
    assert paths.user_pairs() == Path.home().resolve() / "ttsolve" / "models"


def test_a_copy_of_the_package_finds_what_it_carries(tmp_path: Path) -> None:
    """As a wheel lays it out: no pyproject.toml beside the package, the pair inside it."""
    source = Path(paths.__file__).parent
    shutil.copytree(source, tmp_path / "ttsolve", ignore=shutil.ignore_patterns("__pycache__"))
    asked = "from ttsolve import paths; print(paths.carried_pairs())"
    run = subprocess.run(
        [sys.executable, "-c", asked], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(run.stdout.strip()) == (tmp_path / "ttsolve" / "_models").resolve()


def test_the_home_of_nobody_is_one_sentence(installed: Path, monkeypatch) -> None:
    monkeypatch.setenv("TTSOLVE_HOME", "~nobody-of-that-name")
    with pytest.raises(UsageError, match=r"^TTSOLVE_HOME is '~nobody-of-that-name'.*name a folder"):
        paths.store_file()
