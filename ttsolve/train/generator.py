"""Train a small generator on PocketMath from nothing.

Fresh exercises on the fly, never repeated; whole documents packed into rows of fixed length, each
attending to itself alone; tokens of the question weigh a tenth of the solution's. A run checkpoints
and resumes: equal seeds give equal rows, whenever the run was stopped.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from ttsolve.answers import extract
from ttsolve.grade import grade
from ttsolve.pocketmath import LEVELS, SUBJECTS, Exercise, exercises
from ttsolve.train.alone import alone
from ttsolve.train.checkpoint import load_state, resume, save_state
from ttsolve.train.import_gguf import read_gguf
from ttsolve.train.model import LanguageModel, Shape
from ttsolve.train.muon import optimisers
from ttsolve.train.precision import flushed
from ttsolve.train.rows import ROW, Rows, row_mask
from ttsolve.train.sampling import sample
from ttsolve.train.shards import is_first, learn, run
from ttsolve.train.tokenizer import load_tokenizer, special_ids
from ttsolve.train.work import SAMPLING

# The hardest to learn are seen more often than the rest.
EMPHASIS = {"countdown": 5.0, "quantities": 5.0, "worksheets": 5.0, "pairs": 2.0, "remainders": 2.0}
REPORT_EVERY, MEASURE_EVERY = 250, 2000  # steps


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a run learns."""

    tokens: int = 50_000_000
    rows: int = 10  # per optimiser step
    rate: float = 5e-3
    warmup: int = 100  # steps
    decay: float = 0.4  # the last part of the run, over which the rate falls to zero
    weight_decay: float = 0.02
    games: float = 5.0  # how often number games with four numbers are drawn; most problems: 1
    seed: int = 0

    @property
    def steps(self) -> int:
        return max(1, self.tokens // (self.rows * ROW))

    def rate_at(self, step: int) -> float:
        left = (self.steps - step) / (self.steps * self.decay)
        return self.rate * min(1.0, (step + 1) / self.warmup, max(left, 0.0))


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run reports now and then."""

    step: int
    steps: int
    loss: float  # nats per solution token, mean since the last report
    rate: float  # tokens per second
    pass_at_1: float | None  # greedy, on held-out problems; None: not measured this time


@dataclass(frozen=True, slots=True)
class Job:
    """What every process of a run is told."""

    folder: Path
    shape: Shape
    tokenizer: Path
    recipe: Recipe
    minutes_between_saves: float = 2.0
    start: Path | None = None  # a GGUF to go on from


def subject_weights(games: float = 5.0) -> dict[tuple[str, int], float]:
    """How often each (subject, level) is drawn; `games`: number games with four numbers."""
    weights = {(s, level): EMPHASIS.get(s, 1.0) for s in SUBJECTS for level in LEVELS}
    return weights | {("countdown", level): games for level in (4, 5)}


def train_generator(
    folder: Path,
    shape: Shape,
    tokenizer: Path,
    recipe: Recipe,
    report: Callable[[Progress], None] = lambda progress: None,
    *,
    minutes_between_saves: float = 2.0,
    start: Path | None = None,
) -> LanguageModel:
    """Train, or go on training, the generator in `folder` (generator.pt).

    start: a GGUF of this shape whose weights a new run begins with, instead of random ones.

    Raises:
        UsageError: the folder holds a generator of another shape, or another process trains it.
        StorageError: a checkpoint could not be written; the last one survives.
    """
    with alone(folder / "generator.pt"):
        run(_train, Job(folder, shape, tokenizer, recipe, minutes_between_saves, start), report)
    return load_generator(folder / "generator.pt")


@flushed()
def _train(job: Job, report: Callable[[Progress], None]) -> None:
    recipe, file = job.recipe, job.folder / "generator.pt"
    torch.manual_seed(recipe.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = (read_gguf(job.start) if job.start else LanguageModel(job.shape)).train().to(device)
    tuning = optimisers(model, recipe.rate, recipe.weight_decay)
    tokenizer = load_tokenizer(job.tokenizer)
    rows = Rows(tokenizer, subject_weights(recipe.games), recipe.seed, recipe.rows)
    losses: list[float] = []
    saved = reported = time.monotonic()
    for step in range(resume(file, model, tuning)["step"], recipe.steps):

        def loss_of(shard: int, step: int = step) -> Tensor:
            return row_loss(model, *(t.to(device) for t in rows.batch(step, shard)))

        losses.append(learn(model, tuning, recipe.rate_at(step), loss_of))
        done, last = step + 1, step + 1 == recipe.steps
        if is_first() and (done % REPORT_EVERY == 0 or last):
            speed = len(losses) * recipe.rows * ROW / (time.monotonic() - reported)
            measured = done % MEASURE_EVERY == 0 or last
            score = greedy_accuracy(model, tokenizer, _tests()) if measured else None
            report(Progress(done, recipe.steps, sum(losses) / len(losses), speed, score))
            losses, reported = [], time.monotonic()
        if is_first() and (time.monotonic() - saved > 60 * job.minutes_between_saves or last):
            state = {"shape": model.shape.as_dict(), "model": model.state_dict(), "step": done}
            save_state(file, state | {"optimisers": [o.state_dict() for o in tuning]})
            saved = time.monotonic()


def row_loss(
    model: LanguageModel, ids: Tensor, places: Tensor, numbers: Tensor, weights: Tensor
) -> Tensor:
    """Mean weighted cross-entropy of packed rows."""
    hidden, _ = model(ids, places, row_mask(numbers))
    logits = model.logits(hidden[:, :-1])
    losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    wanted = weights[:, 1:].flatten()
    return (losses * wanted).sum() / wanted.sum()


def load_generator(path: Path) -> LanguageModel:
    """The model in a checkpoint, or in a GGUF made of one, ready to use."""
    if path.suffix == ".gguf":
        return read_gguf(path)
    state = load_state(path)
    model = LanguageModel(Shape(**state["shape"]))
    model.load_state_dict(state["model"])
    return model.eval()


# --- greedy decoding --------------------------------------------------------------------------


@cache
def _tests() -> list[Exercise]:
    """A hundred held-out problems, all subjects and levels alike."""
    held_out = (e for e in exercises(7, "calibration") if not e.shared)
    return list(itertools.islice(held_out, 100))


def greedy_accuracy(model: LanguageModel, tokenizer: Tokenizer, tests: list[Exercise]) -> float:
    """The share of problems that greedy decoding answers rightly."""
    texts = greedy(model, tokenizer, [e.problem.question for e in tests])
    right = [grade(e.problem, extract(text)) for e, text in zip(tests, texts, strict=True)]
    return sum(right) / len(right)


def greedy(
    model: LanguageModel,
    tokenizer: Tokenizer,
    questions: list[str],
    limit: int = SAMPLING.max_tokens,
) -> list[str]:
    """Solutions at temperature 0."""
    bos, _ = special_ids(tokenizer)
    prompts = [[bos, *tokenizer.encode(q + "\n").ids] for q in questions]
    return [tokenizer.decode(ids) for ids in sample(model, tokenizer, prompts, limit=limit)]
