"""A small world whose best strategies are known, and what it takes to measure it in a test."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from ttsolve.auto import plan_for
from ttsolve.core import Problem
from ttsolve.dataset import Entry
from ttsolve.engine import Engine
from ttsolve.engines.sim import RIGHT_ANSWER, SimGenerator, SimVerifier
from ttsolve.evaluate import Evaluator, Measured
from ttsolve.grid import Grid
from ttsolve.policy import PAPER, Policy, read_plan
from ttsolve.recall import StoredPair
from ttsolve.solve import SIM
from ttsolve.store import Store

LEVELS = {"easy": 0.9, "plain": 0.9, "middling": 0.4, "tough": 0.4, "hard": 0}  # of each step
BEST = {word: "beam:width=4" if chance == 0.4 else "best-of-n" for word, chance in LEVELS.items()}
HARDEST_FIRST = tuple(LEVELS)[::-1]


@dataclass
class KnownWorld(SimVerifier):
    """Easy problems fool it until their end, so a search loses; middling ones reward a search.

    On hard ones nothing helps. Of a solution's end it knows the truth.
    """

    def _judged(self, step, text, solution):
        question = solution.problem.question
        wrong = "wrong" in text or ("Answer" in text and RIGHT_ANSWER not in text)
        fooled = "p=0.9" in question
        if "Answer" in text:
            ease = next((place for place, word in enumerate(HARDEST_FIRST) if word in question), 0)
            return replace(step, score=0.9 if not wrong else 0.3 if fooled else 0.01 * ease)
        return replace(step, score=0.9 if wrong == fooled else 0.1)


def entries(each: int) -> list[Entry]:
    """So many problems of each level."""
    return [
        Entry(1, f"{word}-{i}", Problem(f"{word} dice {i} p={p}", reference=RIGHT_ANSWER))
        for i in range(each)
        for word, p in LEVELS.items()
    ]


def evaluator(
    strategies: tuple[str, ...],
    budgets: tuple[int, ...],
    *,
    store: Store | None = None,
    models=None,
    policy: Policy = PAPER,
    seeds: tuple[int, ...] = (0,),
    stop: threading.Event | None = None,
) -> Evaluator:
    """What measures them, over the known world or other models."""
    pair = StoredPair(SIM, store or Store(None), lambda: models or (SimGenerator(), KnownWorld()))
    stop = stop or threading.Event()

    def engine(seed: int, budget: int) -> Engine:
        return Engine(pair.generator, pair.verifier, seed=seed, budget=budget, stop=stop)

    def plan(text: str, budget: int):
        name, settings = read_plan(text)
        said = settings.pop("confidence", None)
        confidence = None if said is None else float(said)
        return plan_for(name, budget, SIM, settings, confidence=confidence, policy=policy)

    return Evaluator(SIM, pair, Grid(strategies, budgets, seeds), policy, plan, engine)


def measured(each: int, *given, **more) -> list[Measured]:
    """The outcomes of so many problems of each level."""
    return [outcome for e in entries(each) if (outcome := evaluator(*given, **more)(e))]
