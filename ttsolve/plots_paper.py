"""The paper's own plots: stars of a larger model, chains of revisions, ratios; and the claims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from ttsolve.claims import Judged, Verdict
from ttsolve.exchange import Match
from ttsolve.measure import Estimate, Floats, mean
from ttsolve.plots import MARKS, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS: dict[Verdict, str] = {"holds": "C2", "does not hold": "C3", "cannot tell": "0.55"}


def plot_stars(
    curves: Mapping[int, Mapping[int, Estimate]], found: Sequence[Match], file: Path, title: str
) -> None:
    """The small model by budget, a line a bin; a star for the larger one where it costs as much.

    Args:
        curves: of each bin: budget → accuracy.
        found: a comparison for each R and bin.
    """
    figure = new_figure(8.0, 5.2)
    axes = figure.subplots()
    for number, (bin_, curve) in enumerate(sorted(curves.items())):
        color, mark = f"C{number}", MARKS[number % len(MARKS)]
        budgets = sorted(curve)
        n = curve[budgets[0]].n
        axes.errorbar(
            budgets, [curve[b].value for b in budgets], yerr=_bars([curve[b] for b in budgets]),
            color=color, marker=mark, markersize=4, linewidth=1.4, elinewidth=0.8, capsize=2,
            label=f"bin {bin_} (n={n})",
        )  # fmt: skip
        stars = [match for match in found if match.bin == bin_]
        axes.errorbar(
            [s.multiplier * 2 ** (0.05 * (number - 2)) for s in stars],
            [s.larger.value for s in stars], yerr=_bars([s.larger for s in stars]),
            color=color, marker="*", markersize=13, linestyle="", elinewidth=0.8, capsize=2,
            markeredgecolor="black", markeredgewidth=0.6,
        )  # fmt: skip
    for ratio, m in sorted({(match.ratio, match.multiplier) for match in found}):
        axes.axvline(m, color="0.7", linewidth=0.8, linestyle=":", zorder=0)
        axes.annotate(
            f"R = {ratio:g}\nm = {m:.3g}", (m, 1.0), (0, 3), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", va="bottom", fontsize=8,
        )  # fmt: skip
    axes.plot([], [], "*", color="white", markersize=12, markeredgecolor="black", label="larger")
    _by_budget(
        axes, {b for curve in curves.values() for b in curve} | {m.multiplier for m in found}
    )
    axes.set(xlabel="budget of the small model (solutions sampled)")
    axes.set(ylabel="problems answered rightly", ylim=(-0.03, 1.03))
    figure.suptitle(title, fontsize=11)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    save(figure, file)


def plot_attempts(lines: Mapping[str, Floats], trained: int, file: Path, title: str) -> None:
    """How often the n-th attempt of a chain is right, a line a group of problems.

    Args:
        lines: each of shape [P, L], the first of all problems.
        trained: how many earlier attempts the reviser was shown in training, at most.
    """
    figure = new_figure(8.0, 4.4)
    axes = figure.subplots()
    longest = max(right.shape[1] for right in lines.values())
    for number, (name, right) in enumerate(lines.items()):
        each, color = [mean(column) for column in right.T], f"C{number}" if number else "black"
        places = range(1, len(each) + 1)
        axes.plot(
            places, [e.value for e in each], marker=MARKS[number % len(MARKS)], markersize=4,
            color=color, label=f"{name} (n={len(right)})",
        )  # fmt: skip
        axes.fill_between(
            places, [e.low for e in each], [e.high for e in each], alpha=0.12, color=color,
            linewidth=0,
        )  # fmt: skip
    if longest > trained + 1:
        axes.axvline(trained + 1.5, color="0.6", linewidth=1, linestyle="--")
        axes.annotate(
            " beyond training", (trained + 1.5, 0.02), xycoords=("data", "axes fraction"),
            fontsize=8,
        )  # fmt: skip
    axes.set_xticks([i for i in range(1, longest + 1) if longest <= 20 or i % 4 == 0])
    axes.set(xlabel="attempt in its chain", ylabel="right attempts (pass@1)")
    figure.suptitle(title, fontsize=11)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    axes.grid(alpha=0.25)
    save(figure, file)


def plot_ratios(lines: Mapping[str, Mapping[float, Estimate]], file: Path, title: str) -> None:
    """Accuracy over the ratio of sequential to parallel, a line a group of problems."""
    figure = new_figure(8.0, 4.8)
    axes = figure.subplots()
    for number, (name, line) in enumerate(lines.items()):
        ratios = sorted(line)
        axes.errorbar(
            ratios, [line[r].value for r in ratios], yerr=_bars([line[r] for r in ratios]),
            color="black" if number == len(lines) - 1 else f"C{number}",
            marker=MARKS[number % len(MARKS)], markersize=4, linewidth=1.4, elinewidth=0.8,
            capsize=2, label=f"{name} (n={line[ratios[0]].n})",
        )  # fmt: skip
    every = sorted({ratio for line in lines.values() for ratio in line})
    axes.set_xscale("log", base=2)
    axes.set_xticks(every, [f"{r:g}:1" if r >= 1 else f"1:{1 / r:g}" for r in every])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.set(xlabel="sequential : parallel", ylabel="problems answered rightly")
    figure.suptitle(title, fontsize=11)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    save(figure, file)


def plot_claims(rows: Sequence[Judged], file: Path, title: str) -> None:
    """The difference that each claim says is above 0, with its interval."""
    known = [row for row in rows if row.lead]
    figure = new_figure(9.0, 1.3 + 0.42 * len(known))
    axes = figure.subplots()
    for place, row in enumerate(known):
        assert row.lead
        axes.errorbar(
            [row.lead.value], [place], xerr=_bars([row.lead]), marker="o", markersize=5,
            color=COLORS[row.verdict], elinewidth=1.4, capsize=3,
        )  # fmt: skip
    for verdict, color in COLORS.items():
        axes.plot([], [], "o", color=color, label=verdict)
    axes.axvline(0, color="0.4", linewidth=1)
    axes.set_yticks(range(len(known)), [fill(row.claim.says, 60) for row in known], fontsize=8)
    axes.set_ylim(len(known) - 0.5, -0.5)
    axes.set(xlabel="difference, with its 95 % interval")
    axes.grid(axis="x", alpha=0.25)
    figure.suptitle(title, fontsize=11)
    figure.legend(frameon=False, fontsize=8, loc="outside lower right", ncols=3)
    save(figure, file)


def _bars(each: Sequence[Estimate]) -> list[list[float]]:
    down = [max(0.0, e.value - e.low) for e in each]
    return [down, [max(0.0, e.high - e.value) for e in each]]


def _by_budget(axes: Axes, budgets: set[float]) -> None:
    ticks = sorted({2 ** round(math.log2(budget)) for budget in budgets if budget >= 1})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
