"""Verifiers side by side: what each makes of the same stored samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from ttsolve import measure
from ttsolve.engines.onnx_prm import OnnxVerifier
from ttsolve.errors import UsageError
from ttsolve.measure import Method, Pool
from ttsolve.train.card import brief
from ttsolve.train.figures import by_kind, scored_pool
from ttsolve.train.pool_file import Drawn, read_pool
from ttsolve.train.work import PROMPT, Say, needed

BUDGETS = (4, 16, 64)
VOTES: tuple[Method, ...] = ("weighted", "best")
STEPS = 6  # the first ones
Row = tuple[str, str]


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
    first: list[Pool] = []
    for file in verifiers:
        say(f"{file} scores the samples of {len(drawn)} problems")
        verifier = OnnxVerifier(file, tokenizer, PROMPT)
        pools = [scored_pool(d, verifier) for d in drawn]
        first = first or pools
        columns.append(dict(_figures(pools, first)))
    return _table(drawn, verifiers, columns)


def _figures(pools: Sequence[Pool], first: Sequence[Pool]) -> Iterator[Row]:
    for kind, some in by_kind(pools).items():
        yield f"AUC within problems, {kind} subjects", str(measure.auc(some))
    for number, area in enumerate(measure.auc_by_step(pools)[:STEPS], 1):
        yield f"AUC of step {number}", str(area)
    for how in VOTES:
        for n in (n for n in BUDGETS if n <= min(len(p.right) for p in pools)):
            rates = measure.vote_rates(pools, how, n)
            yield f"{how} vote at {n}", brief(measure.mean(rates))
            if pools is not first:
                lead = measure.paired(rates, measure.vote_rates(first, how, n))
                yield f"its lead over the first, {how} at {n}", brief(lead)


def _table(
    drawn: Sequence[Drawn], verifiers: Sequence[Path], columns: Sequence[dict[str, str]]
) -> str:
    names = list(dict.fromkeys(name for column in columns for name in column))
    heads = [f"{len(drawn)} problems", *map(str, verifiers)]
    rows = [heads, ["---"] * len(heads)]
    rows += [[name, *(column.get(name, "") for column in columns)] for name in names]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
