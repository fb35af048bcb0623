"""The report on the paper's claims: what was measured, as sections, tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ttsolve import plots_paper
from ttsolve.claims import Judged
from ttsolve.document import Document, Figure, Grid, Section, write_document
from ttsolve.evidence import Evidence
from ttsolve.finding import NEAR
from ttsolve.measure import mean
from ttsolve.paper_sections import Drawing, exchange_sections, revision_sections, search_sections
from ttsolve.render_paper import signed

NAME = "report"


@dataclass(frozen=True, slots=True)
class About:
    """What stands in the report beside the figures."""

    pair: str
    facts: Mapping[str, str]  # hashes, seeds, counts, seconds, …


def write_report(
    evidence: Evidence, rows: Sequence[Judged], about: About, folder: Path
) -> tuple[Path, Path]:
    """Draw the figures, write report.md and report.html into the folder.

    Raises:
        StorageError: when one cannot be written.
    """
    draw = Drawing(evidence, about.pair, folder)
    parts = [
        [claims_section(rows, draw)],
        search_sections(evidence, draw),
        revision_sections(evidence, draw),
        exchange_sections(evidence, draw),
        [points_section(evidence), facts_section(about)],
    ]
    title = f"Snell et al. 2024, measured on the pair {about.pair}"
    document = Document(title, tuple(section for part in parts for section in part))
    return write_document(document, folder, NAME)


def claims_section(rows: Sequence[Judged], draw: Drawing) -> Section:
    """The table of claims, and how far each is from 0."""
    counts = {v: sum(row.verdict == v for row in rows) for v in plots_paper.COLORS}
    what = "The difference that each claim says is above 0"
    figure = None
    if any(row.lead for row in rows):
        plots_paper.plot_claims(rows, draw.file("claims"), draw.title(what))
        figure = Figure(draw.file("claims"), what)
    return Section(
        "The claims",
        (
            f"Of {len(rows)} claims {counts['holds']} hold here, {counts['does not hold']} do not, "
            f"{counts['cannot tell']} cannot be told.",
            "A claim is put as a difference that it says is above 0, paired over the same "
            "problems. It holds where the whole 95 % interval (bootstrap over problems) is above "
            '0, and does not where it is below. Where a claim says "reaches", "nearly" or '
            f'"nothing helps", {NEAR} less is enough. Bins are fifths of the problems by '
            "difficulty for this pair, 1 the easiest.",
        ),
        Grid(
            ("claim of the paper", "section", "what was measured here", "difference", "verdict"),
            tuple(
                (
                    row.claim.says,
                    row.claim.section,
                    row.said,
                    f"{signed(row.lead)}, n={row.lead.n}" if row.lead else "-",
                    row.verdict,
                )
                for row in rows
            ),
        ),
        figure,
    )


def points_section(e: Evidence) -> Section:
    """Every strategy at every budget."""
    rows = []
    for (name, budget), rates in sorted(e.table.rates.items(), key=lambda item: item[0][::-1]):
        value, cell = mean(rates), (name, budget)
        tokens = f"{e.table.costs[cell].mean():,.0f}"
        seconds = (f"{e.table.seconds[cell].mean():.2f}",) if e.timed else ()
        rows.append((str(budget), name, value.brief, str(value.n), tokens, *seconds))
    head = ("budget", "strategy", "right, 95 % interval", "n", "tokens", *(("seconds",) * e.timed))
    note = "Tokens are those generated and those verified, a problem. "
    note += (
        "Seconds are those of a run beside the other problems in flight."
        if e.timed
        else "Seconds are shown with --no-cache: else one strategy recalls what another sampled."
    )
    return Section("Every strategy at every budget", (note,), Grid(head, tuple(rows)))


def facts_section(about: About) -> Section:
    """What was measured with what."""
    table = Grid(("what", "value"), tuple(about.facts.items()))
    return Section("How it was measured", table=table)
