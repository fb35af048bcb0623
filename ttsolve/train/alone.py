"""One process at a time writes a file of a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ttsolve.errors import UsageError


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Hold a file for this process: the system lets go of it, however the process ends.

    Where no lock can be made nothing is held, and writing the file itself will say why.

    Raises:
        UsageError: another process holds it.
    """
    with ExitStack() as held:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(file.with_name(f".{file.name}.lock"), timeout=0))
        except Timeout as error:
            raise UsageError(
                f"Another process is writing {file}: wait for it, or work in another folder."
            ) from error
        except (OSError, NotImplementedError):  # a full or read-only disk, one that knows no locks
            pass
        yield
