"""Measures both engines on an NVIDIA GPU and prints a Markdown table: `just gpu-check`.

Models of published shapes with random weights are made in --folder (8 GB; kept, and found again).
Without a GPU nothing is measured; --tiny runs the whole program on tiny models, wherever they run.
Exit codes: 0; 1 when something missed its mark or failed; 2 when it cannot be run here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import llama_cpp
import onnxruntime as ort

import gpu_models
import gpu_rates
from gpu_raw import Raw, turns
from gpu_text import differences
from ttsolve import bench
from ttsolve.core import Problem
from ttsolve.engine import Engine, Sampling
from ttsolve.engines import cuda, llama_gpu
from ttsolve.engines.llama import LlamaGenerator
from ttsolve.engines.onnx_prm import Device, OnnxVerifier
from ttsolve.pair import load_pair
from ttsolve.prompts import PromptFormat
from ttsolve.strategies import BeamSearch

ROOT = Path(__file__).parent.parent
VOCABULARY = "shared/vocab/ggml-vocab-llama-bpe.gguf"  # in a checkout or beside it
VOCABULARY_SIZE = 128_256  # of one that is made where that is missing
CLOSE = 2e-3  # of a verifier's scores, CUDA against CPU
NEAR = 0.1  # logits: what is less apart is a tie that rounding decides
PROMPT = PromptFormat()


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table; met: None: nothing was wanted."""

    what: str
    measured: str
    wanted: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        met = {None: "", True: "yes", False: "NO"}[self.met]
        return f"| {self.what} | {self.measured} | {self.wanted} | {met} |"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured, and how long."""

    folder: Path
    tiny: bool
    vocabulary: Path | None
    batched_bench: str | None

    @property
    def device(self) -> Device:
        """The verifier's, to be compared with the CPU."""
        return "cuda" if cuda.gpu_found() else "cpu"

    @property
    def context(self) -> int:
        return 256 if self.tiny else 512

    @property
    def how(self) -> Sampling:
        return Sampling(max_tokens=16 if self.tiny else 128)

    @property
    def copied(self) -> int:
        """Bytes of the large copy."""
        return 2**22 if self.tiny else 2**31

    def generator(self, quant: str) -> Path:
        """A random-weight generator in the shape of Llama-3.2-1B."""
        shape = gpu_models.LLAMA_TINY if self.tiny else gpu_models.LLAMA_1B
        size = 600 if self.tiny else VOCABULARY_SIZE
        return gpu_models.generator_file(self.folder, shape, quant, self.vocabulary, size)

    def open_verifier(
        self, device: Device, prompt: PromptFormat = PROMPT, pooled: bool = True
    ) -> OnnxVerifier:
        """A random-weight reward model in the shape of Qwen2.5-Math-1.5B, in f16."""
        shape = gpu_models.QWEN_TINY if self.tiny else gpu_models.QWEN_1_5B
        graph, tokenizer = gpu_models.prm_files(self.folder, shape, "f16")
        return OnnxVerifier(graph, tokenizer, prompt, device=device, pooled=pooled)

    def least(self, what: str, ratio: float, wanted: float) -> Row:
        """A row of a ratio; on tiny models it says nothing."""
        return Row(what, f"{ratio:.2f}", f"≥ {wanted}", None if self.tiny else ratio >= wanted)


def problems(n: int) -> list[Problem]:
    return [
        Problem(f"What is {i} + {i * i}, and how far is that from {i} * 100?") for i in range(n)
    ]


# --- what is measured -----------------------------------------------------------------------------


def card(setting: Setting) -> Iterator[Row]:
    """The card, what is built for it, and how fast it copies."""
    there = cuda.cards()
    built = "for a GPU" if llama_gpu.offloads() else "for the CPU"
    version = getattr(ort, "cuda_version", "") or "missing"
    yield Row("GPU", f"{there[0].name}, {there[0].total / 1e9:.0f} GB" if there else "none")
    shapes = "tiny" if setting.tiny else "Llama-3.2-1B, Qwen2.5-Math-1.5B"
    yield Row("shapes of 1B and 1.5B, random weights", shapes)
    yield Row("llama-cpp-python", f"{llama_cpp.__version__}, built {built}")
    yield Row("ONNX Runtime", f"{ort.__version__}, CUDA {version}")
    rate = gpu_rates.copy_rate(setting.copied)
    yield Row("copy on the device, bytes read and written", f"{rate / 1e9:,.0f} GB/s")


def generator(setting: Setting) -> Iterator[Row]:
    """Tokens a second of our engine, of the plain loop and of llama-batched-bench."""
    widths = (1, 4) if setting.tiny else (1, 8, 64, 256)
    wide = 4 if setting.tiny else 64
    for quant in gpu_models.QUANTS:
        path, name = setting.generator(quant), f"generator 1B {quant}"
        ours: dict[int, float] = {}
        for width in widths:
            speed = _speed(setting, path, width)
            ours[width] = speed.rate
            words = f"{speed.rate:,.0f} tokens/s, {speed.outside:.0%} outside llama_decode"
            yield Row(f"{name}, width {width}", words)
        parts = turns(path, wide, setting.context, 3 if setting.tiny else 60)
        words = ", ".join(f"{milliseconds:.2f} {what}" for what, milliseconds in parts.items())
        yield Row(f"{name}, width {wide}: ms of a turn", words)
        moved = ours[1] * path.stat().st_size / gpu_rates.copy_rate(setting.copied)
        yield Row(f"{name}, width 1: bytes of weights read / copied", f"{moved:.0%}")
        plain = _plain_speed(setting, path).rate
        yield Row(f"{name}, plain `Llama` loop", f"{plain:,.0f} tokens/s")
        ratio = ours[wide] / plain
        yield setting.least(f"{name}, width {wide} / plain loop", ratio, 15)
        what = f"{name}, llama-batched-bench"
        if setting.batched_bench is None:
            yield Row(what, "not measured: not on the PATH, and --batched-bench names none")
            continue
        theirs = gpu_rates.batched_bench(setting.batched_bench, path, widths)
        yield Row(what, ", ".join(f"{theirs[w]:,.0f} at {w}" for w in widths) + " tokens/s")
        ratio = ours[wide] / theirs[wide]
        yield setting.least(f"{name}, width {wide} / the same", ratio, 0.85)


def _speed(setting: Setting, path: Path, width: int) -> bench.Speed:
    with LlamaGenerator(path, PROMPT, width=width, context=setting.context) as engine:
        bench.measure(engine, problems(1), setting.how, samples=width)  # the first is slower
        return bench.measure(engine, problems(4), setting.how, samples=2 * width)


def _plain_speed(setting: Setting, path: Path) -> bench.Speed:
    with LlamaGenerator(path, PROMPT, width=1, context=setting.context) as like:
        plain = bench.open_plain(path, like)
    with closing(plain):
        seconds = 0.1 if setting.tiny else 5.0
        return bench.measure_plain(plain, PROMPT, problems(4), setting.how, seconds)


def verifier(setting: Setting) -> Iterator[Row]:
    """Step scores a second, whole and step by step; CUDA against CPU."""
    steps, count = (3, 4) if setting.tiny else (8, 32)
    few, first, second = (problems(2 * count + 3)[i : i + n] for i, n in _cuts(3, count, count))
    name, device = "verifier 1.5B f16", setting.device
    model = setting.open_verifier(device)
    whole = gpu_rates.solutions(few, steps)
    scored = {"from scratch": model.score(whole)[0]}  # the first is slower
    model = setting.open_verifier(device)
    scored["step by step"] = gpu_rates.grown(model, whole)
    for what, some in ("from scratch", first), ("step by step", second):
        given = gpu_rates.solutions(some, steps)
        started = time.perf_counter()
        model.score(given) if what == "from scratch" else gpu_rates.grown(model, given)
        rate = steps * len(given) / (time.perf_counter() - started)
        yield Row(f"{name}, {what}", f"{rate:,.0f} step scores/s")
    reference = setting.open_verifier("cpu", pooled=False).score(whole)[0]
    expected = [score for solution in reference for score in solution.scores]
    for what, solutions in scored.items():
        got = [score for solution in solutions for score in solution.scores]
        apart = max(abs(a - b) for a, b in zip(got, expected, strict=True))
        against = f"{name}, {what}: {device} against cpu"
        yield Row(against, f"{apart:.0e} apart at most", f"≤ {CLOSE}", apart <= CLOSE)


def _cuts(*lengths: int) -> list[tuple[int, int]]:
    """(where it begins, how long it is) of parts that follow one another."""
    starts = itertools.accumulate(lengths, initial=0)
    return list(zip(starts, lengths, strict=False))


def together(setting: Setting) -> Iterator[Row]:
    """One problem with beam search, both models on the card."""
    rounds, budget = (2, 8) if setting.tiny else (8, 64)
    path = setting.generator("f16")
    with closing(Raw(path, 1, 8)) as raw:
        prompt = PromptFormat(separator=gpu_rates.separator(raw.texts()))
    with LlamaGenerator(path, prompt, width=budget, context=setting.context) as model:
        judge = gpu_rates.Timed(setting.open_verifier(setting.device, prompt))
        sampling = Sampling(max_tokens=rounds * gpu_rates.STEP)
        engine = Engine(model, judge, sampling=sampling, budget=budget)
        found = BeamSearch(n=budget, rounds=rounds)(problems(1)[0], engine)
        loop, decode = model.timing()
    usage, steps = engine.usage, max(len(solution.steps) for solution in found)
    yield Row(
        f"beam search, budget {budget}, {steps} steps, 1B and 1.5B on one device",
        f"{usage.seconds:.2f} s: {decode:.2f} in llama_decode, {loop - decode:.2f} in the rest of "
        f"the decode loop, {judge.seconds:.2f} in the verifier; {usage.generated_tokens:,} tokens "
        f"generated, {usage.verifier_tokens:,} verified",
    )


def pair(setting: Setting) -> Iterator[Row]:
    """The embedded pair's greedy text, CPU against GPU; every difference is a near-tie."""
    pocket, count = load_pair("pocket"), 6 if setting.tiny else 200
    with (pocket.folder / "data" / "test.jsonl").open(encoding="utf-8") as lines:
        chosen = [Problem(json.loads(line)["problem"]) for line in itertools.islice(lines, count)]
    # The layout of a GPU, so that without one there is something to compare.
    found = differences(pocket, chosen, {"gpu_layers": 0}, {"gpu_layers": -1, "kv": "unified"})
    words = f"{count - len(found)} of {count} equal"
    if found:
        furthest = max(abs(difference.gap) for difference in found)
        words += f", the others part where two tokens are {furthest:.0e} logits apart at most"
    near = all(abs(difference.gap) <= NEAR for difference in found)
    yield Row("pocket, greedy text, GPU against CPU", words, f"equal, or ≤ {NEAR} apart", near)


SECTIONS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    section.__name__: section for section in (card, generator, verifier, together, pair)
}


# --- the command ----------------------------------------------------------------------------------


def unfit(chosen: Sequence[str]) -> str | None:
    """Why these sections cannot be measured here; None: they can."""
    if not cuda.gpu_found():
        return "There is no NVIDIA GPU here: --tiny tries this program without one."
    if {"generator", "together", "pair"} & {*chosen} and not llama_gpu.offloads():
        return "llama-cpp-python cannot use the GPU: build it as README.md says under GPU."
    return None


def measured(name: str, setting: Setting) -> Iterator[Row]:
    """The section's rows; where it fails, the last one says why."""
    started = time.perf_counter()
    try:
        yield from SECTIONS[name](setting)
    except Exception as error:  # whatever it is, the other sections are still worth their time
        yield Row(name, f"failed: {' '.join(str(error).split())}", met=False)
    print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--tiny", action="store_true", help="tiny models, on the CPU as well")
    parser.add_argument("--only", metavar="A,B", help=f"some of {', '.join(SECTIONS)}")
    parser.add_argument("--folder", type=Path, help="where models are made and kept")
    parser.add_argument("--vocabulary", type=Path, help="a GGUF with the tokenizer to copy")
    parser.add_argument("--batched-bench", metavar="FILE", help="llama-batched-bench")
    options = parser.parse_args(arguments)
    chosen = options.only.split(",") if options.only else [*SECTIONS]
    if unknown := {*chosen} - {*SECTIONS}:
        parser.error(f"there is no section {', '.join(unknown)}: choose of {', '.join(SECTIONS)}")
    if not options.tiny and (reason := unfit(chosen)):
        print(reason, file=sys.stderr)
        return 2
    near = (ROOT / VOCABULARY, ROOT.parent / VOCABULARY)
    vocabulary = options.vocabulary or next((path for path in near if path.is_file()), None)
    binary = options.batched_bench or which("llama-batched-bench")
    met = True
    print("| what | measured | wanted | met |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        setting = Setting(folder, options.tiny, None if options.tiny else vocabulary, binary)
        for row in itertools.chain.from_iterable(measured(name, setting) for name in chosen):
            print(row, flush=True)
            met = met and row.met is not False
    return 0 if met else 1


if __name__ == "__main__":
    logging.getLogger("ttsolve").setLevel(logging.ERROR)  # models that are made fit nobody
    sys.exit(main())
