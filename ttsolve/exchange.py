"""Test-time compute against parameters, at equal FLOPs (paper section 7).

Pretraining costs 6·N·D FLOPs and inference 2·N·d: N parameters, D tokens of pretraining, d of
inference over the model's life, R = d/D. A model with M times the parameters costs M times as much
of both. A small model that is to cost as much in all may spend m times its inference:

    6·N·D + m·(1 + v)·2·N·d = M·(6·N·D + (1 + w)·2·N·d)
    m = (M·(1 + w) + 3·(M - 1)/R) / (1 + v)

v and w are what a verifier adds to the inference of the small and of the larger model, as parts of
their own. The paper has two versions of this, which agree in m for the R that each of them takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ttsolve.calibrate import at_budget
from ttsolve.finding import FEWEST
from ttsolve.measure import Estimate, Floats, mean, paired

Wins = Literal["small", "larger", "cannot tell"]
SLACK = 1.02  # m may be so much above the largest budget measured: 257.8 is 256


@dataclass(frozen=True, slots=True)
class Formula:
    """One version of the equation."""

    name: str
    about: str
    ratios: tuple[float, ...]  # the R it is used with, rising
    small: float | None  # v; None: as measured
    larger: float  # w


FORMULAS = {
    formula.name: formula
    for formula in (
        Formula("arxiv", "no verifier is charged (arXiv v1)", (0.16, 0.79, 22), 0.0, 0.0),
        Formula(
            "iclr",
            "a verifier as large as the generator is charged to both models (ICLR 2025)",
            (0.08, 0.40, 11),
            1.0,
            1.0,
        ),
        Formula(
            "corrected",
            "the small model is charged what its verifier costs, the larger one, which has none, "
            "nothing",
            (0.08, 0.40, 11),
            None,
            0.0,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Match:
    """Both models at equal FLOPs, over the problems of one bin or of all."""

    ratio: float  # R
    multiplier: float  # m: generations of the small model for one of the larger
    budget: float  # at which the small model was measured: m, or the largest budget if that is less
    bin: int | None  # 1 the easiest; None: all
    small: Estimate
    larger: Estimate
    lead: Estimate  # small - larger, paired

    @property
    def short(self) -> bool:
        """Whether the small model was given less than it may spend."""
        return self.multiplier > self.budget * SLACK

    @property
    def wins(self) -> Wins:
        """Who is right more often, where the interval of the difference does not hold 0."""
        if self.lead.n < FEWEST:
            return "cannot tell"
        if self.lead.low > 0:
            return "small"
        return "larger" if self.lead.high < 0 else "cannot tell"


def multiplier(formula: Formula, times: float, ratio: float, overhead: float = 1.0) -> float:
    """m: what one generation of the larger model is worth, in generations of the small one.

    Args:
        times: M, the larger model's parameters as a multiple of the small one's.
        ratio: R, tokens of inference for each of pretraining.
        overhead: v, where the formula takes it as measured.
    """
    v = overhead if formula.small is None else formula.small
    return (times * (1 + formula.larger) + 3 * (times - 1) / ratio) / (1 + v)


def matches(
    curve: Mapping[int, Floats],
    larger: Floats,
    bins: NDArray[np.int64],
    multipliers: Mapping[float, float],
) -> list[Match]:
    """The comparison for each R, over all problems and in each bin.

    Where m lies between two budgets the curve is interpolated; where it is beyond the last, the
    small model is judged at that, which it may spend as well.

    Args:
        curve: how often the small model is right at each budget, shape [P].
        larger: how often the larger one is, greedily, shape [P].
        bins: of each problem, shape [P].
        multipliers: m for each R.
    """
    out = []
    for ratio, m in sorted(multipliers.items()):
        budget = min(m, float(max(curve)))
        small = at_budget(curve, budget)
        if small is None:
            continue
        groups: Sequence[int | None] = [None, *sorted({int(number) for number in bins})]
        for number in groups:
            some = bins == number if number else np.ones(len(bins), dtype=np.bool_)
            a, b = small[some], larger[some]
            out.append(Match(ratio, m, budget, number, mean(a), mean(b), paired(a, b)))
    return out


def overhead(parameters: tuple[int, int], tokens: tuple[float, float]) -> float:
    """v: FLOPs of a verifier for each of its generator; 0 where nothing was generated.

    Args:
        parameters: of (generator, verifier).
        tokens: computed by (generator, verifier).
    """
    spent = parameters[0] * tokens[0]
    return parameters[1] * tokens[1] / spent if spent else 0.0


def reach(curve: Mapping[int, Floats], target: float) -> float:
    """The budget from which a curve's mean stays at a target, interpolated; inf: nowhere."""
    means = {budget: float(rates.mean()) for budget, rates in curve.items()}
    budgets = sorted(means)
    if means[budgets[-1]] < target:
        return math.inf
    after = budgets[-1]
    for before in reversed(budgets[:-1]):
        if means[before] < target:
            part = (target - means[before]) / (means[after] - means[before])
            return float(before * (after / before) ** part)
        after = before
    return float(budgets[0])
