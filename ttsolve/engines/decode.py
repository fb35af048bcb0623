"""The continuous decode loop: requests of all callers share one batch, prefixes share one cache.

Each turn of the loop gives free sequences ("lanes") to waiting requests, first come first served;
decodes one batch (a token of every running request, and as much of the new prefixes as fits beside
them); draws one token for each; and hands back what ended. A prefix that several requests ask for
is decoded once: the others wait for it, fork its cells and draw their first tokens from its logits.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque

import numpy as np

from ttsolve.engines.cache import Bools, Cache, Decoder, Floats, Ints
from ttsolve.engines.draw import Drawer, Settings
from ttsolve.engines.kvtree import KVTree, Place
from ttsolve.engines.request import Request, Steps
from ttsolve.engines.rollouts import Known, Rollouts
from ttsolve.prompts import PromptFormat


class DecodeLoop:
    """The loop's state. Not thread-safe: one thread owns it. Knows nothing of llama.cpp.

    `known`: what is known of rollouts, by all loops of a model together.
    """

    def __init__(
        self, model: Decoder, prompt: PromptFormat, tree: KVTree, known: Known | None = None
    ):
        n = len(tree.length)
        self.model = model
        self.seconds = 0.0  # spent in turns; the rest of the time there was nothing to do
        self.waiting: deque[Request] = deque()
        self.cache = Cache(model, tree)
        self._steps = Steps(model.pieces, model.ends, prompt)
        self._lanes: list[Request | None] = [None] * n  # the request in each sequence
        self._running = np.zeros(n, bool)
        self._filling: dict[bytes, int] = {}  # prefixes in the making, by content: their lane
        self._last: OrderedDict[bytes, Floats] = OrderedDict()  # logits after recent prefixes
        self._next = np.zeros(n, np.int32)  # drawn, to be decoded in the next turn
        self._limit = np.zeros(n, np.int32)  # the length at which each lane must end
        self._settings = Settings.empty(n)
        self._drawer = Drawer(len(model.pieces))
        self._rollouts = Rollouts(self._drawer, self._steps, known or Known(len(model.pieces)))

    @property
    def load(self) -> int:
        """How many requests wait or run."""
        return len(self.waiting) + int(self._running.sum())

    def turn(self) -> None:
        """Admit, decode, draw."""
        started = time.perf_counter()
        self._admit()
        if self.model.contiguous and not self.waiting:
            self._close_gaps()
        if self._running.any():
            self._advance()
        self.seconds += time.perf_counter() - started

    def cancel(self, owner: object) -> None:
        """End the owner's requests as they stand, with finish "budget"."""
        mine = [request for request in self.waiting if request.owner is owner]
        self.waiting = deque(request for request in self.waiting if request.owner is not owner)
        for request in mine:
            request.finish = "budget"
            request.done(request)
        for lane, running in enumerate(self._lanes):
            if running is not None and running.owner is owner:
                self._steps.close(running, self._in_hand(lane, running))
                running.finish = "budget"
                self._end(lane, running)

    def forget(self) -> None:
        """Drop all requests and empty the cache: the way back from an error."""
        self.waiting.clear()
        self._lanes = [None] * len(self._lanes)
        self._running[:] = False
        self._filling.clear()
        self._last.clear()
        self._rollouts.known.clear()
        self.cache.clear()

    # -- admission ---------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Give free lanes to waiting requests; draw where the prefix is complete already."""
        room = len(self._lanes) - int(self._running.sum())
        if not room or not self.waiting:
            return
        head = [self.waiting.popleft() for _ in range(min(room, len(self.waiting)))]
        head = self._rollouts.follow(head)
        for request in {request.key: request for request in head}.values():
            tree = self.cache.tree
            tree.touch(int(tree.common(request.prefix).argmax()))  # gives way last
        held: list[Request] = []
        ready: list[int] = []
        rows: list[Floats] = []
        for i, request in enumerate(head):
            if request.key in self._filling:  # in the making: its lane is kept for it
                held.append(request)
                continue
            logits = self._known(request.key)  # once: other loops may let it be forgotten
            lane = self._start(request, known=logits is not None)
            if lane is None:
                held += head[i:]
                break
            if logits is not None and request.key not in self._filling:
                ready.append(lane)
                rows.append(logits)
        self.waiting.extendleft(reversed(held))
        if ready:
            self._draw(np.array(ready, np.int32), np.stack(rows))

    def _start(self, request: Request, known: bool) -> int | None:
        """Put a request into a lane; None when a shared cache has no cells for it now."""
        free = ~self._running
        if cells := request.cells or self.cache.parked(request.prefix):
            self.cache.borrow(cells, free)
            request.cells = None  # a call that goes on for long would hold them all
        place = self.cache.place(request.prefix, free, known)
        promised = int((self._limit - self.cache.length)[self._running].sum())
        needed = len(request.prefix) - place.reused + request.room
        if not self.cache.make_room(promised + needed, free, place):
            if self._running.any():
                return None
            self.cache.clear()  # alone it fits
            place = Place(place.sequence, None, 0)
        self.cache.take(place)
        request.reused = place.reused
        request.decoded = len(request.prefix) - place.reused
        if request.decoded:
            self._filling[request.key] = place.sequence
        self._occupy(place.sequence, request)
        return place.sequence

    def _known(self, key: bytes) -> Floats | None:
        """The logits after the prefix of this content, if they are remembered."""
        if key in self._last:
            self._last.move_to_end(key)
            return self._last[key]
        return self._rollouts.known.after(key)

    def _occupy(self, lane: int, request: Request) -> None:
        self._lanes[lane] = request
        self._running[lane] = True
        self._limit[lane] = len(request.prefix) + request.room
        self._settings.put(lane, request.how)

    def _close_gaps(self) -> None:
        """Move the outermost running lanes into the holes that ended requests left.

        What waits in a hole for another round (a beam's prefix) stays where it is.
        """
        while self._running.any():
            outermost = int(np.flatnonzero(self._running)[-1])
            holes = np.flatnonzero((~self._running & self.cache.spoilt)[:outermost])
            if not len(holes):
                return
            self._move(outermost, int(holes[0]))

    def _move(self, source: int, target: int) -> None:
        request = self._lanes[source]
        assert request is not None
        self.cache.take(Place(target, source, int(self.cache.length[source])))
        self._next[target] = self._next[source]
        self._occupy(target, request)
        if self._filling.get(request.key) == source:
            self._filling[request.key] = target
        self._lanes[source] = None
        self._running[source], self.cache.spoilt[source] = False, True

    # -- decoding ----------------------------------------------------------------------------------

    def _advance(self) -> None:
        tokens, at, lanes, wanted = self._batch()
        logits = self.cache.decode(tokens, at, lanes, wanted)
        if logits is None:
            return
        drawing = lanes[wanted]
        for key, lane in list(self._filling.items()):
            rows = np.flatnonzero(drawing == lane)
            if len(rows):
                del self._filling[key]
                self._last[key] = logits[rows[0]].copy()
                if len(self._last) > len(self._lanes):
                    self._last.popitem(last=False)
        if len(drawing):
            self._draw(drawing, logits)

    def _batch(self) -> tuple[Ints, Ints, Ints, Bools]:
        """Tokens, positions, lanes and whether their logits are wanted, in the order of lanes."""
        stepping = self._running.copy()
        stepping[list(self._filling.values())] = False
        lanes = np.flatnonzero(stepping).astype(np.int32)
        length = self.cache.length
        parts = [(self._next[lanes], length[lanes], lanes, np.ones(len(lanes), bool))]
        left = self.model.batch - len(lanes)
        for lane in self._filling.values():
            request = self._lanes[lane]
            assert request is not None
            tokens = request.prefix[length[lane] : length[lane] + left]
            left -= len(tokens)
            at = length[lane] + np.arange(len(tokens), dtype=np.int32)
            wanted = at == len(request.prefix) - 1
            parts.append((tokens, at, np.full(len(tokens), lane, np.int32), wanted))
        if len(parts) == 1:
            return parts[0]
        tokens, at, lanes, wanted = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(lanes, kind="stable")
        return tokens[order], at[order], lanes[order], wanted[order]

    def _draw(self, lanes: Ints, logits: Floats) -> None:
        """Draw the next token of each lane [n] from its row of `logits` [n, vocabulary]."""
        position = self.cache.length[lanes]
        for row in np.flatnonzero(self._settings.temperature[lanes] == 0).tolist():
            prefix = self.cache.tree.tokens[lanes[row], : position[row]]
            self._rollouts.known.keep(prefix, logits[row])
        tokens = self._drawer.draw(logits, self._settings[lanes], position)
        self._next[lanes] = tokens
        over = position + 1 >= self._limit[lanes]
        for i in np.flatnonzero(self._steps.marks[tokens] | over).tolist():
            lane = int(lanes[i])
            request = self._lanes[lane]
            assert request is not None
            if self._steps.grow(request, self._in_hand(lane, request), bool(over[i])):
                self._end(lane, request)

    def _in_hand(self, lane: int, request: Request) -> list[int]:
        """The ids of the step in hand, with the token drawn last (which no cache holds yet)."""
        length = int(self.cache.length[lane])
        ids: list[int] = self.cache.tree.tokens[lane, request.begun : length].tolist()
        if request.begun <= length and self._filling.get(request.key) != lane:
            ids.append(int(self._next[lane]))
        return ids

    def _end(self, lane: int, request: Request) -> None:
        if self._filling.get(request.key) == lane:
            del self._filling[request.key]
        else:
            request.generated = int(self.cache.length[lane]) - len(request.prefix) + 1
        self._lanes[lane] = None
        self._running[lane] = False
        self.cache.spoilt[lane] = request.finish is not None
        self.cache.tree.touch(lane)
        request.done(request)
