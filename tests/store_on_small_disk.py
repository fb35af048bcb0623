"""Run by test_store.py on a disk of 1 MB: `store_on_small_disk.py FILE full|read-only`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ttsolve.core import Problem, Step
from ttsolve.store import Grown, SampleKey, Store
from ttsolve.store_steps import path, root_row

ROOT = Problem("what").root


def key(seed: int) -> SampleKey:
    return SampleKey("g", "{}", seed, root_row(ROOT), path(ROOT)[-1])


def main(file: Path, how: str) -> None:
    """Print what the store tells, once; fail where something committed is gone."""
    with Store(file) as store:
        for seed in range(100):
            store.keep_sample(key(seed), Grown((Step(f"{seed} ", 1),), "stop"))
    if how == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(file.parent)], check=True)
    with Store(file, print) as store:
        seed = 100
        for seed in range(100, 1100 if how == "full" else 101):
            store.keep_sample(key(seed), Grown((Step(f"{seed} " * 1000, 1),), "stop"))
            store.flush()
        found = store.samples([key(number) for number in range(seed + 1)])
        here = [one is not None for one in found]
        assert here[-1] is False
        assert all(here[:100])
        assert here == sorted(here, reverse=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
