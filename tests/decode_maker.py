"""A model of dice whose every answer tells what its cache holds, for the decode loop."""

from __future__ import annotations

import zlib

import numpy as np

from ttsolve.core import Step
from ttsolve.engine import Sampling
from ttsolve.engines.decode import DecodeLoop
from ttsolve.engines.draw import Drawer, Settings
from ttsolve.engines.kvtree import KVTree
from ttsolve.engines.request import Request, Steps
from ttsolve.prompts import PromptFormat

PIECES = [b"", b"\n", b"a", b"b", b"c\n", b"\n\n", b"Answer: ", b"1", b"\xc3", b"\xa9"]
ENDS = np.array([piece == b"" for piece in PIECES])
PROMPT = PromptFormat()
CONTEXT = 40


def logits_after(tokens: tuple[int, ...]) -> np.ndarray:
    """The dice: the whole content of a sequence is the seed."""
    random = np.random.default_rng(zlib.crc32(repr(tokens).encode()))
    return random.standard_normal(len(PIECES)).astype(np.float32)


class Dice:
    """A `Decoder` that checks what it is told as strictly as llama.cpp does."""

    pieces, ends = PIECES, ENDS

    def __init__(self, sequences: int, cells: int | None = None, batch: int = 16) -> None:
        self.held: list[list[int]] = [[] for _ in range(sequences)]
        self.batch, self.contiguous, self.seconds = batch, cells is None, 0.0
        self.cells = cells
        self.decoded = 0
        self.interrupted = self.broken = False
        self.copying: set[int] = set()  # llama.cpp copies when it next decodes

    def decode(self, tokens, at, sequences, wanted):  # type: ignore[no-untyped-def]
        assert 0 < len(tokens) <= self.batch
        assert sorted(sequences) == list(sequences)
        self.copying.clear()
        rows = []
        for i, (token, position, sequence) in enumerate(zip(tokens, at, sequences, strict=True)):
            if self.interrupted and i >= len(tokens) // 2:
                return None
            assert position == len(self.held[sequence]) < CONTEXT
            self.held[sequence].append(int(token))
            if wanted[i]:
                rows.append(logits_after(tuple(self.held[sequence])))
        if self.broken:
            raise RuntimeError("the dice are broken")
        if self.cells:
            assert (
                len({tuple(h[:n]) for h in self.held for n in range(1, len(h) + 1)}) <= self.cells
            )
        self.decoded += len(tokens)
        return np.array(rows).reshape(-1, len(PIECES))

    def copy(self, source: int, target: int) -> None:
        assert source != target
        assert not self.held[target]
        self.held[target] = list(self.held[source])
        self.copying |= {source, target}

    def trim(self, sequence: int, length: int) -> None:
        del self.held[sequence][length:]

    def save(self, sequence: int) -> list[int]:
        assert sequence not in self.copying
        return list(self.held[sequence])

    def load(self, sequence: int, saved: list[int]) -> None:
        assert sequence not in self.copying
        assert not self.held[sequence]
        self.held[sequence] = list(saved)

    def interrupt(self) -> None:
        self.interrupted = True

    def resume(self) -> None:
        self.interrupted = False

    def close(self) -> None:
        pass


def loop_of(sequences: int, cells: int | None = None, batch: int = 16) -> DecodeLoop:
    return DecodeLoop(Dice(sequences, cells, batch), PROMPT, KVTree(sequences, CONTEXT, cells))


def ask(prefix: list[int], room: int = 12, **how: float) -> Request:
    return Request(np.array(prefix, np.int32), Sampling(**how), room)  # type: ignore[arg-type]


def run(loop: DecodeLoop, requests: list[Request], turns: int = 2000) -> None:
    loop.waiting.extend(requests)
    while loop.load:
        loop.turn()
        turns -= 1
        assert turns, "the loop hangs"


def asked(request: Request) -> tuple[list[int], int]:
    """The prefix and the room that were asked for, before what was drawn joined the prefix."""
    n = request.begun - sum(step.tokens for step in request.steps)
    return request.prefix[:n].tolist(), request.room + len(request.prefix) - n


def reference(request: Request) -> tuple[list[Step], str | None]:
    """The same continuation, one token at a time and nothing shared."""
    prefix, room = asked(request)
    alone = ask(prefix, room)
    alone.how = request.how
    settings = Settings.empty(1)
    settings.put(0, request.how)
    drawer = Drawer(len(PIECES))
    steps = Steps(PIECES, ENDS, PROMPT)
    tokens = list(prefix)
    while True:
        at = np.array([len(tokens)], np.int32)
        token = int(drawer.draw(logits_after(tuple(tokens))[None], settings, at)[0])
        tokens.append(token)
        over = len(tokens) == len(prefix) + room
        if steps.grow(alone, tokens[alone.begun :], over):
            return alone.steps, alone.finish


def mixed(n: int, seed: int) -> list[Request]:
    """Requests of several prefixes that share beginnings, with all kinds of settings."""
    random = np.random.default_rng(seed)
    out = []
    for i in range(n):
        prefix = [2, 3, 2, 3, 7, 7][: random.integers(1, 7)] + [2] * int(random.integers(0, 9))
        how = {"steps": [None, 1, 2][i % 3], "temperature": [1.0, 0, 2.0][i % 3], "seed": i}
        out.append(ask(prefix, int(random.integers(1, 25)), **how))
    return out


def tokens_of(request: Request) -> list[int]:
    return [*asked(request)[0], *(t for step in request.steps for t in step.ids)]


def moved(request: Request, source: DecodeLoop) -> Request:
    """The request with what another loop holds of its prefix."""
    request.cells = source.cache.lend(request.prefix)
    return request
