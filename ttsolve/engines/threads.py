"""How many threads are fastest: measured, for a small model is quicker in one."""

from __future__ import annotations

import os
from collections.abc import Callable


def fastest(seconds: Callable[[int], float]) -> int:
    """All cores; one for a model so small, or cores so busy, that they wait for each other.

    `seconds`: how long a small piece of work takes so many threads.
    """
    cores = os.cpu_count() or 1
    alone = together = 0.0
    for _ in range(24):  # in turns: other programs come and go
        alone += seconds(1)
        if alone > 0.1:  # no small model
            return cores
        together += seconds(cores)
        if together > 2 * alone + 0.02:
            return 1
    return cores if together < 0.9 * alone else 1
