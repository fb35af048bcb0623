"""What `gpu_check` measures with: the device's copies, llama-batched-bench, work for verifiers."""

from __future__ import annotations

import ctypes
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ttsolve.core import Problem, Solution, Step, Usage
from ttsolve.engine import Verifier
from ttsolve.engines import cuda

PROMPT_TOKENS = 32  # of llama-batched-bench; our questions are about as long
STEP = 32  # tokens of a step, about


def copy_rate(size: int, rounds: int = 20) -> float:
    """Bytes a second that the device (without a GPU: the processor) reads and writes in copies of
    `size` bytes."""
    if not cuda.gpu_found():
        source, target = np.ones(size, np.uint8), np.empty(size, np.uint8)
        started = time.perf_counter()
        for _ in range(rounds):
            np.copyto(target, source)
        return 2 * size * rounds / (time.perf_counter() - started)
    driver = cuda._driver()
    with _context(driver), _buffer(driver, size) as source, _buffer(driver, size) as target:
        for i in range(rounds + 1):  # the first is slower
            if i == 1:
                _checked(driver.cuCtxSynchronize())
                started = time.perf_counter()
            _checked(driver.cuMemcpyDtoD_v2(target, source, ctypes.c_size_t(size)))
        _checked(driver.cuCtxSynchronize())
        return 2 * size * rounds / (time.perf_counter() - started)


@contextmanager
def _context(driver: Any) -> Iterator[None]:
    """The first card's own context, in which both runtimes work as well."""
    device, context = ctypes.c_int(0), ctypes.c_void_p(0)
    _checked(driver.cuDeviceGet(ctypes.byref(device), 0))
    _checked(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    _checked(driver.cuCtxPushCurrent_v2(context))
    try:
        yield
    finally:
        driver.cuCtxPopCurrent_v2(ctypes.byref(context))
        driver.cuDevicePrimaryCtxRelease_v2(device)


@contextmanager
def _buffer(driver: Any, size: int) -> Iterator[ctypes.c_uint64]:
    place = ctypes.c_uint64(0)
    _checked(driver.cuMemAlloc_v2(ctypes.byref(place), ctypes.c_size_t(size)))
    try:
        yield place
    finally:
        driver.cuMemFree_v2(place)


def _checked(code: int) -> None:
    if code:
        raise RuntimeError(f"the CUDA driver failed with code {code}")


def batched_bench(binary: str, path: Path, widths: Sequence[int]) -> dict[int, float]:
    """Tokens a second that llama-batched-bench generates at each width."""
    cells = max(widths) * (PROMPT_TOKENS + 128) + 512
    options: dict[str, Any] = {"-m": path, "-c": cells, "-b": 2048, "-ub": 512, "-ngl": 99}
    options |= {"-npp": PROMPT_TOKENS, "-ntg": 128, "-npl": ",".join(map(str, widths))}
    words = [str(word) for option in options.items() for word in option]
    done = subprocess.run(
        [binary, *words, "--output-format", "jsonl"], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{binary} failed: {done.stderr.strip()[-300:]}")
    records = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {record["pl"]: record["speed_tg"] for record in records}


def solutions(problems: Sequence[Problem], steps: int) -> list[Solution]:
    """Four different solutions of each problem."""
    return [
        Solution(
            problem,
            tuple(Step(f"{i} + {k} = {i + k}, and {7 * k} more.\n", STEP) for k in range(steps)),
        )
        for problem in problems
        for i in range(4)
    ]


def grown(verifier: Verifier, whole: Sequence[Solution]) -> list[Solution]:
    """The solutions as they are scored when they arrive step by step, as in a search."""
    out = [solution.problem.root for solution in whole]
    for k in range(len(whole[0].steps)):
        longer = [g.grow(s.steps[k]) for g, s in zip(out, whole, strict=True)]
        out = verifier.score(longer)[0]
    return out


class Timed:
    """A verifier, and the seconds spent in it."""

    def __init__(self, verifier: Verifier) -> None:
        self.verifier, self.seconds = verifier, 0.0
        self.name, self.params = verifier.name, verifier.params

    def score(self, given: Sequence[Solution]) -> tuple[list[Solution], Usage]:
        started = time.perf_counter()
        out = self.verifier.score(given)
        self.seconds += time.perf_counter() - started
        return out


def separator(pieces: Sequence[bytes]) -> str:
    """The character that about one token in `STEP` has: random weights then make such steps."""
    marks = [chr(i) for i in range(33, 127)]
    shares = {m: sum(m.encode() in piece for piece in pieces) / len(pieces) for m in marks}
    return min(marks, key=lambda mark: abs(shares[mark] - 1 / STEP))
