"""Train a verifier (PRM or ORM): a generator's LM and more layers, on Monte-Carlo labels.

Section 3 of the paper: binary cross-entropy at the end of every step against its soft label; a
tenth of the questions is held out, and the weights with the lowest loss on it are kept. An outcome
reward model (ORM) learns from the same samples, at their last step alone; a revision verifier is
one that reads the earlier attempts of a chain too (section 6.2).
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ttsolve.measure import separation
from ttsolve.train.alone import alone
from ttsolve.train.batches import (
    CHAIN_ROW,
    Batches,
    Kind,
    Labelled,
    few,
    pack,
    read_labelled,
    split,
    tensors,
)
from ttsolve.train.checkpoint import load_state, resume, save_state
from ttsolve.train.generator import load_generator
from ttsolve.train.import_gguf import read_gguf
from ttsolve.train.import_onnx import read_onnx
from ttsolve.train.model import LanguageModel, RewardModel, Shape
from ttsolve.train.muon import optimisers
from ttsolve.train.precision import flushed
from ttsolve.train.rows import ROW, row_mask
from ttsolve.train.shards import is_first, learn, run
from ttsolve.train.tokenizer import load_tokenizer

REPORT_EVERY, JUDGE_EVERY = 100, 500  # steps; what is judged is saved
CARRIED = 0.25  # of what a generator has learnt since, into the trunk of its former verifier
JUDGED = 400_000  # held-out tokens, at most: one process judges while the other waits
SPOKEN = 1.0  # weight of the language model's loss; that of the labels is 1
ONWARD = 7e-4  # the learning rate where a verifier is trained already: 2e-3 tore one down


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a run learns."""

    tokens: int = 10_000_000
    rows: int = 14  # per optimiser step
    rate: float = 2e-3
    warmup: int = 100  # steps
    weight_decay: float = 0.02
    judges: int = 2  # layers above the generator's
    held_out: float = 0.1  # of the questions
    seed: int = 0

    def rate_at(self, step: int, steps: int) -> float:
        return self.rate * min((step + 1) / self.warmup, 1.0) * (1 - step / steps)


@dataclass(frozen=True, slots=True)
class Quality:
    """How good a verifier is on held-out questions."""

    loss: float  # nats per labelled step
    auc: float  # of the last step's score, right against wrong, within a question; mean over these
    questions: int  # that have both


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run reports now and then."""

    step: int
    steps: int
    loss: float  # nats per labelled step, mean since the last report
    rate: float  # tokens per second
    held_out: Quality | None


@dataclass(frozen=True, slots=True)
class Job:
    """What every process of a run is told."""

    folder: Path
    pools: tuple[Path, ...]
    generator: Path  # checkpoint of the LM to start from
    tokenizer: Path
    recipe: Recipe
    kind: Kind = "prm"
    start: Path | None = None  # a verifier's ONNX to go on from, in place of the LM
    former: Path | None = None  # the GGUF that this verifier was grown from, if the LM is another

    @property
    def best(self) -> Path:
        """The checkpoint with the lowest held-out loss."""
        return self.folder / f"{'verifier' if self.kind == 'prm' else self.kind}.pt"

    @property
    def room(self) -> int:
        """Tokens of a row."""
        return CHAIN_ROW if self.kind == "revision-verifier" else ROW

    @property
    def steps(self) -> int:
        return max(1, self.recipe.tokens // (self.recipe.rows * self.room))

    @property
    def last(self) -> Path:
        return self.best.with_stem(f"{self.best.stem}-last")


def train_prm(job: Job, report: Callable[[Progress], None] = lambda progress: None) -> RewardModel:
    """Train, or go on training, the verifier in the folder (`job.best`: the best so far).

    Raises:
        UsageError: the pools hold too few questions, or the folder a verifier of another shape,
            or another process trains it.
        StorageError: a checkpoint could not be written; the last one survives.
    """
    with alone(job.best):
        run(_train, job, report)
    return load_verifier(job.best)


def load_verifier(path: Path) -> RewardModel:
    """The model in a checkpoint, ready to use."""
    state = load_state(path)
    model = RewardModel(LanguageModel(Shape(**state["shape"])), state["judges"])
    model.load_state_dict(state["model"])
    return model.eval()


@flushed()
def _train(job: Job, report: Callable[[Progress], None]) -> None:
    recipe = job.recipe
    torch.manual_seed(recipe.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = _untrained(job).train().to(device)
    tuning = optimisers(model, recipe.rate, recipe.weight_decay)
    solutions = read_labelled(job.pools, load_tokenizer(job.tokenizer), job.kind)
    learned, held_out = split(solutions, recipe.held_out)
    held_out = few(held_out, JUDGED)
    batches = Batches(learned, recipe.seed, recipe.rows, job.room)
    state = resume(job.last, model, tuning)
    best = float(state.get("best", math.inf))
    losses: list[float] = []
    reported = time.monotonic()
    for step in range(state["step"], job.steps):

        def loss_of(shard: int, step: int = step) -> Tensor:
            return label_loss(model, *(t.to(device) for t in batches.tensors_at(step, shard)))

        losses.append(learn(model, tuning, recipe.rate_at(step, job.steps), loss_of))
        done, last = step + 1, step + 1 == job.steps
        if is_first() and (done % REPORT_EVERY == 0 or last):
            speed = len(losses) * recipe.rows * job.room / (time.monotonic() - reported)
            quality = None
            if done % JUDGE_EVERY == 0 or last:
                quality = judge(model, held_out, job.room)
                kept = _state(model, done)
                if quality.loss < best:
                    best = quality.loss
                    save_state(job.best, kept)
                kept |= {"best": best, "optimisers": [o.state_dict() for o in tuning]}
                save_state(job.last, kept)
            report(Progress(done, job.steps, sum(losses) / len(losses), speed, quality))
            losses, reported = [], time.monotonic()


def _untrained(job: Job) -> RewardModel:
    trunk = load_generator(job.generator)
    if not job.start:
        return RewardModel(trunk, job.recipe.judges)
    # A reviser may have got more layers than its generator, whose verifier this may be.
    model = read_onnx(job.start, trunk.shape, fewer=job.kind == "revision-verifier")
    if job.former:
        _carry(model.trunk, read_gguf(job.former), trunk)
    return model


@torch.no_grad()
def _carry(trunk: LanguageModel, before: LanguageModel, now: LanguageModel) -> None:
    """Add a part of what the LM has learnt since a verifier was grown from it (a task vector).

    A start between the verifier as it is, which does not know the new LM's words, and all of the
    change, which tears apart what its judges read.
    """
    for own, old, new in zip(
        trunk.parameters(), before.parameters(), now.parameters(), strict=True
    ):
        own.add_(new - old, alpha=CARRIED)


def _state(model: RewardModel, step: int) -> dict[str, Any]:
    shape = {"shape": model.shape.as_dict(), "judges": len(model.judges)}
    return shape | {"step": step, "model": model.state_dict()}


def row_outputs(
    model: RewardModel, ids: Tensor, places: Tensor, numbers: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits and log-probabilities of every token of packed rows, documents apart."""
    logits, heard, _ = model.heard(ids, places, row_mask(numbers))
    return logits, heard


def label_loss(
    model: RewardModel,
    ids: Tensor,
    places: Tensor,
    numbers: Tensor,
    targets: Tensor,
    weights: Tensor,
    said: Tensor,
) -> Tensor:
    """Mean binary cross-entropy over the ends of steps, and `SPOKEN` of the language model's.

    The trunk has to stay a language model, of right solutions: what the judges are told is its
    surprise, and a trunk that learns from labels alone forgets what to expect.
    """
    logits, heard = row_outputs(model, ids, places, numbers)
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    spoken = -(heard * said).sum() / said.sum().clamp(min=1.0)
    return (losses * weights).sum() / weights.sum() + SPOKEN * spoken


@torch.no_grad()
def judge(
    model: RewardModel, solutions: Sequence[Labelled], room: int = ROW, at_once: int = 32
) -> Quality:
    """Loss and AUC within questions (of a chain its last label counts)."""
    model.eval()
    device = next(model.parameters()).device
    rows, total, weight = pack(solutions, room), 0.0, 0.0
    scored: dict[str, list[tuple[float, bool, int]]] = {}
    for start in range(0, len(rows), at_once):
        group = rows[start : start + at_once]
        ids, places, numbers, targets, weights, _ = tensors(group, room)
        logits = row_outputs(model, *(t.to(device) for t in (ids, places, numbers)))[0].cpu()
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        total += float((losses * weights).sum())
        weight += float(weights.sum())
        for row, values in zip(group, logits.tolist(), strict=True):
            ends = itertools.accumulate(len(s.tokens) for s in row)
            for solution, end in zip(row, ends, strict=True):
                score = values[end - len(solution.tokens) + solution.marks[-1]]
                entry = (score, solution.right, solution.count)
                scored.setdefault(solution.question, []).append(entry)
    model.train()
    areas = [a for entries in scored.values() if (a := _area(entries)) is not None]
    return Quality(total / weight, sum(areas) / max(len(areas), 1), len(areas))


def _area(entries: Sequence[tuple[float, bool, int]]) -> float | None:
    """The AUC of one question's samples; None where all are right or all wrong."""
    scores = np.repeat([e[0] for e in entries], [e[2] for e in entries])
    right = np.repeat([e[1] for e in entries], [e[2] for e in entries])
    return separation(scores, right)
