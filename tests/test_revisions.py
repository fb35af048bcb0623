"""Revisions: what is shown to whom, what it costs, and that nothing is computed or kept twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dice_maker import Counting, die
from ttsolve import store_care
from ttsolve.auto import Auto
from ttsolve.cli_eval import sweep_of
from ttsolve.confidence import FEATURES, Calibration
from ttsolve.core import Problem, Result, Solution, Step, Usage
from ttsolve.engine import Engine, Sampling, Watch, sample_seed
from ttsolve.engines.sim import SimGenerator, SimVerifier
from ttsolve.errors import UsageError
from ttsolve.grid import ratios, sizes
from ttsolve.pair import GeneratorFile, ReviserFiles, VerifierFiles
from ttsolve.policy import (
    Choice,
    Policy,
    bound_to,
    planned,
    planned_near,
    policy_of,
    write_policy,
)
from ttsolve.recall import Models, StoredPair
from ttsolve.solve import SIM, solve
from ttsolve.store import Store
from ttsolve.stored import StoredGenerator, StoredVerifier
from ttsolve.strategies import Revisions, strategy_named

PROBLEM = Problem("q")


@dataclass
class Scribe:
    """Writes an attempt of one step, which says how many attempts there were before; and notes what
    it is shown, call for call, as "chain: attempts"."""

    name: str = "scribe"
    params: int = 1
    calls: list[list[str]] = field(default_factory=list)
    written: int = 0

    def sample(
        self,
        prefixes: Sequence[Solution],
        how: Sequence[Sampling],
        watch: Watch | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[list[Solution], Usage]:
        self.calls.append([shown(prefix) for prefix in prefixes])
        out = []
        for i, prefix in enumerate(prefixes):
            self.written += 1
            step = Step(f"Answer: {self.written}\n", tokens=1)
            out.append(prefix.grow(step, finish="stop"))
            if watch:
                watch(i, out[-1])
        return out, Usage(generated_tokens=len(out))


def shown(prefix: Solution) -> str:
    texts = [attempt.text.removeprefix("Answer: ").strip() for attempt in prefix.attempts]
    return f"{prefix.chain}: {' '.join(texts)}".strip()


@dataclass
class Reader:
    """Gives every step one score, and notes what it reads as "chain: attempts > solution"."""

    value: float = 0.5
    name: str = "reader"
    params: int = 1
    read: list[str] = field(default_factory=list)

    def score(self, solutions: Sequence[Solution]) -> tuple[list[Solution], Usage]:
        self.read += [f"{shown(s)} > {s.text.removeprefix('Answer: ').strip()}" for s in solutions]
        out = [
            replace(one, steps=tuple(replace(step, score=self.value) for step in one.steps))
            for one in solutions
        ]
        return out, Usage(verifier_tokens=len(out))


# --- the strategy -----------------------------------------------------------------------------


def test_a_round_is_one_call_and_an_attempt_is_shown_the_latest_ones() -> None:
    """Three chains of four with a memory of two: the picture of the paper's figure 5, typed."""
    scribe = Scribe()
    candidates = Revisions(12, chains=3, length=4, memory=2)(PROBLEM, Engine(scribe))
    assert scribe.calls == [
        ["0:", "1:", "2:"],
        ["0: 1", "1: 2", "2: 3"],
        ["0: 1 4", "1: 2 5", "2: 3 6"],
        ["0: 4 7", "1: 5 8", "2: 6 9"],
    ]
    assert [c.chain for c in candidates] == [0] * 4 + [1] * 4 + [2] * 4
    assert not any(attempt.attempts for c in candidates for attempt in c.attempts)


def test_the_last_round_of_an_uneven_budget_is_short() -> None:
    scribe = Scribe()
    engine = Engine(scribe)
    Revisions(10, chains=4)(PROBLEM, engine)
    assert [len(call) for call in scribe.calls] == [4, 4, 2]
    assert engine.usage.units == 10


@pytest.mark.parametrize(
    ("n", "settings", "chains", "length"),
    [
        (64, {"chains": 4, "length": 16}, 4, 16),
        (64, {"chains": 4}, 4, 16),
        (64, {"length": 16}, 4, 16),
        (70, {"length": 16}, 4, 16),  # 64 units
        (63, {"chains": 4, "length": 16}, 4, 16),  # the last round is short
        (4, {"ratio": "1:4"}, 4, 1),
        (16, {"ratio": "1:4"}, 8, 2),
        (16, {"ratio": "4:1"}, 2, 8),
        (16, {"ratio": "8:2"}, 2, 8),
        (128, {"ratio": "1:128"}, 128, 1),
        (64, {}, 8, 8),
        (7, {}, 3, 3),
        (1, {}, 1, 1),
    ],
)
def test_sizes(n: int, settings: dict[str, object], chains: int, length: int) -> None:
    strategy = strategy_named("revisions", n, settings)
    assert isinstance(strategy, Revisions)
    assert (strategy.chains, strategy.length) == (chains, length)


PAPER = {  # table 1: for each budget its ratios, sequential to parallel
    1: "1:1",
    2: "1:2 2:1",
    4: "1:4 1:1 4:1",
    8: "1:8 1:2 2:1 8:1",
    16: "1:16 1:4 1:1 4:1 16:1",
    32: "1:32 1:8 1:2 2:1 8:1 32:1",
    64: "1:64 1:16 1:4 1:1 4:1 16:1 64:1",
    128: "1:128 1:32 1:8 1:2 2:1 8:1 32:1 128:1",
    256: "1:256 1:16 1:1 16:1 256:1",
}


@pytest.mark.parametrize(("n", "ratio"), [(n, r) for n in PAPER for r in PAPER[n].split()])
def test_the_papers_ratios(n: int, ratio: str) -> None:
    strategy = planned(f"revisions:ratio={ratio}", n)
    assert isinstance(strategy, Revisions)
    sequential, parallel = map(int, ratio.split(":"))
    assert strategy.chains * strategy.length == n
    assert strategy.length * parallel == strategy.chains * sequential


@pytest.mark.parametrize(
    ("n", "settings", "sentence"),
    [
        (16, {"chains": 4, "length": 16}, "4 chains of length 16 take 64 units: give a budget of"),
        (4, {"chains": 5}, "5 chains of length 1 take 5 units: give a budget of 5, or fewer"),
        (8, {"ratio": "1:1"}, "No chains of 8 attempts have the ratio 1:1: give a budget of 4 or"),
        (3, {"ratio": "1:4"}, "No chains of 3 attempts have the ratio 1:4: give a budget of 4, or"),
        (16, {"ratio": "1:4", "chains": 2}, "A ratio says how many chains of what length: leave"),
        (16, {"ratio": "0:4"}, "The setting ratio=0:4 is not possible: give two whole numbers, as"),
        (16, {"ratio": "4"}, "The setting ratio=4 is not possible"),
        (16, {"vote": "best"}, "The setting vote=best is not possible: give verifier or majority."),
        (16, {"memory": 0}, "The setting memory=0 is not possible: give a whole number, 1 or more"),
    ],
)
def test_what_is_not_possible_is_told(n: int, settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        strategy_named("revisions", n, settings)
    assert str(caught.value).startswith(sentence)


def test_a_budget_without_the_ratio_gets_one_near_to_it() -> None:
    """What a probe leaves over of a budget."""
    near = planned_near("revisions:ratio=1:4,memory=2", 12)
    assert near == Revisions(12, chains=7, memory=2)
    with pytest.raises(UsageError, match="vote=best"):
        planned_near("revisions:ratio=1:4,vote=best", 12)
    with pytest.raises(UsageError, match="lookahead"):
        planned_near("lookahead:lookahead=30", 12)


def test_by_majority_no_verifier_is_asked() -> None:
    reader = Reader()
    engine = Engine(Scribe(), reader, revision_verifier=reader)
    result = solve(PROBLEM, engine, Revisions(4, chains=2, vote="majority"), SIM)
    assert (reader.read, result.settings["vote"]) == ([], "majority")


def test_a_run_that_is_stopped_keeps_what_it_has() -> None:
    engine = Engine(SimGenerator(), SimVerifier(), budget=5)
    candidates = Revisions(16, chains=2, length=8)(PROBLEM, engine)
    assert [c.finish for c in candidates] == ["stop"] * 3 + ["stop"] * 2 + ["budget"]
    assert engine.usage.units == 5


# --- who does what ----------------------------------------------------------------------------


def test_chains_are_the_revisers_and_the_rest_the_generators() -> None:
    """In one call, in order; and each model is charged for what it computed."""
    generator, reviser = Scribe("generator", 10), Scribe("reviser", 1000)
    engine = Engine(generator, reviser=reviser)
    chain = replace(PROBLEM.root, chain=1)
    out = engine.sample([chain, PROBLEM.root, chain])
    assert [solution.chain for solution in out] == [1, None, 1]
    assert (generator.calls, reviser.calls) == ([["None:"]], [["1:", "1:"]])
    assert [event.child for event in engine.trace] == [out[1], out[0], out[2]]
    assert engine.usage.generator_flops == 2 * (1 * 10 + 2 * 1000)


def attempts_of(engine: Engine) -> list[Solution]:
    [first] = engine.sample([replace(PROBLEM.root, chain=0)])
    [second] = engine.sample([replace(PROBLEM.root, chain=0, attempts=(first,))])
    return engine.score([first, second, PROBLEM.root.grow(Step("Answer: 9\n", 1), finish="stop")])


def test_the_revisers_verifier_reads_what_the_reviser_read() -> None:
    plain, revising = Reader(0.25, params=10), Reader(0.75, params=1000)
    engine = Engine(Scribe(), plain, Scribe(), revising)
    scored = attempts_of(engine)
    assert revising.read == ["0: > 1", "0: 1 > 2"]
    assert plain.read == ["None: > 9"]
    assert [solution.scores[0] for solution in scored] == [0.75, 0.75, 0.25]
    assert engine.usage.verifier_flops == 2 * (1 * 10 + 2 * 1000)


def test_a_verifier_that_never_saw_attempts_is_shown_none() -> None:
    """And the solution still says what the reviser was shown."""
    plain = Reader()
    engine = Engine(Scribe(), plain, Scribe())
    scored = attempts_of(engine)
    assert plain.read == ["0: > 1", "0: > 2", "None: > 9"]
    assert [len(solution.attempts) for solution in scored] == [0, 1, 0]


def test_without_a_reviser_the_generator_revises_and_the_result_says_so() -> None:
    scribe = Scribe()
    result = solve(PROBLEM, Engine(scribe), Revisions(4, chains=2), SIM)
    assert scribe.calls[1] == ["0: 1", "1: 2"]
    assert (result.settings["reviser"], result.settings["revision_verifier"]) == ("untrained", None)
    trained = solve(
        PROBLEM, Engine(scribe, reviser=Scribe("r"), revision_verifier=Reader()), Revisions(4), SIM
    )
    assert (trained.settings["reviser"], trained.settings["revision_verifier"]) == ("r", "reader")
    plain = solve(PROBLEM, Engine(scribe, reviser=Scribe()), strategy_named("best-of-n", 2), SIM)
    assert "reviser" not in plain.settings


# --- the store --------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "ttsolve.db") as store:
        yield store


class Forgetful(Counting):
    """Dice that have room for two earlier attempts, and tell so."""

    def _grow(self, prefix: Solution, how: Sampling) -> Solution:
        return super()._grow(replace(prefix, attempts=prefix.attempts[-2:]), how)


class Attentive(SimVerifier):
    """Judges an attempt by what was shown before it."""

    def _judged(self, step: Step, text: str, solution: Solution) -> Step:
        before = "".join(attempt.text for attempt in solution.attempts)
        return super()._judged(step, before + text, solution)


def kept(store: Store, reviser: SimGenerator, *, n: int = 16, chains: int = 2) -> Result:
    engine = Engine(
        StoredGenerator(SimGenerator(), store),
        StoredVerifier(SimVerifier(), store),
        StoredGenerator(reviser, store),
        StoredVerifier(Attentive(name="attentive"), store),
    )
    result = solve(PROBLEM, engine, Revisions(n, chains=chains), SIM)
    store.flush()
    return result


def unkept(reviser: SimGenerator) -> Result:
    engine = Engine(SimGenerator(), SimVerifier(), reviser, Attentive(name="attentive"))
    return solve(PROBLEM, engine, Revisions(16, chains=2), SIM)


@pytest.mark.parametrize("kind", [Counting, Forgetful])
@pytest.mark.parametrize("dies_after", [1, 2, 7, 16])
def test_chains_that_died_go_on_where_they_stopped(
    store: Store, kind: type[Counting], dies_after: int
) -> None:
    """What comes back is that of a run that was never stopped, what was shown to whom included."""
    dying, going_on = kind(name="reviser", then={dies_after: die}), kind(name="reviser")
    with pytest.raises(KeyboardInterrupt):
        kept(store, dying)
    store.flush()
    found, plain = kept(store, going_on), unkept(kind(name="reviser"))
    assert replace(found, usage=Usage()) == replace(plain, usage=Usage())
    assert going_on.drawn == 16 - dies_after
    again = kept(store, going_on)
    assert replace(again, usage=Usage()) == replace(plain, usage=Usage())
    assert (going_on.drawn, again.usage.verifier_tokens) == (16 - dies_after, 0)
    shown = {len(candidate.attempts) for candidate in again.candidates}
    assert max(shown) == (2 if kind is Forgetful else 4)


def test_longer_chains_pay_for_the_difference_only(store: Store) -> None:
    reviser = Counting(name="reviser")
    kept(store, reviser, n=8)
    kept(store, reviser, n=16)
    assert reviser.drawn == 16


@pytest.mark.parametrize(("chains", "length"), [(4, 4), (2, 3), (3, 2), (1, 4), (4, 1)])
def test_fewer_and_shorter_chains_are_those_of_more_and_longer_ones(
    store: Store, chains: int, length: int
) -> None:
    """The whole grid of ratios is in one run: nothing of it is drawn or judged again."""
    reviser = Counting(name="reviser")
    whole = kept(store, reviser, chains=4).candidates
    part = kept(store, reviser, n=chains * length, chains=chains)
    assert part.candidates == tuple(
        attempt for chain in range(chains) for attempt in whole[4 * chain : 4 * chain + length]
    )
    assert (reviser.drawn, part.usage.verifier_tokens) == (16, 0)


def test_no_two_attempts_have_one_seed() -> None:
    places = [(lane, turn) for lane in range(64) for turn in range(64)]
    assert len({sample_seed(0, "q", *place) for place in places}) == len(places)


def test_pruning_leaves_the_chains_of_runs_that_stay(store: Store) -> None:
    """Their samples stand behind roots of their own: the problem, with what was shown."""
    engine = Engine(StoredGenerator(SimGenerator(), store))
    for question in ("stays", "goes"):
        problem = Problem(question)
        id_ = store.begin_run(problem, engine, Revisions(16), SIM)
        store.finish_run(id_, solve(problem, engine, Revisions(16), SIM), SIM)
    store.write(
        lambda db: db.conn.execute("UPDATE runs SET asked = '2000' WHERE problem = 'goes'"), None
    )
    assert store_care.prune(store, datetime(2001, 1, 1, tzinfo=UTC))["samples"] == 16
    counting = Counting()
    solve(Problem("stays"), Engine(StoredGenerator(counting, store)), Revisions(16), SIM)
    assert counting.drawn == 0


def test_a_reviser_is_opened_when_something_is_revised(store: Store, tmp_path: Path) -> None:
    """Not by another strategy, and not by a run that is kept."""
    files = VerifierFiles("v.onnx", "", "t.json", "")
    pair = replace(SIM, folder=tmp_path, reviser=ReviserFiles("r.gguf", "", files))
    opened: list[str] = []

    def opens() -> Models:
        opened.append("reviser")
        return SimGenerator(name="r"), Attentive(name="attentive")

    def run(name: str) -> Result:
        models = StoredPair(pair, store, lambda: (SimGenerator(), SimVerifier()), opens)
        solved = models.solve(PROBLEM, models.engine(8), strategy_named(name, 8))
        store.flush()
        return solved.result

    run("best-of-n")
    assert opened == []
    first = run("revisions")
    assert opened == ["reviser"]
    assert first.settings["reviser"] == "r"
    again = run("revisions")
    assert opened == ["reviser"]
    assert replace(again, usage=Usage()) == replace(first, usage=Usage())
    last = store.last_run()
    assert last is not None
    told = store.candidates(last.id)
    assert [record["chain"] for record in told] == [c.chain for c in first.candidates]
    scores = [[step["score"] for step in record["steps"]] for record in told]
    assert scores == [list(candidate.scores) for candidate in first.candidates]


def test_another_reviser_is_another_run(store: Store, tmp_path: Path) -> None:
    runs = []
    for sha in ("a", "b", "a"):
        pair = replace(SIM, folder=tmp_path, reviser=ReviserFiles("r.gguf", sha))
        models = StoredPair(
            pair,
            store,
            lambda: (SimGenerator(), SimVerifier()),
            lambda sha=sha: (SimGenerator(name=sha), None),
        )
        runs.append(models.solve(PROBLEM, models.engine(8), Revisions(8)).run)
    assert runs[0] == runs[2] != runs[1]


# --- chosen by a policy, measured in a grid ---------------------------------------------------


def test_auto_revises_beside_its_probe() -> None:
    """What the probe leaves has no chains of the ratio: they have one near to it."""
    choice = Choice(budget=16, strategies=("revisions:ratio=1:4",) * 2, probe=4, thresholds=(0.5,))
    reviser = Counting(name="reviser")
    engine = Engine(SimGenerator(), SimVerifier(), reviser, SimVerifier(), budget=16)
    result = solve(PROBLEM, engine, Auto(16, Policy("a test", (choice,))), SIM)
    chains = [candidate.chain for candidate in result.candidates]
    assert chains[:4] == [None] * 4
    assert len(set(chains[4:])) == 7
    assert (len(chains), reviser.drawn, engine.usage.units) == (16, 12, 16)
    assert result.settings["chosen"] == "revisions:ratio=1:4"
    assert (result.settings["vote"], result.settings["reviser"]) == ("hierarchical", "reviser")


def test_a_policy_that_revises_is_bound_to_its_reviser(tmp_path: Path) -> None:
    pair = replace(SIM, folder=tmp_path, generator=GeneratorFile("g.gguf", "a" * 64))
    revising = replace(pair, reviser=ReviserFiles("r.gguf", "b" * 64))
    for text, reviser in (("revisions:ratio=2:1", "b" * 64), ("beam:width=4", "")):
        policy = bound_to(Policy("fitted", (Choice(8, (text,)),)), revising)
        assert policy.reviser == reviser
        write_policy(policy, tmp_path / "policy.toml")
        assert policy_of(revising) == policy
        other = replace(revising, reviser=ReviserFiles("r.gguf", "c" * 64))
        for another in (other, pair):
            assert (policy_of(another) == policy) == (not reviser)


def test_what_a_policy_says_of_a_reviser_goes_with_it(tmp_path: Path) -> None:
    pair = replace(SIM, folder=tmp_path, generator=GeneratorFile("g.gguf", "a" * 64))
    revising = replace(pair, reviser=ReviserFiles("r.gguf", "b" * 64))
    told = tuple(Calibration(name, (0.0,) * FEATURES) for name in ("beam", "revisions"))
    fitted = Policy("fitted", (Choice(8, ("beam:width=4",)),), calibrations=told)
    policy = bound_to(fitted, revising)
    assert policy.reviser == "b" * 64
    write_policy(policy, tmp_path / "policy.toml")
    assert policy_of(revising) == policy
    for another in (pair, replace(pair, reviser=ReviserFiles("r.gguf", "c" * 64))):
        assert policy_of(another) == replace(policy, calibrations=told[:1])
    prompted = bound_to(fitted, pair)  # revisions without a reviser, by a prompt
    assert prompted.reviser == ""
    write_policy(prompted, tmp_path / "policy.toml")
    assert policy_of(pair) == prompted
    assert policy_of(revising) == replace(prompted, calibrations=told[:1])


def test_a_grid_has_the_papers_ratios_and_skips_what_has_no_size() -> None:
    assert [ratios([n]) for n in (1, 4, 128)] == [
        ["1:1"],
        ["1:4", "1:1", "4:1"],
        ["1:128", "1:32", "1:8", "1:2", "2:1", "8:1", "32:1", "128:1"],
    ]
    assert ratios([4, 8]) == ["1:8", "1:4", "1:2", "1:1", "2:1", "4:1", "8:1"]
    assert sizes("revisions:ratio=1:4", (4, 8, 16, 32)) == [4, 16]
    with pytest.raises(UsageError, match="No chains of 8 attempts"):
        sizes("revisions:ratio=1:4", (2, 8))
    swept = sweep_of(replace(SIM, reviser=ReviserFiles("r.gguf", "")), (4, 16))
    assert [s for s in swept if s.startswith("revisions")] == [
        f"revisions:ratio={ratio}" for ratio in ("1:16", "1:4", "1:1", "4:1", "16:1")
    ]
    assert not any(text.startswith("revisions") for text in sweep_of(SIM, (4, 16)))
