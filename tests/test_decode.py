"""The decode loop draws what one token at a time draws, whoever rides with whom."""

from __future__ import annotations

import numpy as np
import pytest

from decode_maker import (
    PIECES,
    Dice,
    ask,
    logits_after,
    loop_of,
    mixed,
    moved,
    reference,
    run,
    tokens_of,
)
from ttsolve.engines import cache, decode


@pytest.mark.parametrize("cells", [None, 60, 400])
@pytest.mark.parametrize("sequences", [1, 3, 8])
def test_the_loop_draws_what_one_token_at_a_time_draws(sequences: int, cells: int | None) -> None:
    """Whatever is batched, shared, forked, moved or evicted."""
    loop = loop_of(sequences, cells)
    for seed in range(3):
        requests = mixed(30, seed)
        expected = [reference(request) for request in requests]
        run(loop, requests)
        assert [(request.steps, request.finish) for request in requests] == expected


def test_what_samples_share_is_decoded_once() -> None:
    """The prompt, and each beginning that some of them have in common."""
    loop = loop_of(30)
    requests = [ask([2, 3, 2, 3, 7], seed=i) for i in range(30)]
    expected = [reference(request) for request in requests]
    run(loop, requests)
    assert [(request.steps, request.finish) for request in requests] == expected
    assert sum(request.decoded for request in requests) == 5
    assert sum(request.reused for request in requests) == 29 * 5
    drawn = [[token for step in request.steps for token in step.ids] for request in requests]
    # A token that ends a request is never decoded, for no other goes on behind it; an end token is
    # no step's.
    decoded = {
        tuple(tokens[: n + 1])
        for request, tokens in zip(requests, drawn, strict=True)
        for n in range(min(len(tokens), request.generated - 1))
    }
    dice = loop.model
    assert isinstance(dice, Dice)
    assert dice.decoded == 5 + len(decoded) < 5 + sum(r.generated - 1 for r in requests)


@pytest.mark.parametrize("sequences", [1, 4])
def test_who_finds_no_lane_where_samples_part_waits_for_one(sequences: int) -> None:
    """And draws on from where it parted."""
    loop = loop_of(sequences)
    requests = [ask([2, 3, 2, 3, 7], seed=i) for i in range(40)]
    expected = [reference(request) for request in requests]
    run(loop, requests)
    assert [(request.steps, request.finish) for request in requests] == expected
    generated = [sum(step.tokens for step in steps) for steps, _ in expected]
    for request, n in zip(requests, generated, strict=True):
        assert n <= request.generated <= n + 1  # an end token is no step's
        assert request.decoded + request.reused >= 5
    # What gave way while they waited is decoded again; that is less than what they share.
    dice = loop.model
    assert isinstance(dice, Dice)
    alone = 5 + sum(request.generated - 1 for request in requests)
    assert sequences == 1 or dice.decoded < alone


def test_who_left_others_takes_a_free_lane_however_many_ride(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`RIDERS` keeps back those that have not begun, no others."""
    monkeypatch.setattr(decode, "RIDERS", 1)
    loop = loop_of(8)
    loop.waiting.extend(ask([2, 3, 2, 3, 7], seed=i) for i in range(40))
    for _ in range(3):
        loop.turn()
    assert loop._lanes.running.sum() > 4


def test_nobody_is_overtaken_where_sequences_share_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that needs many begins although small ones keep coming."""
    endless = logits_after

    def going_on(tokens: tuple[int, ...]) -> np.ndarray:
        return endless(tokens) - 50 * np.isin(np.arange(len(PIECES)), [0, 6])

    monkeypatch.setattr("decode_maker.logits_after", going_on)
    loop, random = loop_of(8, cells=60), np.random.default_rng(1)
    large = ask([2, 2, 2, 2], 36)
    loop.waiting.extend([ask([3], 8), ask([7], 8), large])
    for i in range(200):
        if len(loop.waiting) < 4:
            loop.waiting.append(ask([2 + i % 2, 3 + i % 3, 7], int(random.integers(5, 12))))
        loop.turn()
        if large.finish:
            break
    assert large.finish == "length"


def test_a_beam_goes_on_although_others_went_on_from_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its prefix lies in the middle of a lane, which gives way later."""
    monkeypatch.setattr(cache, "WORTH", 1)
    prefix = [2, 3, 7, 7, 2, 3, 7, 7, 2, 3]
    for seed in range(0, 60, 2):
        loop = loop_of(2)
        beams = [ask(prefix, steps=1, seed=seed + i) for i in range(2)]
        run(loop, beams)
        kept = [tokens_of(beam) for beam in beams if beam.finish is None]
        run(loop, [ask([3, 3, 3, 3, i], 4, seed=i) for i in (2, 3, 7, 5)])
        for tokens in kept:
            further = ask(tokens, 4)
            run(loop, [further])
            assert further.decoded == 1


def test_what_is_lent_is_kept_by_none_that_ride_together() -> None:
    first, second = loop_of(3), loop_of(4)
    run(first, [ask([2, 3, 7, 7, 2, 3, 7], seed=1)])
    beams = [moved(ask([2, 3, 7, 7, 2, 3, 7], seed=i), first) for i in range(2)]
    run(second, beams)
    assert not any(beam.cells for beam in beams)


def test_each_problem_of_many_is_decoded_once() -> None:
    loop = loop_of(32)
    problems = [[ask([2, 2, 3] + [7] * k, seed=i) for i in range(16)] for k in range(1, 9)]
    for requests in problems:
        run(loop, requests)
    # The problems share their beginnings: one token is new in each after the first.
    assert sum(request.decoded for requests in problems for request in requests) == 4 + 7


def test_beams_continue_where_their_parents_ended() -> None:
    """A kept prefix costs the one token that its step ended with, which no cache holds yet."""
    loop = loop_of(8)
    first = [ask([2, 3, 7], steps=1, seed=i) for i in range(8)]
    run(loop, first)
    kept = [r for r in first if r.finish is None][:2]
    assert len(kept) == 2
    parents = [[2, 3, 7, *(t for step in r.steps for t in step.ids)] for r in kept]
    second = [ask(parent, steps=1, seed=9 + i) for i, parent in enumerate(parents * 4)]
    run(loop, second)
    assert sum(request.decoded for request in second) == 2
    for request in second:
        assert (request.steps, request.finish) == reference(request)


def test_long_prefixes_are_decoded_in_parts_beside_running_requests() -> None:
    loop = loop_of(3, batch=4)
    requests = [ask([2] * 3, seed=1), ask([3] * 20, seed=2), ask([7] * 15, seed=3)]
    run(loop, requests)
    for request in requests:
        assert (request.steps, request.finish) == reference(request)


def test_an_interrupted_batch_changes_nothing() -> None:
    loop = loop_of(4)
    requests = mixed(10, 3)
    expected = [reference(request) for request in requests]
    loop.waiting.extend(requests)
    turns = 0
    while loop.load:
        turns += 1
        assert turns < 500
        (loop.model.interrupt if turns % 3 == 0 else loop.model.resume)()
        loop.turn()
    assert [(request.steps, request.finish) for request in requests] == expected


def test_cancel_ends_one_owner_as_it_stands_and_leaves_the_other_alone() -> None:
    loop = loop_of(4)
    mine, theirs = mixed(9, 1), mixed(9, 2)
    wholes = ["".join(step.text for step in reference(request)[0]) for request in mine]
    expected = [reference(request) for request in theirs]
    for request in mine:
        request.owner = "me"
    loop.waiting.extend(request for pair in zip(mine, theirs, strict=True) for request in pair)
    for _ in range(5):
        loop.turn()
    loop.cancel("me")
    assert {request.finish for request in mine} >= {"budget"}
    for request, whole in zip(mine, wholes, strict=True):
        if request.steps and "\N{REPLACEMENT CHARACTER}" not in request.steps[-1].text:
            assert whole.startswith("".join(step.text for step in request.steps))
    run(loop, [])
    assert [(request.steps, request.finish) for request in theirs] == expected


def test_after_an_error_the_loop_forgets_and_goes_on() -> None:
    loop = loop_of(4)
    assert isinstance(loop.model, Dice)
    loop.waiting.extend(mixed(9, 1))
    loop.model.broken = True
    with pytest.raises(RuntimeError):
        loop.turn()
    loop.forget()
    loop.model.broken = False
    requests = mixed(9, 2)
    expected = [reference(request) for request in requests]
    run(loop, requests)
    assert [(request.steps, request.finish) for request in requests] == expected


@pytest.mark.parametrize("chained", [True, False])
def test_a_chain_waits_where_it_ended_for_its_next_attempt(chained: bool) -> None:
    """Also while others of its round go on, which close the other gaps; and it is not parked."""
    loop = loop_of(4)
    requests = [ask([2, 3, 2, lane], room=12 if lane else 2, seed=lane) for lane in range(4)]
    for request in requests:
        request.chained = chained
    run(loop, requests)
    first, *others = ([id_ for step in request.steps for id_ in step.ids] for request in requests)
    assert len(first) == 2 < min(map(len, others))
    following = ask([2, 3, 2, 0, *first, 3])
    run(loop, [following])
    assert (following.decoded == 2) is chained  # what was drawn last, and what is new
    assert (following.steps, following.finish) == reference(following)
    assert not loop.cache._parked
