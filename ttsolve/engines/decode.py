"""The continuous decode loop: requests of all callers share one batch, prefixes share one cache.

Each turn of the loop gives free sequences ("lanes") to waiting requests, first come first served;
decodes one batch (a token of every lane, and as much of the new prefixes as fits beside them);
draws a token for each request; and hands back what ended.

Requests that are the same text so far are decoded once: they ride in one lane, and each draws its
own token from the lane's logits. Those that draw another token than most leave the lane: that token
joins their prefix, and they wait, before all that have not begun, for a lane that forks the cells
they left (or, if those gave way meanwhile, decodes them again). So of many samples of one problem
each beginning that some share is computed once, and each is what it would be alone.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque

import numpy as np

from ttsolve.engines.cache import Cache, Decoder, Floats, Ints
from ttsolve.engines.draw import Drawer
from ttsolve.engines.kvtree import KVTree, Place
from ttsolve.engines.lanes import Lanes
from ttsolve.engines.request import Request, Steps
from ttsolve.engines.rollouts import Known, Rollouts
from ttsolve.prompts import PromptFormat

# Riders of a lane, on average, before others may begin. Of more, where texts differ soon, so many
# would wait for lanes that their prompts gave way meanwhile; with fewer, lanes would be idle.
RIDERS = 2


class DecodeLoop:
    """The loop's state. Not thread-safe: one thread owns it. Knows nothing of llama.cpp.

    `known`: what is known of rollouts, by all loops of a model together.
    """

    def __init__(
        self, model: Decoder, prompt: PromptFormat, tree: KVTree, known: Known | None = None
    ):
        self.model = model
        self.seconds = 0.0  # spent in turns; the rest of the time there was nothing to do
        self.waiting: deque[Request] = deque()
        self.cache = Cache(model, tree)
        self._steps = Steps(model.pieces, model.ends, prompt)
        self._lanes = Lanes(len(tree.length))
        self._last: OrderedDict[bytes, Floats] = OrderedDict()  # logits after recent prefixes
        self._drawer = Drawer(len(model.pieces))
        self._rollouts = Rollouts(self._drawer, self._steps, known or Known(len(model.pieces)))

    @property
    def load(self) -> int:
        """How many requests wait or run."""
        return len(self.waiting) + self._lanes.load

    def turn(self) -> None:
        """Admit, decode, draw."""
        started = time.perf_counter()
        while self._admit():
            pass  # those that parted may find a lane at once
        if self.model.contiguous:
            self._close_gaps()
        if self._lanes.running.any():
            self._advance()
        self.seconds += time.perf_counter() - started

    def cancel(self, owner: object) -> None:
        """End the owner's requests as they stand, with finish "budget"."""
        mine = [request for request in self.waiting if request.owner is owner]
        self.waiting = deque(request for request in self.waiting if request.owner is not owner)
        for request in mine:
            self._stop(request, request.prefix[request.begun :].tolist())
        for lane, riders in enumerate(self._lanes.riders):
            mine = [request for request in riders if request.owner is owner]
            if not mine:
                continue
            filling = self._lanes.is_filling(lane, mine[0])
            self.cache.spoilt[lane], self.cache.awaits[lane] = True, False
            self._keep(lane, [request for request in riders if request.owner is not owner])
            for request in mine:
                if filling:
                    self._stop(request, request.prefix[request.begun :].tolist())
                else:
                    request.generated += self._drawn(lane, request)
                    self._stop(request, self._in_hand(lane, request, int(self._lanes.next[lane])))

    def forget(self) -> None:
        """Drop all requests and empty the cache: the way back from an error."""
        self.waiting.clear()
        self._lanes.clear()
        self._last.clear()
        self._rollouts.known.clear()
        self.cache.clear()

    # -- admission ---------------------------------------------------------------------------------

    def _admit(self) -> bool:
        """Give lanes to waiting requests, and draw where the prefix is complete already. True:
        something was drawn."""
        head = self._rollouts.follow(self._head())
        for request in {request.key: request for request in head}.values():
            tree = self.cache.tree
            tree.touch(int(tree.common(request.prefix).argmax()))  # gives way last
        joinable = dict(self._lanes.filling)  # lanes where nothing is drawn yet, by their prefix
        ready: dict[int, Floats] = {}
        held: list[Request] = []
        full = False  # who comes later must not overtake whom there was no room for
        for request in head:
            lane = joinable.get(request.key)
            if lane is not None and self._lanes.riders[lane][0].alike(request):
                self._lanes.riders[lane].append(request)
                request.found(0)
                request.cells = None
                continue
            if full or request.key in self._lanes.filling:  # others draw from it when it is there
                held.append(request)
                continue
            logits = self._known(request.key)  # once: other loops may let it be forgotten
            lane = self._start(request, known=logits is not None)
            if lane is None:
                full = True
                held.append(request)
                continue
            joinable[request.key] = lane
            if logits is not None and request.key not in self._lanes.filling:
                ready[lane] = logits
        self.waiting.extendleft(reversed(held))
        if ready:
            self._draw(np.array(list(ready), np.int32), np.stack(list(ready.values())))
        return bool(ready)

    def _head(self) -> list[Request]:
        """Those that wait longest: of as many prefixes as there are free lanes, and all that follow
        with the same ones, so that they begin as one. As long as `RIDERS` allows it, some that
        have not begun."""
        free = int(self._lanes.free.sum())
        most = RIDERS * len(self._lanes) - self._lanes.load
        head: list[Request] = []
        keys: set[bytes] = set()
        while self.waiting:
            request = self.waiting[0]
            enough = len(keys) == free or (not request.generated and len(head) >= most)
            if request.key not in keys and enough:
                break
            keys.add(request.key)
            head.append(self.waiting.popleft())
        return head

    def _start(self, request: Request, known: bool) -> int | None:
        """Put a request into a lane; None when there is none, or a shared cache has no cells for it
        now."""
        free = self._lanes.free
        if not free.any():
            return None
        if cells := request.cells or self.cache.parked(request.prefix):
            self.cache.borrow(cells, free)
            request.cells = None  # a call that goes on for long would hold them all
        place = self.cache.place(request.prefix, free, known)
        missing = len(request.prefix) - place.reused
        promised = int((self._lanes.limit - self.cache.length)[~free].sum())
        if not self.cache.make_room(promised + missing + request.room, free, place):
            if not free.all():
                return None
            self.cache.clear()  # alone it fits
            place = Place(place.sequence, None, 0)
            missing = len(request.prefix)
        lane = place.sequence
        self.cache.take(place)
        request.found(missing)
        if missing:
            self._lanes.filling[request.key] = lane
        self._lanes.occupy(lane, [request])
        return lane

    def _known(self, key: bytes) -> Floats | None:
        """The logits after the prefix of this content, if they are remembered."""
        if key in self._last:
            self._last.move_to_end(key)
            return self._last[key]
        return self._rollouts.known.after(key)

    def _close_gaps(self) -> None:
        """Move the outermost running lanes into the holes that ended requests left.

        What waits in a hole for another round (a beam's prefix, a chain) stays where it is.
        """
        spoilt, awaits = self.cache.spoilt, self.cache.awaits
        while self._lanes.running.any():
            source = int(np.flatnonzero(self._lanes.running)[-1])
            holes = np.flatnonzero((self._lanes.free & spoilt & ~awaits)[:source])
            if not len(holes):
                return
            target = int(holes[0])
            self.cache.take(Place(target, source, int(self.cache.length[source])))
            spoilt[target], spoilt[source] = spoilt[source], True
            awaits[target], awaits[source] = awaits[source], False
            self._lanes.move(source, target)

    # -- decoding ----------------------------------------------------------------------------------

    def _advance(self) -> None:
        tokens, at, lanes, wanted = self._lanes.batch(self.cache.length, self.model.batch)
        logits = self.cache.decode(tokens, at, lanes, wanted)
        if logits is None:
            return
        drawing = lanes[wanted]
        for key, lane in list(self._lanes.filling.items()):
            rows = np.flatnonzero(drawing == lane)
            if len(rows):
                del self._lanes.filling[key]
                if self._lanes.riders[lane][0].generated:
                    continue  # it left others: hardly anybody else asks for this prefix
                self._last[key] = logits[rows[0]].copy()
                if len(self._last) > len(self._lanes):
                    self._last.popitem(last=False)
        if len(drawing):
            self._draw(drawing, logits)

    def _draw(self, lanes: Ints, logits: Floats) -> None:
        """Draw the next tokens of all in each lane [n] from its row of `logits` [n, vocabulary]."""
        length = self.cache.length[lanes]
        for row in self._lanes.greedy(lanes):
            prefix = self.cache.tree.tokens[lanes[row], : length[row]]
            self._rollouts.known.keep(prefix, logits[row])
        how, each, seed = self._lanes.settings(lanes)
        tokens = self._drawer.draw(logits, how, length, each, seed)
        first = each.cumsum() - each
        self._lanes.next[lanes] = tokens[first]
        over = length + 1 >= self._lanes.limit[lanes]
        leaves = tokens != np.repeat(tokens[first], each)
        look = over | np.logical_or.reduceat(self._steps.marks[tokens] | leaves, first)
        for i in np.flatnonzero(look).tolist():
            drawn = tokens[first[i] : first[i] + each[i]].tolist()
            self._grow(int(lanes[i]), drawn, bool(over[i]))

    def _grow(self, lane: int, drawn: list[int], over: bool) -> None:
        """See who in the lane ends with the token it drew, and who leaves for another lane."""
        going: dict[int, list[Request]] = {}
        ended: list[Request] = []
        for request, token in zip(self._lanes.riders[lane], drawn, strict=True):
            if (over or self._steps.marks[token]) and self._steps.grow(
                request, self._in_hand(lane, request, token), over
            ):
                request.generated += self._drawn(lane, request)
                ended.append(request)
            else:
                going.setdefault(token, []).append(request)
        staying = max(going, key=lambda token: len(going[token]), default=None)
        self.cache.spoilt[lane] = not any(request.finish is None for request in ended)
        self.cache.awaits[lane] = any(request.chained for request in ended)
        if staying is not None:
            self.cache.park(lane)  # before it grows: a search may go on from here
        prefix = self.cache.tree.tokens[lane, : self.cache.length[lane]]
        for token in reversed(going):
            if token == staying:
                self._lanes.next[lane] = token
                continue
            longer = np.append(prefix, np.int32(token))
            key = longer.tobytes()
            for request in going[token]:
                request.generated += self._drawn(lane, request)
                request.go_on(longer, key)
            self.waiting.extendleft(reversed(going[token]))
        self._keep(lane, [] if staying is None else going[staying])
        for request in ended:  # last of all: who hears of it may ask for more at once
            request.done(request)

    def _keep(self, lane: int, riders: list[Request]) -> None:
        self._lanes.keep(lane, riders)
        if not riders:
            self.cache.tree.touch(lane)

    def _drawn(self, lane: int, request: Request) -> int:
        """How many tokens a rider drew in the lane, the last one included."""
        return int(self.cache.length[lane]) - len(request.prefix) + 1

    def _in_hand(self, lane: int, request: Request, token: int) -> list[int]:
        """The ids of the step in hand, with the token drawn last (which no cache holds yet)."""
        length = int(self.cache.length[lane])
        ids: list[int] = self.cache.tree.tokens[lane, request.begun : length].tolist()
        return [*ids, token] if request.begun <= length else ids

    def _stop(self, request: Request, ids: list[int]) -> None:
        """End a request as it stands; `ids`: of the step in hand."""
        self._steps.close(request, ids)
        request.finish = "budget"
        request.done(request)
