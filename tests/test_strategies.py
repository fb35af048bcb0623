"""Laws that hold for every strategy, shown on dice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from ttsolve.core import Problem, Usage
from ttsolve.engine import Engine
from ttsolve.engines.sim import RIGHT_ANSWER, SimGenerator, SimVerifier
from ttsolve.errors import UsageError
from ttsolve.solve import SIM, solve
from ttsolve.strategies import STRATEGIES, strategy_named

every_strategy = pytest.mark.parametrize("name", STRATEGIES)


def run(name, *, seed=0, n=16, question="what is six times seven", sim=None, **engine):
    generator, verifier = sim or (SimGenerator(), SimVerifier())
    engine = Engine(generator, verifier, seed=seed, **engine)
    return strategy_named(name, n)(Problem(question), engine), engine


@every_strategy
def test_equal_seeds_give_equal_candidates_and_others_do_not(name) -> None:
    assert run(name, seed=3)[0] == run(name, seed=3)[0] != run(name, seed=4)[0]


@every_strategy
@pytest.mark.parametrize("n", [2, 3, 7, 64])
def test_never_more_units_than_the_budget(name, n) -> None:
    candidates, engine = run(name, n=n)
    assert 0 < engine.usage.units <= n
    assert all(candidate.done for candidate in candidates)
    _, short = run(name, n=n, budget=n // 2)
    assert short.usage.units <= n // 2


@every_strategy
def test_the_bill_is_what_the_trace_says(name) -> None:
    _, engine = run(name)
    samples = [event for event in engine.trace if event.verb == "sample"]
    scores = [event for event in engine.trace if event.verb == "score"]
    grown = [e.child.steps[len(e.parent.steps) :] for e in engine.trace if e.verb != "score"]
    judged = [step for e in scores for step in e.parent.steps if step.score is None]
    beam = 1 + getattr(strategy_named(name, 16), "lookahead", 0)  # units
    assert engine.usage.units == beam * sum(not event.parent.steps for event in samples)
    assert engine.usage.generated_tokens == sum(step.tokens for steps in grown for step in steps)
    assert engine.usage.verifier_tokens == sum(step.tokens for step in judged)


@every_strategy
def test_alone_or_beside_others_gives_the_same(name) -> None:
    questions = [f"question {i}" for i in range(12)]
    alone = [run(name, question=question)[0] for question in questions]
    shared = (SimGenerator(), SimVerifier())
    with ThreadPoolExecutor(8) as pool:
        beside = pool.map(lambda question: run(name, question=question, sim=shared)[0], questions)
        assert list(beside) == alone


@every_strategy
def test_the_reference_reaches_no_generator(name) -> None:
    """A strategy may see the problem, but its samples must not depend on what is known of it."""
    plain, known = Problem("q"), Problem("q", reference=RIGHT_ANSWER, check="countdown", level=5)
    texts = [
        [c.text for c in strategy_named(name, 8)(problem, Engine(SimGenerator(), SimVerifier()))]
        for problem in (plain, known)
    ]
    assert texts[0] == texts[1]


@every_strategy
def test_spending_more_pays(name) -> None:
    """Where the verifier is no worse: else beams, which have one vote each, are outvoted by the
    many wrong ones that it lets through."""
    verifier = SimVerifier(noise=1.0)

    def right(n: int) -> float:
        answers = (answer(name, n, f"q{i}", verifier=verifier) for i in range(40))
        return sum(a == RIGHT_ANSWER for a in answers) / 40

    assert right(16) > right(2) + 0.1


def test_the_verifier_pays() -> None:
    hard = SimGenerator(p_step=0.65)  # the right answer is rare, though still the commonest

    def right(name: str) -> int:
        return sum(answer(name, 8, f"q{i}", hard) == RIGHT_ANSWER for i in range(60))

    assert right("best-of-n") > right("majority") + 3


def answer(name: str, n: int, question: str, generator=None, verifier=None) -> str | None:
    engine = Engine(generator or SimGenerator(), verifier or SimVerifier())
    return solve(Problem(question), engine, strategy_named(name, n), SIM).answer


def test_majority_asks_no_verifier() -> None:
    candidates, engine = run("majority")
    assert engine.usage.verifier_tokens == engine.usage.verifier_flops == 0
    assert engine.usage != Usage()
    assert all(step.score is None for candidate in candidates for step in candidate.steps)


def test_an_unknown_strategy_is_told_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no strategy 'beems': use best-of-n, majority, .+\.$"):
        strategy_named("beems", 4)
