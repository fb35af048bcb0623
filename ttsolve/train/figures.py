"""The figures of a pair: everything its model card states, measured on stored samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ttsolve import measure
from ttsolve.answers import group
from ttsolve.core import Problem, Solution, Step
from ttsolve.engine import Verifier
from ttsolve.measure import Estimate, Pool
from ttsolve.pocketmath import CHOICE
from ttsolve.pools import rescored, unscored
from ttsolve.subjects import split_of
from ttsolve.train.model import LanguageModel, causal_mask
from ttsolve.train.pool_file import Drawn
from ttsolve.train.tokenizer import special_ids
from ttsolve.vote import Aggregation

AGGREGATIONS: tuple[Aggregation, ...] = ("last", "min", "prod")
BUDGETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def scored_pool(drawn: Drawn, verifier: Verifier) -> Pool:
    """One problem's samples and the scores of their steps; equal samples are scored once."""
    texts = list(dict.fromkeys(s.steps for s in drawn.samples))
    solutions = [
        Solution(drawn.problem, tuple(Step(line, 0) for line in text), "stop") for text in texts
    ]
    scored, _ = verifier.score(solutions)
    longest = max(map(len, texts))
    by_text = {}
    for text, solution in zip(texts, scored, strict=True):
        row = np.full(longest, np.nan)
        row[: len(text)] = solution.scores
        by_text[text] = row
    steps = np.array([by_text[s.steps] for s in drawn.samples])
    classes = [-1 if c is None else c for c in group([s.answer for s in drawn.samples])]
    return Pool(
        answers=np.array(classes, dtype=np.int64),
        right=np.array([s.right for s in drawn.samples]),
        scores=np.array([by_text[s.steps][len(s.steps) - 1] for s in drawn.samples]),
        tokens=np.array([s.tokens for s in drawn.samples], dtype=np.int64),
        steps=steps,
        subject=drawn.problem.subject or "",
    )


@torch.no_grad()
def token_likelihoods(
    model: LanguageModel, tokenizer: Tokenizer, drawn: Drawn
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each sample's log-likelihood under the LM: of the whole, and of its least likely token."""
    bos, _ = special_ids(tokenizer)
    question = [bos, *tokenizer.encode(drawn.problem.question + "\n").ids]
    texts = list(dict.fromkeys(s.text for s in drawn.samples))
    rows = [question + tokenizer.encode(text).ids for text in texts]
    width = max(map(len, rows))
    ids = torch.tensor([r + [0] * (width - len(r)) for r in rows])
    real = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows])
    positions = torch.arange(width).expand(len(rows), -1)
    hidden, _ = model(ids, positions, causal_mask(real, width))
    logs = F.log_softmax(model.logits(hidden[:, :-1]), dim=-1)
    own = logs.gather(-1, ids[:, 1:, None]).squeeze(-1)
    own = torch.where(real[:, 1:] > 0, own, torch.zeros(()))[:, len(question) - 1 :]
    totals = dict(zip(texts, own.sum(1).tolist(), strict=True))
    least = dict(zip(texts, own.min(1).values.tolist(), strict=True))
    return (
        np.array([totals[s.text] for s in drawn.samples]),
        np.array([least[s.text] for s in drawn.samples]),
    )


def vote_table(pools: Sequence[Pool]) -> list[dict[str, object]]:
    """Accuracy of each vote, and pass@N, at every budget the pools allow.

    Majority is that of the strategy, which has no verifier: of equal ones the first wins.
    """
    size = min((len(p.right) for p in pools), default=0)
    blind = [unscored(pool) for pool in pools]
    rows: list[dict[str, object]] = []
    for n in (n for n in BUDGETS if n <= size):
        votes = {m: measure.vote_rates(pools, m, n) for m in ("weighted", "best")}
        votes["majority"] = measure.vote_rates(blind, "majority", n)
        row: dict[str, object] = {"n": n, "pass": measure.pass_at(pools, n)}
        row |= {m: measure.mean(v) for m, v in votes.items()}
        row["weighted_minus_majority"] = measure.paired(votes["weighted"], votes["majority"])
        rows.append(row)
    return rows


def aggregation_table(pools: Sequence[Pool]) -> list[dict[str, object]]:
    """The weighted vote with a solution's score made of its steps' in each way; "last"'s lead."""
    size = min((len(p.right) for p in pools), default=0)
    scored = {by: [rescored(pool, by) for pool in pools] for by in AGGREGATIONS}
    rows: list[dict[str, object]] = []
    for n in (n for n in (4, 16, 64, 256) if n <= size):
        votes = {by: measure.vote_rates(some, "weighted", n) for by, some in scored.items()}
        row: dict[str, object] = {"n": n} | {by: measure.mean(v) for by, v in votes.items()}
        others = (by for by in AGGREGATIONS if by != "last")
        row |= {f"last - {by}": measure.paired(votes["last"], votes[by]) for by in others}
        rows.append(row)
    return rows


def is_choice(pool: Pool) -> bool:
    return pool.subject in CHOICE


def hand_seen(hand: Problem) -> bool:
    """Whether a Game-of-24 hand's numbers may occur in training (with other targets)."""
    assert hand.reference is not None
    return split_of("numbers " + hand.reference.removeprefix("24: ")) == "train"


def by_kind(pools: Sequence[Pool]) -> dict[str, list[Pool]]:
    return {
        "local": [p for p in pools if not is_choice(p)],
        "choice": [p for p in pools if is_choice(p)],
    }


def pass_by(pools: Sequence[Pool], key: Callable[[Pool], str]) -> dict[str, Estimate]:
    """pass@1 of the pools of each key."""
    keys = sorted({key(p) for p in pools})
    return {k: measure.pass_at([p for p in pools if key(p) == k]) for k in keys}


def calibration_by_step(pools: Iterable[Pool]) -> list[measure.Bin]:
    """How often samples are right whose steps (of any number) have about that score."""
    scores, right = [], []
    for pool in pools:
        assert pool.steps is not None
        known = ~np.isnan(pool.steps)
        scores.append(pool.steps[known])
        right.append(np.broadcast_to(pool.right[:, None], known.shape)[known])
    return measure.calibration(np.concatenate(scores), np.concatenate(right))
