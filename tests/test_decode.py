"""The decode loop against a model of dice whose every answer tells what its cache holds."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from ttsolve.core import Step
from ttsolve.engine import Sampling
from ttsolve.engines import cache, decode
from ttsolve.engines.decode import DecodeLoop
from ttsolve.engines.draw import Drawer, Settings
from ttsolve.engines.kvtree import KVTree, Place
from ttsolve.engines.request import Request, Steps
from ttsolve.engines.rollouts import Known
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

    monkeypatch.setattr("test_decode.logits_after", going_on)
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


def tokens_of(request: Request) -> list[int]:
    return [*asked(request)[0], *(t for step in request.steps for t in step.ids)]


def moved(request: Request, source: DecodeLoop) -> Request:
    """The request with what another loop holds of its prefix."""
    request.cells = source.cache.lend(request.prefix)
    return request


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


def cut(text_ids: list[int], steps: int | None = None, room: int = 99) -> Request:
    """Feed tokens to `Steps` one by one."""
    request = ask([2], room, steps=steps)  # type: ignore[arg-type]
    grown = Steps(PIECES, ENDS, PROMPT)
    tokens = [2]
    for i, token in enumerate(text_ids):
        tokens.append(token)
        if grown.grow(request, tokens[request.begun :], i + 1 == room):
            break
    return request


A, B, C_LINE, BLANK, ANSWER, ONE = 2, 3, 4, 5, 6, 7


@pytest.mark.parametrize(
    ("tokens", "room", "texts", "finish"),
    [
        ([A, 1, B, 1, 0], 99, ["a\n", "b\n"], "stop"),  # ended by the end token
        ([A, C_LINE, 0], 99, ["ac\n"], "stop"),  # the separator inside a token
        ([A, 1, 1, BLANK, B, 1, 0], 99, ["a\n", "\n\n\nb\n"], "stop"),  # blank lines
        ([A, 1, BLANK, 0], 99, ["a\n\n\n"], "stop"),  # blank lines at the end
        ([A, 1, ANSWER, ONE, 1, B, B], 99, ["a\n", "Answer: 1\n"], "stop"),  # the answer ends it
        ([A, 1, ANSWER, ONE, 0], 99, ["a\n", "Answer: 1"], "stop"),  # in the middle of a line
        ([A, 1, B, B, B], 4, ["a\n", "bb"], "length"),
        ([0], 99, [], "stop"),
        ([A, 8, 9, 1, 0], 99, ["aé\n"], "stop"),  # a character of two tokens
        ([A, 8, 9, 1, 0], 2, ["a\N{REPLACEMENT CHARACTER}"], "length"),  # half of it
    ],
)
def test_how_tokens_become_steps(
    tokens: list[int], room: int, texts: list[str], finish: str
) -> None:
    request = cut(tokens, room=room)
    assert [step.text for step in request.steps] == texts
    assert request.finish == finish
    assert all(step.tokens == len(step.ids) for step in request.steps)


def test_a_limit_of_steps_leaves_a_prefix() -> None:
    request = cut([A, 1, B, 1, A, 1], steps=2)
    assert [step.text for step in request.steps] == ["a\n", "b\n"]
    assert request.finish is None


WORDS = [b"", b"\n", b"a", b"Pro", b"blem: ", b".\nPro", b"<think>", b"</think>", b"Answer: 1\n"]


def grown(prompt: PromptFormat, words: list[int], thinks: bool = False) -> Request:
    """Feed `WORDS` as the loop does: only the last of those after which something may end."""
    steps = Steps(WORDS, np.array([word == b"" for word in WORDS]), prompt)
    request = ask([2], 99)
    request.thinks = thinks
    for i, word in enumerate(words):
        if steps.marks[word] and steps.grow(request, words[request.begun - 1 : i + 1], False):
            break
    return request


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        ([2, 1, 1, 3, 4, 2], ["a\n\n"]),  # at the beginning of a step, in two tokens
        ([2, 5, 4, 2], ["a"]),  # in the middle of a step; the token that holds both goes
        ([2, 3, 4, 1, 0], ["aProblem: \n"]),  # no line begins so
        ([3, 4], []),  # nothing else
    ],
)
def test_a_line_that_begins_another_problem_ends_a_solution(
    words: list[int], texts: list[str]
) -> None:
    request = grown(PromptFormat(separator="\n\n", stop=("Problem:",)), words)
    assert [step.text for step in request.steps] == texts
    assert request.finish == "stop"


def test_an_answer_within_thoughts_ends_nothing() -> None:
    expected = ["<think>Answer: 1\n", "a</think>\n", "Answer: 1\n"]
    for words, begun in ([6, 8, 2, 7, 1, 8, 2], False), ([8, 2, 7, 1, 8, 2], True):
        request = grown(PromptFormat(), words, thinks=begun)
        assert [step.text for step in request.steps] == [expected[0][7 * begun :], *expected[1:]]
        assert request.finish == "stop"
