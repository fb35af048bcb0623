"""A pair: a folder with a generator, perhaps a verifier, and the pair.toml that describes them.

    name = "pocket"                     [verifier]          # none: the vote is by majority
    about = "One sentence."             file = "verifier.onnx"
                                        sha256 = "…"
    [world]     # it knows this only    tokenizer = "tokenizer.json"
    name = "PocketMath"                 tokenizer_sha256 = "…"
    about = "One sentence."             aggregation = "last"

    [generator]                         [prompt]            # see prompts.PromptFormat
    file = "generator.gguf"             [sampling]          # see engine.Sampling
    sha256 = "…"                        [measured]          # whatever was measured of the pair

The dataclasses below are that file, key by key: a field without a default is a required key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from ttsolve import paths, toml
from ttsolve.engine import Sampling
from ttsolve.errors import ModelError, PairError
from ttsolve.files import write_whole
from ttsolve.prompts import PromptFormat
from ttsolve.toml import Place
from ttsolve.vote import Aggregation

DEFAULT = "pocket"  # the embedded pair
FILE = "pair.toml"
WHOLE = 64 << 20  # bytes: larger files are known by their size and samples of their content


@dataclass(frozen=True, slots=True)
class World:
    """The only world of problems that a pair knows."""

    name: str
    about: str


@dataclass(frozen=True, slots=True)
class GeneratorFile:
    """The generator's GGUF."""

    file: str  # inside the pair's folder
    sha256: str  # 64 hexadecimal digits; "": unknown (a bare generator)


@dataclass(frozen=True, slots=True)
class VerifierFiles:
    """The verifier's ONNX graph, its tokenizer, and how a solution's step scores become one."""

    file: str
    sha256: str
    tokenizer: str
    tokenizer_sha256: str
    aggregation: Aggregation = "last"


@dataclass(frozen=True, slots=True)
class Pair:
    """A generator and its verifier."""

    folder: Path
    name: str
    about: str
    generator: GeneratorFile
    verifier: VerifierFiles | None = None  # None: the vote is by majority
    world: World | None = None  # None: not bound to one
    prompt: PromptFormat = PromptFormat()
    sampling: Sampling = Sampling()
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def generator_path(self) -> Path:
        return self.folder / self.generator.file

    @property
    def verifier_path(self) -> Path | None:
        return self.folder / self.verifier.file if self.verifier else None

    @property
    def tokenizer_path(self) -> Path | None:
        return self.folder / self.verifier.tokenizer if self.verifier else None


def load_pair(name_or_folder: str | Path, verify: bool = True) -> Pair:
    """The pair of that name, or in that folder; `verify` compares every file with its checksum.

    Raises:
        PairError: no such pair; a wrong pair.toml; a file that is missing or not what it was.
    """
    named = isinstance(name_or_folder, str) and re.fullmatch(r"[\w-][\w.-]*", name_or_folder)
    folder = _folder_of(str(name_or_folder)) if named else Path(name_or_folder)
    pair = toml.read(Pair, folder / FILE, folder=folder)
    _check_values(pair)
    if named and pair.name != folder.name:
        place = Place(folder / FILE, "name")
        raise place.wrong(f"is not {folder.name!r}, the name of its folder", "make them equal")
    for key, file, checksum in _files(pair):
        _check_file(Place(folder / FILE, key), folder / file, checksum if verify else None)
    return pair


def list_pairs() -> list[Pair]:
    """Every pair that `load_pair` finds by its name, sorted; checksums are not compared."""
    return [load_pair(name, verify=False) for name in _names()]


def bare_pair(generator: Path) -> Pair:
    """A pair made of a GGUF alone: no verifier, the default prompt and sampling.

    Raises:
        ModelError: when there is no such file.
    """
    if not generator.is_file():
        raise ModelError(f"There is no file {generator}: give the path of a GGUF file.")
    file = GeneratorFile(generator.name, sha256="")
    return Pair(generator.parent, generator.stem, "A generator without a verifier.", file)


def write_pair(pair: Pair) -> Path:
    """Write the pair's pair.toml into its folder, whole or not at all; `load_pair` reads it back.

    Raises:
        StorageError: when it cannot be written.
    """
    target = pair.folder / FILE
    write_whole(target, toml.dump(pair))
    return target


def file_sha256(path: Path) -> str:
    """The file's checksum, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: Path) -> str:
    """blake2b of a file: of all of it up to 64 MiB, else of its size and 64 parts of 1 MiB."""
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=12)
    with path.open("rb") as file:
        if size <= WHOLE:
            digest.update(file.read())
        else:
            for i in range(64):
                file.seek((size - (1 << 20)) * i // 63)
                digest.update(file.read(1 << 20))
    return digest.hexdigest()


# --- finding and checking ---------------------------------------------------------------------


def _names() -> list[str]:
    folders = paths.pair_folders()
    return sorted({file.parent.name for folder in folders for file in folder.glob(f"*/{FILE}")})


def _folder_of(name: str) -> Path:
    for folder in paths.pair_folders():
        if (folder / name / FILE).is_file():
            return folder / name
    place = paths.user_pairs() / name
    raise PairError(f"There is no pair {name!r}: {toml.use(name, _names())}put it into {place}.")


def _files(pair: Pair) -> Iterator[tuple[str, str, str]]:
    """(key, file name, checksum) of every file a pair.toml names."""
    yield "generator.file", pair.generator.file, pair.generator.sha256
    if pair.verifier:
        yield "verifier.file", pair.verifier.file, pair.verifier.sha256
        yield "verifier.tokenizer", pair.verifier.tokenizer, pair.verifier.tokenizer_sha256


def _check_values(pair: Pair) -> None:
    for key, possible, remedy in _rules(pair):
        if not possible:
            place = Place(pair.folder / FILE, key)
            raise place.wrong("has an impossible value", f"give {remedy}")


def _check_file(place: Place, path: Path, checksum: str | None) -> None:
    if not path.is_file():
        raise place.wrong("names a file that is not there", f"put {path.name!r} into the folder")
    try:
        found = file_sha256(path) if checksum else None
    except OSError as error:
        trouble = f"names a file that cannot be read ({error.strerror})"
        raise place.wrong(trouble, "make it readable") from error
    if found != checksum:
        trouble = f"names {path.name!r}, whose sha256 is another"
        raise place.wrong(trouble, f"restore the file, or write {found} if you trust it")


def _rules(pair: Pair) -> Iterator[tuple[str, bool, str]]:
    """(key, whether its value is possible, what would be) beyond the value's type."""
    how, prompt = pair.sampling, pair.prompt
    yield "name", bool(re.fullmatch(r"[\w-][\w.-]*", pair.name)), "letters, digits, - _ . only"
    for key, file, checksum in _files(pair):
        # Judged as Windows would, everywhere: there a backslash and a drive lead out as well.
        path = PureWindowsPath(file)
        inside = bool(path.name) and not path.anchor and ".." not in path.parts
        yield key, inside, "a file inside the pair's folder"
        sha_key = key.replace("file", "sha256").replace("tokenizer", "tokenizer_sha256")
        yield sha_key, bool(re.fullmatch("[0-9a-f]{64}", checksum)), "64 hexadecimal digits"
    yield "prompt.template", "{question}" in prompt.template, "a text with {question} in it"
    yield "prompt.separator", prompt.separator != "", "a text that ends a step"
    yield "prompt.answer", prompt.answer != "", "a text that marks the answer"
    yield "sampling.temperature", 0 <= how.temperature < 100, "a number from 0 to 100"
    yield "sampling.top_k", how.top_k >= 0, "0 (off) or more"
    yield "sampling.top_p", 0 < how.top_p <= 1, "a number above 0, at most 1 (off)"
    yield "sampling.min_p", 0 <= how.min_p < 1, "a number from 0 (off), below 1"
    yield "sampling.max_tokens", how.max_tokens > 0, "1 or more"
