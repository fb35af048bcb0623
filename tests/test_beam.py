"""Searches against the verifier in worlds that are drawn, so that the eye can check."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttsolve.core import Problem, Step
from ttsolve.engine import Engine
from ttsolve.engines.sim import SimGenerator, SimVerifier
from ttsolve.errors import UsageError
from ttsolve.solve import SIM, solve
from ttsolve.strategies import BeamSearch, Dvts, Lookahead, Rebase, Strategy, strategy_named
from ttsolve.strategies.beam import distinct, shares
from world_maker import World

PROBLEM = Problem("which way")


def run(strategy: Strategy, drawing: str) -> tuple[list[str], World]:
    """The candidates' texts on one line each, and the world that saw the search."""
    world = World(drawing)
    candidates = strategy(PROBLEM, Engine(world, world))
    return [" ".join(candidate.text.split()) for candidate in candidates], world


# The best path is b d h. Best first steps are a and b; best second steps are c (of a) and d (of b).
THREE_LEVELS = """
a 0.7
  c 0.5
    e 0.3
    f 0.2
  g 0.1
    x 0.9
b 0.6
  d 0.8
    h 1.0
    i 0.4
  j 0.2
    y 0.9
k 0.3
  z 0.9
l 0.2
  z 0.9
"""


def test_beam_search_finds_the_best_path() -> None:
    candidates, world = run(BeamSearch(4, width=2), THREE_LEVELS)
    assert world.rounds == [
        ["", "", "", ""],  # gives a, b, k, l: a and b are kept
        ["a", "a", "b", "b"],  # gives c, g, d, j: d and c are kept
        ["b d", "b d", "a c", "a c"],
    ]
    assert candidates == ["b d h", "b d i", "a c e", "a c f"]


# Where a looks best, and leads nowhere. A greedy rollout takes the first step behind a prefix.
TRAP = """
a 0.9
  c 0.1
    e 0.1
b 0.4
  d 0.8
    f 0.9
"""


def test_lookahead_sees_the_trap() -> None:
    assert run(BeamSearch(2, width=2), TRAP)[0] == ["a c e"]
    assert run(Lookahead(2, width=2), TRAP)[0] == ["b d f"]
    for k in (1, 2, 3):  # a rollout that comes to an end is judged there
        candidates, world = run(BeamSearch(2, width=2, lookahead=k), TRAP)
        assert candidates == ["b d f"]
        assert world.rounds[:3] == [["", ""], ["a", "b"], ["b", "b"]]


# What is behind a and b shows at the third step only, and is not what the second one promises.
FAR = """
a 0.5
  c 0.6
    e 0.1
      x 0.1
b 0.4
  d 0.3
    f 0.9
      y 0.9
"""


@pytest.mark.parametrize(("k", "found"), [(0, "a c e x"), (1, "a c e x"), (2, "b d f y")])
def test_a_rollout_is_as_long_as_was_asked(k: int, found: str) -> None:
    assert run(Lookahead(2, width=2, lookahead=k), FAR)[0] == [found]


# Behind a good step everything is worse than behind a bad one, by product and by least score.
RECOVERS = """
a 0.9
  c 0.5
    e 0.5
b 0.2
  d 0.6
    f 0.6
"""


def test_a_beam_is_worth_its_last_score() -> None:
    """Whatever stood before: neither the product nor the least of its scores (section 5.2)."""
    assert run(BeamSearch(2, width=1), RECOVERS)[1].rounds[2] == ["b d", "a c"]


def test_lookahead_0_is_beam_search() -> None:
    beam, ahead = (Engine(SimGenerator(), SimVerifier(), seed=3) for _ in range(2))
    assert BeamSearch(16, 4)(PROBLEM, beam) == Lookahead(16, 4, lookahead=0)(PROBLEM, ahead)
    assert beam.trace == ahead.trace
    assert beam.usage.units == ahead.usage.units == 16


COPIES = """
a 0.9
  A 0.5
a 0.9
  A 0.5
a 0.9
  A 0.5
b 0.8
  B 0.7
  B 0.7
  C 0.4
"""


def test_equal_beams_are_one_beam() -> None:
    """Ranked as three, the copies of a would leave no place for b."""
    candidates, world = run(BeamSearch(4, width=2), COPIES)
    assert world.rounds[1] == ["a", "a", "b", "b"]
    assert candidates == ["a A", "b B"]


def test_the_places_are_shared_out_among_the_beams_there_are() -> None:
    _, world = run(BeamSearch(8, width=2), COPIES)  # four would be kept, two there are
    assert world.rounds[1] == ["a"] * 4 + ["b"] * 4


def test_a_copy_does_not_vote_twice() -> None:
    """b B was sampled twice and a A once: equally scored, they would win the vote together."""
    drawing = "x 0.5\n  Answer: 1 0.6\n  Answer: 2 0.5\n  Answer: 2 0.5\n"
    world = World(drawing)
    result = solve(PROBLEM, Engine(world, world), BeamSearch(3, width=3), SIM)
    assert [c.text.split()[-1] for c in result.candidates] == ["1", "2"]
    assert result.answer == "1"


@pytest.mark.parametrize("strategy", [BeamSearch(4, width=4, rounds=1), Dvts(4, width=4, rounds=1)])
def test_a_copy_does_not_vote_twice_after_the_last_round(strategy: Strategy) -> None:
    assert run(strategy, "a 0.5\n  b 0.5\n    c 0.5\n  b 0.5\n    c 0.5\n")[0] == ["a b c"]


def test_what_ends_without_the_separator_is_a_copy() -> None:
    once, twice = (PROBLEM.root.grow(Step(text, 1)) for text in ("Answer: 2\n", "Answer: 2"))
    assert distinct([once, twice]) == [once]


UNEVEN = """
a 0.9
  b 0.8
    c 0.7
Answer: 1 0.3
d 0.6
  Answer: 2 0.1
Answer: 1 0.3
"""


def test_an_ended_beam_keeps_its_place_and_its_vote() -> None:
    candidates, world = run(BeamSearch(4, width=1), UNEVEN)
    assert world.rounds == [
        ["", "", "", ""],  # Answer: 1 ends, twice: one place of four
        ["a", "a", "d"],  # two beams share three places; Answer: 2 ends
        ["a b", "a b"],
    ]
    assert candidates == ["Answer: 1", "d Answer: 2", "a b c"]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 16])
@pytest.mark.parametrize("width", [0, 1, 2, 3, 4, 99])
def test_a_round_has_a_continuation_for_every_place(n: int, width: int) -> None:
    """Whatever the width; n // width beams are kept, or all there are, but one at least."""
    strategy = BeamSearch(n, width)
    world = World("".join(f"{i} 0.{i}\n  a 0.5\n    b 0.5\n" for i in range(1, 10)))
    strategy(PROBLEM, Engine(world, world))
    assert [len(prefixes) for prefixes in world.rounds] == [n, n, n]
    kept = list(dict.fromkeys(world.rounds[1]))
    assert len(kept) == max(1, min(n // strategy.width, 9))
    assert kept == sorted(kept, reverse=True)
    shares = {world.rounds[1].count(prefix) for prefix in kept}
    assert max(shares) - min(shares) <= 1


def test_what_has_not_ended_after_the_last_round_is_continued_to_its_end() -> None:
    engine = Engine(SimGenerator(depth=9), SimVerifier())
    candidates = BeamSearch(8, 4, rounds=2)(PROBLEM, engine)
    assert {(len(c.steps), c.finish) for c in candidates} == {(9, "stop")}
    lengths = [len(event.parent.steps) for event in engine.trace if event.verb == "sample"]
    assert lengths == [0] * 8 + [1] * 8 + [2] * 8 + [3] * (len(lengths) - 24)
    assert all(len(candidate.scores) == 9 for candidate in candidates)


TWO_WAYS = """
a 0.9
  c 0.8
  d 0.7
b 0.2
  e 0.1
  f 0.1
"""


def test_diverse_trees_do_not_compete() -> None:
    """Everything behind a is better than b, and yet the tree that began with b goes on."""
    candidates, world = run(Dvts(2, width=1), TWO_WAYS)
    assert world.rounds == [["", ""], ["a", "b"]]
    assert candidates == ["a c", "b e"]
    assert run(BeamSearch(2, width=2), TWO_WAYS)[0] == ["a c", "a d"]


def test_diverse_trees_that_agree_vote_each() -> None:
    assert run(Dvts(4, width=2), "a 0.5\n  b 0.5\n")[0] == ["a b", "a b"]


def test_one_diverse_tree_is_beam_search_that_keeps_one() -> None:
    for n in (1, 4, 7):
        one, other = (
            {c.text for c in strategy(PROBLEM, Engine(SimGenerator(), SimVerifier()))}
            for strategy in (Dvts(n, width=n), BeamSearch(n, width=n))
        )
        assert one == other


@pytest.mark.parametrize("rounds", [1, 2, 3, 40])
def test_a_diverse_tree_is_pruned_as_often_as_beams_are(rounds: int) -> None:
    drawing = "a 0.5\n  b 0.1\n    e 0.3\n      z 0.3\n  c 0.8\n    g 0.2\n      y 0.2\n"
    one, other = (run(kind(2, width=2, rounds=rounds), drawing)[0] for kind in (BeamSearch, Dvts))
    assert one == other


def test_an_ended_beam_keeps_its_place_in_its_tree() -> None:
    candidates, world = run(Dvts(4, width=4), UNEVEN)
    assert [len(prefixes) for prefixes in world.rounds] == [4, 3, 3]
    assert candidates == ["Answer: 1", "a b c"]


@pytest.mark.parametrize(("n", "width", "sizes"), [(7, 2, [3, 2, 2]), (2, 5, [2]), (8, 4, [4, 4])])
def test_the_places_of_diverse_trees(n: int, width: int, sizes: list[int]) -> None:
    world = World("".join(f"{i} 0.{i}\n  a 0.5\n" for i in range(1, 9)))
    Dvts(n, width)(PROBLEM, Engine(world, world))
    assert list(Counter(world.rounds[1]).values()) == sizes  # each tree's best first step


def test_a_balanced_search_goes_on_where_the_verifier_believes_in_it() -> None:
    candidates, world = run(Rebase(4), THREE_LEVELS)
    assert world.rounds == [
        ["", "", "", ""],  # gives a, b, k, l: of four places 1.6, 1.3, 0.7 and 0.4
        ["a", "a", "b", "k"],  # gives c, g, d, z; z ends, the others are worth 1.1, 0.2 and 1.7
        ["a c", "b d", "b d"],
    ]
    assert candidates == ["k z", "a c e", "b d h", "b d i"]


def test_a_balanced_search_is_narrow_where_one_step_stands_out() -> None:
    drawing = "".join(f"{i} 0.00{i}\n  a 0.5\n" for i in range(1, 8)) + "8 0.9\n  a 0.5\n"
    assert set(run(Rebase(8), drawing)[1].rounds[1]) == {"8"}
    assert set(run(Rebase(8), drawing.replace("0.9", "0.008"))[1].rounds[1]) > {"5", "6", "7", "8"}


def test_a_step_that_is_sampled_often_has_many_places_and_votes() -> None:
    candidates, world = run(Rebase(4), COPIES)
    assert world.rounds[1] == ["a", "a", "a", "b"]
    assert candidates == ["a A", "a A", "a A", "b B"]


def test_an_ended_beam_keeps_its_place_in_a_balanced_search() -> None:
    candidates, world = run(Rebase(4), UNEVEN)
    assert [len(prefixes) for prefixes in world.rounds] == [4, 2, 1]
    assert candidates == ["Answer: 1", "Answer: 1", "d Answer: 2", "a b c"]


@given(st.integers(1, 300), st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_places_are_shared_out_in_proportion(places: int, scores: list[float]) -> None:
    given = shares(places, scores)
    assert sum(given) == places
    total = sum(scores)
    for n, score in zip(given, scores, strict=True):
        assert abs(n - places * (score / total if total else 1 / len(scores))) < 1 + 1e-6


@pytest.mark.parametrize("name", ["beam", "lookahead", "dvts", "rebase"])
def test_a_stopped_search_brings_back_what_there_is(name: str) -> None:
    engine = Engine(SimGenerator(), SimVerifier())

    def listen(_: object) -> None:
        if len(engine.trace) == 40:
            engine.stop.set()

    engine.listen = listen
    candidates = strategy_named(name, 16)(PROBLEM, engine)
    assert {candidate.finish for candidate in candidates} == {"budget"}
    assert sum(event.verb == "sample" for event in engine.trace) <= 40


# --- settings ---------------------------------------------------------------------------------


def test_the_width_is_the_square_root_of_n() -> None:
    widths = [BeamSearch(n).width for n in (1, 2, 3, 4, 7, 16, 64, 256)]
    assert widths == [1, 1, 2, 2, 3, 4, 8, 16]
    assert strategy_named("beam", 64, {"width": "4", "rounds": "9"}) == BeamSearch(64, 4, rounds=9)
    assert strategy_named("dvts", 64) == Dvts(64, 8)


@pytest.mark.parametrize(
    ("budget", "k", "n"), [(16, 0, 16), (16, 1, 8), (16, 3, 4), (7, 1, 3), (7, 6, 1)]
)
def test_a_budget_pays_for_beams_and_their_rollouts(budget: int, k: int, n: int) -> None:
    strategy = strategy_named("lookahead", budget, {"lookahead": str(k)})
    assert strategy == Lookahead(n, lookahead=k)
    engine = Engine(SimGenerator(), SimVerifier(), budget=budget)
    strategy(PROBLEM, engine)
    assert engine.usage.units == n * (k + 1) <= budget


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("beam", {"widht": "4"}, "'beam' has no setting 'widht': use width, lookahead or rounds."),
        ("dvts", {"lookahead": "1"}, "'dvts' has no setting 'lookahead': use width or rounds."),
        ("rebase", {"width": "4"}, "'rebase' has no setting 'width': use rounds."),
        ("beam", {"n": "4"}, "'beam' has no setting 'n': use width"),
        ("majority", {"width": "4"}, "'majority' has no setting 'width': it has none"),
        ("beam", {"width": "four"}, "width=four is not possible: give a whole number, 0 or more."),
        ("beam", {"width": "2.5"}, "width=2.5 is not possible"),
        ("beam", {"width": ""}, "width= is not possible"),
        ("beam", {"width": "1_0"}, "width=1_0 is not possible"),
        ("beam", {"width": "9" * 5000}, "is not possible"),
        ("beam", {"rounds": "0"}, "rounds=0 is not possible: give a whole number, 1 or more."),
        ("lookahead", {"lookahead": "-1"}, "lookahead=-1 is not possible"),
        ("lookahead", {"lookahead": "16"}, "takes 17 units a beam: give a budget of 17 or more"),
        ("beems", {}, "use best-of-n, majority, beam, lookahead, dvts, rebase or revisions."),
    ],
)
def test_wrong_settings_are_told_the_right_ones(
    name: str, settings: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UsageError) as told:
        strategy_named(name, 16, settings)
    assert sentence in str(told.value)


def test_impossible_searches_cannot_be_made() -> None:
    for kind, values in ((BeamSearch, {"width": -1}), (Dvts, {"n": 0}), (Lookahead, {"rounds": 0})):
        with pytest.raises(UsageError, match="is not possible: give a whole number"):
            kind(**values)


@pytest.mark.parametrize("name", ["beam", "lookahead", "dvts", "rebase"])
def test_without_a_verifier_there_is_no_search(name: str) -> None:
    with pytest.raises(UsageError, match="ranks steps by a verifier, and the pair 'sim' has none"):
        solve(PROBLEM, Engine(SimGenerator()), strategy_named(name, 4), SIM)


def test_search_pays_where_steps_can_be_judged() -> None:
    """Dice that are wrong at every second step, judged where they stand."""

    def right(name: str) -> int:
        total = 0
        for i in range(40):
            engine = Engine(SimGenerator(p_step=0.5), SimVerifier())
            result = solve(Problem(f"q{i}"), engine, strategy_named(name, 16), SIM)
            total += result.answer == "42"
        return total

    assert right("beam") > right("best-of-n") + 4
