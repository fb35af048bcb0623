"""What several test modules share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from ttsolve.errors import PairError
from ttsolve.pair import Pair, load_pair


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> Iterator[None]:
    """What a shell starts in the background is deaf to Ctrl-C; tests of Ctrl-C must hear it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def pocket() -> Pair:
    """The embedded pair; tests that need it are skipped before it is trained."""
    try:
        return load_pair("pocket")
    except PairError as error:
        pytest.skip(f"the embedded pair is not here: {error}")
