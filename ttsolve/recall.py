"""A pair whose models are opened only for what the store does not hold: often they are not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from ttsolve import __version__
from ttsolve.core import Solution, Usage
from ttsolve.engine import Generator, Sampling, Verifier, Watch
from ttsolve.pair import Pair, fingerprint
from ttsolve.solve import Tokenizing, unknown_words
from ttsolve.store import Store
from ttsolve.store_steps import digest
from ttsolve.stored import StoredGenerator, StoredVerifier

Models = tuple[Generator, Verifier | None]


@dataclass
class StoredPair:
    """The models of a pair behind a store; `opens` opens them, when they are first needed.

    That is at once, unless the store knows the names of the pair's models.
    """

    pair: Pair
    store: Store
    opens: Callable[[], Models]

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.models: Models | None = None  # None: not open
        generator: Generator
        verifier: Verifier | None
        if names := self.store.names(_key(self.pair)):
            generator = _LateGenerator(names[0], self)
            verifier = _LateVerifier(names[1], self) if names[1] else None
        else:
            generator, verifier = self.open()
        self.generator = StoredGenerator(generator, self.store)
        self.verifier = StoredVerifier(verifier, self.store) if verifier else None

    def open(self) -> Models:
        """The models themselves.

        Raises:
            ModelError: when a file is missing, damaged or of the wrong kind.
        """
        with self._lock:
            if self.models is None:
                generator, verifier = self.models = self.opens()
                name = verifier.name if verifier else None
                self.store.keep_names(_key(self.pair), self.pair.name, generator.name, name)
            return self.models

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
        return unknown_words(question, generator.tokenize)


@dataclass(frozen=True)
class _LateGenerator:
    """A generator whose name is known, opened when it is first asked."""

    name: str
    pair: StoredPair

    @property
    def params(self) -> int:
        # While it is not open it has computed nothing, so there is nothing to multiply.
        return self.pair.models[0].params if self.pair.models else 0

    def sample(
        self,
        prefixes: Sequence[Solution],
        how: Sequence[Sampling],
        watch: Watch | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[list[Solution], Usage]:
        """Open it, and let it sample."""
        generator, _ = self.pair.open()
        return generator.sample(prefixes, how, watch, stop)


@dataclass(frozen=True)
class _LateVerifier:
    """A verifier whose name is known, opened when it is first asked."""

    name: str
    pair: StoredPair

    @property
    def params(self) -> int:
        verifier = self.pair.models[1] if self.pair.models else None
        return verifier.params if verifier else 0

    def score(self, solutions: Sequence[Solution]) -> tuple[list[Solution], Usage]:
        """Open it, and let it score."""
        _, verifier = self.pair.open()
        assert verifier is not None
        return verifier.score(solutions)


def _key(pair: Pair) -> str:
    """A name for what the names of a pair's models depend on."""
    file = pair.generator
    generator = file.sha256 or (fingerprint(pair.generator_path) if file.file else pair.name)
    verifier = asdict(pair.verifier) if pair.verifier else None
    return digest(__version__, generator, verifier, asdict(pair.prompt))
