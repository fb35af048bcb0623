"""Runs of long chains of revisions, as `chains` takes them apart; and what they came to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

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
from ttsolve.strategies import Revisions

BESIDE = 8  # problems in flight
GRID = (16, 64, 128)  # attempts of a problem: the budgets whose ratios the paper compares
FEWEST = 25  # problems that are cut into fifths
SAID_EVERY = 25  # problems


def run_chains(
    problems: Sequence[Problem],
    models: StoredPair,
    *,
    chains: int = 16,
    length: int = 16,
    memory: int = 4,
    seed: int = 0,
    beside: int = BESIDE,
) -> Iterator[Result]:
    """Solve each problem by so many chains of that length; results in the order of the problems.

    Every run is kept in the models' store, and goes on from there when it is asked for again.
    """
    strategy = Revisions(chains * length, chains, length, memory=memory)

    def solved(problem: Problem) -> Result:
        return models.solve(problem, models.engine(strategy.n, seed=seed), strategy).result

    with ThreadPoolExecutor(beside) as pool:
        yield from pool.map(solved, problems)


def chains_report(
    problems: Sequence[Problem],
    models: StoredPair,
    *,
    chains: int,
    length: int,
    seed: int = 0,
    say: Callable[[str], None] = lambda sentence: None,
) -> str:
    """What chains of revisions are worth, as Markdown (paper sections 6.1 and 6.2).

    pass@1 of every attempt, how often the next one turns right into wrong, and for all numbers and
    lengths of chains that are powers of two how often each selector's vote is right: the reviser's
    own verifier, with the earlier attempts in view and without; the pair's; majority. Then the
    first of these at the budgets of the paper's grid, by fifths of the problems.
    """
    results = []
    for result in run_chains(problems, models, chains=chains, length=length, seed=seed):
        results.append(result)
        if len(results) % SAID_EVERY == 0:
            say(f"{len(results)}/{len(problems)} problems")
    pairs = zip(results, problems, strict=True)
    solved = [chains_of(r.candidates, p, models.pair) for r, p in pairs]
    right = [one.right for one in solved]
    first, *later = attempt_rates(right).T
    leads = ["", *(paired(rates, first, seed).brief for rates in later)]
    rates_and_leads = zip(pass_by_attempt(right, seed), leads, strict=True)
    passed = ["| attempt | pass@1 | over the first |", "|---|---|---|"]
    passed += [f"| {i} | {rate} | {lead} |" for i, (rate, lead) in enumerate(rates_and_leads, 1)]
    votes = _votes(results, solved, models)
    names = list(votes)
    grids = {name: select_grid(known, selector) for name, (known, selector) in votes.items()}
    table = [f"| chains × length | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for size in sorted(grids[names[0]], key=lambda size: (size[0] * size[1], size)):
        cells = [_cell(grids[name][size], seed) for name in names]
        table.append(f"| {size[0]} × {size[1]} | {' | '.join(cells)} |")
    return "\n".join(
        [
            f"{len(solved)} problems, {chains} chains of {length}, seed {seed}.",
            "",
            *passed,
            "",
            f"Of right attempts the next is wrong: {turned_wrong(right, seed)}; "
            f"of wrong ones right: {turned_right(right, seed)} (n counts attempts).",
            "",
            *table,
            *_by_fifths(solved, grids[names[0]], names[0], seed),
        ]
    )


def _by_fifths(
    solved: Sequence[Chains], grid: Mapping[Size, Floats], name: str, seed: int
) -> list[str]:
    """The votes of a selector at the budgets of the grid, by how often first attempts are right."""
    sizes = [size for n in GRID for size in sorted(grid) if size[0] * size[1] == n]
    if len(solved) < FEWEST or not sizes:
        return []
    easy = np.array([one.right[:, 0].mean() for one in solved])
    fifths = np.array_split(np.argsort(easy, kind="stable"), 5)
    heads = [f"{easy[fifth].mean():.2f}" for fifth in fifths]
    rows = [
        f"| {size[0]} × {size[1]} | "
        + " | ".join(_cell(grid[size][fifth], seed) for fifth in fifths)
        + " |"
        for size in sizes
    ]
    return [
        "",
        f"The vote of {name} by fifths of the problems, the hardest first; above each fifth, how "
        "often first attempts are right:",
        "",
        f"| chains × length | {' | '.join(heads)} |",
        "|---" * 6 + "|",
        *rows,
    ]


def _cell(rates: Floats, seed: int) -> str:
    """Their mean and its interval; n stands above the table."""
    return mean(rates, seed).brief


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
    return votes
