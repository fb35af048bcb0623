"""Which cores decode: all of them one batch, or each a batch of its own."""

from __future__ import annotations

import os
from collections.abc import Callable

from ttsolve.gguf_file import WIDTH

# Bytes of a model's weights: one thread is fastest, for several only wait for each other, and a GPU
# gains nothing.
SMALL = 64 << 20
LANES = 16  # sequences that a loop has at least: with fewer, much of its time is Python's


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def loops_for(width: int) -> int:
    """How many loops share `width` sequences of a small model."""
    return max(1, min(cores(), width // LANES))


def most_lanes(limit: int) -> int:
    """How many sequences a small model is given where nobody says: enough for all cores."""
    return min(limit, max(WIDTH, LANES * cores()))


def fastest(seconds: Callable[[int], float]) -> int:
    """How many threads decode one batch: all cores; one where they are too busy for that.

    `seconds`: how long a small piece of work takes so many threads.
    """
    most = cores()
    alone = together = 0.0
    for _ in range(24):  # in turns: other programs come and go
        together += seconds(most)
        if together > 0.1 and not alone:  # a large model
            return most
        alone += seconds(1)
        if alone + together > 0.3:
            break
    return most if together < 0.9 * alone else 1
