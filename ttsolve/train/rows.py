"""Exercises as training rows: whole documents packed into rows of fixed length."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ttsolve.pocketmath import Exercise, exercises
from ttsolve.train.model import Apart, Mask
from ttsolve.train.shards import SHARDS
from ttsolve.train.tokenizer import special_ids

ROW = 400  # tokens; the longest worksheets have about as many
QUESTION_WEIGHT = 0.1  # of a question's token in the loss; a solution's weighs 1
WAITING = 12  # documents that may wait for a row with more room

Document = tuple[list[int], int]  # tokens; how many of them are the question's


class Rows:
    """Packs fresh exercises into rows: equal arguments, equal rows, whenever a run was stopped."""

    def __init__(
        self, tokenizer: Tokenizer, weights: dict[tuple[str, int], float], seed: int, per_step: int
    ):
        self.tokenizer, self.weights, self.seed, self.per_step = tokenizer, weights, seed, per_step
        self.bos, self.eos = special_ids(tokenizer)

    def batch(self, step: int, shard: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One shard of one step: ids, positions, document numbers, loss weights; [rows, ROW] each.

        Documents are numbered from 1 in each row; 0 is padding.
        """
        seed = (self.seed * 1_000_003 + step) * SHARDS + shard
        source = map(self._document, exercises(seed, "train", self.weights))
        rows = self.per_step // SHARDS
        ids, places, numbers = (torch.zeros(rows, ROW, dtype=torch.long) for _ in range(3))
        weights = torch.zeros(rows, ROW)
        waiting: list[Document] = []
        for row in range(rows):
            used = number = 0
            while (document := _fitting(waiting, source, ROW - used)) is not None:
                tokens, question = document
                number += 1
                span = slice(used, used + len(tokens))
                ids[row, span] = torch.tensor(tokens)
                places[row, span] = torch.arange(len(tokens))
                numbers[row, span] = number
                weights[row, span] = 1.0
                weights[row, used : used + question] = QUESTION_WEIGHT
                weights[row, used] = 0.0  # nothing predicts a document's first token
                used += len(tokens)
        return ids, places, numbers, weights

    def _document(self, exercise: Exercise) -> Document:
        question = self.tokenizer.encode(exercise.problem.question + "\n").ids
        solution = self.tokenizer.encode(exercise.solution).ids
        return [self.bos, *question, *solution, self.eos], 1 + len(question)


def _fitting(waiting: list[Document], source: Iterator[Document], room: int) -> Document | None:
    """A document no longer than `room`; None when all that may wait are longer."""
    for i, document in enumerate(waiting):
        if len(document[0]) <= room:
            return waiting.pop(i)
    while len(waiting) < WAITING:
        document = next(source)
        if len(document[0]) <= room:
            return document
        if len(document[0]) <= ROW:  # the very few longer than a row are left out
            waiting.append(document)
    return None


def row_mask(numbers: Tensor) -> Mask:
    """Each document attends to itself alone, causally; numbers: [rows, tokens]."""
    if numbers.is_cuda:
        return square_mask(numbers)
    counts = (row.unique_consecutive(return_counts=True)[1] for row in numbers)
    return Apart(tuple(tuple(c.tolist()) for c in counts))


def square_mask(numbers: Tensor) -> Tensor:
    """The same as one mask, and one kernel, for GPUs: bool, [rows, 1, tokens, tokens]."""
    same = numbers[:, None, :, None] == numbers[:, None, None, :]
    tokens = numbers.shape[1]
    return same & torch.ones(tokens, tokens, dtype=torch.bool, device=numbers.device).tril()
