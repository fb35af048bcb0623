"""Plots of an evaluation, one message each: accuracy by budget, by difficulty, reliability.

The suffix of the file says what is written: .png or .svg.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ttsolve.errors import MissingExtra, UsageError
from ttsolve.files import replacing
from ttsolve.fit_confidence import Reliability
from ttsolve.report import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
MARKS = "osD^vP*X<>hd"
COMPOSED = "compute-optimal"  # in the name of a curve made of several strategies


def check_plot(file: Path) -> None:
    """Refuse before a long run what cannot be drawn after it.

    Raises:
        UsageError: when the suffix is neither .png nor .svg.
        MissingExtra: when matplotlib is not installed.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise UsageError(f"Cannot plot into {file}: name a file that ends in .png or .svg.")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtra("Plots need matplotlib: pip install 'ttsolve[eval]'.") from None


def plot_budgets(points: Sequence[Point], file: Path, title: str) -> None:
    """Accuracy over budget, a line for each strategy, with 95 % intervals."""
    figure = new_figure(8.0, 5.0)
    axes = figure.subplots()
    _curves(axes, points, _styles(points))
    axes.set(xlabel="budget (solutions sampled)", ylabel="problems answered rightly")
    figure.suptitle(title, fontsize=11)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    save(figure, file)


def plot_bins(points: Sequence[Point], file: Path, title: str) -> None:
    """The same in each bin of difficulty, the easiest first."""
    bins = sorted({point.bin for point in points if point.bin})
    styles = _styles(points)
    figure = new_figure(2.1 * len(bins) + 1.7, 3.4)
    panels = figure.subplots(1, len(bins), sharey=True, squeeze=False)[0]
    for number, axes in zip(bins, panels, strict=True):
        some = [point for point in points if point.bin == number]
        _curves(axes, some, styles)
        axes.set_title(f"bin {number} (n={some[0].right.n})", fontsize=10)
    panels[0].set_ylabel("problems answered rightly")
    figure.supxlabel("budget (solutions sampled)", fontsize=10)
    figure.suptitle(title, fontsize=11)
    panels[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    save(figure, file)


def plot_reliability(tables: Sequence[Reliability], file: Path, title: str) -> None:
    """What came true over what was said: on the diagonal the probabilities hold."""
    figure = new_figure(6.4, 5.0)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    for mark, table in zip(MARKS, tables, strict=False):
        rows = [row for row in table.table if row.count]
        label = f"{table.strategy}: error {table.error:.3f}, n={table.votes}"
        x, y = [row.score for row in rows], [row.right for row in rows]
        axes.plot(x, y, marker=mark, markersize=5, label=label)
    axes.set(xlabel="probability said", ylabel="share that was right", title=title)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    axes.grid(alpha=0.25)
    save(figure, file)


def beside(file: Path, what: str) -> Path:
    """The file's sibling for another plot: curves.png, curves-bins.png."""
    return file.with_stem(f"{file.stem}-{what}")


def _styles(points: Sequence[Point]) -> dict[str, tuple[str, str]]:
    """Colour and mark of each strategy, the same in every plot of one evaluation."""
    names = sorted({p.strategy for p in points}, key=lambda name: (COMPOSED in name, name))
    return {name: (f"C{i % 10}", MARKS[i % len(MARKS)]) for i, name in enumerate(names)}


def _curves(axes: Axes, points: Sequence[Point], styles: dict[str, tuple[str, str]]) -> None:
    for place, (name, (color, mark)) in enumerate(styles.items()):
        line = sorted((p for p in points if p.strategy == name), key=lambda p: p.budget)
        # A little apart, or their intervals would hide each other.
        x = [point.budget * 2 ** (0.06 * (place - (len(styles) - 1) / 2)) for point in line]
        values = [point.right.value for point in line]
        down = [max(0.0, point.right.value - point.right.low) for point in line]
        up = [max(0.0, point.right.high - point.right.value) for point in line]
        dashes = "--" if COMPOSED in name else "-"
        axes.errorbar(
            x, values, yerr=[down, up], label=name, color=color, marker=mark, linestyle=dashes,
            markersize=4, linewidth=1.4, elinewidth=0.8, capsize=2,
        )  # fmt: skip
    budgets = sorted({point.budget for point in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(budgets, [str(budget) for budget in budgets])
    axes.minorticks_off()
    axes.grid(alpha=0.25)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, file: Path) -> None:
    """Write it, whole or not at all.

    Raises:
        StorageError: when it cannot be written.
    """
    # matplotlib takes the format from the name, and the temporary file has another.
    kind = file.suffix.lower().removeprefix(".")
    with replacing(file) as part:
        figure.savefig(part, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {})
