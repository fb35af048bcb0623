"""The steps of a training, in one folder: what each `ttsolve train` command does.

tokenizer.json, generator.pt, generator.gguf    generator
labels-SEED.jsonl                               labels
verifier.pt, verifier.onnx                      prm
orm.pt, orm.onnx                                orm
attempts-SEED.jsonl, revisions-SEED.jsonl       revisions-data
reviser.pt, reviser.gguf                        reviser
chains-SEED.jsonl                               chains
revision-verifier.pt, revision-verifier.onnx    revision-verifier
pool-test.jsonl, -game24, -slips               measure
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ttsolve.core import Problem
from ttsolve.engine import Sampling
from ttsolve.engines.llama import LlamaGenerator
from ttsolve.errors import UsageError
from ttsolve.pocketmath import exercises
from ttsolve.train import generator as lm
from ttsolve.train import prm
from ttsolve.train import reviser as rv
from ttsolve.train.batches import Kind
from ttsolve.train.data import label_weights
from ttsolve.train.export import export_gguf, export_onnx
from ttsolve.train.import_gguf import read_gguf
from ttsolve.train.labels import draw
from ttsolve.train.model import Shape
from ttsolve.train.revisions import write_trajectories
from ttsolve.train.tokenizer import build_tokenizer, load_tokenizer
from ttsolve.train.work import PROMPT, Say, base, drawing, made, needed


def make_generator(
    work: Path,
    tokens: int,
    layers: int,
    width: int,
    games: float,
    seed: int,
    say: Say,
    start: Path | None = None,
) -> None:
    """Tokenizer, weights and GGUF of the generator.

    start: a pair's generator to go on from; its tokenizer and its sizes are then the work's.

    Raises:
        StorageError: a checkpoint could not be written.
    """
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = work / "tokenizer.json"
    if start and not tokenizer.exists():
        shutil.copyfile(needed(start.parent / "tokenizer.json", "generator"), tokenizer)
    if not tokenizer.exists():
        build_tokenizer().save(str(tokenizer))
    shape = (
        read_gguf(start).shape
        if start
        else Shape(
            load_tokenizer(tokenizer).get_vocab_size(),
            layers=layers,
            width=width,
            heads=max(1, width // 32),
            hidden=width * 11 // 4 // 32 * 32,
        )
    )

    def report(p: lm.Progress) -> None:
        score = "" if p.pass_at_1 is None else f", held-out pass@1 (greedy) {p.pass_at_1:.2f}"
        say(f"step {p.step}/{p.steps}: loss {p.loss:.4f}, {p.rate:,.0f} tokens/s{score}")

    recipe = lm.Recipe(tokens=tokens, games=games, seed=seed)
    model = lm.train_generator(work, shape, tokenizer, recipe, report, start=start)
    export_gguf(model, tokenizer, work / "generator.gguf", "f16")


def make_labels(
    work: Path,
    problems: int,
    samples: int,
    rollouts: int,
    subjects: Sequence[str],
    how: Sampling,
    seed: int,
    say: Say,
) -> None:
    """Sampled and graded solutions of training problems, and rollouts from each of their steps.

    subjects: of the problems; none: all.

    Raises:
        UsageError: there is no such subject.
        StorageError: the file could not be written.
    """
    drawn = _training_problems(-1 - seed, problems, subjects)  # the generator's are not negative
    with LlamaGenerator(needed(work / "generator.gguf", "generator"), PROMPT) as generator:
        file = work / f"labels-{seed}.jsonl"
        report = drawing(say)
        draw(generator, drawn, samples, how, file, seed=seed, rollouts=rollouts, report=report)


def make_revisions_data(
    work: Path,
    problems: int,
    samples: int,
    how: Sampling,
    keep: float,
    seed: int,
    say: Say,
    labels: bool = False,
) -> None:
    """Samples of training problems drawn side by side, and the trajectories made of them.

    keep: the share of trajectories that show a right attempt, to be kept.
    labels: whether trajectories are made of the verifier's labelled samples too.

    Raises:
        UsageError: there are no such samples.
    """
    others = made(work, "labels", "labels") if labels else ()
    drawn = _training_problems(-1_000_001 - seed, problems)  # nor are they the labels'
    pool = work / f"attempts-{seed}.jsonl"
    with LlamaGenerator(needed(work / "generator.gguf", "generator"), PROMPT) as generator:
        draw(generator, drawn, samples, how, pool, seed=seed, report=drawing(say))
    for source, name in ((pool, ""), *((other, f"{other.stem}-") for other in others)):
        file = work / f"revisions-{name}{seed}.jsonl"
        say(f"{file}: {write_trajectories(source, file, seed, keep):,} trajectories")


def make_reviser(
    work: Path, tokens: int, layers: int, rate: float, how: Sampling, seed: int, say: Say
) -> None:
    """Weights and GGUF of the reviser; `how` its chains are sampled when they are looked at.

    layers: how many it has above the generator's.

    Raises:
        UsageError: there are no trajectories, or too few.
        StorageError: a checkpoint could not be written.
    """
    files = made(work, "revisions", "revisions-data")

    def report(p: rv.Progress) -> None:
        seen = p.look and (
            f"; held out: loss {p.look.loss:.4f}, pass@1 of attempts "
            + " ".join(f"{rate:.3f}" for rate in p.look.pass_at_1)
        )
        say(f"step {p.step}/{p.steps}: loss {p.loss:.4f}, {p.rate:,.0f} tokens/s{seen or ''}")

    tokenizer = work / "tokenizer.json"
    recipe = rv.Recipe(tokens=tokens, rate=rate, layers=layers, seed=seed)
    job = rv.Job(work, files, base(work), tokenizer, recipe, how.temperature, how.min_p)
    export_gguf(rv.train_reviser(job, report), tokenizer, work / "reviser.gguf", "f16")


def make_chains(
    work: Path, problems: int, chains: int, length: int, how: Sampling, seed: int, say: Say
) -> None:
    """Chains of the reviser's own attempts at training problems, graded."""
    drawn = _training_problems(-2_000_001 - seed, problems)
    file = work / f"chains-{seed}.jsonl"
    with LlamaGenerator(needed(work / "reviser.gguf", "reviser"), PROMPT) as reviser:
        draw(reviser, drawn, chains, how, file, seed=seed, length=length, report=drawing(say))


def make_verifier(
    work: Path,
    tokens: int,
    judges: int,
    seed: int,
    say: Say,
    kind: Kind = "prm",
    start: Path | None = None,
    former: Path | None = None,
) -> None:
    """Weights and ONNX of a verifier: the PRM, an ORM of the same samples, or the reviser's own.

    start: the ONNX of a verifier to go on from; `judges` are then that one's.
    former: the generator.gguf that it was grown from, where the folder's is another.

    Raises:
        UsageError: there are no labels (or chains), or too few; or a former LM, but no verifier.
        StorageError: a checkpoint could not be written.
    """
    if former and not start:
        raise UsageError("--former tells what the verifier of --from was grown from: name both.")
    source = "chains" if kind == "revision-verifier" else "labels"
    files = made(work, source, source)

    def report(p: prm.Progress) -> None:
        held = p.held_out
        quality = held and (
            f"; held out: loss {held.loss:.4f}, "
            f"AUC {held.auc:.3f} within {held.questions} questions"
        )
        say(f"step {p.step}/{p.steps}: loss {p.loss:.4f}, {p.rate:,.0f} tokens/s{quality or ''}")

    trunk = work / "reviser.gguf" if kind == "revision-verifier" else base(work)
    recipe = prm.Recipe(tokens=tokens, judges=judges, seed=seed)
    if start:
        recipe = replace(recipe, rate=prm.ONWARD)
    tokenizer = work / "tokenizer.json"
    job = prm.Job(work, files, trunk, tokenizer, recipe, kind, start, former)
    export_onnx(prm.train_prm(job, report), tokenizer, job.best.with_suffix(".onnx"))


def _training_problems(seed: int, count: int, subjects: Sequence[str] = ()) -> list[Problem]:
    source = exercises(seed, "train", label_weights(subjects))
    return [e.problem for e in itertools.islice(source, count)]
