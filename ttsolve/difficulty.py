"""How hard a problem is for a pair: bins by quantiles, 1 the easiest (paper section 3.2).

*Oracle* difficulty is the share of right ones among many samples; *predicted* difficulty is the
verifier's mean score of a few, and needs no reference. Both are numbers from 0 (hard) to 1 (easy).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from statistics import fmean, quantiles

from ttsolve.answers import answer_of
from ttsolve.core import Solution
from ttsolve.vote import Aggregation, score_of

BINS = 5


def predicted(
    samples: Sequence[Solution], by: Aggregation = "last", mark: str = "Answer:"
) -> float | None:
    """The mean score of solutions sampled to their end; None when there are none, or no scores.

    A sample without an answer counts 0, whatever the verifier says of it: it cannot be right.
    """
    scores = [score_of(sample, by) for sample in samples]
    known = [
        0.0 if answer_of(sample, mark) is None else score
        for sample, score in zip(samples, scores, strict=True)
        if score is not None
    ]
    return fmean(known) if known else None


def thresholds(values: Sequence[float], bins: int = BINS) -> tuple[float, ...]:
    """Where to cut so that each bin gets an equal part of the values, in rising order.

    Fewer cuts where values are equal: no bin is empty.
    """
    if len(values) < 2:
        return ()
    cuts: list[float] = []
    low = min(values)
    for cut in quantiles(values, n=bins, method="inclusive"):
        if cut <= max(values) and any(low <= value < cut for value in values):
            cuts.append(cut)
            low = cut
    return tuple(cuts)


def bin_of(value: float, cuts: Sequence[float]) -> int:
    """The bin of a value, from 1 (easiest) to len(cuts) + 1; a value at a cut is the easier one."""
    return len(cuts) + 1 - bisect_right(cuts, value)
