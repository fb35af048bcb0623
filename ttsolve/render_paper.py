"""What `ttsolve exchange` and `ttsolve reproduce` show on stdout."""

from __future__ import annotations

from collections.abc import Sequence

from ttsolve.claims import Judged
from ttsolve.exchange import Match
from ttsolve.finding import FEWEST
from ttsolve.measure import Estimate
from ttsolve.render import line
from ttsolve.render_eval import estimate


def show_matches(found: Sequence[Match]) -> None:
    """Both models at equal FLOPs, a line for each R and bin."""
    line(
        f"{'R':>5} {'m':>7} {'budget':>7}  {'bin':>3} {'n':>5}  {'small':23}  {'larger':23}  "
        f"{'small - larger':26}  wins"
    )
    for match in found:
        budget = f"{match.budget:.4g}{'<' if match.short else ''}"
        line(
            f"{match.ratio:5g} {match.multiplier:7.1f} {budget:>7}  {match.bin or 'all':>3} "
            f"{match.lead.n:5}  {estimate(match.small):23}  {estimate(match.larger):23}  "
            f"{signed(match.lead):26}  {match.wins}"
        )
    if any(match.short for match in found):
        line("<: the largest budget measured; the small model may spend more")
    if any(match.lead.n < FEWEST for match in found):
        line(f"of fewer than {FEWEST} problems nobody can tell who wins")


def show_judged(rows: Sequence[Judged]) -> None:
    """The claims, a line each, and what was measured under it."""
    for row in rows:
        line(f"{row.verdict:14} {row.claim.says} (section {row.claim.section})")
        line(f"{'':14} {row.said}{f': {signed(row.lead)}, n={row.lead.n}' if row.lead else ''}")


def signed(value: Estimate) -> str:
    """A difference with its interval."""
    return f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"
