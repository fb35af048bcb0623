"""Laws of every strategy, on dice and on the embedded pair."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest

from ttsolve.core import Problem, Solution, Usage
from ttsolve.engine import Engine, Event, Generator, Sampling, Verifier, Watch, sample_seed
from ttsolve.engines.llama import LlamaGenerator
from ttsolve.engines.onnx_prm import OnnxVerifier
from ttsolve.engines.sim import SimGenerator, SimVerifier
from ttsolve.pair import Pair
from ttsolve.solve import open_models, open_reviser
from ttsolve.strategies import STRATEGIES, BeamSearch, Lookahead, Strategy, strategy_named

N = 6
QUESTIONS = [
    *("Make 24 from 4, 7, 8, 8", "What is 55% of 200?", "Solve 4 * x - 12 = 28."),
    *(f"Make 24 from {a}, 7, 8, {b}" for a in (2, 3, 5, 6) for b in (2, 3, 4)),
    "Pay 52 with 4 coins of 7, 8, 10, 15.",
]


@dataclass
class Models:
    """A generator and a verifier for all tests; and how each is had anew, with nothing cached."""

    generator: Generator
    verifier: Verifier
    sampling: Sampling
    new_verifier: Callable[[], Verifier]
    from_scratch: Callable[[Solution, Sampling], Solution]
    prompt: Callable[[Solution], int] | None = None  # tokens before the first step; None: dice
    reviser: Generator | None = None
    revision_verifier: Verifier | None = None

    def run(
        self, name: str, n: int = N, question: str = QUESTIONS[0], **engine: object
    ) -> tuple[list[Solution], Engine]:
        models = ("generator", "verifier", "reviser", "revision_verifier", "sampling")
        one = Engine(**{**{name: getattr(self, name) for name in models}, **engine})
        return strategy_named(name, n)(Problem(question), one), one


def dice() -> Models:
    def from_scratch(prefix: Solution, how: Sampling) -> Solution:
        return SimGenerator().sample([prefix], [how])[0][0]

    return Models(SimGenerator(), SimVerifier(), Sampling(), SimVerifier, from_scratch)


def real(pair: Pair) -> Models:
    generator, verifier = open_models(pair)
    fresh, _ = open_models(pair)
    assert isinstance(generator, LlamaGenerator)
    assert isinstance(fresh, LlamaGenerator)
    assert verifier is not None

    def from_scratch(prefix: Solution, how: Sampling) -> Solution:
        for loop in fresh._loops:
            loop.forget()
        return fresh.sample([prefix], [how])[0][0]

    def new_verifier() -> Verifier:
        assert pair.verifier_path is not None
        assert pair.tokenizer_path is not None
        return OnnxVerifier(pair.verifier_path, pair.tokenizer_path, pair.prompt)

    def prompt(prefix: Solution) -> int:
        return len(generator._before(prefix))

    revisers = open_reviser(pair) if pair.reviser else (None, None)
    return Models(generator, verifier, pair.sampling, new_verifier, from_scratch, prompt, *revisers)


@pytest.fixture(scope="module", params=["dice", "pair"])
def models(request: pytest.FixtureRequest) -> Models:
    if request.param == "dice":
        return dice()
    pair: Pair = request.getfixturevalue("revising")
    return real(pair)


every_strategy = pytest.mark.parametrize("name", STRATEGIES)


def texts(solutions: Sequence[Solution]) -> list[str]:
    return [solution.text for solution in solutions]


@every_strategy
def test_equal_seeds_give_equal_candidates(models: Models, name: str) -> None:
    first, again = (texts(models.run(name, seed=3)[0]) for _ in range(2))
    assert first == again != texts(models.run(name, seed=4)[0])


@every_strategy
def test_every_candidate_is_finished_or_marked(models: Models, name: str) -> None:
    candidates, _ = models.run(name)
    assert candidates
    assert all(candidate.finish in ("stop", "length") for candidate in candidates)
    short, _ = models.run(name, budget=N // 2)
    assert all(candidate.done for candidate in short)
    assert "budget" in {candidate.finish for candidate in short}


@dataclass
class Noting:
    """A generator that notes the seeds it is handed, by problem, and the usage of each call."""

    generator: Generator
    handed: dict[str, list[int]] = field(default_factory=dict)
    bills: list[Usage] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.generator.name

    @property
    def params(self) -> int:
        return self.generator.params

    def sample(
        self,
        prefixes: Sequence[Solution],
        how: Sequence[Sampling],
        watch: Watch | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[list[Solution], Usage]:
        for prefix, one in zip(prefixes, how, strict=True):
            self.handed.setdefault(prefix.problem.question, []).append(one.seed)
        out, usage = self.generator.sample(prefixes, how, watch, stop)
        self.bills.append(usage)
        return out, usage


@every_strategy
def test_alone_or_beside_15_others(models: Models, name: str) -> None:
    """The seeds are the same; and so are the texts where no rounding can tip the scales."""
    greedy = replace(models.sampling, temperature=0.0)
    alone = {q: texts(models.run(name, n=4, question=q, sampling=greedy)[0]) for q in QUESTIONS}
    seeds = Noting(models.generator)

    def solved(question: str) -> list[str]:
        models.run(name, n=4, question=question, generator=seeds, seed=5)
        return texts(models.run(name, n=4, question=question, sampling=greedy)[0])

    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        beside = dict(zip(QUESTIONS, pool.map(solved, QUESTIONS), strict=True))
    assert len(beside) == 16
    assert beside == alone
    for question, handed in seeds.handed.items():
        places = [(lane, 0) for lane in range(len(handed))]
        if name == "revisions":  # two chains of two
            places = [(chain, turn) for turn in range(2) for chain in range(2)]
        assert handed == [sample_seed(5, question, *place) for place in places]


@every_strategy
@pytest.mark.parametrize("budget", [2, 3, 5, 16])
def test_never_more_units_than_the_budget(models: Models, name: str, budget: int) -> None:
    """Nor fewer than it could pay for; and as many as the trace says."""
    _, engine = models.run(name, n=budget, budget=budget)
    per_beam = 1 + getattr(strategy_named(name, budget), "lookahead", 0)
    begun = sum(event.verb == "sample" and not event.parent.steps for event in engine.trace)
    assert engine.usage.units == begun * per_beam <= budget < engine.usage.units + per_beam
    _, cut = models.run(name, n=budget, budget=budget - 1)
    assert cut.usage.units <= budget - 1


@every_strategy
@pytest.mark.parametrize("events", [1, 3, 8])
def test_a_run_that_was_stopped_bills_what_had_begun(
    models: Models, name: str, events: int
) -> None:
    """As many units as the trace says; a candidate that waited for its turn costs nothing."""
    stop, heard = threading.Event(), []

    def listen(event: Event) -> None:
        heard.append(event)
        if len(heard) == events:
            stop.set()

    candidates, engine = models.run(name, n=2 * N, budget=2 * N, stop=stop, listen=listen)
    assert all(candidate.done for candidate in candidates)
    first = [e.child for e in engine.trace if e.verb == "sample" and not e.parent.steps]
    begun = sum(bool(child.steps) or child.finish != "budget" for child in first)
    per_beam = 1 + getattr(strategy_named(name, N), "lookahead", 0)
    assert engine.usage.units == begun * per_beam <= 2 * N
    assert begun


@every_strategy
def test_every_token_is_on_the_bill_once(models: Models, name: str) -> None:
    """A continuation and its prefix were computed, or found where they had been computed before."""
    _, engine = models.run(name)
    grown = [event for event in engine.trace if event.verb != "score"]
    bill = engine.usage
    if models.prompt is None:
        steps = sum(event.child.tokens - event.parent.tokens for event in grown)
        assert bill.generated_tokens == steps
        return
    tokens = sum(models.prompt(event.child) + event.child.tokens for event in grown)
    billed = bill.generated_tokens + bill.prompt_tokens + bill.reused_tokens
    # A token that only says "this is the end" stands in no step.
    assert tokens <= billed <= tokens + sum(event.child.done for event in grown)


@every_strategy
def test_the_verifier_computes_every_step_once(models: Models, name: str) -> None:
    """As many tokens as the whole tree at once takes; and it says the same of each step."""
    judges = {"verifier": models.new_verifier(), "revision_verifier": models.new_verifier()}
    _, engine = models.run(name, **judges)
    scored = [event.child for event in engine.trace if event.verb == "score"]
    whole, usage = models.new_verifier().score([unscored(solution) for solution in scored])
    for solution, same in zip(scored, whole, strict=True):
        assert solution.scores == pytest.approx(same.scores, abs=1e-4)
    if models.prompt:
        assert engine.usage.verifier_tokens == usage.verifier_tokens


def unscored(solution: Solution) -> Solution:
    steps = tuple(replace(step, score=None) for step in solution.steps)
    return replace(solution, steps=steps)


@every_strategy
def test_prefixes_are_what_the_model_decoded(models: Models, name: str) -> None:
    """Continued greedily where they stand, or from scratch by a model that saw nothing before."""
    candidates, _ = models.run(name)
    prefixes = [
        replace(candidate, steps=candidate.steps[:k], finish=None)
        for candidate in candidates[:2]
        for k in range(len(candidate.steps))
    ]
    how = [replace(models.sampling, temperature=0.0)] * len(prefixes)
    here, _ = models.generator.sample(prefixes, how)
    for solution, prefix in zip(here, prefixes, strict=True):
        alone = models.from_scratch(prefix, how[0])
        assert (alone.text, alone.ids) == (solution.text, solution.ids)


# --- what a search of 64 beams costs ----------------------------------------------------------


@pytest.fixture(scope="module")
def pair_models(pocket: Pair) -> Models:
    return real(pocket)


@pytest.mark.parametrize("strategy", [BeamSearch(64, 4), Lookahead(32, 4)])
def test_prefixes_are_decoded_once(pair_models: Models, strategy: Strategy) -> None:
    """After the first round less than 2 % of the tokens of prefixes are decoded again."""
    notes = Noting(pair_models.generator)
    engine = Engine(notes, pair_models.verifier, sampling=pair_models.sampling)
    strategy(Problem(QUESTIONS[0]), engine)
    bill = sum(notes.bills[1:], Usage())
    assert bill.reused_tokens > 5000
    assert bill.reused_tokens / (bill.reused_tokens + bill.prompt_tokens) >= 0.98


def test_prefixes_are_decoded_once_beside_other_problems(pair_models: Models, pocket: Pair) -> None:
    """Which sample more steps than there are sequences, in one loop."""
    with LlamaGenerator(pocket.generator_path, pocket.prompt, width=64, loops=1) as generator:

        def searched(question: str) -> Usage:
            notes = Noting(generator)
            engine = Engine(notes, pair_models.verifier, sampling=pair_models.sampling)
            BeamSearch(64, 4)(Problem(question), engine)
            return sum(notes.bills[1:], Usage())

        with ThreadPoolExecutor(6) as pool:
            bill = sum(pool.map(searched, QUESTIONS[3:9]), Usage())
    assert bill.reused_tokens > 30_000
    assert bill.reused_tokens / (bill.reused_tokens + bill.prompt_tokens) >= 0.98


def test_who_agrees_with_its_rollout_does_not_pay_again(pair_models: Models) -> None:
    """Greedy beams draw what their rollouts drew: no token but a request's last is drawn twice."""
    notes = Noting(pair_models.generator)
    greedy = replace(pair_models.sampling, temperature=0.0)
    engine = Engine(notes, pair_models.verifier, sampling=greedy)
    [candidate] = Lookahead(4, 2, lookahead=3)(Problem(QUESTIONS[1]), engine)
    assert len(candidate.steps) > 1
    after = sum(notes.bills[1:], Usage())  # the first steps are drawn side by side
    requests = sum(event.verb != "score" for event in engine.trace) - 4
    new = candidate.tokens - candidate.steps[0].tokens
    assert after.generated_tokens <= new + requests
