"""Verifiers side by side: what each makes of the same stored samples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from ttsolve import measure
from ttsolve.engines.onnx_prm import OnnxVerifier
from ttsolve.errors import UsageError
from ttsolve.measure import Floats, Method, Pool
from ttsolve.train.figures import by_kind, scored_pool
from ttsolve.train.pool_file import read_pool
from ttsolve.train.work import PROMPT, Say, needed

BUDGETS = (4, 16, 64, 256)
VOTES: tuple[Method, ...] = ("weighted", "best")
STEPS = 6  # the first ones
Rates = dict[tuple[Method, int], Floats]  # of each vote: how often it is right, a problem


def compare_verifiers(
    work: Path, split: str, verifiers: Sequence[Path], limit: int | None, say: Say
) -> str:
    """A table in Markdown, a column for each verifier; the votes also paired with the first's.

    work: a folder of a training with its tokenizer and the samples of `train measure`.
    split: which of these samples: test, game24 or slips.
    limit: the first problems alone.

    Raises:
        UsageError: there are no such samples.
        ModelError: a verifier cannot be used.
    """
    tokenizer = needed(work / "tokenizer.json", "generator")
    drawn = list(islice(read_pool(work / f"pool-{split}.jsonl"), limit))
    if not drawn:
        raise UsageError(
            f"There are no samples in {work / f'pool-{split}.jsonl'}: `ttsolve train measure` "
            "draws them."
        )
    columns: list[dict[str, str]] = []
    first: Rates = {}
    for file in verifiers:
        say(f"{file} scores the samples of {len(drawn)} problems")
        verifier = OnnxVerifier(file, tokenizer, PROMPT)
        pools = [scored_pool(d, verifier) for d in drawn]
        votes = _votes(pools)
        columns.append(_areas(pools) | _accuracies(votes, first))
        first = first or votes
    names = dict.fromkeys(name for column in columns for name in column)
    heads = [f"{len(drawn)} problems", *map(str, verifiers)]
    rows = [heads, ["---"] * len(heads)]
    rows += [[name, *(column.get(name, "") for column in columns)] for name in names]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _areas(pools: Sequence[Pool]) -> dict[str, str]:
    kinds = by_kind(pools)
    areas = {"AUC within problems": measure.auc(pools)}
    if all(kinds.values()):
        areas |= {f"AUC within problems, {k} subjects": measure.auc(v) for k, v in kinds.items()}
    steps = enumerate(measure.auc_by_step(pools)[:STEPS], 1)
    areas |= {f"AUC of step {number}": area for number, area in steps if area.n}
    return {name: str(area) for name, area in areas.items()}


def _votes(pools: Sequence[Pool]) -> Rates:
    size = min(len(p.right) for p in pools)
    return {
        (how, n): measure.vote_rates(pools, how, n) for how in VOTES for n in BUDGETS if n <= size
    }


def _accuracies(votes: Rates, first: Rates) -> dict[str, str]:
    """Every vote, and where another verifier came first its lead over that one's."""
    cells: dict[str, str] = {}
    for (how, n), rates in votes.items():
        cells[f"{how} vote at {n}"] = measure.mean(rates).brief
        if first:
            lead = measure.paired(rates, first[how, n])
            cells[f"its lead over the first, {how} at {n}"] = lead.brief
    return cells
