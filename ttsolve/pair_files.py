"""The files of a pair: whether they are what they were, and what they are known by."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ttsolve.pair_rules import FILE, files_of
from ttsolve.toml import Place

if TYPE_CHECKING:
    from ttsolve.pair import Pair

WHOLE = 64 << 20  # bytes: larger files are known by their size and samples of their content


def verify_files(pair: Pair, largest: int | None = None) -> None:
    """Compare the pair's files with their checksums; those beyond `largest` bytes need only exist.

    Raises:
        PairError: one is missing or not what it was.
    """
    for key, name, checksum in files_of(pair):
        file = pair.folder / name
        small = largest is None or (file.is_file() and file.stat().st_size <= largest)
        _check_file(Place(pair.folder / FILE, key), file, checksum if small else None)


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
