"""Train a reviser: a generator's LM goes on learning, from trajectories (paper section 6.1).

The loss is on the right attempt, and on the question wherever it is asked again. The second is not
in the paper: a small LM of single problems has never copied anything that long, and a question that
is asked again is the plainest lesson in it. Held-out loss says little of how well
a model revises, for the wrong attempts it then sees are its own: so at every look chains are
sampled for held-out questions, and the checkpoint whose revisions are right most often is kept; of
those that are so within a standard error the last, for what so few questions tell is mostly luck.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate, islice
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ttsolve.answers import extract
from ttsolve.core import Problem
from ttsolve.grade import grade
from ttsolve.pocketmath import exercises
from ttsolve.train.alone import alone
from ttsolve.train.batches import Rotation, few, laid_out, pack, split
from ttsolve.train.checkpoint import resume, save_state
from ttsolve.train.data import split_weights
from ttsolve.train.generator import load_generator, row_loss
from ttsolve.train.model import LanguageModel
from ttsolve.train.muon import optimisers
from ttsolve.train.precision import flushed
from ttsolve.train.revisions import Trajectory, read_trajectories
from ttsolve.train.sampling import sample
from ttsolve.train.shards import is_first, learn, run
from ttsolve.train.tokenizer import load_tokenizer, special_ids

ROW = 1280  # tokens, and the reviser's context: four worksheets of the longest with their questions
ANSWERED = re.compile(r"^Answer:.*\n", re.MULTILINE)
LOOKED_AT = 120  # problems
HELD_OUT = 130_000  # tokens, at most: one process looks while the other waits
REPORT_EVERY, LOOK_EVERY = 100, 500  # steps


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a run learns."""

    tokens: int = 3_000_000
    rows: int = 2  # per optimiser step
    rate: float = 7e-4
    warmup: int = 100  # steps
    weight_decay: float = 0.02
    layers: int = 0  # above the generator's
    held_out: float = 0.05  # of the questions
    seed: int = 0

    @property
    def steps(self) -> int:
        return max(1, self.tokens // (self.rows * ROW))

    def rate_at(self, step: int) -> float:
        return self.rate * min((step + 1) / self.warmup, 1.0) * (1 - step / self.steps)


@dataclass(frozen=True, slots=True)
class Look:
    """What a reviser is worth on held-out questions."""

    loss: float  # nats per token of right attempts, behind contexts that others wrote
    pass_at_1: tuple[float, ...]  # of the first, second, … attempt of sampled chains

    @property
    def revised(self) -> float:
        """Mean pass@1 of all attempts but the first."""
        return sum(self.pass_at_1[1:]) / len(self.pass_at_1[1:])

    @property
    def error(self) -> float:
        """Its standard error, at most: as if the attempts of a chain were right all at once."""
        return math.sqrt(self.revised * (1 - self.revised) / LOOKED_AT)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run reports now and then."""

    step: int
    steps: int
    loss: float  # nats per token of right attempts and questions again, mean since the last report
    rate: float  # tokens per second
    look: Look | None


@dataclass(frozen=True, slots=True)
class Job:
    """What every process of a run is told."""

    folder: Path
    files: tuple[Path, ...]  # of trajectories
    generator: Path  # the LM to start from
    tokenizer: Path
    recipe: Recipe
    temperature: float = 1.0  # of the chains that are looked at, and min_p
    min_p: float = 0.0

    @property
    def best(self) -> Path:
        """The checkpoint whose revisions are right most often."""
        return self.folder / "reviser.pt"

    @property
    def last(self) -> Path:
        return self.folder / "reviser-last.pt"


@dataclass(frozen=True, slots=True)
class Document:
    """A trajectory as tokens: BOS, question, context, target.

    There is no EOS: behind an answer a further attempt may always follow, and an attempt ends with
    its answer's line.
    """

    tokens: tuple[int, ...]
    target: int  # where the target begins
    question: str
    asked: tuple[int, ...] = ()  # where the question begins, each time but the first


def train_reviser(
    job: Job, report: Callable[[Progress], None] = lambda progress: None
) -> LanguageModel:
    """Train, or go on training, the reviser in the folder.

    Raises:
        UsageError: there are too few questions, or the folder holds a reviser of another shape,
            or another process trains it.
        StorageError: a checkpoint could not be written; the last one survives.
    """
    with alone(job.best):
        run(_train, job, report)
    return load_generator(job.best)


@flushed()
def _train(job: Job, report: Callable[[Progress], None]) -> None:
    recipe = job.recipe
    torch.manual_seed(recipe.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = taller(load_generator(job.generator), recipe.layers).train().to(device)
    model.shape = replace(model.shape, context=ROW)
    tuning = optimisers(model, recipe.rate, recipe.weight_decay)
    tokenizer = load_tokenizer(job.tokenizer)
    known = [document(t, tokenizer) for t in read_trajectories(job.files)]
    learned, held_out = split(known, recipe.held_out)
    held_out = few(held_out, HELD_OUT)
    rows = Rotation(pack(learned, ROW), recipe.seed, recipe.rows)
    state = resume(job.last, model, tuning)
    best = float(state.get("best", -1.0))
    losses: list[float] = []
    reported = time.monotonic()
    for step in range(state["step"], recipe.steps):

        def loss_of(shard: int, step: int = step) -> Tensor:
            return row_loss(model, *(t.to(device) for t in tensors(rows.at(step, shard))))

        losses.append(learn(model, tuning, recipe.rate_at(step), loss_of))
        done, last = step + 1, step + 1 == recipe.steps
        if is_first() and (done % REPORT_EVERY == 0 or last):
            speed = len(losses) * recipe.rows * ROW / (time.monotonic() - reported)
            seen = None
            if done % LOOK_EVERY == 0 or last:
                seen = look(model, tokenizer, held_out, job.temperature, job.min_p)
                kept = {"shape": model.shape.as_dict(), "step": done, "model": model.state_dict()}
                if seen.revised > best - seen.error:
                    save_state(job.best, kept)
                best = max(best, seen.revised)
                kept |= {"best": best, "optimisers": [o.state_dict() for o in tuning]}
                save_state(job.last, kept)
            report(Progress(done, recipe.steps, sum(losses) / len(losses), speed, seen))
            losses, reported = [], time.monotonic()


def taller(model: LanguageModel, layers: int) -> LanguageModel:
    """The model with more layers on top, which add nothing until they have learnt.

    A generator's own layers are spent on what to expect next. Whether a token it reads is what it
    expected (a slip is one that is not) shows in the layers after that, for the expectation is
    formed one token earlier: the reason for a verifier's further layers too.
    """
    grown = LanguageModel(replace(model.shape, layers=model.shape.layers + layers))
    learned = model.state_dict()
    for name, weight in grown.state_dict().items():
        if name in learned:
            weight.copy_(learned[name])
        elif name.endswith(("output.weight", "down.weight")):
            weight.zero_()
    return grown


def document(trajectory: Trajectory, tokenizer: Tokenizer) -> Document:
    """The trajectory as tokens: BOS, then the question before every attempt, the target last.

    The oldest attempts go where they do not fit a row. There is no EOS: behind an answer a further
    attempt may always follow, and an attempt ends with its answer's line.
    """
    bos, _ = special_ids(tokenizer)
    question = tokenizer.encode(trajectory.question + "\n").ids
    target = tokenizer.encode(trajectory.target).ids
    context = [question + tokenizer.encode(text).ids for text in trajectory.context]
    while context and 1 + sum(map(len, context)) + len(question) + len(target) > ROW:
        context.pop(0)
    before = [bos, *(token for attempt in context for token in attempt), *question]
    asked = tuple(1 + n for n in accumulate(map(len, context)))
    return Document((*before, *target), len(before), trajectory.question, asked)


def tensors(rows: Sequence[Sequence[Document]], again: float = 1.0) -> tuple[Tensor, ...]:
    """ids, positions, document numbers, weights in the loss; [rows, ROW] each.

    again: what a token of a question that is asked again weighs; one of the target weighs 1.
    """
    arrays, begun = laid_out(rows, ROW)
    weights = np.zeros((len(rows), ROW), dtype=np.float32)
    for row, first, document in begun:
        weights[row, first + document.target : first + len(document.tokens)] = 1.0
        for start in document.asked:
            length = document.target - document.asked[-1]
            weights[row, first + start : first + start + length] = again
    return tuple(torch.from_numpy(x) for x in (*arrays, weights))


@torch.no_grad()
def look(
    model: LanguageModel,
    tokenizer: Tokenizer,
    held_out: Sequence[Document],
    temperature: float,
    min_p: float,
) -> Look:
    """Loss on held-out trajectories, pass@1 along chains of held-out questions."""
    model.eval()
    device = model.embedding.weight.device
    rows = pack(held_out, ROW)
    total = weight = 0.0
    for group in _grouped(rows, 16):
        batch = tuple(t.to(device) for t in tensors(group, again=0.0))
        share = float(batch[-1].sum())
        total += float(row_loss(model, *batch)) * share
        weight += share
    rates = pass_rates(model, tokenizer, _problems(), temperature, min_p)
    model.train()
    return Look(total / weight, rates)


@cache
def _problems() -> list[Problem]:
    """Held-out problems, drawn as those of the splits are."""
    held_out = (e.problem for e in exercises(11, "calibration", split_weights()) if not e.shared)
    return list(islice(held_out, LOOKED_AT))


def pass_rates(
    model: LanguageModel,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    temperature: float,
    min_p: float,
    length: int = 3,
) -> tuple[float, ...]:
    """The share of right ones among the first, second, … attempts of one chain a problem."""
    bos, _ = special_ids(tokenizer)
    questions = [tokenizer.encode(p.question + "\n").ids for p in problems]
    prompts = [[bos, *question] for question in questions]
    dice = torch.Generator().manual_seed(0)

    def answered(ids: list[int]) -> bool:
        return ANSWERED.search(tokenizer.decode(ids)) is not None

    rates = []
    for _ in range(length):
        grown = sample(model, tokenizer, prompts, temperature, min_p, dice, answered)
        texts = [tokenizer.decode(ids) for ids in grown]
        right = [grade(p, extract(text)) for p, text in zip(problems, texts, strict=True)]
        rates.append(sum(right) / len(right))
        prompts = [p + ids + q for p, ids, q in zip(prompts, grown, questions, strict=True)]
    return tuple(rates)


def _grouped(rows: Sequence[list[Document]], size: int) -> Iterator[Sequence[list[Document]]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
