"""The paper's claims: `CLAIMS` lists them all, each with the function that judges it.

A claim is put as a difference that it says is above 0, paired over problems. It holds where the
whole 95 % interval is above 0, it does not hold where it is below, and else nobody can tell. A
claim that one thing comes *near* another holds where the interval stays above -`finding.NEAR`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ttsolve import claims_revisions as revisions
from ttsolve import claims_search as search
from ttsolve.evidence import Evidence, Missing
from ttsolve.finding import FEWEST, Finding
from ttsolve.measure import Estimate

Verdict = Literal["holds", "does not hold", "cannot tell"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim of the paper."""

    section: str
    says: str
    judge: Callable[[Evidence], Finding]


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim, and what came of it."""

    claim: Claim
    said: str
    lead: Estimate | None  # None: what it needs was not measured
    verdict: Verdict


def judged(claim: Claim, evidence: Evidence) -> Judged:
    """The claim's verdict, from what was measured."""
    try:
        finding = claim.judge(evidence)
    except Missing as missing:
        return Judged(claim, str(missing), None, "cannot tell")
    return Judged(claim, finding.said, finding.lead, verdict_of(finding))


def verdict_of(finding: Finding) -> Verdict:
    """Where the interval is; nobody can tell of fewer than `finding.FEWEST` problems."""
    lead = finding.lead
    if lead.n < FEWEST:
        return "cannot tell"
    if lead.low > -finding.within:
        return "holds"
    return "does not hold" if lead.high < -finding.within else "cannot tell"


def judge_all(evidence: Evidence) -> list[Judged]:
    """Every claim, judged."""
    return [judged(claim, evidence) for claim in CLAIMS]


CLAIMS = (
    Claim(
        "5.3",
        "Beam search beats best-of-N weighted at small budgets.",
        search.beam_at_small_budgets,
    ),
    Claim("5.3", "At larger budgets its lead shrinks or inverts.", search.beam_lead_shrinks),
    Claim(
        "5.3", "On easy problems beam search falls as its budget grows.", search.beam_over_optimises
    ),
    Claim("5.3", "On harder problems (bins 3, 4) beam search gains.", search.beam_gains_on_hard),
    Claim("5.3", "On the hardest problems (bin 5) nothing helps.", search.nothing_on_hardest),
    Claim("5.3", "Lookahead search loses to beam search at equal cost.", search.lookahead_loses),
    Claim("E", "The last step's score is better than the least step's.", search.last_beats_min),
    Claim("E", "The last step's score is better than the product of all.", search.last_beats_prod),
    Claim("F", "A PRM is a better verifier than an ORM.", search.prm_beats_orm),
    Claim("F", "The PRM's lead over the ORM grows with the samples.", search.prm_gap_grows),
    Claim(
        "5.3",
        "Compute-optimal search reaches best-of-N with a quarter of its budget (oracle bins).",
        search.optimal_by_oracle,
    ),
    Claim("5.3", "It does so with predicted bins (search).", search.optimal_by_predicted),
    Claim(
        "3.2",
        "It does so where a probe inside the budget tells the bin (auto).",
        search.optimal_by_probe,
    ),
    Claim("5.3", "Predicted bins are nearly as good as oracle bins.", search.predicted_near_oracle),
    Claim("6.1", "pass@1 rises along a chain of revisions.", revisions.attempts_improve),
    Claim(
        "6.1", "It rises beyond the four attempts of training.", revisions.attempts_improve_beyond
    ),
    Claim(
        "6.1", "Right answers are turned wrong by the next revision.", revisions.right_turned_wrong
    ),
    Claim(
        "6.1", "Sequential revisions beat parallel samples.", revisions.sequential_beats_parallel
    ),
    Claim("6.2", "The best ratio of both is neither extreme.", revisions.interior_ratio_is_best),
    Claim("6.2", "Easy problems want sequential revisions.", revisions.easy_wants_sequential),
    Claim("6.2", "Hard problems want a mixture of both.", revisions.hard_wants_a_mixture),
    Claim(
        "6.2",
        "The best ratio of each bin reaches parallel samples with a quarter of their budget.",
        revisions.optimal_ratio_by_oracle,
    ),
    Claim(
        "6.2", "It does so with predicted bins (revisions).", revisions.optimal_ratio_by_predicted
    ),
    Claim(
        "7",
        "Test-time compute beats a larger model on easy problems at low R.",
        search.small_wins_on_easy,
    ),
    Claim("7", "The larger model wins on hard problems at high R.", search.larger_wins_on_hard),
)
