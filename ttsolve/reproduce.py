"""The paper once more: what is measured of a pair, and what of it the claims are judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ttsolve.calibrate import Table, table_of
from ttsolve.evaluate import Measured
from ttsolve.evidence import (
    AUTO,
    BEAM,
    BEST,
    MAJORITY,
    REVISIONS,
    Evidence,
    Larger,
    ratio_name,
)
from ttsolve.exchange import FORMULAS, Formula
from ttsolve.grid import Grid, ratios
from ttsolve.measure import Floats

LOOKAHEAD = "lookahead:lookahead=3,width=4"
REBASE = "rebase"  # not the paper's, but among what its compute-optimal strategy may choose from
GREEDY = Grid((MAJORITY,), (1,))  # of a larger generator, at temperature 0
CHAINS = 4  # side by side, at least: what one chain does is luck


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured of every problem, one grid after the other."""

    problems: int | None  # of the file, from its beginning; None: all
    search: Grid
    revisions: tuple[Grid, ...]

    @property
    def units(self) -> int:
        """The units of one problem, at most."""
        return sum(grid.units for grid in (self.search, *self.revisions))


def revised(*budgets: int) -> Grid:
    """Revisions at every ratio of sequential to parallel that these budgets have."""
    return Grid(tuple(f"{REVISIONS}:ratio={ratio}" for ratio in ratios(budgets)), budgets)


QUICK = Plan(
    problems=80,
    search=Grid((BEST, MAJORITY, BEAM, REBASE, LOOKAHEAD, AUTO), (1, 4, 16, 64)),
    revisions=(revised(4, 16), Grid((ratio_name(4, 1),), (64,))),
)
FULL = Plan(
    problems=None,
    search=Grid(
        (BEST, MAJORITY, "beam", BEAM, REBASE, "lookahead", LOOKAHEAD, AUTO), (1, 4, 16, 64, 256)
    ),
    revisions=(
        revised(4, 16, 64),
        Grid(tuple(ratio_name(*r) for r in ((1, 256), (1, 16), (1, 1), (16, 1), (256, 1))), (256,)),
    ),
)


@dataclass(frozen=True, slots=True)
class Parts:
    """What was measured: outcomes of the same problems, as far as there are any."""

    grids: Sequence[Sequence[Measured]]  # of the pair
    orm: Sequence[Measured] = ()  # best-of-n over the same samples
    larger: Mapping[str, float] = field(default_factory=dict)  # by content: how often it is right

    def whole(self) -> Parts:
        """The problems that all parts have, in the order of the first."""
        known = [part for part in (*self.grids, self.orm) if part]
        contents = set.intersection(*({o.rows[0].content for o in _good(part)} for part in known))
        contents &= set(self.larger) or contents

        def kept(part: Sequence[Measured]) -> list[Measured]:
            order = {outcome.rows[0].content: outcome for outcome in _good(part)}
            first = [outcome.rows[0].content for outcome in _good(known[0])]
            return [order[content] for content in first if content in contents] if part else []

        return Parts([kept(part) for part in self.grids], kept(self.orm), self.larger)


def evidence_of(
    parts: Parts,
    *,
    larger: tuple[str, float] | None = None,
    formula: Formula = FORMULAS["arxiv"],
    overhead: float = 1.0,
    lacking: dict[str, str] | None = None,
    timed: bool = False,
) -> Evidence:
    """What was measured, as arrays.

    Args:
        larger: the larger generator's name, and its parameters as a multiple of the small one's.
        overhead: see `exchange.overhead`.
        lacking: why a part is not there.
        timed: each run computed all of its own.
    """
    whole = parts.whole()
    outcomes = [_merged(each) for each in zip(*whole.grids, strict=True)]
    found = None
    if whole.larger and larger:
        right = [whole.larger[outcome.rows[0].content] for outcome in outcomes]
        found = Larger(*larger, np.array(right))
    return Evidence(
        table=table_of(outcomes, with_auto=True),
        orm=_orm(whole.orm),
        chains=longest_chains(outcomes),
        larger=found,
        formula=formula,
        overhead=overhead,
        lacking=lacking or {},
        timed=timed,
    )


def longest_chains(outcomes: Sequence[Measured], beside: int = CHAINS) -> Floats | None:
    """The longest chains that ran beside so many others, shape [P, C, L]; None: there are none."""
    cells = set.intersection(*(set(outcome.chains) for outcome in outcomes)) if outcomes else set()
    shapes = {cell: [outcome.chains[cell].shape for outcome in outcomes] for cell in cells}
    able = {cell: s[0] for cell, s in shapes.items() if len(set(s)) == 1 and s[0][0] >= beside}
    if not able:
        return None
    cell = max(able, key=lambda one: (able[one][1], able[one][0]))
    return np.stack([outcome.chains[cell] for outcome in outcomes])


def _good(part: Sequence[Measured]) -> list[Measured]:
    return [outcome for outcome in part if outcome.rows]


def _merged(each: Sequence[Measured]) -> Measured:
    """One problem's rows, pools and chains of all grids."""
    chains = {cell: found for outcome in each for cell, found in outcome.chains.items()}
    rows = {(row.strategy, row.budget, row.seed): row for outcome in each for row in outcome.rows}
    pools = next((outcome.pools for outcome in each if outcome.pools), ())
    return replace(each[0], rows=tuple(rows.values()), pools=pools, chains=chains)


def _orm(outcomes: Sequence[Measured]) -> Table | None:
    return table_of(outcomes) if outcomes else None
