"""Labelled solutions as training rows: packed, shuffled, and split by question."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from ttsolve.errors import UsageError
from ttsolve.train.labels import MEMORY, step_labels
from ttsolve.train.pool_file import Drawn, read_pool
from ttsolve.train.rows import ROW
from ttsolve.train.shards import SHARDS
from ttsolve.train.tokenizer import special_ids

OPEN_ROWS = 8  # that are looked at for room
CHAIN_ROW = 1024  # tokens of a row of chains: three worksheets of the longest
WINDOW = MEMORY + 1  # attempts of a chain that read alike in one document and one by one

Kind = Literal["prm", "orm", "revision-verifier"]


class Packed(Protocol):
    """What goes into a row."""

    @property
    def tokens(self) -> tuple[int, ...]: ...

    @property
    def question(self) -> str: ...


P = TypeVar("P", bound=Packed)
Arrays = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Labelled:
    """One solution with its labels; equal samples of a question are one, with their number."""

    tokens: tuple[int, ...]  # BOS, question, steps
    marks: tuple[int, ...]  # the place of each step's last token
    targets: tuple[float, ...]  # P(correct | prefix up to there), each step
    count: int
    right: bool
    question: str
    start: int  # the place of the solution's first token; of a chain, its last attempt's


def read_labelled(pools: Sequence[Path], tokenizer: Tokenizer, kind: Kind) -> list[Labelled]:
    """Everything in the pools with its labels, as tokens.

    For a "prm" every different solution with a label at each step; for an "orm" with one, at its
    last step: whether its answer is right. For a "revision-verifier" every chain, with such a label
    at the end of each attempt.
    """
    drawn = (d for pool in pools for d in read_pool(pool))
    if kind == "revision-verifier":
        return [chain for d in drawn for chain in _chains(d, tokenizer)]
    labelled = (solution for d in drawn for solution in _labelled(d, tokenizer))
    return [_outcome(s) for s in labelled] if kind == "orm" else list(labelled)


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
            out.append(Labelled(*labels, counts[steps], right[steps], question, len(start)))
    return out


def _chains(drawn: Drawn, tokenizer: Tokenizer) -> list[Labelled]:
    """Each chain as one document: the question before every attempt, as a reviser is shown it.

    An attempt without an answer has no label. Only the first attempts that fit a row, and a
    reviser's window, are taken: what a later one was shown is another document.
    """
    question = drawn.problem.question
    asked = tokenizer.encode(question + "\n").ids
    out = []
    for first in range(0, len(drawn.samples), drawn.length):
        tokens, marks, targets = [special_ids(tokenizer)[0]], list[int](), list[float]()
        for attempt in drawn.samples[first : first + min(drawn.length, WINDOW)]:
            ids = asked + tokenizer.encode(attempt.text.rstrip("\n") + "\n").ids
            if len(tokens) + len(ids) > CHAIN_ROW:
                break
            tokens += ids
            start = len(tokens) - len(ids) + len(asked)
            if attempt.answer is not None:
                marks.append(len(tokens) - 1)
                targets.append(float(attempt.right))
        if marks:
            labels = (tuple(tokens), tuple(marks), tuple(targets))
            out.append(Labelled(*labels, 1, targets[-1] == 1, question, start))
    return out


def split(solutions: Sequence[P], held_out: float) -> tuple[list[P], list[P]]:
    """Learn from some questions, keep others (by the hash of their text) for early stopping.

    Raises:
        UsageError: one of the two would be empty.
    """

    def kept(solution: P) -> bool:
        digest = blake2b(solution.question.encode(), digest_size=2).digest()
        return int.from_bytes(digest, "little") < held_out * 65536

    learn, hold = [s for s in solutions if not kept(s)], [s for s in solutions if kept(s)]
    if not learn or not hold:
        raise UsageError("The pool holds too few questions to train on: draw more of them.")
    return learn, hold


def few(documents: Sequence[P], most: int) -> list[P]:
    """All documents of some questions, drawn by hash, that have about `most` tokens together."""
    of: dict[str, list[P]] = {}
    for document in documents:
        of.setdefault(document.question, []).append(document)
    taken: list[P] = []
    for question in sorted(of, key=lambda q: blake2b(q.encode()).digest()):
        if most <= 0:
            break
        taken += of[question]
        most -= sum(len(document.tokens) for document in of[question])
    return taken


class Rotation(Generic[P]):
    """Rows for every shard of every step, each epoch in another order."""

    def __init__(self, rows: list[list[P]], seed: int, per_step: int):
        if per_step % SHARDS:
            raise ValueError(f"{per_step} rows cannot be dealt to {SHARDS} shards")
        self.rows = rows
        self.each = per_step // SHARDS
        self._order = lru_cache(maxsize=2)(
            lambda epoch: random.Random(f"{seed}/{epoch}").sample(self.rows, len(self.rows))
        )

    def at(self, step: int, shard: int) -> list[list[P]]:
        """The rows of one shard of one optimiser step."""
        first = (step * SHARDS + shard) * self.each
        places = (divmod(place, len(self.rows)) for place in range(first, first + self.each))
        return [self._order(epoch)[index] for epoch, index in places]


class Batches(Rotation[Labelled]):
    """Rows packed with solutions in random order, as tensors."""

    def __init__(self, solutions: Sequence[Labelled], seed: int, per_step: int, room: int = ROW):
        order = random.Random(seed).sample(range(len(solutions)), len(solutions))
        super().__init__(pack([solutions[i] for i in order], room), seed, per_step)
        self.room = room

    def tensors_at(self, step: int, shard: int) -> tuple[Tensor, ...]:
        """The rows of one shard of one optimiser step, as `tensors` gives them."""
        return tensors(self.at(step, shard), self.room)


def pack(documents: Sequence[P], room: int = ROW) -> list[list[P]]:
    """Fill rows of `room` tokens in turn, putting each document into the fullest open row."""
    rows: list[list[P]] = []
    open_rows: list[tuple[int, list[P]]] = []  # (room left, row), least first
    for document in documents:
        size = len(document.tokens)
        fitting = (i for i, (left, _) in enumerate(open_rows) if left >= size)
        if (best := next(fitting, None)) is not None:
            left, row = open_rows.pop(best)
        else:
            left, row = room, []
            rows.append(row)
        row.append(document)
        open_rows.append((left - size, row))
        open_rows = sorted(open_rows, key=lambda entry: entry[0])[-OPEN_ROWS:]
    return rows


def laid_out(rows: Sequence[Sequence[P]], room: int) -> tuple[Arrays, list[tuple[int, int, P]]]:
    """ids, positions and document numbers, [rows, room] each; and (row, first place, document).

    Documents are numbered from 1 in each row; 0 is padding.
    """
    ids, places, numbers = (np.zeros((len(rows), room), dtype=np.int64) for _ in range(3))
    begun = []
    for r, row in enumerate(rows):
        used = 0
        for number, document in enumerate(row, start=1):
            begun.append((r, used, document))
            end = used + len(document.tokens)
            ids[r, used:end] = document.tokens
            places[r, used:end] = np.arange(end - used)
            numbers[r, used:end] = number
            used = end
    return (ids, places, numbers), begun


def tensors(rows: Sequence[Sequence[Labelled]], room: int = ROW) -> tuple[Tensor, ...]:
    """ids, positions, document numbers, targets, weights of labelled places, and of places whose
    tokens a right solution says; [rows, room] each.
    """
    arrays, begun = laid_out(rows, room)
    targets, weights, said = (np.zeros((len(rows), room), dtype=np.float32) for _ in range(3))
    for row, first, solution in begun:
        marks = first + np.array(solution.marks)
        targets[row, marks] = solution.targets
        weights[row, marks] = solution.count
        said[row, first + solution.start : first + len(solution.tokens)] = solution.right
    return tuple(torch.from_numpy(x) for x in (*arrays, targets, weights, said))
