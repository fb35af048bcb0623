"""Files are written whole or not at all: what was there before survives a full disk or a kill."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ttsolve.errors import StorageError

ROOM = "make room there or choose another folder"


@contextmanager
def replacing(path: Path, remedy: str = ROOM) -> Iterator[Path]:
    """A temporary file that becomes `path` when the block ends well, and vanishes when not.

    Raises:
        StorageError: it could not be written; the sentence ends with the `remedy`.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        reason = error.strerror or "the disk is full or fails"
        raise StorageError(f"Cannot write {path} ({reason}): {remedy}.") from error
    finally:
        with suppress(OSError):  # what went wrong before is what the user must hear of
            part.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file, UTF-8 with line feeds.

    Raises:
        StorageError: it could not be written.
    """
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
