"""Claims on revisions: chains of attempts, and their ratio to parallel samples.

What each function judges is said in `claims.CLAIMS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ttsolve.calibrate import cross_validated
from ttsolve.chains import followed, turned_wrong
from ttsolve.claims_search import EASY, HARD, HARDEST, quarter
from ttsolve.evidence import Difficulty, Evidence, Missing, ratio_name
from ttsolve.finding import Finding, against, listed
from ttsolve.measure import paired


def attempts_improve(e: Evidence) -> Finding:
    right = e.attempts()
    if right.shape[1] < 5:
        raise Missing(f"the chains are {right.shape[1]} attempts long")
    said = f"attempt 5 is right {right[:, 4].mean():.3f}, attempt 1 {right[:, 0].mean():.3f}"
    return Finding(said, paired(right[:, 4], right[:, 0]))


def attempts_improve_beyond(e: Evidence) -> Finding:
    right = e.attempts()
    if right.shape[1] < 8:
        raise Missing(f"the chains are {right.shape[1]} attempts long")
    rest = np.asarray(right[:, 5:].mean(axis=1))
    said = f"attempts 6 to {right.shape[1]} are right {rest.mean():.3f}, attempt 5 "
    return Finding(f"{said}{right[:, 4].mean():.3f}", paired(rest, right[:, 4]))


def right_turned_wrong(e: Evidence) -> Finding:
    e.attempts()
    assert e.chains is not None
    part = turned_wrong(list(e.chains))
    said = f"{part.value:.0%} of {part.n:,} right answers (paper: 38 %)"
    # A verdict counts problems: many answers to two of them tell of two.
    return Finding(said, replace(part, n=sum(bool(followed(one).any()) for one in e.chains)))


def _extremes(e: Evidence) -> list[int]:
    whole = {b: {ratio_name(b, 1), ratio_name(1, b)} for b in e.table.budgets if b > 1}
    both = [b for b, names in whole.items() if names <= set(e.ratios(b))]
    if not both:
        raise e.need("revisions")
    return both


def sequential_beats_parallel(e: Evidence) -> Finding:
    budgets = _extremes(e)
    sequential = np.mean([e.rate(ratio_name(b, 1), b) for b in budgets], axis=0)
    parallel = np.mean([e.rate(ratio_name(1, b), b) for b in budgets], axis=0)
    return against(sequential, parallel, f"sequential, N = {listed(budgets)}")


def interior_ratio_is_best(e: Evidence) -> Finding:
    budget = _extremes(e)[-1]
    ends = [ratio_name(budget, 1), ratio_name(1, budget)]
    return _best_of(e, budget, [n for n in e.ratios(budget) if n not in ends], ends, None)


def easy_wants_sequential(e: Evidence) -> Finding:
    budget = _extremes(e)[-1]
    others = [name for name, ratio in e.ratios(budget).items() if ratio <= 1]
    return _best_of(e, budget, [ratio_name(budget, 1)], others, EASY)


def hard_wants_a_mixture(e: Evidence) -> Finding:
    budget = _extremes(e)[-1]
    ends = [ratio_name(budget, 1), ratio_name(1, budget)]
    mixed = [n for n in e.ratios(budget) if n not in ends]
    return _best_of(e, budget, mixed, ends[:1], (*HARD, *HARDEST))


def _best_of(
    e: Evidence,
    budget: int,
    ones: Sequence[str],
    others: Sequence[str],
    bins: Sequence[int] | None,
) -> Finding:
    """The best of some ratios against the best of others, both chosen on the other half."""
    if not ones or not others:
        raise Missing(f"too few ratios were measured at a budget of {budget}")
    where = e.among(*bins) if bins else np.ones(len(e.table.contents), dtype=np.bool_)
    one_bin = np.ones(int(where.sum()), dtype=np.int64)
    free = np.zeros(one_bin.size)
    a, b = (
        cross_validated(
            {name: e.rate(name, budget)[where] for name in names},
            dict.fromkeys(names, free),
            one_bin,
            0.0,
        )
        for names in (ones, others)
    )
    lists = (
        " or ".join(n.partition("=")[2] for n in ones),
        " or ".join(n.partition("=")[2] for n in others),
    )
    return against(a, b, f"{lists[0]}, N = {budget}", other=lists[1])


def _optimal_ratio(e: Evidence, kind: Difficulty) -> Finding:
    budget = max(b for b in _extremes(e) if b // 4 in {n for _, n in e.table.rates})
    curve = e.optimal(list(e.ratios()), kind)
    return quarter(e, curve, ratio_name(1, budget), budget, f"{kind} bins")


def optimal_ratio_by_oracle(e: Evidence) -> Finding:
    return _optimal_ratio(e, "oracle")


def optimal_ratio_by_predicted(e: Evidence) -> Finding:
    return _optimal_ratio(e, "predicted")
