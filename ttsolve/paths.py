"""Where pairs and the store are.

                           pairs, first match wins                        the store is in
    TTSOLVE_HOME is set    $TTSOLVE_HOME/models, then the carried ones    $TTSOLVE_HOME/cache
    a checkout             models/                                        cache/
    an installed package   the user's data folder, then the carried ones  the user's data folder

The *carried* pairs are those the wheel brings along, in ttsolve/_models.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from ttsolve.errors import UsageError

PACKAGE = Path(__file__).resolve().parent
HOME_VARIABLE = "TTSOLVE_HOME"
STORE = "ttsolve.db"
CHOSEN = "default"


def pair_folders() -> list[Path]:
    """The folders whose subfolders are pairs, in the order in which they are searched."""
    return list(dict.fromkeys([user_pairs(), carried_pairs()]))


def user_pairs() -> Path:
    """Where the user puts pairs, and where training writes them; it need not exist yet."""
    return (_home() or _user_data()) / "models"


def carried_pairs() -> Path:
    """Where the pairs are that come with ttsolve."""
    return PACKAGE.parent / "models" if _in_checkout() else PACKAGE / "_models"


def default_pair_file() -> Path:
    """Where the name of the user's own default pair is; it need not exist."""
    return user_pairs() / CHOSEN


def store_file() -> Path:
    """Where the store is; it need not exist yet."""
    home = _home()
    return (home / "cache" if home else _user_data()) / STORE


def _user_data() -> Path:
    return platformdirs.user_data_path("ttsolve", appauthor=False)


def _home() -> Path | None:
    if set_home := os.environ.get(HOME_VARIABLE):
        try:
            return Path(set_home).expanduser().resolve()
        except RuntimeError as error:
            raise UsageError(
                f"{HOME_VARIABLE} is {set_home!r}, the home of nobody known: name a folder."
            ) from error
    return PACKAGE.parent if _in_checkout() else None


def _in_checkout() -> bool:
    # An installed package has site-packages for a parent, which never holds a pyproject.toml.
    return (PACKAGE.parent / "pyproject.toml").is_file()
