"""Claims on search against a verifier, on the compute-optimal choice, and on larger models.

What each function judges is said in `claims.CLAIMS`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ttsolve.calibrate import at_budget, cross_validated
from ttsolve.evidence import AUTO, BEAM, BEST, SMALL, TARGET, Difficulty, Evidence, Missing
from ttsolve.finding import NEAR, Finding, against, listed
from ttsolve.measure import Floats, paired
from ttsolve.policy import planned
from ttsolve.strategies import BeamSearch
from ttsolve.vote import Aggregation

EASY, HARD, HARDEST = (1, 2), (3, 4), (5,)
LOOKAHEADS = {"lookahead": "beam", "lookahead:lookahead=3,width=4": BEAM}  # and their beam search


# --- search -----------------------------------------------------------------------------------


def beam_at_small_budgets(e: Evidence) -> Finding:
    budgets = e.budgets(BEAM, BEST, largest=SMALL)
    return against(
        e.over(BEAM, budgets), e.over(BEST, budgets), f"beam search, N = {listed(budgets)}"
    )


def beam_lead_shrinks(e: Evidence) -> Finding:
    budgets = e.budgets(BEAM, BEST)
    leads = [e.rate(BEAM, b) - e.rate(BEST, b) for b in (budgets[0], budgets[-1])]
    small, large = (float(lead.mean()) for lead in leads)
    said = f"its lead is {small:+.3f} at N = {budgets[0]}, {large:+.3f} at N = {budgets[-1]}"
    return Finding(said, paired(leads[0], leads[1]))


def beam_over_optimises(e: Evidence) -> Finding:
    budgets, easy = e.budgets(BEAM), e.among(*EASY)
    low, high = (e.rate(BEAM, b)[easy] for b in (budgets[0], budgets[-1]))
    said = f"beam search: {low.mean():.3f} at N = {budgets[0]}, {high.mean():.3f} at {budgets[-1]}"
    return Finding(said, paired(low, high))


def beam_gains_on_hard(e: Evidence) -> Finding:
    budgets, hard = e.budgets(BEAM, BEST), e.among(*HARD)
    what = f"beam search, N = {listed(budgets)}"
    return against(e.over(BEAM, budgets)[hard], e.over(BEST, budgets)[hard], what)


def nothing_on_hardest(e: Evidence) -> Finding:
    budgets, hardest = e.budgets(BEAM, BEST), e.among(*HARDEST)
    bins = np.ones(int(hardest.sum()), dtype=np.int64)
    tried = {name: e.rate(name, budgets[-1])[hardest] for name in (BEST, BEAM)}
    gained = cross_validated(tried, {name: np.zeros(bins.size) for name in tried}, bins, 0.0)
    one = e.difficulty("oracle")[hardest]
    said = f"one sample {one.mean():.3f}, the better of both at N = {budgets[-1]} "
    return Finding(f"{said}{gained.mean():.3f}", paired(one, gained), NEAR)


def lookahead_loses(e: Evidence) -> Finding:
    pairs = [
        (name, beam, b)
        for name, beam in LOOKAHEADS.items()
        for b in e.table.budgets
        if {(name, b), (beam, b)} <= set(e.table.rates) and _drops(name, b)
    ]
    if not pairs:
        raise Missing("lookahead search was not measured at a budget that leaves it a choice")
    beams = np.mean([e.rate(beam, b) for _, beam, b in pairs], axis=0)
    ahead = np.mean([e.rate(name, b) for name, _, b in pairs], axis=0)
    budgets = sorted({b for *_, b in pairs})
    return against(beams, ahead, f"beam search of its width, N = {listed(budgets)}")


def _drops(name: str, budget: int) -> bool:
    """Whether a search of this budget keeps fewer beams than it samples: a rollout that decides
    nothing only costs."""
    search = planned(name, budget)
    assert isinstance(search, BeamSearch)
    return min(search.n, search.width) > 1


def _last_beats(e: Evidence, other: Aggregation) -> Finding:
    budget = e.budgets(BEST)[-1]
    return against(e.votes("last", budget), e.votes(other, budget), f"last, N = {budget}")


def last_beats_min(e: Evidence) -> Finding:
    return _last_beats(e, "min")


def last_beats_prod(e: Evidence) -> Finding:
    return _last_beats(e, "prod")


def _over_orm(e: Evidence, budget: int) -> tuple[Floats, Floats]:
    if e.orm is None:
        raise e.need("orm")
    return e.rate(BEST, budget), e.orm.rates[BEST, budget]


def prm_beats_orm(e: Evidence) -> Finding:
    budget = e.budgets(BEST)[-1]
    return against(*_over_orm(e, budget), f"PRM, N = {budget}")


def prm_gap_grows(e: Evidence) -> Finding:
    budgets = e.budgets(BEST)
    low, high = (np.subtract(*_over_orm(e, b)) for b in (budgets[0], budgets[-1]))
    said = f"the gap is {low.mean():+.3f} at N = {budgets[0]}, {high.mean():+.3f} at {budgets[-1]}"
    return Finding(said, paired(high, low))


# --- compute-optimal --------------------------------------------------------------------------


def quarter(e: Evidence, curve: dict[int, Floats], base: str, target: int, what: str) -> Finding:
    quarter = target // 4
    if quarter not in curve:
        raise Missing(f"nothing was measured at a budget of {quarter}")
    said = f"{what} at N = {quarter}"
    name = base if base == BEST else "parallel"
    return against(curve[quarter], e.rate(base, target), said, NEAR, f"{name} at {target}")


def _optimal_search(e: Evidence, kind: Difficulty) -> Finding:
    if len(e.searches) < 2:
        raise Missing("no search was measured, so there is nothing to choose from")
    return quarter(e, e.optimal(e.searches, kind), BEST, TARGET, f"{kind} bins")


def optimal_by_oracle(e: Evidence) -> Finding:
    return _optimal_search(e, "oracle")


def optimal_by_predicted(e: Evidence) -> Finding:
    return _optimal_search(e, "predicted")


def optimal_by_probe(e: Evidence) -> Finding:
    return quarter(e, {b: e.rate(AUTO, b) for b in e.budgets(AUTO)}, BEST, TARGET, AUTO)


def predicted_near_oracle(e: Evidence) -> Finding:
    budgets = e.budgets(BEST, BEAM)
    by_score, by_truth = (
        np.mean([e.optimal(e.searches, kind)[b] for b in budgets], axis=0)
        for kind in ("predicted", "oracle")
    )
    return against(by_score, by_truth, f"predicted bins, N = {listed(budgets)}", NEAR)


# --- exchange ---------------------------------------------------------------------------------


def _exchanged(e: Evidence, ratio: float, bins: Sequence[int]) -> tuple[Floats, Floats, str]:
    m = e.multipliers()[ratio]
    curve, where = e.optimal(e.searches, "oracle"), e.among(*bins)
    small = at_budget(curve, min(m, max(curve)))
    if small is None or e.larger is None:
        raise Missing(f"nothing was measured at a budget as small as {m:.1f} (R = {ratio:g})")
    return small[where], e.larger.right[where], f"R = {ratio:g}, m = {m:.1f}"


def small_wins_on_easy(e: Evidence) -> Finding:
    small, larger, what = _exchanged(e, min(e.multipliers()), (1, 2, 3))
    return against(small, larger, f"the small one, {what}")


def larger_wins_on_hard(e: Evidence) -> Finding:
    small, larger, what = _exchanged(e, max(e.multipliers()), (4, 5))
    return against(larger, small, f"the larger one, {what}")
