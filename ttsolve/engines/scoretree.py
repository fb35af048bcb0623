"""What the verifier remembers: a tree of steps, found by content; the oldest are forgotten first.

Knows nothing of models: scores, keys and values are set from outside.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
OVERHEAD = 1024  # bytes, about: a node itself


@dataclass(eq=False, slots=True)
class Node:
    """A step behind its prefix; a child of the tree's root is a problem's prompt."""

    parent: Node | None
    text: str
    ids: list[int]
    start: int  # how many tokens stand before it
    children: dict[str, Node] = field(default_factory=dict)
    score: float | None = None
    past: Any = None  # keys and values of its own tokens, wherever they are; None: it has none

    @property
    def end(self) -> int:
        return self.start + len(self.ids)

    def before(self) -> Iterator[Node]:
        """Its prefix, from the last step back to the prompt."""
        node = self.parent
        while node and node.parent:
            yield node
            node = node.parent


class ScoreTree:
    """Prefixes, their scores and their keys and values, within `limit` bytes.

    cell_bytes: of the keys and values of a token; release: takes them from a step that is
    forgotten.
    """

    def __init__(
        self, limit: int, cell_bytes: int = 0, release: Callable[[Node], None] = lambda node: None
    ):
        self.limit, self.cell_bytes = limit, cell_bytes
        self.root = Node(None, "", [], 0, past=[])
        self._release = release
        # Oldest first. A path is touched from its leaf up, so a parent is never older than a child
        # and the oldest node has no children.
        self._ages: OrderedDict[Node, None] = OrderedDict()
        self._bytes = 0

    def path(self, texts: list[str], encode: Callable[[str, Node], list[int]]) -> list[Node]:
        """The nodes of a prompt and its steps; `encode(text, parent)` gives a new one its ids."""
        node, nodes = self.root, []
        for text in texts:
            if text not in node.children:
                node.children[text] = Node(node, text, encode(text, node), node.end)
                self._ages[node.children[text]] = None
                self._bytes += OVERHEAD
            node = node.children[text]
            nodes.append(node)
        for node in reversed(nodes):
            self._ages.move_to_end(node)
        return nodes

    def kept(self, nodes: Iterable[Node]) -> None:
        """Count the keys and values that these have got."""
        self._bytes += self.cell_bytes * sum(len(node.ids) for node in nodes)

    def forget(self) -> None:
        """Let the oldest go until the limit is kept."""
        while self._bytes > self.limit and self._ages:
            node, _ = self._ages.popitem(last=False)
            self._bytes -= OVERHEAD
            if node.past is not None:
                self._bytes -= self.cell_bytes * len(node.ids)
                self._release(node)
            assert node.parent is not None
            del node.parent.children[node.text]


@dataclass(frozen=True, slots=True)
class Run:
    """Steps that follow one another without a branching: one row of a batch."""

    nodes: list[Node]

    @property
    def first(self) -> Node:
        return self.nodes[0]

    @property
    def start(self) -> int:
        return self.first.start

    @property
    def steps(self) -> list[Node]:
        """Its nodes without a prompt, which has no score."""
        return self.nodes if self.first.parent and self.first.parent.parent else self.nodes[1:]

    @property
    def ids(self) -> list[int]:
        return [token for node in self.nodes for token in node.ids]

    @property
    def length(self) -> int:
        return self.nodes[-1].end - self.start

    def steps_up_to(self, nodes: set[Node]) -> int:
        """How many of its steps it has up to the last that is among `nodes`."""
        return max((i for i, node in enumerate(self.nodes, start=1) if node in nodes), default=0)


def levels(todo: Collection[Node]) -> Iterator[list[Run]]:
    """The nodes as runs, level by level: what is before a run stands in an earlier level."""
    following: dict[Node | None, list[Node]] = {}
    for node in todo:
        following.setdefault(node.parent, []).append(node)
    starts = [node for node in todo if node.parent not in todo]
    while starts:
        runs = []
        for node in starts:
            nodes = [node]
            while len(after := following.get(nodes[-1], [])) == 1:
                nodes += after
            runs.append(Run(nodes))
        yield runs
        starts = [node for run in runs for node in following.get(run.nodes[-1], [])]


def batches(runs: list[Run], cells: int, new: int) -> Iterator[list[Run]]:
    """The runs in batches of like lengths, of one run at least.

    Padded, a batch has up to `cells` tokens with what stands before its runs, `new` without.
    """
    batch: list[Run] = []
    past = 0
    for run in sorted(runs, key=lambda run: (run.length, run.start)):
        past = max(past, run.start)
        rows = len(batch) + 1
        if batch and (rows * (past + run.length) > cells or rows * run.length > new):
            yield batch
            batch, past = [], run.start
        batch.append(run)
    yield batch
