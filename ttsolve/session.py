"""A session: one problem after another, of one pair whose models stay open. No terminal is here.

Under a name it is kept in the store, each change at once, and goes on from there another day.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from ttsolve.auto import plan_for
from ttsolve.core import Problem, Result, Usage
from ttsolve.engine import Event
from ttsolve.errors import TtsolveError, UsageError
from ttsolve.pair import Pair
from ttsolve.strategies import BestOfN, Strategy
from ttsolve.tree import Tree

if TYPE_CHECKING:  # they open SQLite, and --help does without
    from ttsolve.recall import StoredPair
    from ttsolve.store import Store
    from ttsolve.store_history import Run

LOOK_BACK = 100  # runs, among them the last that did not fail


@dataclass(frozen=True, slots=True)
class Settings:
    """How the problems of a session are solved."""

    budget: int = 16  # units, for each problem
    strategy: str = BestOfN.name
    settings: Mapping[str, str] = field(default_factory=dict)  # of the strategy, as typed
    confidence: float | None = None  # the promise at which `auto` stops
    pair: str | None = None  # a name or a folder; None: the default one
    generator: str | None = None  # a file or an endpoint in place of a pair
    model: str | None = None  # of the endpoint
    few_shot: str | None = None  # a file
    seed: int = 0
    temperature: float | None = None  # None: the pair's own

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The settings that were kept; what another version kept beside them is left out."""
        known = {f.name for f in fields(cls)}
        return cls(**{key: value for key, value in record.items() if key in known})

    def updated(self, **given: Any) -> Self:
        """These settings with those given in their place.

        Another strategy begins without the settings of the one before, another pair likewise.
        """
        if "strategy" in given:
            given = {"settings": {}, "confidence": None, **given}
        if "pair" in given or "generator" in given:
            given = {**dict.fromkeys(("pair", "generator", "model", "few_shot")), **given}
        return replace(self, **given)

    def __str__(self) -> str:
        promise = {} if self.confidence is None else {"confidence": self.confidence}
        words = [f"{key}={value}" for key, value in {**self.settings, **promise}.items()]
        return " ".join([f"budget {self.budget}, strategy {self.strategy}", *words])


@dataclass(frozen=True, slots=True)
class Asked:
    """A problem, and what is to be spent on it."""

    question: str
    budget: int
    strategy: Strategy


@dataclass(frozen=True, slots=True)
class Account:
    """What is told of a run: how it went, what was spent, how it voted."""

    run: int | None  # its id in the store; None: it is not kept in a file
    tree: Tree
    bill: Usage
    votes: tuple[tuple[str, float, int], ...]  # (answer, weight, candidates), the winner first


@dataclass(frozen=True, slots=True)
class Last:
    """The problem that was asked for last."""

    question: str
    budget: int
    ended: bool = False  # by itself; False: it was stopped
    account: Callable[[], Account] | None = None  # None: it was given up, and there was no vote

    @classmethod
    def of_run(cls, run: Run) -> Self:
        """As the store tells it."""

        def account() -> Account:
            return Account(run.id, Tree.from_json(run.tree or ""), run.bill, run.votes)

        return cls(run.problem, run.budget, run.status == "done", account if run.tree else None)


class Session:
    """What a session is at one moment, and what can be asked of it.

    `name`: kept under it in the store; None: nowhere. `models` opens the pair, when the first
    problem is asked.
    """

    def __init__(
        self,
        pair: Pair,
        settings: Settings,
        store: Store,
        models: Callable[[], StoredPair],
        name: str | None = None,
    ) -> None:
        self.pair = pair
        self.settings = settings
        self.store = store
        self.name = name
        self._open = models
        self._plan(settings.budget, settings.confidence)  # what is wrong is told before it is kept
        runs = store.runs(LOOK_BACK, name) if name is not None else []
        tried = (Last.of_run(run) for run in runs if run.status != "failed")
        self.last = next(tried, None)
        self._keep()

    @property
    def problems(self) -> int:
        """How many problems were asked in it, where it has a name."""
        from ttsolve.store_sessions import session_problems

        return session_problems(self.store, self.name) if self.name is not None else 0

    @cached_property
    def models(self) -> StoredPair:
        """The pair's models, the same for all problems.

        Raises:
            ModelError: when a file is missing, damaged or of the wrong kind.
        """
        return self._open()

    def change(self, settings: Settings) -> None:
        """Solve the problems to come in another way.

        Raises:
            UsageError, PairError: when they cannot be used; then all is as it was.
        """
        before, self.settings = self.settings, settings
        try:
            self._plan(settings.budget, settings.confidence)
        except TtsolveError:
            self.settings = before
            raise
        self._keep()

    def asked(self, question: str) -> Asked:
        """The problem, to be solved as the session's settings say."""
        budget = self.settings.budget
        return Asked(question, budget, self._plan(budget, self.settings.confidence))

    def more(self) -> Asked:
        """The last problem, with the budget that spends as much again on it.

        One that was stopped has some of its budget left: that is what is spent first. One that was
        surely enough right is not stopped there again.

        Raises:
            UsageError: when there is none.
        """
        if self.last is None:
            raise UsageError("There is no problem yet to spend more on: type one first.")
        ended = self.last.ended
        budget = self.last.budget * (2 if ended else 1)
        promise = None if ended else self.settings.confidence
        return Asked(self.last.question, budget, self._plan(budget, promise))

    def solve(
        self,
        asked: Asked,
        *,
        unknown_words: Sequence[str] | None = None,
        stop: threading.Event | None = None,
        listen: Callable[[Event], None] | None = None,
    ) -> Result:
        """Solve a problem, which is the last one then, unless an error ends it.

        `stop`, `listen`: see `Engine`.

        Raises:
            TtsolveError: what ended it.
        """
        how = self.settings
        engine = self.models.engine(
            asked.budget, seed=how.seed, temperature=how.temperature, stop=stop, listen=listen
        )
        before, self.last = self.last, Last(asked.question, asked.budget)
        problem = Problem(asked.question)
        try:
            solved = self.models.solve(
                problem, engine, asked.strategy, unknown_words, begun=self._keep
            )
        except TtsolveError:
            self.last = before
            raise
        result = solved.result

        def account() -> Account:
            run = solved.run if self.store.path else None  # nobody else can ask for it
            return Account(run, solved.tree, result.usage, result.votes)

        self.last = replace(self.last, ended=not result.interrupted, account=account)
        return result

    def why(self) -> Account:
        """What is told of the last problem.

        Raises:
            UsageError: when there is none, or it came to no vote.
        """
        if self.last is None:
            raise UsageError("There is no problem yet to tell of: type one first.")
        if self.last.account is None:
            raise UsageError("The last problem was stopped before a vote: /more goes on with it.")
        return self.last.account()

    def _plan(self, budget: int, confidence: float | None) -> Strategy:
        """The strategy of the session, sized to the budget.

        Raises:
            UsageError, PairError: when there is no such strategy or setting: see `plan_for`.
        """
        how = self.settings
        return plan_for(
            how.strategy,
            budget,
            self.pair,
            how.settings,
            confidence=confidence,
            temperature=how.temperature,
        )

    def _keep(self, asked: int | None = None) -> None:
        """Keep the session as it is, where it has a name; `asked`: the run that now begins."""
        if self.name is not None:
            from ttsolve.store_sessions import keep_session

            keep_session(self.store, self.name, asdict(self.settings), asked)
