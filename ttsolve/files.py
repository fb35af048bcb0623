"""Files are written whole or not at all: what was there before survives a full disk or a kill.

What is long in coming is written in whole lines. And links to files, over which nothing is written
either.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ttsolve.errors import StorageError, UsageError

ROOM = "make room there or choose another folder"


@contextmanager
def replacing(path: Path, remedy: str = ROOM, *, follow: bool = True) -> Iterator[Path]:
    """A temporary file that becomes `path` when the block ends well, and vanishes when not.

    A device or a pipe is no file to be replaced: it is itself what is written into.

    Args:
        follow: of a link, what it leads to is replaced; else the link itself is.

    Raises:
        StorageError: it could not be written; the sentence ends with the `remedy`.
    """
    if path.exists() and not path.is_file():
        place = part = path
    else:
        place = Path(os.path.realpath(path)) if follow else path
        part = place.with_name(place.name + ".part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        yield part
        if part != place:
            os.replace(part, place)
    except BrokenPipeError:  # the reader has seen enough
        raise
    except OSError as error:
        reason = error.strerror or "the disk is full or fails"
        raise StorageError(f"Cannot write {path} ({reason}): {remedy}.") from error
    finally:
        if part != place:
            with suppress(OSError):  # what went wrong before is what the user must hear of
                part.unlink(missing_ok=True)


def check_folder(folder: Path, option: str) -> None:
    """Refuse, before anything is computed for it, a folder in whose place a file stands.

    Raises:
        UsageError: a file is in its way; the sentence names the option.
    """
    place = next(place for place in (folder, *folder.parents) if place.exists())
    if not place.is_dir():
        raise UsageError(f"{place} is a file: name a folder with {option}.")


def write_whole(path: Path, text: str) -> None:
    """Write a text file, UTF-8 with line feeds.

    Raises:
        StorageError: it could not be written.
    """
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


class LinesFile:
    """A file that grows by whole lines, there as soon as they are written.

    What was there before goes with the first of them.

    Raises:
        StorageError: it cannot be opened, for a line (`write`) there is no room; the sentence
            ends with the `remedy`.
    """

    def __init__(self, path: Path, remedy: str = ROOM) -> None:
        self.path, self.remedy = path, remedy
        self._length = 0  # bytes of whole lines
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "wb", buffering=0, opener=_not_emptied)  # noqa: SIM115
        except OSError as error:
            raise self._trouble(error) from error

    def write(self, line: str) -> None:
        """Write a line, all of it or nothing; "" empties a file to which none was written."""
        if not self._length:
            self._cut()
        rest = memoryview(line.encode())
        size = len(rest)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except BrokenPipeError:  # the reader has seen enough
            raise
        except OSError as error:
            self._cut()
            raise self._trouble(error) from error
        self._length += size

    def __enter__(self) -> LinesFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _cut(self) -> None:
        with suppress(OSError):  # a device or a pipe has no length
            self._file.seek(self._length)
            self._file.truncate()

    def _trouble(self, error: OSError) -> StorageError:
        return StorageError(f"Cannot write {self.path} ({error.strerror}): {self.remedy}.")


def _not_emptied(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_TRUNC, 0o666)


def link(place: Path, target: Path) -> None:
    """Let the target, a file or a folder, be found at a place: by a symbolic link where the system
    allows one, else by hard links, else by copies.

    Raises:
        OSError: it cannot be, or something else is there.
    """
    if place.exists() and place.samefile(target):
        return
    if place.is_symlink():
        place.unlink()
    if place.exists():  # perhaps the only copy of a model
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), place)
    try:
        place.symlink_to(target.resolve(), target_is_directory=target.is_dir())
    except OSError:  # Windows, for a user without the right to
        files = sorted(target.iterdir()) if target.is_dir() else [target]
        for file in files:
            at = place / file.name if target.is_dir() else place
            at.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, at)
            except OSError:
                shutil.copyfile(file, at)
