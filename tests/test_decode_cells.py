"""What the decode loop keeps, lends and takes over: cells of the cache, and known rollouts."""

from __future__ import annotations

import numpy as np
import pytest

from decode_maker import (
    CONTEXT,
    PIECES,
    PROMPT,
    Dice,
    ask,
    loop_of,
    mixed,
    moved,
    reference,
    run,
    tokens_of,
)
from ttsolve.engines import cache
from ttsolve.engines.decode import DecodeLoop
from ttsolve.engines.kvtree import KVTree, Place
from ttsolve.engines.request import Request
from ttsolve.engines.rollouts import Known


@pytest.mark.parametrize("cells", [None, 60])
def test_a_beam_takes_its_cells_to_another_loop(cells: int | None) -> None:
    """Which decodes one token, as the first would; where sequences share cells it decodes all."""
    first, second = loop_of(3), loop_of(3, cells)
    parents = [ask([2, 3, 7], steps=2, seed=i) for i in range(3)]
    run(first, parents)
    kept = [tokens_of(parent) for parent in parents if parent.finish is None]
    assert len(kept) > 1
    run(second, mixed(9, 1))  # it has something to forget
    beams = [moved(ask(prefix, seed=i), first) for i, prefix in enumerate(kept)]
    expected = [reference(beam) for beam in beams]
    run(second, beams)
    assert [(beam.steps, beam.finish) for beam in beams] == expected
    assert not any(beam.cells for beam in beams)  # a call holds none of them to its end
    if cells is None:
        assert [beam.decoded for beam in beams] == [1] * len(beams)


def test_no_more_is_taken_than_was_asked_for() -> None:
    """Of a sequence that goes on; and nothing into a cache that sequences share."""
    first, second, shared = loop_of(2), loop_of(2), loop_of(2, cells=60)
    run(first, [ask([2, 3, 7, 7, 2, 3], seed=1)])
    for loop, held in (second, [[2, 3, 7], []]), (shared, [[], []]):
        loop.cache.borrow(first.cache.lend(np.array([2, 3, 7, 7], np.int32)), np.ones(2, bool))
        assert isinstance(loop.model, Dice)
        assert loop.model.held == held
        assert loop.cache.tree.length.tolist() == [len(tokens) for tokens in held]


def test_nothing_is_lent_or_taken_while_it_is_copied() -> None:
    """As after a request that forked a prefix and ended at once."""
    first, second = loop_of(2), loop_of(2)
    prefix = np.array([2, 3, 7, 7, 2], np.int32)
    run(first, [ask(prefix.tolist(), seed=1)])
    lent = first.cache.lend(prefix)
    run(second, [ask([3, 3, 3, 3], seed=1)])
    for loop in first, second:
        source = int(loop.cache.tree.length.argmax())
        loop.cache.take(Place(1 - source, source, 3))
    assert len(lent.tokens) == 4
    assert len(first.cache.lend(prefix).tokens) == 0
    second.cache.borrow(lent, np.ones(2, bool))  # Dice would object
    assert second.cache.held(lent.tokens) == 0


def test_what_is_lent_is_taken_once() -> None:
    """By the first request of several; what the loop holds itself it does not take."""
    first, second = loop_of(2), loop_of(4)
    run(first, [ask([2, 3, 7, 7, 2], seed=1)])
    beams = [moved(ask([2, 3, 7, 7, 2], seed=i), first) for i in range(4)]
    loads: list[int] = []
    dice = second.model
    assert isinstance(dice, Dice)
    dice.load = lambda sequence, saved: loads.append(sequence) or Dice.load(dice, sequence, saved)  # type: ignore[method-assign, func-returns-value]
    run(second, beams)
    assert len(loads) == 1
    assert sum(beam.decoded for beam in beams) == 1


def gave_way(loop: DecodeLoop, count: int) -> list[Request]:
    """Beams whose prefixes grew in the loop, and have made room for others since."""
    parents = [ask([2, 3, 7, 7, 2, 3, 7, 2 + i % 3], steps=2, seed=i) for i in range(count)]
    run(loop, parents)
    kept = [tokens_of(parent) for parent in parents if parent.finish is None]
    assert len(kept) > len(loop.cache.length)
    return [ask(prefix, seed=i) for i, prefix in enumerate(kept)]


def test_what_gave_way_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "WORTH", 1)
    loop = loop_of(2)
    beams = gave_way(loop, 14)
    expected = [reference(beam) for beam in beams]
    run(loop, beams)
    assert [(beam.steps, beam.finish) for beam in beams] == expected
    assert [beam.decoded for beam in beams] == [1] * len(beams)


def test_another_loop_gets_what_gave_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "WORTH", 1)
    first, second = loop_of(2), loop_of(3)
    beams = [moved(beam, first) for beam in gave_way(first, 14)]
    assert all(first.cache.held(beam.prefix) >= len(beam.prefix) - 1 for beam in beams)
    expected = [reference(beam) for beam in beams]
    run(second, beams)
    assert [(beam.steps, beam.finish) for beam in beams] == expected
    assert sum(beam.decoded for beam in beams) == len(beams)


def test_of_what_gave_way_the_oldest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "PARKED", 40)
    monkeypatch.setattr(cache, "WORTH", 1)
    loop = loop_of(2)
    beams = gave_way(loop, 14)
    held = [loop.cache.held(beam.prefix) for beam in beams]
    assert held[0] < len(beams[0].prefix) - 1
    assert held[-1] == len(beams[-1].prefix) - 1
    loop.forget()
    assert [loop.cache.held(beam.prefix) for beam in beams] == [0] * len(beams)


def test_no_room_is_taken_by_what_has_ended() -> None:
    """Nor by what is too short, or where sequences share a cache."""
    for loop in (loop_of(2), loop_of(2, cells=60)):
        saved: list[int] = []
        loop.model.save = saved.append  # type: ignore[method-assign]
        run(loop, [ask([2, 3, 7, 7, 2, 3, i], steps=None, seed=i) for i in range(8)])
        assert not saved


def test_what_one_loop_drew_greedily_the_other_knows() -> None:
    known = Known(len(PIECES))
    first, second = (DecodeLoop(Dice(4), PROMPT, KVTree(4, CONTEXT), known) for _ in range(2))
    _, again = agreeing(first, [3, 2, 3], steps=3)
    again[0].cells = first.cache.lend(again[0].prefix)
    expected = [reference(request) for request in again]
    run(second, again)
    assert [(request.steps, request.finish) for request in again] == expected
    assert [request.generated for request in again] == [1, 1]


class Forgetful(Known):
    """Of which other loops let everything be forgotten just after it was asked so many times."""

    left = 0

    def after(self, key: bytes) -> np.ndarray | None:
        found = super().after(key)
        self.left -= 1
        if self.left == 0:
            self.clear()
        return found


@pytest.mark.parametrize("asked", range(1, 12))
def test_what_is_known_may_be_forgotten_at_any_moment(asked: int) -> None:
    known = Forgetful(len(PIECES))
    loop = DecodeLoop(Dice(4), PROMPT, KVTree(4, CONTEXT), known)
    greedy = ask([3, 2, 3], temperature=0.0)
    run(loop, [greedy])
    again = [ask(tokens_of(greedy)[:n], seed=n) for n in (4, 5, 6)]  # sooner or later they differ
    expected = [reference(request) for request in again]
    known.left = asked
    run(loop, again)
    assert [(request.steps, request.finish) for request in again] == expected


def agreeing(loop: DecodeLoop, prefix: list[int], steps: int) -> tuple[list[int], list[Request]]:
    """What a greedy rollout from `prefix` draws; and requests that draw the same, though they are
    not all greedy: at this temperature the likeliest token is the only one."""
    rollout = ask(prefix, 20, steps=steps, temperature=0)
    run(loop, [rollout])
    tokens = [token for step in rollout.steps for token in step.ids]
    again = [ask(prefix, 20, steps=steps, temperature=t, seed=9) for t in (0, 0.001)]
    return tokens, again


def test_who_agrees_with_a_rollout_computes_nothing_again() -> None:
    loop = loop_of(4)
    prefix = [3, 2, 3]
    tokens, again = agreeing(loop, prefix, steps=3)
    assert len(tokens) > 6
    dice = loop.model
    assert isinstance(dice, Dice)
    before = dice.decoded
    run(loop, again)
    for request in again:
        assert [token for step in request.steps for token in step.ids] == tokens
        # No cache holds the rollout's last token, so the logits it came from are the last known.
        assert (request.generated, request.decoded) == (1, 0)
        assert request.reused == len(prefix) + len(tokens) - 1
    assert dice.decoded == before


@pytest.mark.parametrize("steps", [1, 2])
def test_a_rollout_is_followed_to_where_it_is_left(steps: int) -> None:
    """As its first steps only, without any lane; by samples that go other ways; from the middle."""
    loop = loop_of(4)
    tokens, _ = agreeing(loop, [3, 2, 3], steps=3)
    requests = [
        ask([3, 2, 3], 20, steps=steps, temperature=0),
        *(ask([3, 2, 3], 20, temperature=1, seed=seed) for seed in range(20)),
        ask([3, 2, 3, *tokens[:4]], 20, temperature=0),
        ask([3, 2, 3], 2, temperature=0),
    ]
    expected = [reference(request) for request in requests]
    run(loop, requests)
    assert [(request.steps, request.finish) for request in requests] == expected
    assert (requests[0].generated, requests[0].decoded) == (0, 0)
    drawn = [sum(step.tokens for step in request.steps) for request in requests]
    for request, n in zip(requests, drawn, strict=True):
        assert request.decoded + request.reused + request.generated >= 3 + n
