"""The way in, of the command `ttsolve` and of `python -m ttsolve`: Ctrl-C counts from here on."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130  # as in `cli_options`, which is not imported yet


def main() -> NoReturn:
    """Run the command line: see `ttsolve.cli.main`."""
    # An exception could get lost in what an import calls, and there is nothing to put in order.
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from ttsolve.cli import main as run

    signal.signal(signal.SIGINT, before)
    try:
        run()
    except KeyboardInterrupt:  # before or after what `run` does
        sys.exit(INTERRUPTED)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
