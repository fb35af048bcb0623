"""The compute-optimal policy: which strategy at which difficulty and budget (paper section 3).

A policy is kept beside its pair, in policy.toml, and names the models it was fitted for: a pair
whose models are others does without it.

    about = "Fitted on …"               [[choices]]
    generator = "sha256"                budget = 16
    verifier = "sha256"                 strategies = ["best-of-n", …]   # the easiest bin first
    temperature = 1.0                   probe = 4
    [[calibrations]]                    thresholds = [0.2, …]           # one less than strategies
    strategy = "best-of-n"
    weights = [0.1, …]                  [[stops]]
                                        promise = 0.95
                                        threshold = 0.97
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from ttsolve import toml
from ttsolve.confidence import FEATURES, Calibration, Stop
from ttsolve.core import Problem
from ttsolve.difficulty import bin_of
from ttsolve.errors import UsageError
from ttsolve.files import write_whole
from ttsolve.pair import Pair
from ttsolve.strategies import BestOfN, Revisions, Strategy, read_settings, strategy_named
from ttsolve.toml import Place

FILE = "policy.toml"
LARGE = 1 << 16  # units: a budget for which every strategy has a size


@dataclass(frozen=True, slots=True)
class Choice:
    """What to do with one budget: probe, bin, and a strategy for each bin."""

    budget: int  # units, those of the probe among them
    strategies: tuple[str, ...]  # as `planned` reads them, the easiest bin first
    probe: int = 0  # samples
    thresholds: tuple[float, ...] = ()  # of predicted difficulty, rising

    def bin(self, difficulty: float | None) -> int:
        """The bin, 1 the easiest; what has no score is taken to be hard."""
        return bin_of(-math.inf if difficulty is None else difficulty, self.thresholds)


@dataclass(frozen=True, slots=True)
class Policy:
    """A table of choices, and what an answer's vote says of its chance to be right."""

    about: str  # where it comes from: one sentence
    choices: tuple[Choice, ...]  # by rising budget
    generator: str = ""  # sha256 of the models it was fitted for
    verifier: str = ""
    reviser: str = ""  # "": it neither chooses a trained one nor tells of it
    calibrations: tuple[Calibration, ...] = ()
    stops: tuple[Stop, ...] = ()  # by rising promise
    temperature: float | None = None  # of the samples it was fitted on; None: the pair's own
    fitted_on: tuple[str, ...] = ()  # the problems, by `content_hash`

    def at(self, budget: int) -> Choice:
        """The choice for the nearest budget, as the ratio goes; of two, that of the smaller."""
        return min(self.choices, key=lambda c: (abs(math.log2(c.budget / budget)), c.budget))

    def calibration(self, strategy: str) -> Calibration | None:
        """That of the strategy's candidates (its name may have settings); None: not fitted."""
        name = strategy.partition(":")[0]
        return next((c for c in self.calibrations if c.strategy == name), None)


# The paper's figures 3 and 4: with little to spend beam search leads everywhere; with more, easy
# problems are best sampled, middling ones searched, and on the hardest nothing helps.
SEARCH = "beam:width=4"
PAPER = Policy(
    about="the paper's findings, with the verifier's scores cut into equal parts",
    choices=(
        Choice(budget=8, strategies=(SEARCH,)),
        Choice(
            budget=16,
            strategies=("best-of-n", "best-of-n", SEARCH, SEARCH, "best-of-n"),
            probe=4,
            thresholds=(0.2, 0.4, 0.6, 0.8),
        ),
    ),
)


def policy_of(pair: Pair) -> Policy:
    """The pair's own policy; the paper's where it has none, or one of other models.

    Where only the reviser is another, a policy that does not choose revisions stays, without what
    it says of them.

    Raises:
        PairError: when its policy.toml cannot be used.
    """
    file = pair.folder / FILE
    if not pair.generator.sha256 or not file.is_file():
        return PAPER
    policy = read_policy(file)
    *models, reviser = models_of(pair)
    usable = policy.reviser in ("", reviser) or not _chooses_revisions(policy)
    if [policy.generator, policy.verifier] != models or not usable:
        return replace(PAPER, about=f"{PAPER.about}; {file} was fitted for other models")
    if policy.reviser == reviser:
        return policy
    told = tuple(c for c in policy.calibrations if c.strategy != Revisions.name)
    return replace(policy, calibrations=told)


def read_policy(file: Path) -> Policy:
    """The policy in that file.

    Raises:
        PairError: when it cannot be used.
    """
    policy = toml.read(Policy, file, "name a file that `ttsolve calibrate` has written")
    for key, possible, remedy in _rules(policy):
        if not possible:
            raise Place(file, key).wrong("has an impossible value", f"give {remedy}")
    return policy


def write_policy(policy: Policy, file: Path) -> None:
    """Write the policy, whole or not at all; `read_policy` reads it back.

    Raises:
        StorageError: when it cannot be written.
    """
    write_whole(file, toml.dump(policy))


def models_of(pair: Pair) -> tuple[str, str, str]:
    """The sha256 of the pair's generator, verifier and reviser; "": none, or it is unknown."""
    verifier = pair.verifier.sha256 if pair.verifier else ""
    return pair.generator.sha256, verifier, pair.reviser.sha256 if pair.reviser else ""


def bound_to(policy: Policy, pair: Pair) -> Policy:
    """The policy, saying that it was fitted for the models of this pair."""
    generator, verifier, reviser = models_of(pair)
    revises = _chooses_revisions(policy) or policy.calibration(Revisions.name)
    reviser = reviser if revises else ""
    return replace(policy, generator=generator, verifier=verifier, reviser=reviser)


def _chooses_revisions(policy: Policy) -> bool:
    chosen = (text for choice in policy.choices for text in choice.strategies)
    return any(read_plan(text)[0] == Revisions.name for text in chosen)


def read_plan(text: str) -> tuple[str, dict[str, object]]:
    """The name and the settings of a text such as "beam:width=4,rounds=20".

    Raises:
        UsageError: when it is written in another way.
    """
    name, colon, rest = text.partition(":")
    settings: dict[str, object] = {}
    for part in rest.split(",") if colon else ():
        key, equals, value = part.partition("=")
        if not equals or key in settings:
            raise UsageError(f"The strategy {text!r} cannot be read: write it as {SEARCH!r}.")
        settings[key] = value
    return name, settings


def planned(text: str, budget: int) -> Strategy:
    """The strategy of such a text, sized to spend `budget` units.

    Raises:
        UsageError: when there is none of that name, or it has no such setting, value or size.
    """
    name, settings = read_plan(text)
    return strategy_named(name, budget, settings)


def planned_near(text: str, budget: int) -> Strategy:
    """As `planned`; revisions of a ratio that the budget has no chains for have one near to it."""
    try:
        return planned(text, budget)
    except UsageError:
        name, given = read_plan(text)
        ratio = given.pop("ratio", None)
        if name != Revisions.name or ratio is None or {"chains", "length"} & given.keys():
            raise
        settings = read_settings(Revisions, {"ratio": ratio, **given})
        return Revisions.near(budget, **settings)


def planned_within(text: str, budget: int) -> Strategy:
    """As `planned_near`, or best-of-N where the budget is too small."""
    try:
        return planned_near(text, budget)
    except UsageError:
        return BestOfN(budget)


def content_hash(question: str) -> str:
    """A name for what a problem asks, whatever its spacing and case: 12 hexadecimal digits."""
    plain = " ".join(question.casefold().split())
    return blake2b(plain.encode(), digest_size=6).hexdigest()


def shared(problems: Iterable[Problem], hashes: Collection[str]) -> list[Problem]:
    """The problems that are among those of the hashes."""
    return [problem for problem in problems if content_hash(problem.question) in hashes]


def _is_planned(text: str) -> bool:
    try:
        planned_near(text, LARGE)
    except UsageError:
        return False
    return True


def _rules(policy: Policy) -> Iterator[tuple[str, bool, str]]:
    """(key, whether its value is possible, what would be) beyond the value's type."""
    budgets = [choice.budget for choice in policy.choices]
    yield "choices", bool(budgets) and budgets[0] > 0, "one table for each budget, 1 unit or more"
    yield "choices", budgets == sorted(set(budgets)), "the budgets in rising order"
    for i, choice in enumerate(policy.choices):
        key, cuts = f"choices.{i}", choice.thresholds
        fits = len(choice.strategies) == len(cuts) + 1 and bool(choice.probe or not cuts)
        yield f"{key}.strategies", fits, "one for each bin: one more than thresholds"
        yield f"{key}.thresholds", list(cuts) == sorted(set(cuts)), "numbers in rising order"
        yield f"{key}.probe", 0 <= choice.probe <= choice.budget, "0 to its budget"
        yield f"{key}.strategies", all(map(_is_planned, choice.strategies)), "strategies there are"
    for i, calibration in enumerate(policy.calibrations):
        fits = len(calibration.weights) == FEATURES
        yield f"calibrations.{i}.weights", fits, f"{FEATURES} numbers"
    promises = [stop.promise for stop in policy.stops]
    yield "stops", promises == sorted(set(promises)), "the promises in rising order"
