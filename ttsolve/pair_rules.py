"""What values a pair.toml may have, and which files it names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING

from ttsolve import paths
from ttsolve.errors import PairError
from ttsolve.toml import Place

if TYPE_CHECKING:
    from ttsolve.pair import Pair

FILE = "pair.toml"
NAME = r"[\w-][\w.-]*"
ENDPOINT = r"https?://[^/?#:\s]"  # how an address with a host begins
MOST = 1 << 24  # tokens: no vocabulary and no context has more, and runtimes count in 32 bits


def check_values(pair: Pair) -> None:
    """Refuse what no pair can have.

    Raises:
        PairError: a value is not possible.
    """
    for key, possible, remedy in _rules(pair):
        if not possible:
            place = Place(pair.folder / FILE, key)
            raise place.wrong("has an impossible value", f"give {remedy}")


def check_new(name: str) -> None:
    """Refuse a name that a pair has, so that no pair stands in the way of another.

    Raises:
        PairError: there is one of that name, the user's own or one that comes with ttsolve.
    """
    for folder in paths.pair_folders():
        if (folder / name / FILE).exists():
            raise PairError(
                f"There is a pair in {folder / name} already: choose another name, or remove it."
            )


def files_of(pair: Pair) -> Iterator[tuple[str, str, str]]:
    """(key, file name, checksum) of every file a pair.toml names."""
    if not pair.generator.endpoint:
        yield "generator.file", pair.generator.file, pair.generator.sha256
    verifiers = {"verifier": pair.verifier}
    if pair.reviser:
        yield "reviser.file", pair.reviser.file, pair.reviser.sha256
        verifiers["reviser.verifier"] = pair.reviser.verifier
    for key, files in verifiers.items():
        if files:
            yield f"{key}.file", files.file, files.sha256
            yield f"{key}.tokenizer", files.tokenizer, files.tokenizer_sha256
            if files.data_sha256 is not None:
                yield f"{key}.data", f"{files.file}.data", files.data_sha256


def _rules(pair: Pair) -> Iterator[tuple[str, bool, str]]:
    """(key, whether its value is possible, what would be) beyond the value's type."""
    how, prompt = pair.sampling, pair.prompt
    yield "name", bool(re.fullmatch(NAME, pair.name)), "letters, digits, - _ . only"
    if url := pair.generator.endpoint:
        yield "generator.file", bool(re.match(ENDPOINT, url)), "http://HOST/v1, with a host"
    for key, file, checksum in files_of(pair):
        # Judged as Windows would, everywhere: there a backslash and a drive lead out as well.
        path = PureWindowsPath(file)
        inside = bool(path.name) and not path.anchor and ".." not in path.parts
        yield key, inside, "a file inside the pair's folder"
        sha_key = f"{key}_sha256".replace("file_sha256", "sha256")
        yield sha_key, bool(re.fullmatch("[0-9a-f]{64}", checksum)), "64 hexadecimal digits"
    if pair.verifier and pair.reviser and pair.reviser.verifier:
        by = pair.verifier.aggregation  # samples and revisions are compared in one vote
        same = pair.reviser.verifier.aggregation == by
        yield "reviser.verifier.aggregation", same, f"{by!r}, as the verifier has"
    yield "prompt.template", "{question}" in prompt.template, "a text with {question} in it"
    yield "prompt.separator", prompt.separator != "", "a text that ends a step"
    yield "prompt.answer", prompt.answer != "", "a text that marks the answer"
    yield "prompt.system", prompt.chat or not prompt.system, 'chat = true with it, or ""'
    yield "prompt.stop", all(prompt.stop), "texts that are not empty"
    context = pair.generator.context
    yield "generator.context", context is None or 0 < context <= MOST, f"1 to {MOST}"
    yield "sampling.temperature", 0 <= how.temperature < 100, "a number from 0 to 100"
    yield "sampling.top_k", 0 <= how.top_k <= MOST, f"0 (off) to {MOST}"
    yield "sampling.top_p", 0 < how.top_p <= 1, "a number above 0, at most 1 (off)"
    yield "sampling.min_p", 0 <= how.min_p < 1, "a number from 0 (off), below 1"
    yield "sampling.max_tokens", 0 < how.max_tokens <= MOST, f"1 to {MOST}"
