"""What several test modules share."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from ttsolve.errors import PairError
from ttsolve.pair import Pair, ReviserFiles, load_pair, write_pair
from ttsolve.pair_files import file_sha256


@pytest.fixture(scope="session", autouse=True)
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[Path]]:
    """Empty places for stores: no test, and nothing it starts, may touch the user's own."""
    base = tmp_path_factory.mktemp("homes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTSOLVE_HOME", str(base / "shared"))
        yield (base / str(number) for number in count())


@pytest.fixture(autouse=True)
def home_of_its_own(homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test begins with nothing kept."""
    monkeypatch.setenv("TTSOLVE_HOME", str(next(homes)))


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


@pytest.fixture(scope="session")
def revising(pocket: Pair, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The embedded pair with a reviser that says something, whatever it was shown: random weights.

    Its verifier is the pair's own, which then reads the earlier attempts as well.
    """
    gguf = pytest.importorskip("gguf_maker")
    folder = tmp_path_factory.mktemp("pairs") / "revising"
    folder.mkdir()
    assert pocket.verifier is not None
    for name in (pocket.generator.file, pocket.verifier.file, pocket.verifier.tokenizer):
        shutil.copy(pocket.folder / name, folder / name)
    shape = replace(gguf.TINY, context=512)
    reviser = gguf.make_gguf(folder / "babbler.gguf", shape, tokenizer=pocket.generator_path)
    files = ReviserFiles(reviser.name, file_sha256(reviser), pocket.verifier)
    sampling = replace(pocket.sampling, max_tokens=40)
    pair = replace(pocket, name="revising", folder=folder, reviser=files, sampling=sampling)
    write_pair(pair)
    return load_pair(folder)
