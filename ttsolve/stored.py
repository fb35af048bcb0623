"""What was computed once is recalled: the store, put before a generator and a verifier.

An `Engine` does not notice. It charges a recalled candidate like any other, and the bill tells the
tokens recalled from those computed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

from ttsolve.core import Solution, Step, Usage
from ttsolve.engine import Generator, Sampling, Verifier, Watch
from ttsolve.store import Grown, SampleKey, Store
from ttsolve.store_steps import canonical, path, root_id, root_row, shown

AT_ONCE = 64  # solutions the verifier is given between two commits


@dataclass(frozen=True)
class StoredGenerator:
    """A generator that is asked only for what the store does not hold."""

    generator: Generator
    store: Store

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
        """Continue each prefix as its `Sampling` says: see `ttsolve.engine.Generator`.

        What is asked twice at once (as a greedy continuation may be) is computed once.
        """
        places: dict[SampleKey, list[int]] = {}  # which prefixes wait for what
        for i, (prefix, sampling) in enumerate(zip(prefixes, how, strict=True)):
            if not prefix.done:
                places.setdefault(self._key(prefix, sampling), []).append(i)
        out = list(prefixes)

        def settle(key: SampleKey, grown: Grown, tell: bool = True) -> None:
            for i in places[key]:
                prefix = shown(prefixes[i], grown.shown)
                out[i] = prefix.grow(*grown.steps, finish=grown.finish)
                if tell and watch:
                    watch(i, out[i])

        missing: list[SampleKey] = []
        for key, found in zip(places, self.store.samples(list(places)), strict=True):
            if found:
                settle(key, found)
            else:
                missing.append(key)
        asked = [places[key][0] for key in missing]

        def ended(lane: int, solution: Solution) -> None:
            grown = _grown(prefixes[asked[lane]], solution)
            if grown.finish != "budget":
                self.store.keep_sample(missing[lane], grown)
            settle(missing[lane], grown)

        usage = Usage()
        if missing:
            some = [prefixes[i] for i in asked]
            grown, usage = self.generator.sample(some, [how[i] for i in asked], ended, stop)
            for key, prefix, solution in zip(missing, some, grown, strict=True):
                settle(key, _grown(prefix, solution), tell=False)
        recalled = set(range(len(out))) - set(asked)
        tokens = sum(out[i].tokens - prefixes[i].tokens for i in recalled)
        return out, replace(usage, recalled_tokens=tokens)

    def _key(self, prefix: Solution, how: Sampling) -> SampleKey:
        # Greedy continuations are all the same, whatever their seed.
        seed = how.seed if how.temperature else 0
        settings = _settings(replace(how, seed=0))
        return SampleKey(self.name, settings, seed, root_row(prefix), path(prefix)[-1])


@dataclass(frozen=True)
class StoredVerifier:
    """A verifier that is asked only for the scores that the store does not hold."""

    verifier: Verifier
    store: Store

    @property
    def name(self) -> str:
        return self.verifier.name

    @property
    def params(self) -> int:
        return self.verifier.params

    def score(self, solutions: Sequence[Solution]) -> tuple[list[Solution], Usage]:
        """Fill in the score of every step that has none; same order, same length."""
        paths = [path(solution)[1:] for solution in solutions]
        out, usage = self._recalled(solutions, paths)
        missing = [i for i, solution in enumerate(out) if _unscored(solution)]
        for start in range(0, len(missing), AT_ONCE):
            some = missing[start : start + AT_ONCE]
            scored, used = self.verifier.score([out[i] for i in some])
            usage += used
            for i, solution in zip(some, scored, strict=True):
                new = [
                    (id_, step.score)
                    for id_, old, step in zip(paths[i], out[i].steps, solution.steps, strict=True)
                    if old.score is None and step.score is not None
                ]
                self.store.keep_scores(self.name, new)
                out[i] = solution
        return out, usage

    def _recalled(
        self, solutions: Sequence[Solution], paths: Sequence[Sequence[str]]
    ) -> tuple[list[Solution], Usage]:
        """The solutions with the scores that the store holds."""
        wanted = list(
            dict.fromkeys(
                id_
                for solution, ids in zip(solutions, paths, strict=True)
                for id_, step in zip(ids, solution.steps, strict=True)
                if step.score is None
            )
        )
        known = dict(zip(wanted, self.store.scores(self.name, wanted), strict=True))

        def filled(id_: str, step: Step) -> Step:
            if step.score is not None or (score := known[id_]) is None:
                return step
            return replace(step, score=score)

        out = [
            replace(solution, steps=tuple(map(filled, ids, solution.steps)))
            for solution, ids in zip(solutions, paths, strict=True)
        ]
        found = sum(map(_unscored, solutions)) - sum(map(_unscored, out))
        return out, Usage(recalled_scores=found)


def _grown(prefix: Solution, solution: Solution) -> Grown:
    less = len(solution.attempts) < len(prefix.attempts)
    root = root_id(solution) if less else None
    return Grown(solution.steps[len(prefix.steps) :], solution.finish, root)


def _unscored(solution: Solution) -> int:
    return sum(step.score is None for step in solution.steps)


@lru_cache(maxsize=64)
def _settings(how: Sampling) -> str:
    """All of how a continuation is drawn but its seed, as one JSON text."""
    settings = asdict(how)
    del settings["seed"]
    for key in ("temperature", "top_p", "min_p"):
        settings[key] = float(settings[key])  # 1 and 1.0 are one setting
    return canonical(settings)
