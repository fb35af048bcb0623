"""What a session shows beside its results: what it remembers, and why an answer won."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ttsolve.render import colored, in_words, line, printable, progress
from ttsolve.render_result import bill_line
from ttsolve.session import Account, Session
from ttsolve.tree import Tree

ANSWERS = 8  # shown of a vote


def greet(session: Session) -> None:
    """What the session remembers."""
    last = session.last
    how = f"pair {session.pair.name}, {session.settings}"
    if last is None:
        begins = "A session" if session.name is None else f"Session {printable(session.name)}"
        progress(f"{begins} begins: {how}.")
        progress("Type a problem; /help lists the commands, Ctrl-D ends the session.")
        return
    many = f"{session.problems} problem{'' if session.problems == 1 else 's'} so far"
    progress(f"Session {printable(session.name or '')} goes on: {many}, {how}.")
    end = "stopped, /more goes on with it"
    if last.ended and last.account:
        tree = last.account().tree
        answer = "(no answer)" if tree.answer is None else printable(tree.answer)
        end = f"{answer}, {tree.share:.2f} of the vote"
    progress(f"The last: {printable(last.question)}, budget {last.budget}: {end}.")


def take_leave(name: str) -> None:
    """How the session goes on another day."""
    progress(f"Kept: ttsolve --session {shlex.quote(name)} goes on.")


def show_help(commands: Mapping[str, str]) -> None:
    """The commands, by how they are typed."""
    line("All else is a problem to solve. Ctrl-C stops it, with a vote over what there is.")
    width = max(map(len, commands))
    for command, about in commands.items():
        line(f"  {command:{width}}  {about}")


def show_account(account: Account) -> None:
    """What was spent where, the vote, and the steps of the solution that won it."""
    out = Console(highlight=False, soft_wrap=True)
    tree = account.tree
    out.print(Text(printable(tree.question), style="bold"))
    out.print(Text(f"{tree.strategy}: {printable(_settings(tree))}"))
    out.print(Text(f"spent  {bill_line(account.bill)}"), end="\n\n")
    rollouts = any(node.value is not None for node in tree.nodes)
    heads = ("step", "sampled", "different", *["rollouts"] * rollouts, "dropped", "best score")
    if len(tree.nodes) > 1 or not tree.chains:
        _show_table(heads, _rounds(tree, rollouts))
    if tree.chains:
        _show_table(("attempt", "sampled", "different", "best score"), _attempts(tree))
    out.print()
    if account.votes:
        total = math.fsum(weight for _, weight, _ in account.votes) or math.inf
        shares = [
            (f"{weight / total:.2f}", f"{weight:.2f}", f"{count}", printable(answer))
            for answer, weight, count in account.votes
        ]
        _show_table(("share", "weight", "candidates", "answer"), shares[:ANSWERS])
        if more := shares[ANSWERS:]:
            out.print(Text(f"… and {len(more)} more answers", style="dim"))
    else:
        out.print("No candidate has an answer.")
    if tree.winner is not None:
        out.print(Text("\nthe best solution with that answer", style="dim"))
        for text, score in tree.steps_of(tree.winner):
            out.print(colored(score), Text(printable(text)))
    if account.run is not None:
        out.print(Text(f"\nthe whole tree: ttsolve show {account.run}", style="dim"))


def _settings(tree: Tree) -> str:
    told = tree.settings
    if "chosen" in told:
        return f"{told['chosen']}: {told['why']}"
    return in_words(told, "verifier", "revision_verifier")


def _attempts(tree: Tree) -> Iterator[tuple[str, ...]]:
    """For the attempts in each place of a chain: how many, and the best score among them."""
    for place, attempts in enumerate(zip_longest(*tree.chains), start=1):
        made = [attempt.steps for attempt in attempts if attempt is not None]
        scores = [steps[-1][1] for steps in made if steps]
        best = max((score for score in scores if score is not None), default=None)
        different = len({tuple(text for text, _ in steps) for steps in made})
        yield f"{place}", f"{len(made)}", f"{different}", "-" if best is None else f"{best:.2f}"


def _rounds(tree: Tree, rollouts: bool) -> Iterator[tuple[str, ...]]:
    """For the steps in each place of a solution: how many, and the best score among them."""
    children = tree.children()
    depth = [0] * len(tree.nodes)
    for number, node in enumerate(tree.nodes[1:], start=1):
        depth[number] = depth[node.parent] + 1
    for place in range(1, max(depth) + 1):
        some = [number for number, at in enumerate(depth) if at == place]
        nodes = [tree.nodes[number] for number in some]
        ahead = sum(node.value is not None for node in nodes)
        dropped = sum(not (children[n] or tree.nodes[n].candidates) for n in some)
        best = max((node.score for node in nodes if node.score is not None), default=None)
        yield (
            f"{place}",
            f"{sum(node.count for node in nodes):,}",
            f"{len(nodes):,}",
            *[f"{ahead:,}"] * rollouts,
            f"{dropped:,}",
            "-" if best is None else f"{best:.2f}",
        )


def _show_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows below their heads, to the right but for the last column where that is a text.

    On a narrow terminal cells go on in the next line: an answer is never cut.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for head in heads:
        text = head == "answer"
        table.add_column(head, justify="left" if text else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)
