"""Runs a pair on three problems for real, and tells whether its parts fit one another."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from ttsolve import gpu
from ttsolve.answers import answer_of
from ttsolve.core import Problem, Solution
from ttsolve.engine import Generator, Verifier
from ttsolve.gguf_file import read_gguf
from ttsolve.grade import grade
from ttsolve.pair import Pair
from ttsolve.pair_files import verify_files
from ttsolve.pair_rules import files_of
from ttsolve.solve import open_models

SAMPLES = 4  # of each problem
TOKENS = 512  # of a sample, at most
PROBLEMS = (
    Problem("What is 17 + 25?", "42"),
    Problem("Ada has 12 books and buys 7 more. How many books has Ada now?", "19"),
    Problem("A train goes 60 km in an hour. How many km does it go in 3 hours?", "180"),
)


@dataclass
class Report:
    """What was found."""

    found: dict[str, str] = field(default_factory=dict)  # by what it is about, in words
    misfits: list[str] = field(default_factory=list)  # sentences; empty: all fits


def check_pair(
    pair: Pair, gpu_layers: int = -1, progress: Callable[[str], None] = lambda line: None
) -> Report:
    """Verify the pair's files and test vectors, and let it solve three problems.

    Raises:
        PairError: a file is missing or not what it was.
        ModelError: a model cannot be opened, or does not reproduce its test vectors.
    """
    report = Report()
    names = [name for _, name, _ in files_of(pair)]
    size = sum((pair.folder / name).stat().st_size for name in names)
    if size > 1e9:
        progress(f"hashing {size / 1e9:.1f} GB")
    verify_files(pair)
    if not pair.generator.endpoint:
        # Not among what is heard below: it is about the machine, and no misfit.
        gpu.warn_if_unused(pair.generator_path, gpu_layers)
    report.found["files"] = f"{len(names)}, {size / 1e6:,.1f} MB, as their checksums say"
    with _heard(report.misfits):
        started = time.perf_counter()
        generator, verifier = open_models(pair, gpu_layers)
        report.found["opened"] = f"in {time.perf_counter() - started:.1f} s"
        _describe(report, pair, generator, verifier)
        _run(report, pair, generator, verifier)
    report.found["memory"] = f"{_memory()} here; {memory_needed(pair)}"
    return report


def memory_needed(pair: Pair) -> str:
    """What the pair's files and caches take, by computation, in words."""
    parts: dict[str, float] = {}
    if not pair.generator.endpoint:
        file = read_gguf(pair.generator_path)
        parts |= gpu.generator_parts(file, pair.generator.context, gpu_layers=None)
    if pair.verifier_path:
        parts |= gpu.verifier_parts(pair.verifier_path)
    return f"about {sum(parts.values()) / 1e9:.1f} GB needed ({gpu.itemised(parts)})"


def _describe(report: Report, pair: Pair, generator: Any, verifier: Any) -> None:
    context = getattr(generator, "context", None)
    device = getattr(generator, "device", pair.generator.file)
    words = [str(device)]
    if context:
        words.append(f"{generator.width} sequences of {context:,} tokens")
    report.found["generator"] = ", ".join(words)
    if verifier is None:
        report.found["verifier"] = "none: the vote is by majority"
        return
    tests = "; its test vectors come out" if verifier.vectors else ""
    where = gpu.device_name(verifier.device)
    report.found["verifier"] = f"{where}, reads {verifier.context:,} tokens{tests}"
    if context and pair.sampling.max_tokens > verifier.context:
        report.misfits.append(
            f"A solution may have {pair.sampling.max_tokens:,} tokens, and the verifier reads "
            f"{verifier.context:,}: lower sampling.max_tokens."
        )


def _run(report: Report, pair: Pair, generator: Generator, verifier: Verifier | None) -> None:
    problems = _problems(pair)
    roots = [problem.root for problem in problems for _ in range(SAMPLES)]
    tokens = min(pair.sampling.max_tokens, TOKENS)
    how = [replace(pair.sampling, max_tokens=tokens, seed=seed) for seed in range(len(roots))]
    started = time.perf_counter()
    solutions, usage = generator.sample(roots, how)
    speed = [f"{usage.generated_tokens / (time.perf_counter() - started):,.0f} tokens/s generated"]
    if verifier:
        started = time.perf_counter()
        solutions, used = verifier.score(solutions)
        rate = used.verifier_tokens / (time.perf_counter() - started)
        speed.append(f"{rate:,.0f} tokens/s verified")
    report.found["speed"] = ", ".join(speed)
    _look(report, pair, solutions)


def _look(report: Report, pair: Pair, solutions: Sequence[Solution]) -> None:
    """What the solutions show of prompt, steps and answers."""
    prompt, n = pair.prompt, len(solutions)
    kind = "the generator's chat template" if prompt.chat else "a plain template"
    ended = sum(solution.finish == "stop" for solution in solutions)
    report.found["prompt"] = f"{kind}; {ended} of {n} solutions came to their end"
    steps = [step for solution in solutions for step in solution.steps]
    longest = max((step.tokens for step in steps), default=0)
    report.found["steps"] = (
        f"end with {prompt.separator!r}; {len(steps) / n:.1f} a solution, at most {longest} tokens"
    )
    answers = [answer_of(solution, prompt.answer) for solution in solutions]
    given = sum(answer is not None for answer in answers)
    right = sum(
        answer is not None and grade(solution.problem, answer)
        for solution, answer in zip(solutions, answers, strict=True)
    )
    report.found["answers"] = f"{given} of {n} solutions mark one ({prompt.answer}), {right} right"
    if 2 * ended < n:
        report.misfits.append(
            f"Most solutions were cut after {TOKENS} tokens: see in pair.toml what the prompt asks "
            "for, and whether the model is made for it."
        )
    if 2 * given < n:
        report.misfits.append(
            f"Most solutions mark no answer with {prompt.answer!r}: see prompt.answer in pair.toml."
        )
    if pair.verifier and len(steps) <= n:
        report.misfits.append(
            f"Solutions have one step only, and the verifier judges steps: none ends with "
            f"{prompt.separator!r} (prompt.separator in pair.toml)."
        )


def _problems(pair: Pair) -> Sequence[Problem]:
    """Three of the pair's own test problems, if it has some."""
    file = pair.folder / "data" / "test.jsonl"
    if not file.is_file():
        return PROBLEMS
    with file.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in islice(lines, len(PROBLEMS))]
    return [
        Problem(r["problem"], r.get("reference", r.get("answer")), r.get("check")) for r in records
    ]


def _memory() -> str:
    """The most memory that this process had."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return "unknown on this system"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{peak * (1 if sys.platform == 'darwin' else 1024) / 1e6:,.0f} MB at most"


@contextmanager
def _heard(sentences: list[str]) -> Iterator[None]:
    """Let the log's warnings become sentences."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            sentences.append(record.getMessage())

    log, listener = logging.getLogger("ttsolve"), Listener()
    log.addHandler(listener)
    try:
        yield
    finally:
        log.removeHandler(listener)
