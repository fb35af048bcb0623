"""The steps of a training, in one folder: what each `ttsolve train` command does.

tokenizer.json, generator.pt, generator.gguf    generator
labels-SEED.jsonl                               labels
verifier.pt, verifier.onnx                      prm
orm.pt, orm.onnx                                orm
pool-test.jsonl, pool-game24.jsonl              measure
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ttsolve.engine import Sampling
from ttsolve.engines.llama import LlamaGenerator
from ttsolve.engines.onnx_prm import OnnxVerifier
from ttsolve.errors import UsageError
from ttsolve.files import replacing
from ttsolve.measure import Pool
from ttsolve.pair import (
    GeneratorFile,
    Pair,
    VerifierFiles,
    World,
    file_sha256,
    load_pair,
    write_pair,
)
from ttsolve.pocketmath import exercises
from ttsolve.prompts import PromptFormat
from ttsolve.train import generator as lm
from ttsolve.train import prm
from ttsolve.train.card import hands_figures, headline, split_figures, write_figures
from ttsolve.train.data import label_weights, read_problems
from ttsolve.train.export import export_gguf, export_onnx
from ttsolve.train.figures import scored_pool, token_likelihoods
from ttsolve.train.labels import Drawing, Drawn, draw, read_pool
from ttsolve.train.model import Shape
from ttsolve.train.tokenizer import build_tokenizer, load_tokenizer

Say = Callable[[str], None]

PROMPT = PromptFormat(full_stop=True)
SAMPLING = Sampling(max_tokens=200)
WORLD = World(
    "PocketMath",
    "school problems with small whole numbers: number games, guess and check, coins, "
    "expressions, equations, fractions, percentages, sequences, rates, divisors, quantities.",
)


def make_generator(
    work: Path, tokens: int, layers: int, width: int, games: float, seed: int, say: Say
) -> None:
    """Tokenizer, weights and GGUF of the generator.

    Raises:
        StorageError: a checkpoint could not be written.
    """
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = work / "tokenizer.json"
    if not tokenizer.exists():
        build_tokenizer().save(str(tokenizer))
    shape = Shape(
        load_tokenizer(tokenizer).get_vocab_size(),
        layers=layers,
        width=width,
        heads=max(1, width // 32),
        hidden=width * 11 // 4 // 32 * 32,
    )

    def report(p: lm.Progress) -> None:
        score = "" if p.pass_at_1 is None else f", held-out pass@1 (greedy) {p.pass_at_1:.2f}"
        say(f"step {p.step}/{p.steps}: loss {p.loss:.4f}, {p.rate:,.0f} tokens/s{score}")

    recipe = lm.Recipe(tokens=tokens, games=games, seed=seed)
    model = lm.train_generator(work, shape, tokenizer, recipe, report)
    export_gguf(model, tokenizer, work / "generator.gguf", "f16")


def make_labels(
    work: Path, problems: int, samples: int, how: Sampling, seed: int, say: Say
) -> None:
    """Sampled and graded solutions of training problems."""
    source = exercises(-1 - seed, "train", label_weights())  # the generator's are not negative
    drawn = [e.problem for e in itertools.islice(source, problems)]
    with LlamaGenerator(_needed(work / "generator.gguf", "generator"), PROMPT) as generator:
        file = work / f"labels-{seed}.jsonl"
        draw(generator, drawn, samples, how, file, seed=seed, report=_drawing(say))


def make_verifier(
    work: Path, tokens: int, judges: int, seed: int, say: Say, *, outcome: bool = False
) -> None:
    """Weights and ONNX of the verifier: a PRM, or with `outcome` an ORM.

    Raises:
        UsageError: there are no labels, or too few.
        StorageError: a checkpoint could not be written.
    """
    files = tuple(sorted(work.glob("labels-*.jsonl")))
    if not files:
        raise UsageError(f"There are no labels in {work}: run `ttsolve train labels {work}` first.")

    def report(p: prm.Progress) -> None:
        held = p.held_out
        quality = held and (
            f"; held out: loss {held.loss:.4f}, "
            f"AUC {held.auc:.3f} within {held.questions} questions"
        )
        say(f"step {p.step}/{p.steps}: loss {p.loss:.4f}, {p.rate:,.0f} tokens/s{quality or ''}")

    base = _needed(work / "generator.pt", "generator")
    recipe = prm.Recipe(tokens=tokens, judges=judges, seed=seed)
    tokenizer = work / "tokenizer.json"
    job = prm.Job(work, files, base, tokenizer, recipe, outcome)
    export_onnx(prm.train_prm(job, report), tokenizer, job.best.with_suffix(".onnx"))


def export_pair(work: Path, folder: Path, sampling: Sampling) -> Path:
    """A pair's folder from what was trained; its pair.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    sha: dict[str, str] = {}
    for name, command in (
        ("generator.gguf", "generator"),
        ("verifier.onnx", "prm"),
        ("tokenizer.json", "generator"),
    ):
        source = _needed(work / name, command)
        with replacing(folder / name) as part:  # whole: another process may have the old one open
            shutil.copyfile(source, part)
        sha[name] = file_sha256(folder / name)
    pair = Pair(
        folder,
        folder.name,
        f"A small pair for the world of {WORLD.name}, trained by ttsolve from nothing.",
        GeneratorFile("generator.gguf", sha["generator.gguf"]),
        VerifierFiles(
            "verifier.onnx", sha["verifier.onnx"], "tokenizer.json", sha["tokenizer.json"]
        ),
        WORLD,
        PROMPT,
        sampling,
    )
    return write_pair(pair)


def _drawing(say: Say) -> Callable[[Drawing], None]:
    def report(d: Drawing) -> None:
        say(
            f"{d.problems}/{d.of} problems, {d.tokens_per_second:,.0f} tokens/s, "
            f"{d.seconds_left:,.0f} s left"
        )

    return report


def _needed(file: Path, command: str) -> Path:
    if not file.is_file():
        raise UsageError(f"There is no {file}: run `ttsolve train {command} {file.parent}` first.")
    return file


def measure_pair(folder: Path, work: Path, samples: int, hands: int, say: Say) -> None:
    """Sample, score, count, and write the figures into the pair's folder (see `card`)."""
    pair = load_pair(folder)
    if pair.verifier is None or pair.verifier_path is None or pair.tokenizer_path is None:
        raise UsageError(f"The pair {pair.name!r} has no verifier: measure a pair that has one.")
    verifier = OnnxVerifier(pair.verifier_path, pair.tokenizer_path, pair.prompt)
    drawn: dict[str, list[Drawn]] = {}
    with LlamaGenerator(pair.generator_path, pair.prompt) as generator:
        for split, count in (("test", samples), ("game24", hands)):
            problems = read_problems(folder / "data" / f"{split}.jsonl")
            file = work / f"pool-{split}.jsonl"
            draw(generator, problems, count, pair.sampling, file, report=_drawing(say))
            drawn[split] = list(read_pool(file))
    pools: dict[str, list[Pool]] = {}
    for split, known in drawn.items():
        pools[split] = []
        for i, d in enumerate(known, 1):
            pools[split].append(scored_pool(d, verifier))
            if i % 50 == 0:
                say(f"{split}: {i}/{len(known)} problems scored")
    figures = {
        "test": split_figures(pools["test"], _base_lines(work, drawn["test"], pools["test"])),
        "game24": hands_figures([d.problem for d in drawn["game24"]], pools["game24"]),
    }
    write_figures(folder, figures)
    write_pair(replace(pair, measured=headline(figures)))


def _base_lines(
    work: Path, drawn: Sequence[Drawn], pools: Sequence[Pool], samples: int = 64
) -> dict[str, list[Pool]]:
    """The first samples of each pool, with the generator's own log-likelihoods."""
    checkpoint = work / "generator.pt"
    if not checkpoint.exists():
        return {}
    model, tokenizer = lm.load_generator(checkpoint), load_tokenizer(work / "tokenizer.json")
    lines: dict[str, list[Pool]] = {
        "log-likelihood of the solution": [],
        "log-likelihood of its least likely token": [],
    }
    for d, pool in zip(drawn, pools, strict=True):
        few = Drawn(d.problem, d.samples[:samples])
        both = token_likelihoods(model, tokenizer, few)
        for line, values in zip(lines.values(), both, strict=True):
            line.append(
                replace(
                    pool,
                    answers=pool.answers[:samples],
                    right=pool.right[:samples],
                    scores=pool.scores[:samples],
                    tokens=None,
                    steps=None,
                    likelihood=values,
                )
            )
    return lines
