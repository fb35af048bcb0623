"""A pair whose models are opened only for what the store does not hold: often they are not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from ttsolve import __version__
from ttsolve.core import Problem, Result, Solution, Usage
from ttsolve.engine import Engine, Event, Generator, Sampling, Verifier, Watch
from ttsolve.grade import grade
from ttsolve.pair import Pair, ReviserFiles
from ttsolve.pair_files import fingerprint
from ttsolve.solve import Tokenizing, solve, unknown_words
from ttsolve.store import Store
from ttsolve.store_steps import digest
from ttsolve.stored import StoredGenerator, StoredVerifier
from ttsolve.strategies import Strategy
from ttsolve.tree import Tree, tree_of

Models = tuple[Generator, Verifier | None]


@dataclass(frozen=True)
class Solved:
    """A run that ended."""

    result: Result
    trace: Sequence[Event]
    run: int | None  # its id in the store; None: nothing is kept
    correct: bool | None  # None: not graded
    mark: str = "Answer:"  # of the answer

    @cached_property
    def tree(self) -> Tree:
        """How it went."""
        return tree_of(self.trace, self.result, self.mark)


@dataclass
class StoredPair:
    """The models of a pair behind a store; `opens` opens them, when they are first needed.

    That is at once, unless the store knows the names of the pair's models. `opens_reviser` opens
    the reviser and its verifier, when something is first revised.
    """

    pair: Pair
    store: Store
    opens: Callable[[], Models]
    opens_reviser: Callable[[], Models] | None = None  # None: there is no reviser

    def __post_init__(self) -> None:
        self._models = _Late(self, _key(self.pair), self.opens)
        if not self._models.names:
            self.open()
        self.generator = StoredGenerator(_LateGenerator(self._models), self.store)
        self.verifier: StoredVerifier | None = None
        if self._models.names and self._models.names[1]:
            self.verifier = StoredVerifier(_LateVerifier(self._models), self.store)
        self.reviser: StoredGenerator | None = None
        self.revision_verifier: StoredVerifier | None = None
        if self.pair.reviser and self.opens_reviser:
            late = _Late(self, _key(self.pair, self.pair.reviser), self.opens_reviser)
            self.reviser = StoredGenerator(_LateGenerator(late), self.store)
            if self.pair.reviser.verifier:
                self.revision_verifier = StoredVerifier(_LateVerifier(late), self.store)

    @property
    def models(self) -> Models | None:
        """The generator and the verifier; None: they are not open."""
        return self._models.models

    def open(self) -> Models:
        """The generator and the verifier themselves.

        Raises:
            ModelError: when a file is missing, damaged or of the wrong kind.
        """
        return self._models.open()

    def engine(
        self,
        budget: int,
        *,
        seed: int = 0,
        temperature: float | None = None,
        stop: threading.Event | None = None,
        listen: Callable[[Event], None] | None = None,
    ) -> Engine:
        """An engine for one run: see `Engine`; temperature None: the pair's own."""
        sampling = self.pair.sampling
        if temperature is not None:
            sampling = replace(sampling, temperature=temperature)
        return Engine(
            self.generator,
            self.verifier,
            self.reviser,
            self.revision_verifier,
            seed=seed,
            sampling=sampling,
            budget=budget,
            listen=listen,
            stop=stop or threading.Event(),
        )

    def solve(
        self,
        problem: Problem,
        engine: Engine,
        strategy: Strategy,
        unknown_words: Sequence[str] | None = None,
        begun: Callable[[int], None] = lambda run: None,
    ) -> Solved:
        """Solve the problem and keep the run; `begun` hears of its id, where runs are kept.

        Raises:
            TtsolveError: what ended the run; the store keeps the sentence.
        """
        run = self.store.begin_run(problem, engine, strategy, self.pair, unknown_words)
        if run is not None:
            begun(run)
        with self.store.noting_errors(run):
            # The reference stays here: nothing that solves the problem is given it.
            result = solve(Problem(problem.question), engine, strategy, self.pair)
        graded = problem.reference is not None and not result.interrupted
        correct = grade(problem, result.answer) if graded else None
        mark = self.pair.prompt.answer
        solved = Solved(result, engine.trace, run, correct, mark)
        if run is not None:  # None: nothing is kept, and nobody could ask for the tree
            tree = solved.tree.to_json()
            self.store.finish_run(run, result, self.pair, tree=tree, correct=correct)
        return solved

    def unknown_words(self, question: str) -> list[str]:
        """The question's words from outside the pair's world: see `solve.unknown_words`."""
        if self.pair.world is None:
            return []
        noted = self.store.unknown_words(question, self.generator.name)
        if noted is not None:
            return noted
        generator, _ = self.open()
        if not isinstance(generator, Tokenizing):
            return []
        return unknown_words(question, generator.tokenize, self.pair.world)


class _Late:
    """A generator and its verifier, opened when one of them is first needed."""

    def __init__(self, pair: StoredPair, key: str, opens: Callable[[], Models]) -> None:
        self.models: Models | None = None  # None: not open
        self.names = pair.store.names(key)  # None: they were never open
        self._pair, self._key, self._opens = pair, key, opens
        self._lock = threading.Lock()

    def open(self) -> Models:
        """The models themselves."""
        with self._lock:
            if self.models is None:
                generator, verifier = self.models = self._opens()
                self.names = generator.name, verifier.name if verifier else None
                self._pair.store.keep_names(self._key, self._pair.pair.name, *self.names)
            return self.models

    def name(self, which: int) -> str:
        """The name of the generator (0) or of the verifier (1); where it is unknown, they open."""
        if self.names is None:
            self.open()
        assert self.names is not None
        name = self.names[which]
        assert name is not None
        return name


@dataclass(frozen=True)
class _LateGenerator:
    """A generator that is opened when it is first asked."""

    late: _Late

    @property
    def name(self) -> str:
        return self.late.name(0)

    @property
    def params(self) -> int:
        # While it is not open it has computed nothing, so there is nothing to multiply.
        return self.late.models[0].params if self.late.models else 0

    def sample(
        self,
        prefixes: Sequence[Solution],
        how: Sequence[Sampling],
        watch: Watch | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[list[Solution], Usage]:
        """Open it, and let it sample."""
        generator, _ = self.late.open()
        return generator.sample(prefixes, how, watch, stop)


@dataclass(frozen=True)
class _LateVerifier:
    """A verifier that is opened when it is first asked."""

    late: _Late

    @property
    def name(self) -> str:
        return self.late.name(1)

    @property
    def params(self) -> int:
        verifier = self.late.models[1] if self.late.models else None
        return verifier.params if verifier else 0

    def score(self, solutions: Sequence[Solution]) -> tuple[list[Solution], Usage]:
        """Open it, and let it score."""
        _, verifier = self.late.open()
        assert verifier is not None
        return verifier.score(solutions)


def _key(pair: Pair, reviser: ReviserFiles | None = None) -> str:
    """A name for what the names of a pair's models, or of its reviser's, depend on."""
    file = pair.generator
    generator = file.sha256 or f"{file.file} {file.model}"
    if not file.sha256 and not file.endpoint:
        generator = fingerprint(pair.generator_path) if file.file else pair.name
    verifier = asdict(pair.verifier) if pair.verifier else None
    revises = [asdict(reviser)] if reviser else []
    return digest(__version__, generator, verifier, asdict(pair.prompt), *revises)
