"""Labelled solutions as training rows: packed, shuffled, and split by question."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ttsolve.errors import UsageError
from ttsolve.train.labels import Drawn, read_pool, step_labels
from ttsolve.train.rows import ROW
from ttsolve.train.shards import SHARDS
from ttsolve.train.tokenizer import special_ids

OPEN_ROWS = 8  # that are looked at for room


@dataclass(frozen=True, slots=True)
class Labelled:
    """One solution with its labels; equal samples of a question are one, with their number."""

    tokens: tuple[int, ...]  # BOS, question, steps
    marks: tuple[int, ...]  # the place of each step's last token
    targets: tuple[float, ...]  # P(correct | prefix up to there), each step
    count: int
    right: bool
    question: str


def read_labelled(
    pools: Sequence[Path], tokenizer: Tokenizer, outcome: bool = False
) -> list[Labelled]:
    """Every different solution in the pools with its labels, as tokens.

    With `outcome` each has one label: at its last step, whether its answer is right.
    """
    drawn = (d for pool in pools for d in read_pool(pool))
    labelled = (solution for d in drawn for solution in _labelled(d, tokenizer))
    return [_outcome(s) for s in labelled] if outcome else list(labelled)


def _outcome(solution: Labelled) -> Labelled:
    return replace(solution, marks=solution.marks[-1:], targets=(float(solution.right),))


def _labelled(drawn: Drawn, tokenizer: Tokenizer) -> list[Labelled]:
    question = drawn.problem.question
    start = [special_ids(tokenizer)[0], *tokenizer.encode(question + "\n").ids]
    counts = Counter(s.steps for s in drawn.samples)
    right = {s.steps: s.right for s in drawn.samples}
    out = []
    for steps, targets in step_labels(drawn).items():
        tokens, marks = list(start), list[int]()
        for step in steps:
            tokens += tokenizer.encode(step).ids
            marks.append(len(tokens) - 1)
        if len(tokens) <= ROW:
            labels = (tuple(tokens), tuple(marks), tuple(targets))
            out.append(Labelled(*labels, counts[steps], right[steps], question))
    return out


def split(solutions: Sequence[Labelled], held_out: float) -> tuple[list[Labelled], list[Labelled]]:
    """Learn from some questions, keep others (by the hash of their text) for early stopping.

    Raises:
        UsageError: one of the two would be empty.
    """

    def kept(solution: Labelled) -> bool:
        digest = blake2b(solution.question.encode(), digest_size=2).digest()
        return int.from_bytes(digest, "little") < held_out * 65536

    learn, hold = [s for s in solutions if not kept(s)], [s for s in solutions if kept(s)]
    if not learn or not hold:
        raise UsageError("The pool holds too few questions to train on: draw more of them.")
    return learn, hold


class Batches:
    """Rows packed with solutions in random order, each epoch in another."""

    def __init__(self, solutions: Sequence[Labelled], seed: int, per_step: int):
        order = random.Random(seed).sample(range(len(solutions)), len(solutions))
        self.rows = pack([solutions[i] for i in order])
        self.each = per_step // SHARDS
        self._order = lru_cache(maxsize=2)(
            lambda epoch: random.Random(f"{seed}/{epoch}").sample(self.rows, len(self.rows))
        )

    def at(self, step: int, shard: int) -> tuple[Tensor, ...]:
        """The rows of one shard of one optimiser step, as `tensors` gives them."""
        first = (step * SHARDS + shard) * self.each
        places = (divmod(place, len(self.rows)) for place in range(first, first + self.each))
        return tensors([self._order(epoch)[index] for epoch, index in places])


def pack(solutions: Sequence[Labelled]) -> list[list[Labelled]]:
    """Fill rows one after the other, putting each solution into the fullest open row it fits."""
    rows: list[list[Labelled]] = []
    open_rows: list[tuple[int, list[Labelled]]] = []  # (room, row), least room first
    for solution in solutions:
        size = len(solution.tokens)
        fitting = (i for i, (room, _) in enumerate(open_rows) if room >= size)
        if (best := next(fitting, None)) is not None:
            room, row = open_rows.pop(best)
        else:
            room, row = ROW, []
            rows.append(row)
        row.append(solution)
        open_rows.append((room - size, row))
        open_rows = sorted(open_rows, key=lambda entry: entry[0])[-OPEN_ROWS:]
    return rows


def tensors(rows: Sequence[Sequence[Labelled]]) -> tuple[Tensor, ...]:
    """ids, positions, document numbers, targets, weights of labelled places; [rows, ROW] each."""
    ids, places, numbers = (np.zeros((len(rows), ROW), dtype=np.int64) for _ in range(3))
    targets, weights = (np.zeros((len(rows), ROW), dtype=np.float32) for _ in range(2))
    for r, row in enumerate(rows):
        used = 0
        for number, solution in enumerate(row, start=1):
            size = len(solution.tokens)
            ids[r, used : used + size] = solution.tokens
            places[r, used : used + size] = np.arange(size)
            numbers[r, used : used + size] = number
            marks = used + np.array(solution.marks)
            targets[r, marks] = solution.targets
            weights[r, marks] = solution.count
            used += size
    return tuple(torch.from_numpy(x) for x in (ids, places, numbers, targets, weights))
