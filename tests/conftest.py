"""What several test modules share."""

from __future__ import annotations

import pytest

from ttsolve.errors import PairError
from ttsolve.pair import Pair, load_pair


@pytest.fixture(scope="session")
def pocket() -> Pair:
    """The embedded pair; tests that need it are skipped before it is trained."""
    try:
        return load_pair("pocket")
    except PairError as error:
        pytest.skip(f"the embedded pair is not here: {error}")
