"""A pair: a folder with a generator, perhaps a verifier, and the pair.toml that describes them.

    name = "pocket"                     [verifier]          # none: the vote is by majority
    about = "One sentence."             file = "verifier.onnx"
                                        sha256 = "…"
    [world]     # it knows this only    tokenizer = "tokenizer.json"
    name = "PocketMath"                 tokenizer_sha256 = "…"
    about = "One sentence."             aggregation = "last"

    [generator]                         [reviser]           # none: the generator revises
    file = "generator.gguf"             file = "reviser.gguf"
    sha256 = "…"                        sha256 = "…"
                                        [reviser.verifier]  # keys as of [verifier]; none: that one
    [prompt]    # prompts.PromptFormat
    [sampling]  # engine.Sampling       [measured]          # whatever was measured of the pair

The dataclasses below are that file, key by key: a field without a default is a required key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ttsolve import paths, toml
from ttsolve.engine import Sampling
from ttsolve.errors import ModelError, PairError
from ttsolve.files import write_whole
from ttsolve.pair_files import WHOLE, verify_files
from ttsolve.pair_rules import FILE, NAME, check_values
from ttsolve.prompts import PromptFormat
from ttsolve.toml import Place
from ttsolve.vote import Aggregation

DEFAULT = "pocket"  # the embedded pair
VARIABLE = "TTSOLVE_PAIR"


@dataclass(frozen=True, slots=True)
class World:
    """The only world of problems that a pair knows."""

    name: str
    about: str
    signs: str | None = None  # its problems have beside letters and digits; None: not known
    largest: int | None = None  # number in its problems; None: not known


@dataclass(frozen=True, slots=True)
class GeneratorFile:
    """The generator: a GGUF file, or a model behind an endpoint."""

    file: str  # inside the pair's folder; or the address of an endpoint, http://…/v1
    sha256: str = ""  # 64 hexadecimal digits; "": unknown (a bare generator, an endpoint)
    model: str | None = None  # of an endpoint: which of its models; None: the one it has
    context: int | None = None  # tokens of prompt and solution; None: at most 4096, in 2 GiB

    @property
    def endpoint(self) -> str | None:
        """The address of the endpoint; None: it is a file."""
        return self.file if self.file.startswith(("http://", "https://")) else None


@dataclass(frozen=True, slots=True)
class VerifierFiles:
    """The verifier's ONNX graph, its tokenizer, and how a solution's step scores become one."""

    file: str
    sha256: str
    tokenizer: str
    tokenizer_sha256: str
    aggregation: Aggregation = "last"
    data_sha256: str | None = None  # of `file`.data, where the weights stand apart


@dataclass(frozen=True, slots=True)
class ReviserFiles:
    """The reviser's GGUF: a whole model, or a LoRA adapter over the generator; and its verifier."""

    file: str
    sha256: str
    verifier: VerifierFiles | None = None  # reads the earlier attempts; None: the pair's own does


@dataclass(frozen=True, slots=True)
class Pair:
    """A generator and its verifier, and perhaps a model trained to revise."""

    folder: Path
    name: str
    about: str
    generator: GeneratorFile
    verifier: VerifierFiles | None = None  # None: the vote is by majority
    world: World | None = None  # None: not bound to one
    prompt: PromptFormat = PromptFormat()
    sampling: Sampling = Sampling()
    measured: dict[str, Any] = field(default_factory=dict)
    reviser: ReviserFiles | None = None  # None: the generator revises, untrained

    @property
    def generator_path(self) -> Path:
        return self.folder / self.generator.file

    @property
    def verifier_path(self) -> Path | None:
        return self.folder / self.verifier.file if self.verifier else None

    @property
    def reviser_path(self) -> Path | None:
        return self.folder / self.reviser.file if self.reviser else None

    @property
    def tokenizer_path(self) -> Path | None:
        return self.folder / self.verifier.tokenizer if self.verifier else None


def load_pair(name_or_folder: str | Path, verify: bool = True) -> Pair:
    """The pair of that name, or in that folder.

    `verify` compares every file of up to 64 MiB with its checksum; `verify_files` all others too.

    Raises:
        PairError: no such pair; a wrong pair.toml; a file that is missing or not what it was.
    """
    named = isinstance(name_or_folder, str) and re.fullmatch(NAME, name_or_folder)
    folder = _folder_of(str(name_or_folder)) if named else Path(name_or_folder)
    pair = read_pair(folder / FILE)
    if named and pair.name != folder.name:
        place = Place(folder / FILE, "name")
        raise place.wrong(f"is not {folder.name!r}, the name of its folder", "make them equal")
    verify_files(pair, largest=WHOLE if verify else -1)
    return pair


def read_pair(file: Path) -> Pair:
    """The pair that a pair.toml describes, whether its files are there or not.

    Raises:
        PairError: it is wrong.
    """
    pair = toml.read(Pair, file, folder=file.parent)
    check_values(pair)
    return pair


def list_pairs(broken: Callable[[PairError], None] | None = None) -> list[Pair]:
    """Every pair that `load_pair` finds by its name, sorted; checksums are not compared.

    Raises:
        PairError: one cannot be used, and there is no `broken` to hear of it.
    """
    pairs = []
    for name in _names():
        try:
            pairs.append(load_pair(name, verify=False))
        except PairError as error:
            if broken is None:
                raise
            broken(error)
    return pairs


def default_pair() -> str:
    """The pair where none is named: TTSOLVE_PAIR, else `ttsolve models default`'s, else pocket."""
    file = paths.default_pair_file()
    return os.environ.get(VARIABLE) or (file.read_text().strip() if file.is_file() else DEFAULT)


def load_default(verify: bool = True) -> Pair:
    """The pair where none is named: see `load_pair`.

    Raises:
        PairError: it cannot be used; the sentence says who names it.
    """
    name = default_pair()
    try:
        return load_pair(name, verify)
    except PairError as error:
        if os.environ.get(VARIABLE):
            remedy = f"or change the variable {VARIABLE}, which names it"
        elif name != DEFAULT:
            remedy = "or choose another with `ttsolve models default NAME`"
        else:
            raise
        raise PairError(f"{str(error).removesuffix('.')}, {remedy}.") from error


def set_default_pair(name: str) -> None:
    """Let this pair be used where none is named.

    Raises:
        PairError, StorageError: there is none of that name, or it cannot be written down.
    """
    load_pair(name, verify=False)
    write_whole(paths.default_pair_file(), f"{name}\n")


def bare_pair(generator: Path) -> Pair:
    """A pair made of a GGUF alone: no verifier, the default prompt and sampling.

    Raises:
        ModelError: when there is no such file.
    """
    if not generator.is_file():
        raise ModelError(f"There is no file {generator}: give the path of a GGUF file.")
    file = GeneratorFile(generator.name)
    return Pair(generator.parent, generator.stem, "A generator without a verifier.", file)


def write_pair(pair: Pair) -> Path:
    """Write the pair's pair.toml into its folder, whole or not at all; `load_pair` reads it back.

    Raises:
        StorageError: when it cannot be written.
    """
    target = pair.folder / FILE
    write_whole(target, toml.dump(pair))
    return target


# --- finding ----------------------------------------------------------------------------------


def _names() -> list[str]:
    folders = paths.pair_folders()
    return sorted({file.parent.name for folder in folders for file in folder.glob(f"*/{FILE}")})


def _folder_of(name: str) -> Path:
    for folder in paths.pair_folders():
        if (folder / name / FILE).is_file():
            return folder / name
    if (Path(name) / FILE).is_file():
        raise PairError(f"There is no pair {name!r}, but a folder of that name: use ./{name}.")
    place = paths.user_pairs() / name
    raise PairError(f"There is no pair {name!r}: {toml.use(name, _names())}put it into {place}.")
