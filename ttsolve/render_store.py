"""What `ttsolve history` and `ttsolve cache` show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from ttsolve.render import line, printable, quantity

if TYPE_CHECKING:  # they open SQLite
    from pathlib import Path

    from ttsolve.store_care import Holdings
    from ttsolve.store_history import Run

UNFINISHED = {"running": "unfinished", "interrupted": "interrupted"}


def show_runs(runs: Sequence[Run]) -> None:
    """The runs, one a line: id, when, how, what came of it, the problem."""
    rows = [_cells(run) for run in runs]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        line("  ".join(cells).rstrip())


def _cells(run: Run) -> tuple[str, ...]:
    asked = datetime.fromisoformat(run.asked).astimezone()
    answer = "(no answer)" if run.answer is None else printable(run.answer)[:30]
    if run.share is not None:
        answer += f" ({run.share:.2f})"
    if run.error is not None:
        answer = f"failed: {printable(run.error)[:48]}"
    return (
        str(run.id),
        f"{asked:%Y-%m-%d %H:%M}",
        f"{run.pair}, {run.strategy} {run.budget}",
        UNFINISHED.get(run.status, answer),
        printable(run.problem)[:60],
    )


def run_json(run: Run) -> str:
    """The run as one line of JSON, without its tree."""
    return json.dumps({key: value for key, value in asdict(run).items() if key != "tree"})


def show_holdings(path: Path, holdings: Holdings) -> None:
    """What the store holds."""
    line(f"store  {path}, {quantity(holdings.bytes, 'B')}")
    line(f"kept   {counted(holdings.counts)}")
    for pair, samples in sorted(holdings.samples.items()):
        line(f"       {counted({'samples': samples})} of {printable(pair)}")


def counted(counts: dict[str, int]) -> str:
    """Numbers of things, in words."""
    return ", ".join(f"{n:,} {name[:-1] if n == 1 else name}" for name, n in counts.items())
