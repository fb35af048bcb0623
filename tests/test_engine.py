"""The two verbs keep the seed, the budget, the bill and the trace right for every strategy."""

from __future__ import annotations

import pytest

from ttsolve.core import Problem
from ttsolve.engine import Engine, Event, Sampling
from ttsolve.engines.sim import TOKENS, SimGenerator, SimVerifier

PROBLEM = Problem("what is six times seven")


def texts(engine, n=8, **how):
    return [solution.text for solution in engine.sample([PROBLEM.root] * n, **how)]


def test_samples_of_one_call_differ_and_equal_seeds_repeat_them() -> None:
    first = texts(Engine(SimGenerator(), seed=5))
    assert first == texts(Engine(SimGenerator(), seed=5)) != texts(Engine(SimGenerator(), seed=6))
    assert len(set(first)) > 1


def test_how_the_work_is_cut_into_calls_does_not_matter() -> None:
    whole, cut = Engine(SimGenerator()), Engine(SimGenerator())
    assert texts(whole, 8) == texts(cut, 3) + texts(cut, 5)


def test_temperature_zero_is_greedy() -> None:
    assert len(set(texts(Engine(SimGenerator()), temperature=0))) == 1
    assert len(set(texts(Engine(SimGenerator(), sampling=Sampling(temperature=0))))) == 1


def test_steps_limit_a_continuation_and_a_finished_solution_is_free() -> None:
    engine = Engine(SimGenerator(depth=3))
    [prefix] = engine.sample([PROBLEM.root], steps=2)
    assert (len(prefix.steps), prefix.finish) == (2, None)
    [whole] = engine.sample([prefix])
    assert (len(whole.steps), whole.finish) == (3, "stop")
    before = engine.usage
    assert engine.sample([whole]) == [whole]
    assert engine.usage.generated_tokens == before.generated_tokens == 3 * TOKENS


def test_only_continuations_of_the_root_cost_units() -> None:
    engine = Engine(SimGenerator())
    prefixes = engine.sample([PROBLEM.root] * 4, steps=1)
    engine.sample(prefixes)
    assert engine.usage.units == 4


def test_the_budget_is_a_finish_reason() -> None:
    engine = Engine(SimGenerator(), budget=3)
    finishes = [solution.finish for solution in engine.sample([PROBLEM.root] * 5)]
    assert finishes == ["stop", "stop", "stop", "budget", "budget"]
    assert engine.usage.units == 3


def test_max_tokens_cut_a_continuation() -> None:
    engine = Engine(SimGenerator(depth=5), sampling=Sampling(max_tokens=2 * TOKENS))
    [solution] = engine.sample([PROBLEM.root])
    assert (solution.tokens, solution.finish) == (2 * TOKENS, "length")


def test_flops_follow_from_the_tokens_that_were_computed() -> None:
    engine = Engine(SimGenerator(params=10), SimVerifier(params=100))
    engine.score(engine.sample([PROBLEM.root] * 2))
    bill = engine.usage
    assert bill.generator_flops == 2 * 10 * (bill.generated_tokens + bill.prompt_tokens) > 0
    assert bill.verifier_flops == 2 * 100 * bill.verifier_tokens > 0


def test_scores_are_filled_in_once() -> None:
    engine = Engine(SimGenerator(), SimVerifier())
    scored = engine.score(engine.sample([PROBLEM.root] * 2))
    spent = engine.usage.verifier_tokens
    assert spent == sum(solution.tokens for solution in scored)
    assert engine.score(scored) == scored
    assert engine.usage.verifier_tokens == spent


def test_without_a_verifier_nothing_is_scored() -> None:
    engine = Engine(SimGenerator())
    solutions = engine.sample([PROBLEM.root])
    assert engine.score(solutions) == solutions


@pytest.mark.parametrize("heard_before_the_stop", [0, 1, 3])
def test_stop_ends_the_run_with_what_there_is(heard_before_the_stop) -> None:
    heard: list[Event] = []
    engine = Engine(SimGenerator(), SimVerifier())

    def listen(event: Event) -> None:
        heard.append(event)
        if len(heard) == heard_before_the_stop:
            engine.stop.set()

    engine.listen = listen
    if not heard_before_the_stop:
        engine.stop.set()
    finishes = [solution.finish for solution in engine.sample([PROBLEM.root] * 5)]
    assert finishes == ["stop"] * heard_before_the_stop + ["budget"] * (5 - heard_before_the_stop)
    assert engine.usage.units == heard_before_the_stop
    assert engine.trace == heard
