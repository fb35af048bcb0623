"""What a training needs, as small as it gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from ttsolve.core import Problem, Solution, Step
from ttsolve.errors import StorageError
from ttsolve.train import generator
from ttsolve.train.generator import Job, Progress
from ttsolve.train.model import LanguageModel, Shape
from ttsolve.train.pool_file import Drawn, Sample
from ttsolve.train.shards import is_first
from ttsolve.train.tokenizer import build_tokenizer, load_tokenizer

torch.set_num_threads(1)  # at this size threads only wait for each other


def write_tokenizer(folder: Path) -> Path:
    path = folder / "tokenizer.json"
    build_tokenizer(400).save(str(path))
    return path


def tiny_shape(tokenizer: Path) -> Shape:
    vocabulary = load_tokenizer(tokenizer).get_vocab_size()
    return Shape(vocabulary, layers=2, width=32, heads=2, hidden=32)


def wild(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights so large that every token matters to every later one."""
    torch.manual_seed(seed)
    for weight in model.parameters():
        nn.init.normal_(weight, mean=float(weight.dim() == 1), std=0.25)
    return model.eval()


def wild_model(tokenizer: Path) -> LanguageModel:
    model = LanguageModel(tiny_shape(tokenizer))
    wild(model)
    return model


def solution(problem: Problem, text: str, finish: str = "stop") -> Solution:
    steps = tuple(Step(line, 3) for line in text.splitlines(keepends=True))
    return Solution(problem, steps, finish)  # type: ignore[arg-type]


def drawn(question: str, *samples: tuple[str, str | None]) -> Drawn:
    """A problem whose answer is 1, with its samples: steps with a | between them, the answer."""
    made = (
        Sample(tuple(f"{step}\n" for step in text.split("|")), answer, answer == "1", 3)
        for text, answer in samples
    )
    return Drawn(Problem(question, "1"), tuple(made))


def train_without_tests(job: Job, report: Callable[[Progress], None]) -> None:
    """A training of the generator, for a process of its own."""
    generator.greedy_accuracy = lambda *_: 0.25
    generator._tests = list
    generator._train(job, report)


def run_out_of_space(job: str, report: Callable[[object], None]) -> None:
    """A training that ends as one does when the disk is full: the first process cannot save."""
    if is_first():
        report(f"begun {job}")
        raise StorageError("There is no space: make some.")
    dist.barrier()  # as the others wait for its gradients
