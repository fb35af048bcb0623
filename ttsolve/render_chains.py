"""Chains of revisions in the terminal: what each attempt says, and what it changed."""

from __future__ import annotations

from difflib import SequenceMatcher

from rich.console import Console
from rich.text import Text

from ttsolve.render import colored, ending, printable
from ttsolve.tree import Attempt, Tree

OTHERS = 7  # chains shown beside the winner's, where not all are
LEGEND = "+ is not in the attempt before, = is; the number is the verifier's score up to there"

Chain = tuple[Attempt, ...]


def show_chains(out: Console, tree: Tree, *, whole: bool) -> None:
    """The chains. `whole`: every attempt with its steps, else so only those of the winner's chain,
    and of the others how each attempt ends."""
    numbered = list(enumerate(tree.chains, start=1))
    best = next((i for i, chain in numbered if tree.winner in _places(chain)), 1)
    others = [(i, chain) for i, chain in numbered if i != best]
    shown = numbered if whole else [numbered[best - 1], *others[:OTHERS]]
    for number, chain in sorted(shown):
        out.print(Text(f"chain {number} of {len(tree.chains)}", style="bold"))
        for i, attempt in enumerate(chain):
            before = chain[i - 1] if i else None
            if whole or number == best:
                _show_attempt(out, tree, i + 1, attempt, before)
            else:
                _show_end(out, tree, i + 1, attempt)
    if more := len(numbered) - len(shown):
        out.print(Text(f"… {more} more chain{'' if more == 1 else 's'}", style="dim"))
    out.print(Text(LEGEND, style="dim"))


def _show_attempt(
    out: Console, tree: Tree, number: int, attempt: Attempt, before: Attempt | None
) -> None:
    out.print(Text(f"  attempt {number}{_notes(tree, attempt)}", style="dim"))
    for (text, score), mark in zip(attempt.steps, marks(attempt, before), strict=True):
        line = Text.assemble("  ", colored(score), f" {mark} ", printable(text))
        out.print(line, style="dim" if mark == "=" else "")


def _show_end(out: Console, tree: Tree, number: int, attempt: Attempt) -> None:
    text, score = attempt.steps[-1] if attempt.steps else ("", None)
    notes = Text(_notes(tree, attempt), style="dim")
    out.print(Text.assemble(f"  {number:>2}", colored(score), f"   {printable(text)}", notes))


def marks(attempt: Attempt, before: Attempt | None) -> list[str]:
    """For each step "=" where it stands in the attempt before, "+" where not; of a first, " "."""
    if before is None:
        return [" "] * len(attempt.steps)
    old, new = ([printable(text) for text, _ in one.steps] for one in (before, attempt))
    found = ["+"] * len(new)
    for block in SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks():
        found[block.b : block.b + block.size] = ["="] * block.size
    return found


def _notes(tree: Tree, attempt: Attempt) -> str:
    notes = ["the winner"] * (tree.winner == attempt.candidate)
    notes += ["its chain's winner"] * (attempt.wins and not notes)
    notes += ["it says nothing"] * (not attempt.steps)
    notes += [ending(attempt.finish)] * (attempt.finish != "stop")
    return f"  ({', '.join(notes)})" if notes else ""


def _places(chain: Chain) -> set[int]:
    return {attempt.candidate for attempt in chain}
