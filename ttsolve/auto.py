"""`auto`: probe the problem, find its bin, let the policy choose, run that (paper section 3).

The probe is a few samples inside the budget, and they stay candidates. Where the choice is
best-of-N the run is that of best-of-N, sample for sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from ttsolve.confidence import stop_for
from ttsolve.core import Problem, Solution
from ttsolve.difficulty import predicted
from ttsolve.engine import Engine
from ttsolve.errors import UsageError
from ttsolve.pair import Pair
from ttsolve.policy import PAPER, Policy, planned_within, policy_of
from ttsolve.solve import aggregation_of
from ttsolve.strategies import STRATEGIES, Strategy, one_of, strategy_named
from ttsolve.vote import Aggregation, best_of_all, score_of

INDEPENDENT = ("best-of-n", "majority")  # their samples know nothing of each other
FIRST_LOOK = 4  # samples, where the policy has no probe


@dataclass(frozen=True)
class Auto:
    """The strategy that chooses among the others; with a confidence, it may stop early.

    With a confidence, and more than `FIRST_LOOK` units, it looks at the vote after the probe, and,
    where the choice is independent samples, each time their number has doubled. A search is not
    looked into: it runs to its end.
    """

    name: ClassVar[str] = "auto"
    ranks_steps: ClassVar[bool] = False
    n: int = 16
    policy: Policy = PAPER
    aggregation: Aggregation = "last"
    mark: str = "Answer:"
    confidence: float | None = None  # the promise at which to stop; None: spend the whole budget

    def __call__(self, problem: Problem, engine: Engine) -> list[Solution]:
        choice = self.policy.at(self.n)
        # A look takes that many units, and would leave a search none.
        look = FIRST_LOOK if self.confidence is not None and self.n > FIRST_LOOK else 0
        probe = min(choice.probe or look, self.n) if engine.verifier else min(look, self.n)
        found = engine.score(engine.sample([problem.root] * probe))
        chosen = self._choose(found, engine)
        if self._sure(found, INDEPENDENT[0 if engine.verifier else 1], engine):
            return found
        if found and self.confidence is not None and chosen in INDEPENDENT:
            return self._until_sure(found, chosen, problem, engine)
        if left := self.n - len(found):
            found = found + planned_within(chosen, left)(problem, engine)
        self._sure(found, chosen, engine)
        return found

    @classmethod
    def sized(cls, budget: int, **settings: int) -> Self:
        """With the paper's policy, and no settings."""
        return cls(budget)

    def _choose(self, probe: list[Solution], engine: Engine) -> str:
        """The strategy for what is left; tells the engine why."""
        told: dict[str, object] = {"policy": self.policy.about, "probe": len(probe)}
        if engine.verifier is None:
            why = "there is no verifier to judge steps"
            engine.decided.update(told, chosen="majority", why=why)
            return "majority"
        choice = self.policy.at(self.n)
        difficulty = predicted(probe, self.aggregation, self.mark)
        which, bins = choice.bin(difficulty), len(choice.strategies)
        chosen = choice.strategies[which - 1]
        nearest = "" if choice.budget == self.n else ", the nearest that was tried"
        why = f"the best at a budget of {choice.budget}{nearest}"
        if bins > 1:
            told.update(difficulty=difficulty, bin=which, bins=bins)
            mean = "no score" if difficulty is None else f"a mean score of {difficulty:.2f}"
            why = f"bin {which} of {bins} (1 is easy), as {len(probe)} probes have {mean}"
        left = self.n - len(probe)
        if left and (runs := planned_within(chosen, left).name) != chosen.partition(":")[0]:
            chosen, why = runs, f"too few units are left for {chosen}, {why}"
        engine.decided.update(told, chosen=chosen, why=f"{why}, by {self.policy.about}")
        return chosen

    def _until_sure(
        self, found: list[Solution], chosen: str, problem: Problem, engine: Engine
    ) -> list[Solution]:
        while len(found) < self.n and not engine.stop.is_set():
            more = min(len(found), self.n - len(found))
            found = found + planned_within(chosen, more)(problem, engine)
            if self._sure(found, chosen, engine):
                break
        return found

    def _sure(self, found: list[Solution], strategy: str, engine: Engine) -> bool:
        """Whether the vote is as sure as was asked for; tells the engine how sure it is."""
        engine.decided.pop("probability", None)  # of an earlier look
        calibration = self.policy.calibration(strategy)
        if calibration is None or not found:
            return False
        fitted = self.policy.temperature
        if fitted is not None and engine.sampling.temperature != fitted:
            engine.decided.update(probability=None, fitted_at=fitted)
            return False
        vote = best_of_all(found, self.aggregation, self.mark)
        if vote.best is None:
            return False
        score = score_of(vote.best, self.aggregation)
        probability = calibration.probability(vote.share, score, len(found))
        engine.decided["probability"] = probability
        if self.confidence is None:
            return False
        stop = stop_for(self.confidence, self.policy.stops)
        sure = probability >= stop.threshold
        engine.decided.update(promise=stop.promise, stopped=sure and len(found) < self.n)
        return sure


def plan_for(
    name: str,
    budget: int,
    pair: Pair,
    settings: Mapping[str, object] | None = None,
    *,
    confidence: float | None = None,
    policy: Policy | None = None,
    temperature: float | None = None,
) -> Strategy:
    """The strategy the user named, sized to the budget; `auto` with the pair's policy.

    Args:
        confidence: see `Auto`.
        policy: in place of the pair's own.
        temperature: at which it will sample; None: the pair's own.

    Raises:
        UsageError: when there is no such strategy or setting, or the pair cannot promise that.
        PairError: when the pair's policy.toml cannot be used.
    """
    if name != Auto.name:
        if confidence is not None:
            raise UsageError("A confidence needs a policy: use it with --strategy auto.")
        if name not in STRATEGIES:
            known = one_of([Auto.name, *STRATEGIES])
            raise UsageError(f"There is no strategy {name!r}: use {known}.")
        return strategy_named(name, budget, settings)
    if settings:
        raise UsageError(
            "The strategy 'auto' has no settings: name the one that they are of, as in "
            "--strategy beam."
        )
    policy = policy or policy_of(pair)
    own = pair.sampling.temperature
    fitted = own if policy.temperature is None else policy.temperature
    if confidence is not None and stop_for(confidence, policy.stops).threshold > 1:
        promises = [stop.promise for stop in policy.stops if stop.threshold <= 1]
        able = f"promise {max(promises)} at most" if promises else "run `ttsolve calibrate` first"
        raise UsageError(f"The pair {pair.name!r} has no calibration for {confidence}: {able}.")
    if confidence is not None and fitted != (own if temperature is None else temperature):
        raise UsageError(
            f"The confidence of the pair {pair.name!r} was fitted at temperature {fitted:g}: "
            "sample at that, or leave the confidence out."
        )
    policy = replace(policy, temperature=fitted)
    return Auto(budget, policy, aggregation_of(pair), pair.prompt.answer, confidence)
