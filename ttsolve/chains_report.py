"""What chains of revisions are worth, as Markdown and as figures (paper sections 6.1 and 6.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttsolve import plots, plots_paper
from ttsolve.chain_runs import run_chains
from ttsolve.chains import (
    TRAINED,
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
from ttsolve.document import Grid, markdown_table
from ttsolve.errors import UsageError
from ttsolve.measure import Floats, mean, paired
from ttsolve.recall import StoredPair
from ttsolve.report import Point

GRID = (16, 64, 128)  # attempts of a problem: the budgets whose ratios the paper compares
FEWEST = 25  # problems that are cut into fifths, or stand for their subject
FIFTHS = ("hardest fifth", "second", "third", "fourth", "easiest fifth")
SAID_EVERY = 25  # problems

Some = NDArray[np.int64]  # places of problems


@dataclass(frozen=True)
class Revised:
    """What the chains of P problems came to."""

    solved: Sequence[Chains]  # [P]
    grids: Mapping[str, dict[Size, Floats]]  # of each selector: how often its votes are right, [P]
    seed: int = 0

    @cached_property
    def rates(self) -> Floats:
        """How often the n-th attempt is right, shape [P, L]."""
        return attempt_rates(one.right for one in self.solved)

    @property
    def judge(self) -> str:
        """The selector that stands first."""
        return next(iter(self.grids))

    @cached_property
    def budgets(self) -> list[int]:
        """Those above 1 that one chain spends, and single attempts as well."""
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
    def groups(self) -> list[tuple[str, Some]]:
        """All problems; those of each subject that has enough, the largest first; and the rest."""
        names = np.array([one.subject for one in self.solved])
        known, counts = np.unique(names, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        large = [known[i] for i in order if known[i] and counts[i] >= FEWEST]
        groups = [(f"{name}", np.flatnonzero(names == name)) for name in large]
        rest = np.flatnonzero(~np.isin(names, large))
        if large and rest.size >= FEWEST:
            groups.append((f"subjects under {FEWEST}", rest))
        everything = np.arange(names.size)
        return [("all", everything), *(groups if len(groups) > 1 else [])]


def revised(
    problems: Sequence[Problem],
    models: StoredPair,
    chains: int,
    length: int,
    *,
    seed: int = 0,
    say: Callable[[str], None] = lambda sentence: None,
) -> Revised:
    """Solve the problems by so many chains of that length, and hold all votes among them.

    Raises:
        UsageError: there are no problems.
    """
    if not problems:
        raise UsageError("There are no problems to measure: write some with `ttsolve train data`.")
    results = []
    for result in run_chains(problems, models, chains=chains, length=length, seed=seed):
        results.append(result)
        if len(results) % SAID_EVERY == 0:
            say(f"{len(results)}/{len(problems)} problems")
    pairs = zip(results, problems, strict=True)
    solved = [chains_of(r.candidates, p, models.pair) for r, p in pairs]
    votes = _votes(results, solved, models)
    grids = {name: select_grid(known, selector) for name, (known, selector) in votes.items()}
    return Revised(solved, grids, seed)


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


def written(found: Revised) -> str:
    """What they came to, as Markdown.

    pass@1 of every attempt, over all problems and by subject, with how often the next attempt turns
    right into wrong; for all numbers and lengths of chains that are powers of two how often each
    selector's vote is right: the reviser's own verifier, with the earlier attempts in view and
    without; the pair's; majority; and how often any attempt is (pass@N). Then sequential over
    parallel, and the ratios at the budgets of the paper's grid by fifths of the problems.
    """
    chains, length = found.solved[0].right.shape
    return "\n".join(
        [
            f"{len(found.solved)} problems, {chains} chains of {length}, seed {found.seed}.",
            *_attempts(found),
            *_subjects(found),
            *_grid(found),
            *_sequential(found),
            *_ratios(found),
        ]
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    cells = tuple(tuple(map(str, row)) for row in rows)
    return ["", *markdown_table(Grid(tuple(heads), cells))]


def _attempts(found: Revised) -> list[str]:
    first, *later = found.rates.T
    leads = ["", *(paired(rates, first, found.seed).brief for rates in later)]
    rates = pass_by_attempt((one.right for one in found.solved), found.seed)
    rows = [(i, rate, lead) for i, (rate, lead) in enumerate(zip(rates, leads, strict=True), 1)]
    return _table(("attempt", "pass@1", "over the first"), rows)


def _subjects(found: Revised) -> list[str]:
    """First and last attempts as training has them, those beyond, and what the next one turns."""
    seed, length = found.seed, found.rates.shape[1]
    last = min(length, TRAINED + 1)
    rest = f"{last + 1}" + f" to {length}" * (length > last + 1)
    heads = ["right in attempt", "n", "1", f"{last}", f"{last} over 1"]
    heads += [rest, f"{rest} over 1", f"{rest} over {last}"] if length > last else []
    rows = []
    for name, some in found.groups:
        rates, right = found.rates[some], [found.solved[i].right for i in some]
        first, final, later = rates[:, 0], rates[:, last - 1], rates[:, last:]
        row = [name, some.size, *(mean(x, seed).brief for x in (first, final))]
        row.append(paired(final, first, seed).brief)
        if length > last:
            after = np.asarray(later.mean(axis=1))
            row.append(mean(after, seed).brief)
            row += [paired(after, other, seed).brief for other in (first, final)]
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
        f"Votes ({found.judge}) by fifths of the problems, the hardest first; above each fifth, "
        "how often its attempts are right. The same attempts cut the fifths and vote, so the outer "
        "ones are exaggerated: compare within a column."
    )
    return ["", text, *_table(("chains × length", *(f"{m:.2f}" for m in means)), rows)]


def _name(size: Size) -> str:
    return f"{size[0]} × {size[1]}"


# --- figures ----------------------------------------------------------------------------------


def draw(found: Revised, folder: Path, pair: str) -> None:
    """attempts.png, parallel.png, and ratios-N.png for each budget of the grid.

    Raises:
        StorageError: when one cannot be written.
    """
    of, estimate = f"pair {pair}, {len(found.solved)} problems", partial(mean, seed=found.seed)
    lines = {name: found.rates[some] for name, some in found.groups}
    title = f"Is the n-th attempt of a chain more often right than the first ({of})"
    plots_paper.plot_attempts(lines, TRAINED, folder / "attempts.png", title)
    points = [
        Point(f"{kind}, {name}", n, estimate(found.grids[name][size]))
        for name in dict.fromkeys((found.judge, "majority"))
        for n in found.budgets
        for kind, size in (("sequential", (1, n)), ("parallel", (n, 1)))
    ]
    if points:
        title = f"N revisions in a row against N first attempts side by side ({of})"
        plots.plot_budgets(points, folder / "parallel.png", title)
    groups = [*zip(FIFTHS, found.fifths, strict=True), ("all", np.arange(len(found.solved)))]
    for budget in found.compared:
        grid, sizes = found.grids[found.judge], found.ratios(budget)
        ratios = {
            name: {ratio: estimate(grid[size][some]) for size, ratio in sizes.items()}
            for name, some in groups
        }
        title = f"Which ratio of revisions to parallel attempts is best at N = {budget} ({of})"
        plots_paper.plot_ratios(ratios, folder / f"ratios-{budget}.png", title)
