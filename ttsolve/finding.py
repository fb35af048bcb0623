"""What was measured for one claim: a difference, paired over problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ttsolve.measure import Estimate, Floats, paired

NEAR = 0.02  # of accuracy
FEWEST = 10  # problems, for a verdict: the bootstrap of fewer is too sure


@dataclass(frozen=True, slots=True)
class Finding:
    """What was measured for a claim."""

    said: str
    lead: Estimate  # what the claim says is above 0
    within: float = 0.0  # how far below 0 is near enough


def against(a: Floats, b: Floats, what: str, within: float = 0.0, other: str = "") -> Finding:
    """The finding that a is above b: both of shape [P], over the same problems."""
    said = f"{what}: {a.mean():.3f} against {b.mean():.3f}{f' ({other})' if other else ''}"
    return Finding(said, paired(a, b), within)


def listed(budgets: Sequence[int]) -> str:
    """The budgets in words."""
    return ", ".join(map(str, budgets))
