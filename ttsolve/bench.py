"""How fast a generator and a verifier run here: our engine beside the plain `llama_cpp.Llama` loop.

Same file, prompts, settings and threads, measured in turns in one run, since a machine's speed
drifts: trust the ratios. Of a small model our engine runs several loops, each with as many threads
as the plain one.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ttsolve import gpu
from ttsolve.core import Problem, Solution, Usage
from ttsolve.engine import Sampling, Verifier
from ttsolve.engines.llama import LlamaGenerator
from ttsolve.pair import Pair
from ttsolve.prompts import PromptFormat
from ttsolve.solve import open_verifier

WIDTHS = (1, 8, 64)
QUESTIONS = ("What is 17 + 25?", "Ada has 12 books and buys 7 more. How many books has Ada now?")


@dataclass(frozen=True, slots=True)
class Speed:
    """What was generated in a time."""

    width: int  # samples at once
    tokens: int  # generated: what was drawn for each sample
    seconds: float
    prompt_tokens: int = 0  # decoded for prompts
    reused_tokens: int = 0  # of prompts, not decoded again
    outside: float = 0.0  # share of the decode loops' time spent outside llama_decode
    loops: int = 1  # that decoded side by side
    decoded: int = 0  # tokens, prompts among them: what samples share is decoded once

    @property
    def rate(self) -> float:
        """Generated tokens a second, prompts included in the time."""
        return self.tokens / self.seconds

    @property
    def shared(self) -> float:
        """Tokens generated for each one decoded."""
        return self.tokens / max(1, self.decoded)


@dataclass(frozen=True, slots=True)
class VerifierSpeed:
    """Tokens a second that the verifier computes."""

    incremental: float  # solutions that arrive step by step, earlier steps kept
    scratch: float  # whole solutions at once
    tokens: int  # computed in all
    device: str  # in words


@dataclass(frozen=True, slots=True)
class Report:
    """What `run` measured: medians over its rounds."""

    generator: str  # file name
    params: int
    device: str
    threads: int  # of the plain loop, and of each of ours
    kv: Literal["unified", "split"]  # the layout of the KV cache
    context: int
    plain: Speed  # llama_cpp.Llama, one completion after the other
    engine: tuple[Speed, ...]  # one for each width
    verifier: VerifierSpeed | None = None

    @property
    def ratios(self) -> tuple[float, ...]:
        """Our engine's rate over the plain loop's, for each width."""
        return tuple(speed.rate / self.plain.rate for speed in self.engine)


def run_pair(pair: Pair, *, gpu_layers: int = -1) -> Report:
    """Measure a pair on its own test problems, if it has some."""
    gpu.warn_if_unused(pair.generator_path, gpu_layers)
    verifier = open_verifier(pair, pair.verifier, gpu_layers)
    return run(pair.generator_path, _questions(pair), pair.prompt, verifier, gpu_layers=gpu_layers)


def _questions(pair: Pair, n: int = 48) -> Sequence[str]:
    file = pair.folder / "data" / "test.jsonl"
    if not file.is_file():
        return QUESTIONS
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line)["problem"] for line in itertools.islice(lines, n)]


def run(
    path: Path,
    questions: Sequence[str],
    prompt: PromptFormat = PromptFormat(),
    verifier: Verifier | None = None,
    *,
    widths: Sequence[int] = WIDTHS,
    max_tokens: int = 64,
    seconds: float = 4.0,
    rounds: int = 3,
    gpu_layers: int = -1,
    threads: int | None = None,
    kv: Literal["auto", "unified", "split"] = "auto",
) -> Report:
    """Measure the GGUF at `path`: every width for `seconds` in each of `rounds`."""
    problems = [Problem(question) for question in questions]
    how = Sampling(max_tokens=max_tokens)
    with ExitStack() as stack:
        engines: dict[int, LlamaGenerator] = {}
        for width in sorted(widths, reverse=True):  # the widest chooses a loop's threads for all
            generator = LlamaGenerator(
                path, prompt, width=width, gpu_layers=gpu_layers, threads=threads, kv=kv
            )
            engines[width] = stack.enter_context(generator)
            threads = generator.threads
        widest = engines[max(widths)]
        plain = stack.enter_context(closing(open_plain(path, widest, gpu_layers)))
        plains: list[Speed] = []
        ours: dict[int, list[Speed]] = {width: [] for width in widths}
        for i in range(rounds):
            fresh = problems[i::rounds] or problems  # whose prompts are in no cache yet
            plains.append(measure_plain(plain, prompt, fresh, how, seconds))
            for width in widths:
                ours[width].append(measure(engines[width], fresh, how, seconds))
        return Report(
            generator=path.name,
            params=widest.params,
            device=widest.device,
            threads=widest.threads,
            kv=widest.kv,
            context=widest.context,
            plain=_median(plains),
            engine=tuple(_median(ours[width]) for width in widths),
            verifier=verify(verifier, widest, problems, how) if verifier else None,
        )


def open_plain(path: Path, like: LlamaGenerator, gpu_layers: int = -1) -> Any:
    """llama-cpp-python's own class, with the context and the threads of our engine."""
    import llama_cpp

    options = {"n_ctx": like.context, "n_threads": like.threads, "n_threads_batch": like.threads}
    return llama_cpp.Llama(str(path), n_gpu_layers=gpu_layers, verbose=False, **options)


def measure_plain(
    llama: Any, prompt: PromptFormat, problems: Sequence[Problem], how: Sampling, seconds: float
) -> Speed:
    """Complete the problems one sample after the other, four of each in a row, for `seconds`."""
    names = ("max_tokens", "temperature", "top_k", "top_p", "min_p")
    options = {name: getattr(how, name) for name in names}
    tokens, started = 0, time.perf_counter()
    for seed in itertools.count():
        text = prompt.render(problems[seed // 4 % len(problems)].question)
        completion = llama.create_completion(text, seed=seed, **options)
        tokens += completion["usage"]["completion_tokens"]
        if (passed := time.perf_counter() - started) >= seconds:
            break
    return Speed(1, tokens, passed)


def measure(
    generator: LlamaGenerator,
    problems: Sequence[Problem],
    how: Sampling,
    seconds: float | None = None,
    samples: int | None = None,
) -> Speed:
    """Draw `samples` of each problem (None: the width, or 4), all asked for at once.

    `seconds`: stop, or go on, until they have passed; None: each sample once and to its end.
    """
    samples = samples or max(4, generator.width)
    stop = threading.Event()
    roots = [problem.root for problem in problems for _ in range(samples)]
    speed = Speed(generator.width, 0, 0.0, loops=generator.loops)
    loop, decode = generator.timing()
    decoded = generator.decoded()
    started = time.perf_counter()
    with _alarm(stop, seconds):
        while not stop.is_set():
            settings = [replace(how, seed=seed) for seed in range(len(roots))]
            usage = generator.sample(roots, settings, stop=stop)[1]
            speed = replace(
                speed,
                tokens=speed.tokens + usage.generated_tokens,
                prompt_tokens=speed.prompt_tokens + usage.prompt_tokens,
                reused_tokens=speed.reused_tokens + usage.reused_tokens,
            )
            if seconds is None:
                break
    passed = time.perf_counter() - started
    loop_now, decode_now = generator.timing()
    outside = 1 - (decode_now - decode) / (loop_now - loop)
    decoded = generator.decoded() - decoded
    return replace(speed, seconds=passed, outside=outside, decoded=decoded)


def verify(
    verifier: Verifier, generator: LlamaGenerator, problems: Sequence[Problem], how: Sampling
) -> VerifierSpeed | None:
    """Score some samples whole, and those of other problems step by step; None: too few samples."""
    roots = [problem.root for problem in problems[:8] for _ in range(8)]
    settings = [replace(how, seed=seed) for seed in range(len(roots))]
    solutions = [s for s in generator.sample(roots, settings)[0] if s.steps]
    # Other problems, so that what one half left in the verifier's memory does not help the other.
    whole = [s for s in solutions if problems.index(s.problem) % 2]
    growing = [s for s in solutions if problems.index(s.problem) % 2 == 0]
    if not whole or not growing:
        return None
    started = time.perf_counter()
    at_once = verifier.score(whole)[1].verifier_tokens
    middle = time.perf_counter()
    stepwise = sum(usage.verifier_tokens for usage in _score_stepwise(verifier, growing))
    ended = time.perf_counter()
    return VerifierSpeed(
        incremental=stepwise / (ended - middle),
        scratch=at_once / (middle - started),
        tokens=at_once + stepwise,
        device=gpu.device_name(getattr(verifier, "device", "cpu")),
    )


def _score_stepwise(verifier: Verifier, solutions: Sequence[Solution]) -> Iterator[Usage]:
    """Score the first steps of all, then the second, ... as a search does."""
    scored = [solution.problem.root for solution in solutions]
    for k in range(max(len(solution.steps) for solution in solutions)):
        rows = [i for i, solution in enumerate(solutions) if k < len(solution.steps)]
        longer, usage = verifier.score([scored[i].grow(solutions[i].steps[k]) for i in rows])
        for i, solution in zip(rows, longer, strict=True):
            scored[i] = solution
        yield usage


@contextmanager
def _alarm(stop: threading.Event, seconds: float | None) -> Iterator[None]:
    """Set `stop` after `seconds`."""
    timer = threading.Timer(seconds or 0, stop.set)
    if seconds is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _median(speeds: Sequence[Speed]) -> Speed:
    return sorted(speeds, key=lambda speed: speed.rate)[len(speeds) // 2]
