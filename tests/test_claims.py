"""The claims: each holds in a world made for it, none where it was not measured."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest

from ttsolve import claims_revisions, claims_search
from ttsolve.calibrate import Table
from ttsolve.claims import CLAIMS, Judged, judge_all, judged, verdict_of
from ttsolve.evidence import BEAM, BEST, Evidence, Larger, Missing, ratio_name, ratio_of
from ttsolve.finding import Finding
from ttsolve.measure import Estimate, Pool, ratio

EACH = 24  # problems a bin
BINS = np.repeat(np.arange(1, 6), EACH)
PASS = np.repeat([0.95, 0.75, 0.5, 0.25, 0.05], EACH)


def by_bin(*rates: float) -> np.ndarray:
    """A rate for each problem: that of its bin, give or take a little."""
    noise = np.random.default_rng(0).normal(0, 0.02, BINS.size)
    return np.clip(np.repeat(rates, EACH) + noise - noise.mean(), 0, 1)


def pool(chance: float, number: int) -> Pool:
    """64 samples, a part of them right; only the last step's score tells which."""
    right = np.random.default_rng(number).permutation(64) < round(64 * chance)
    first, last = np.where(right, 0.05, 0.5), np.where(right, 0.9, 0.1)
    return Pool(np.where(right, 0, 1), right, last, steps=np.column_stack([first, last]))


def rates() -> dict[tuple[str, int], np.ndarray]:
    """A world in which the paper is right."""
    out = {}
    for budget, easy, hard in ((4, 0.80, 0.45), (16, 0.82, 0.50), (64, 0.84, 0.55)):
        out[BEST, budget] = by_bin(easy, easy, hard, hard, 0.05)
        out["majority", budget] = out[BEST, budget] - 0.03
        out["auto", budget] = out[BEST, 4] + 0.1
    for budget, easy, hard in ((4, 0.90, 0.65), (16, 0.80, 0.70), (64, 0.70, 0.70)):
        out[BEAM, budget] = by_bin(easy, easy, hard, hard, 0.05)
        out["lookahead:lookahead=3,width=4", budget] = out[BEAM, budget] - 0.1
    for budget in (4, 16, 64):
        powers = [4**i for i in range(1, {4: 1, 16: 2, 64: 3}[budget] + 1)]
        for name in (ratio_name(*r) for p in powers for r in ((p, 1), (1, p), (1, 1))):
            value = {budget: (0.9, 0.5), 1 / budget: (0.8, 0.45)}.get(ratio_of(name), (0.85, 0.7))
            out[name, budget] = by_bin(*value[:1] * 2, *value[1:] * 3)
    return out


def evidence() -> Evidence:
    found = rates()
    costs = {cell: np.full(BINS.size, 40.0 * cell[1]) for cell in found}
    gaps = {4: 0.02, 16: 0.05, 64: 0.1}
    orm = {(BEST, b): found[BEST, b] - gap * by_bin(*[0.9] * 5) for b, gap in gaps.items()}
    dice = np.random.default_rng(1).random((BINS.size, 4, 16))
    rising = np.interp(np.arange(16), [0, 4, 15], [0.2, 0.5, 0.7])
    contents = tuple(f"{i:012x}" for i in range(BINS.size))
    pools = tuple(pool(chance, i) for i, chance in enumerate(PASS))
    return Evidence(
        table=Table(contents, found, costs, pools, costs),
        orm=Table(contents, orm, costs, pools),
        chains=(dice < rising).astype(float),
        larger=Larger("large", 14.0, by_bin(0.6, 0.6, 0.5, 0.9, 0.9)),
    )


@pytest.fixture(scope="module")
def world() -> Evidence:
    return evidence()


@pytest.fixture(scope="module")
def rows(world) -> list[Judged]:
    return judge_all(world)


# --- the list ---------------------------------------------------------------------------------


def test_every_function_that_judges_is_in_the_list_once() -> None:
    listed = [claim.judge for claim in CLAIMS]
    written = [
        function
        for module in (claims_search, claims_revisions)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and list(inspect.signature(function).parameters) == ["e"]
        and not name.startswith("_")
    ]
    assert sorted(f.__name__ for f in listed) == sorted(f.__name__ for f in written)
    assert len({claim.says for claim in CLAIMS}) == len(CLAIMS)


@pytest.mark.parametrize("place", range(len(CLAIMS)), ids=lambda i: CLAIMS[i].judge.__name__)
def test_each_claim_holds_in_a_world_where_the_paper_is_right(rows, place) -> None:
    row = rows[place]
    assert row.verdict == "holds", (row.said, row.lead)
    assert row.lead.n >= EACH


def test_in_the_reverse_world_no_plain_difference_holds(world) -> None:
    """What is right becomes wrong, in everything measured: differences change their sign."""
    table = replace(world.table, rates={c: 1 - r for c, r in world.table.rates.items()})
    orm = replace(world.orm, rates={c: 1 - r for c, r in world.orm.rates.items()})
    reverse = replace(world, table=table, orm=orm, chains=1 - world.chains)
    plain = {
        *("beam_at_small_budgets", "beam_lead_shrinks", "beam_over_optimises"),
        *("beam_gains_on_hard", "lookahead_loses", "prm_beats_orm", "prm_gap_grows"),
        *("attempts_improve", "attempts_improve_beyond", "sequential_beats_parallel"),
    }
    some = [claim for claim in CLAIMS if claim.judge.__name__ in plain]
    assert len(some) == len(plain)
    assert {judged(claim, reverse).verdict for claim in some} == {"does not hold"}


def test_lookahead_is_judged_where_it_has_a_choice(world) -> None:
    """With 4 units and k = 3 there is one beam, and so nothing that its rollouts decide."""
    claim = next(claim for claim in CLAIMS if claim.judge.__name__ == "lookahead_loses")
    assert "N = 16, 64" in judged(claim, world).said
    few = {cell: r for cell, r in world.table.rates.items() if cell[1] == 4}
    row = judged(claim, replace(world, table=replace(world.table, rates=few)))
    assert row.verdict == "cannot tell"
    assert "leaves it a choice" in row.said


# --- what is missing --------------------------------------------------------------------------


def test_what_was_not_measured_cannot_be_told_and_why(world) -> None:
    why = {"orm": "no ORM was given (--orm)", "revisions": "the pair has no reviser"}
    why |= {"chains": why["revisions"], "larger": "no larger generator was given (--larger)"}
    kept = {cell: r for cell, r in world.table.rates.items() if "revisions" not in cell[0]}
    e = Evidence(replace(world.table, rates=kept), lacking=why)
    rows = judge_all(e)
    assert {row.said for row in rows if row.lead is None} == set(why.values())
    assert all(row.verdict == "cannot tell" for row in rows if row.lead is None)
    sections = {row.claim.section for row in rows if row.lead}
    assert sections == {"5.3", "E", "3.2"}


def test_one_strategy_alone_proves_nothing(world) -> None:
    kept = {cell: r for cell, r in world.table.rates.items() if cell[0] == BEST}
    e = Evidence(replace(world.table, rates=kept, pools=()))
    assert {row.verdict for row in judge_all(e)} == {"cannot tell"}
    with pytest.raises(Missing, match="no difficulty is known"):
        e.bins()


# --- verdicts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "within", "n", "verdict"),
    [
        (0.01, 0.03, 0, 50, "holds"),
        (0.0, 0.03, 0, 50, "cannot tell"),
        (-0.01, 0.03, 0, 50, "cannot tell"),
        (-0.01, 0.03, 0.02, 50, "holds"),
        (-0.03, -0.01, 0.02, 50, "cannot tell"),
        (-0.05, -0.03, 0.02, 50, "does not hold"),
        (-0.03, -0.01, 0, 50, "does not hold"),
        (0.5, 0.9, 0, 9, "cannot tell"),
    ],
)
def test_the_verdict_is_where_the_interval_is(low, high, within, n, verdict) -> None:
    lead = Estimate((low + high) / 2, low, high, n)
    assert verdict_of(Finding("", lead, within)) == verdict


def test_a_share_is_of_all_answers_and_its_interval_of_problems() -> None:
    part, whole = np.array([1.0, 0, 3, 0]), np.array([2.0, 0, 6, 2])
    found = ratio(np.tile(part, 30), np.tile(whole, 30))
    assert (found.value, found.n) == (0.4, 300)
    assert 0.3 < found.low < 0.4 < found.high < 0.5


def test_the_share_of_right_answers_turned_wrong() -> None:
    chains = np.full((20, 2, 4), np.nan)
    chains[:, 0, :] = [1, 0, 1, 1]  # one of two right ones is lost; the last has no next
    chains[:, 1, :3] = [0, 1, 0]
    world = Evidence(Table((), {}, {}, ()), chains=chains)
    found = claims_revisions.right_turned_wrong(world)
    assert (found.lead.value, found.lead.n) == (pytest.approx(2 / 3), 20)  # problems
    assert found.said == "67% of 60 right answers (paper: 38 %)"


def test_many_answers_to_few_problems_are_no_verdict() -> None:
    """9 problems with right answers that are all turned wrong, and 9 with none."""
    chains = np.tile([1.0, 0, 1, 0], (18, 8, 1))
    chains[9:] = 0
    world = Evidence(Table((), {}, {}, ()), chains=chains)
    finding = claims_revisions.right_turned_wrong(world)
    assert (finding.lead.value, finding.lead.n) == (1.0, 9)
    assert finding.said.startswith("100% of 144 right answers")
    assert verdict_of(finding) == "cannot tell"
