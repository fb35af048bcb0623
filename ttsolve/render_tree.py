"""A run's tree in the terminal: what was kept and what was dropped, and the winner's way."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import rich.tree
from rich.console import Console
from rich.text import Text

from ttsolve.render import colored, ending, in_words, printable
from ttsolve.render_chains import show_chains
from ttsolve.strategies import Dvts
from ttsolve.tree import Tree

WHOLE = 40  # nodes: a tree of no more is shown whole
KEPT, DROPPED = 4, 3  # nodes shown of each sort behind one node, where a tree is cut down
LEGEND = "* the winner's way, + kept, - dropped; the number is the verifier's score of the prefix"
AHEAD = ", → where its rollout ends"
APART = "each subtree keeps its own best step, whatever the others have"


def show_tree(tree: Tree, *, whole: bool = False) -> None:
    """The tree, or chains. `whole` shows everything; else what is large is cut down to the winner's
    way."""
    # A terminal wraps long steps behind their branch; a pipe gets every line whole.
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)
    whole = whole or len(tree.nodes) + sum(map(len, tree.chains)) <= WHOLE
    picture = rich.tree.Tree(Text(printable(tree.question), style="bold"), guide_style="dim")
    _Drawing(tree, whole).grow(picture)
    out.print(picture)
    if len(tree.nodes) > 1 or not tree.chains:
        ahead = any(node.value is not None for node in tree.nodes)
        out.print(Text(LEGEND + AHEAD * ahead, style="dim"))
        if tree.strategy == Dvts.name:
            out.print(Text(APART, style="dim"))
    if tree.chains:
        show_chains(out, tree, whole=whole)
    settings = in_words(tree.settings, "verifier", "revision_verifier")
    out.print(Text(f"{tree.strategy}: {settings}"))
    answer = "(no answer)" if tree.answer is None else printable(tree.answer)
    out.print(Text.assemble("answer ", (answer, "bold"), f", {tree.share:.2f} of the vote"))


def _candidates(count: int) -> str:
    return f"{count or 'no'} candidate{'' if count == 1 else 's'}"


@dataclass
class _Drawing:
    """What is drawn, and what is known of each node for it."""

    tree: Tree
    whole: bool
    children: list[list[int]] = field(init=False)
    below: list[int] = field(init=False)  # candidates at a node and behind it
    way: set[int] = field(init=False)  # the winner's

    def __post_init__(self) -> None:
        self.children = self.tree.children()
        self.way = self.tree.way_to(self.tree.winner)
        self.below = [len(node.candidates) for node in self.tree.nodes]
        for number in range(len(self.below) - 1, 0, -1):  # a node stands behind its parent
            self.below[self.tree.nodes[number].parent] += self.below[number]

    def grow(self, picture: rich.tree.Tree) -> None:
        """Draw all nodes but the root."""
        todo = [(0, picture)]
        while todo:
            number, branch = todo.pop()
            kept = [c for c in self._ranked(number) if self._kept(c)]
            dropped = [c for c in self._ranked(number) if not self._kept(c)]
            for some, limit, word in ((kept, KEPT, "kept"), (dropped, DROPPED, "dropped")):
                shown = len(some) if self.whole else limit
                for child in some[:shown]:
                    behind = branch.add(self._label(child))
                    if self.whole or child in self.way:
                        todo.append((child, behind))
                if more := len(some[shown:]):
                    branch.add(Text(f"… {more} more {word}", style="dim"))

    def _kept(self, number: int) -> bool:
        return bool(self.children[number] or self.tree.nodes[number].candidates)

    def _ranked(self, number: int) -> Sequence[int]:
        """The children: the winner's way first, then by what they were ranked by."""
        return sorted(
            self.children[number], key=lambda c: (c in self.way, self._worth(c)), reverse=True
        )

    def _worth(self, number: int) -> float:
        node = self.tree.nodes[number]
        return node.value if node.value is not None else node.score or 0.0

    def _label(self, number: int) -> Text:
        node = self.tree.nodes[number]
        mark = "*" if number in self.way else "+" if self._kept(number) else "-"
        style = "bold" if number in self.way else "" if self._kept(number) else "dim"
        text = Text.assemble((mark, style), colored(node.score))
        if node.value is not None:
            text.append(" →").append_text(colored(node.value)[1:])
        text.append(f" {printable(node.text)}", style=style)
        notes = [f"sampled {node.count} times"] * (node.count > 1)
        notes += [ending(node.finish)] * (node.finish not in (None, "stop"))
        notes += ["the winner"] * (self.tree.winner in node.candidates)
        hidden = self.children[number] and not (self.whole or number in self.way)
        notes += [f"leads to {_candidates(self.below[number])}"] * bool(hidden)
        return text.append(f"  ({', '.join(notes)})" if notes else "", style="dim")
