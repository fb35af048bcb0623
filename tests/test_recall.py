"""The store before the models: what it holds is not computed again, and nothing else changes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dice_maker import Counting, die
from ttsolve.core import Problem, Result, Solution, Usage
from ttsolve.engine import Engine, Sampling, Watch
from ttsolve.engines.sim import TOKENS, SimGenerator, SimVerifier
from ttsolve.pair import GeneratorFile, Pair, World
from ttsolve.recall import Models, StoredPair
from ttsolve.solve import SIM, solve
from ttsolve.store import Store
from ttsolve.stored import AT_ONCE, StoredGenerator, StoredVerifier
from ttsolve.strategies import STRATEGIES, BestOfN, Majority, Strategy, strategy_named

PROBLEM = Problem("what is six times seven")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "ttsolve.db") as store:
        yield store


class CountingVerifier(SimVerifier):
    """A verifier that counts what it is asked."""

    asked = 0
    calls: tuple[int, ...] = ()

    def score(self, solutions: Sequence[Solution]) -> tuple[list[Solution], Usage]:
        self.asked += sum(s.score is None for solution in solutions for s in solution.steps)
        self.calls += (len(solutions),)
        return super().score(solutions)


def run(
    store: Store,
    strategy: Strategy,
    generator: SimGenerator | None = None,
    verifier: SimVerifier | None = None,
    *,
    budget: int = 16,
    temperature: float = 1.0,
    problem: Problem = PROBLEM,
) -> Result:
    engine = Engine(
        StoredGenerator(generator or SimGenerator(), store),
        StoredVerifier(verifier or SimVerifier(), store),
        budget=budget,
        sampling=Sampling(temperature=temperature),
    )
    result = solve(problem, engine, strategy, SIM)
    store.flush()
    return result


def alone(strategy: Strategy, budget: int = 16, temperature: float = 1.0) -> Result:
    sampling = Sampling(temperature=temperature)
    engine = Engine(SimGenerator(), SimVerifier(), budget=budget, sampling=sampling)
    return solve(PROBLEM, engine, strategy, SIM)


def same(a: Result, b: Result) -> bool:
    """Equal but for what they cost, to the last bit of every score."""
    return replace(a, usage=Usage()) == replace(b, usage=Usage())


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_gives_the_same_with_a_store(
    store: Store, name: str, temperature: float
) -> None:
    plain = alone(strategy_named(name, 16), temperature=temperature)
    first, again = (run(store, strategy_named(name, 16), temperature=temperature) for _ in range(2))
    assert same(first, plain)
    assert same(again, plain)
    bill = again.usage
    assert (bill.generated_tokens, bill.prompt_tokens, bill.verifier_tokens) == (0, 0, 0)
    assert (bill.generator_flops, bill.verifier_flops) == (0, 0)
    assert bill.units == first.usage.units == plain.usage.units
    assert bill.recalled_tokens == first.usage.generated_tokens + first.usage.recalled_tokens


@pytest.mark.parametrize("dies_after", range(1, 17))
def test_a_run_that_died_goes_on_where_it_stopped(store: Store, dies_after: int) -> None:
    dying = Counting(then={dies_after: die})
    with pytest.raises(KeyboardInterrupt):
        run(store, BestOfN(16), dying)
    store.flush()
    going_on = Counting()
    result = run(store, BestOfN(16), going_on)
    assert same(result, alone(BestOfN(16)))
    assert going_on.drawn == 16 - dies_after
    assert result.usage.recalled_tokens == dies_after * 5 * TOKENS


def test_a_larger_budget_pays_for_the_difference_only(store: Store) -> None:
    generator = Counting()
    for budget in (4, 16, 8):
        result = run(store, BestOfN(budget), generator, budget=budget)
        assert same(result, alone(BestOfN(budget), budget))
    assert generator.drawn == 16


def test_another_vote_and_another_verifier_reuse_every_sample(store: Store) -> None:
    generator, other = Counting(), CountingVerifier(noise=3.0, name="other")
    run(store, BestOfN(16), generator)
    run(store, Majority(16), generator)
    result = run(store, BestOfN(16), generator, other)
    assert generator.drawn == 16
    assert (result.usage.recalled_scores, other.asked) == (0, 80)


@pytest.mark.parametrize(
    "changed", [{"name": "other"}, {"temperature": 0.5}, {"problem": Problem("another")}]
)
def test_another_generator_sampling_or_problem_shares_nothing(
    store: Store, changed: dict[str, object]
) -> None:
    run(store, Majority(4))
    generator = Counting()
    how = dict(changed)
    generator.name = str(how.pop("name", "sim"))
    run(store, Majority(4), generator, **how)  # type: ignore[arg-type]
    assert generator.drawn == 4


def test_equal_greedy_requests_are_computed_once(store: Store) -> None:
    generator = Counting()
    result = run(store, Majority(4), generator, temperature=0.0)
    assert generator.drawn == 1
    assert (result.usage.units, result.usage.recalled_tokens) == (4, 3 * 5 * TOKENS)
    assert [candidate.finish for candidate in result.candidates] == ["stop"] * 4


def test_watch_hears_of_every_continuation_in_its_place(store: Store) -> None:
    """Recalled, computed and shared ones alike; a finished prefix is not one."""
    prefix = SimGenerator().sample([PROBLEM.root], [Sampling(steps=2, seed=1)])[0][0]
    done = prefix.grow(finish="stop")
    prefixes = [prefix, done, PROBLEM.root, prefix]
    generator = StoredGenerator(SimGenerator(), store)
    for _ in range(2):
        heard: dict[int, Solution] = {}
        out, _ = generator.sample(prefixes, [Sampling(seed=5)] * 4, heard.__setitem__)
        store.flush()
        assert heard == {0: out[0], 2: out[2], 3: out[3]}
        assert out[1] is done
        assert out[0] == out[3]


class Cut(SimGenerator):
    """Dice that are stopped after two solutions; like llama.cpp's they tell what was cut, too."""

    def sample(
        self,
        prefixes: Sequence[Solution],
        how: Sequence[Sampling],
        watch: Watch | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[list[Solution], Usage]:
        out, usage = super().sample(prefixes, how)
        out[2:] = [replace(one, steps=one.steps[:2], finish="budget") for one in out[2:]]
        for lane, solution in enumerate(out):
            if watch:
                watch(lane, solution)
        return out, usage


@pytest.mark.parametrize("generator", [Cut(), Counting()])
def test_what_was_cut_is_not_kept(store: Store, generator: SimGenerator) -> None:
    stop = threading.Event()

    def cut(lane: int, solution: Solution) -> None:
        if lane == 1:
            stop.set()

    how = [Sampling(seed=seed) for seed in range(4)]
    prefixes = [PROBLEM.root] * 4
    out, _ = StoredGenerator(generator, store).sample(prefixes, how, cut, stop)
    store.flush()
    assert [solution.finish for solution in out] == ["stop", "stop", "budget", "budget"]
    counting = Counting()
    StoredGenerator(counting, store).sample(prefixes, how)
    assert counting.drawn == 2


def test_scores_are_filled_in_where_there_are_some(store: Store) -> None:
    verifier = CountingVerifier()
    stored = StoredVerifier(verifier, store)
    [long] = SimGenerator().sample([PROBLEM.root], [Sampling()])[0]
    short = replace(long, steps=long.steps[:2], finish=None)
    [scored], _ = stored.score([short])
    store.flush()
    grown = replace(long, steps=(scored.steps[0], *long.steps[1:]))
    [result], usage = stored.score([grown])
    assert result == SimVerifier().score([long])[0][0]
    assert (usage.recalled_scores, verifier.asked) == (1, 5)


def test_scores_are_committed_on_the_way(store: Store) -> None:
    verifier = CountingVerifier()
    solutions, _ = SimGenerator().sample(
        [PROBLEM.root] * 150, [Sampling(seed=seed) for seed in range(150)]
    )
    out, usage = StoredVerifier(verifier, store).score(solutions)
    assert verifier.calls == (AT_ONCE, AT_ONCE, 150 - 2 * AT_ONCE)
    assert out == SimVerifier().score(solutions)[0]
    assert usage.verifier_tokens == 150 * 5 * TOKENS


def test_threads_share_one_store(store: Store) -> None:
    """Half of the problems are asked by two threads; each gets what it would get alone."""
    problems = [Problem(f"problem {i}") for i in (*range(12), *range(6))]
    results: dict[int, Result] = {}
    plain = {}

    def work(i: int) -> None:
        results[i] = run(store, BestOfN(4), problem=problems[i], budget=4)

    threads = [threading.Thread(target=work, args=[i]) for i in range(len(problems))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, problem in enumerate(problems):
        engine = Engine(SimGenerator(), SimVerifier(), budget=4)
        plain[i] = solve(problem, engine, BestOfN(4), SIM)
    assert all(same(results[i], plain[i]) for i in range(len(problems)))


# --- models that are not opened -------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """A pair whose generator is a file, though dice stand for it."""
    (tmp_path / "generator.gguf").write_bytes(b"GGUF")
    return Pair(tmp_path, "tiny", "A pair.", GeneratorFile("generator.gguf", sha256=""))


class Reader(SimGenerator):
    """Dice that know a closed list of words."""

    def tokenize(self, text: str) -> list[int]:
        return [0] if text.strip() in {"what", "is", "six", "times"} else [0, 1]


def never() -> Models:
    raise AssertionError("the models were opened")


def behind(pair: Pair, store: Store, opens: Callable[[], Models], budget: int = 4) -> Result:
    models = StoredPair(pair, store, opens)
    engine = Engine(models.generator, models.verifier, budget=budget)
    words = models.unknown_words(PROBLEM.question)
    id_ = store.begin_run(PROBLEM, engine, BestOfN(budget), pair, words)
    result = solve(PROBLEM, engine, BestOfN(budget), pair)
    store.finish_run(id_, result, pair)
    store.flush()
    return result


def test_a_finished_run_opens_no_model(store: Store, pair: Pair) -> None:
    worldly = replace(pair, world=World("Testland", "Nothing but tests."))
    first = behind(worldly, store, lambda: (Reader(), SimVerifier()))
    again = behind(worldly, store, never)
    assert same(first, again)
    assert again.usage.recalled_tokens == 4 * 5 * TOKENS
    models = StoredPair(worldly, store, never)
    assert models.unknown_words(PROBLEM.question) == ["seven"]
    with pytest.raises(AssertionError, match="were opened"):
        models.unknown_words("another question")


def test_models_are_opened_for_what_is_missing(store: Store, pair: Pair) -> None:
    behind(pair, store, lambda: (SimGenerator(), SimVerifier()))
    opened = []

    def opens() -> Models:
        opened.append(1)
        return SimGenerator(), SimVerifier()

    larger = behind(pair, store, opens, budget=8)
    assert opened == [1]
    assert larger.usage.generator_flops > 0
    assert larger.usage.verifier_flops > 0


def test_a_changed_file_is_another_pair(store: Store, pair: Pair) -> None:
    behind(pair, store, lambda: (SimGenerator(), None))
    pair.generator_path.write_bytes(b"GGUF, another")
    with pytest.raises(AssertionError, match="were opened"):
        StoredPair(pair, store, never)
