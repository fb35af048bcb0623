"""What chains of revisions are worth, as Markdown and as figures (paper sections 6.1 and 6.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttsolve import plots, plots_paper
from ttsolve.chain_runs import run_chains
from ttsolve.chains import (
    Chains,
    Selector,
    Size,
    attempt_rates,
    chains_of,
    judged_by,
    pass_by_attempt,
    rescored,
    select_grid,
    turned_right,
    turned_wrong,
)
from ttsolve.core import Problem, Result
from ttsolve.measure import Floats, mean, paired
from ttsolve.recall import StoredPair
from ttsolve.report import Point
from ttsolve.strategies import Revisions

TRAINED: int = Revisions.memory  # attempts in the contexts that a reviser learns from, at most
GRID = (16, 64, 128)  # attempts of a problem: the budgets whose ratios the paper compares
FEWEST = 25  # problems that are cut into fifths, or stand for their subject
FIFTHS = ("hardest fifth", "second", "third", "fourth", "easiest fifth")
SAID_EVERY = 25  # problems

Grids = Mapping[str, dict[Size, Floats]]  # of each selector: how often its votes are right, [P]
Some = NDArray[np.int64]  # places of problems


def chains_report(
    problems: Sequence[Problem],
    models: StoredPair,
    *,
    chains: int,
    length: int,
    seed: int = 0,
    figures: Path | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> str:
    """Solve the problems by chains of revisions, and tell what they came to, as Markdown.

    pass@1 of every attempt, over all problems and by subject, with how often the next attempt turns
    right into wrong; for all numbers and lengths of chains that are powers of two how often each
    selector's vote is right: the reviser's own verifier, with the earlier attempts in view and
    without; the pair's; majority; and how often any attempt is (pass@N). Then sequential over
    parallel, and the ratios at the budgets of the paper's grid by fifths of the problems.

    figures: a folder for attempts.png, parallel.png, and ratios-N.png for each of these budgets.
    """
    results = []
    for result in run_chains(problems, models, chains=chains, length=length, seed=seed):
        results.append(result)
        if len(results) % SAID_EVERY == 0:
            say(f"{len(results)}/{len(problems)} problems")
    pairs = zip(results, problems, strict=True)
    solved = [chains_of(r.candidates, p, models.pair) for r, p in pairs]
    votes = _votes(results, solved, models)
    grids = {name: select_grid(known, selector) for name, (known, selector) in votes.items()}
    found = Revised(solved, grids, seed)
    if figures is not None:
        _draw(found, figures, f"pair {models.pair.name}, {len(solved)} problems")
    return "\n".join(
        [
            f"{len(solved)} problems, {chains} chains of {length}, seed {seed}.",
            *_attempts(found),
            *_subjects(found),
            *_grid(found),
            *_sequential(found),
            *_ratios(found),
        ]
    )


@dataclass(frozen=True)
class Revised:
    """What the problems' chains came to."""

    solved: Sequence[Chains]
    grids: Grids
    seed: int = 0

    @cached_property
    def rates(self) -> Floats:
        """How often the n-th attempt is right, shape [P, L]."""
        return attempt_rates(one.right for one in self.solved)

    @property
    def judge(self) -> str:
        """The selector that stands first."""
        return next(iter(self.grids))

    @property
    def length(self) -> int:
        return int(self.rates.shape[1])

    @cached_property
    def budgets(self) -> list[int]:
        """Those above 1 of one chain that are those of single attempts as well."""
        sizes = self.grids[self.judge]
        return sorted(n for c, n in sizes if c == 1 < n and (n, 1) in sizes)

    def ratios(self, budget: int) -> dict[Size, float]:
        """Sequential to parallel, of the sizes that spend a budget, the most parallel first."""
        sizes = [size for size in self.grids[self.judge] if size[0] * size[1] == budget]
        return {size: size[1] / size[0] for size in sorted(sizes, reverse=True)}

    @cached_property
    def compared(self) -> list[int]:
        """The paper's budgets that were spent in several ratios."""
        enough = len(self.solved) >= FEWEST
        return [budget for budget in GRID if enough and len(self.ratios(budget)) > 1]

    @cached_property
    def fifths(self) -> list[Some]:
        """The problems by how often all their attempts are right, the hardest first."""
        easy = np.array([np.nanmean(one.right) for one in self.solved])
        return np.array_split(np.argsort(easy, kind="stable"), len(FIFTHS))

    @cached_property
    def subjects(self) -> dict[str, Some]:
        """The problems of each subject that has enough of them, the largest first; and the others.

        Empty where these would be all of one kind.
        """
        names = np.array([one.subject for one in self.solved])
        known, counts = np.unique(names, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        large = [known[i] for i in order if known[i] and counts[i] >= FEWEST]
        groups = {str(name): np.flatnonzero(names == name) for name in large}
        groups["others"] = np.flatnonzero(~np.isin(names, large))
        return {name: some for name, some in groups.items() if 0 < some.size < names.size}


def _votes(
    results: Sequence[Result], solved: Sequence[Chains], models: StoredPair
) -> dict[str, tuple[Sequence[Chains], Selector]]:
    """Each selector's name, with the chains as it sees them."""
    votes: dict[str, tuple[Sequence[Chains], Selector]] = {}
    own, base = models.revision_verifier, models.verifier
    judges = [("own verifier", own, True), ("own, each attempt alone", own, False)]
    for name, verifier, history in [*judges, ("the pair's", base, False)]:
        if verifier is not None:
            judged = [judged_by(verifier, r.candidates, history=history) for r in results]
            pairs = zip(solved, judged, strict=True)
            votes[name] = [rescored(one, c, models.pair) for one, c in pairs], "verifier"
    votes["majority"] = solved, "majority"
    votes["pass@N"] = solved, "any"
    return votes


# --- tables -----------------------------------------------------------------------------------


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *lines]


def _attempts(found: Revised) -> list[str]:
    first, *later = found.rates.T
    leads = ["", *(paired(rates, first, found.seed).brief for rates in later)]
    rates = pass_by_attempt((one.right for one in found.solved), found.seed)
    rows = [(i, rate, lead) for i, (rate, lead) in enumerate(zip(rates, leads, strict=True), 1)]
    return _table(("attempt", "pass@1", "over the first"), rows)


def _subjects(found: Revised) -> list[str]:
    """First and last attempts as training has them, those beyond, and what the next one turns."""
    seed, last = found.seed, min(found.length, TRAINED + 1)
    heads = ["right in attempt", "n", "1", f"{last}", f"{last} over 1"]
    if beyond := found.length > last:
        rest = f"{last + 1} to {found.length}"
        heads += [rest, f"{rest} over 1", f"{rest} over {last}"]
    everything = np.arange(len(found.solved))
    rows = []
    for name, some in {"all": everything, **found.subjects}.items():
        rates, right = found.rates[some], [found.solved[i].right for i in some]
        first, final, later = rates[:, 0], rates[:, last - 1], rates[:, last:]
        row = [name, some.size, f"{first.mean():.3f}", f"{final.mean():.3f}"]
        row.append(paired(final, first, seed).brief)
        if beyond:
            after = np.asarray(later.mean(axis=1))
            leads = [paired(after, other, seed).brief for other in (first, final)]
            row += [f"{after.mean():.3f}", *leads]
        rows.append([*row, turned_wrong(right, seed), turned_right(right, seed)])
    return _table((*heads, "right → wrong", "wrong → right"), rows)


def _grid(found: Revised) -> list[str]:
    sizes = sorted(found.grids[found.judge], key=lambda size: (size[0] * size[1], size))
    rows = [
        [_name(size), *(mean(grid[size], found.seed).brief for grid in found.grids.values())]
        for size in sizes
    ]
    return _table(("chains × length", *found.grids), rows)


def _sequential(found: Revised) -> list[str]:
    """One chain of N attempts over N first attempts, of the same problems."""
    if not found.budgets:
        return []
    rows = [
        [n, *(paired(g[1, n], g[n, 1], found.seed).brief for g in found.grids.values())]
        for n in found.budgets
    ]
    text = "Sequential (1 × N) over parallel (N × 1), paired:"
    return ["", text, *_table(("N", *found.grids), rows)]


def _ratios(found: Revised) -> list[str]:
    """The first selector's votes at the budgets of the grid, by fifths of the problems."""
    if not found.compared:
        return []
    means = [np.mean([np.nanmean(found.solved[i].right) for i in f]) for f in found.fifths]
    grid = found.grids[found.judge]
    rows = [
        [_name(size), *(mean(grid[size][fifth], found.seed).brief for fifth in found.fifths)]
        for budget in found.compared
        for size in sorted(found.ratios(budget))
    ]
    text = (
        f"Votes ({found.judge}) by fifths of the problems, the hardest first; above each "
        "fifth, how often its attempts are right:"
    )
    return ["", text, *_table(("chains × length", *(f"{m:.2f}" for m in means)), rows)]


def _name(size: Size) -> str:
    return f"{size[0]} × {size[1]}"


# --- figures ----------------------------------------------------------------------------------


def _draw(found: Revised, folder: Path, of: str) -> None:
    """Attempts, sequential against parallel, ratios."""
    lines = {"all": found.rates}
    lines |= {name: found.rates[some] for name, some in found.subjects.items()}
    title = f"Is the n-th attempt of a chain more often right than the first ({of})"
    plots_paper.plot_attempts(lines, TRAINED, folder / "attempts.png", title)
    judges = dict.fromkeys((found.judge, "majority"))
    points = [
        Point(f"{kind}, {name}", n, mean(found.grids[name][size]))
        for name in judges
        for n in found.budgets
        for kind, size in (("sequential", (1, n)), ("parallel", (n, 1)))
    ]
    if points:
        title = f"N revisions in a row against N first attempts side by side ({of})"
        plots.plot_budgets(points, folder / "parallel.png", title)
    for budget in found.compared:
        groups = dict(zip(FIFTHS, found.fifths, strict=True))
        groups["all"] = np.arange(len(found.solved))
        grid, sizes = found.grids[found.judge], found.ratios(budget)
        ratios = {
            name: {ratio: mean(grid[size][some]) for size, ratio in sizes.items()}
            for name, some in groups.items()
        }
        title = f"Which ratio of revisions to parallel attempts is best at N = {budget} ({of})"
        plots_paper.plot_ratios(ratios, folder / f"ratios-{budget}.png", title)
