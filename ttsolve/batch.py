"""Many problems in one engine: threads solve side by side, outcomes come out in input order.

The calls of all threads meet in the generator's one decode loop, where the few samples of each
problem make one wide batch. Nothing is read far ahead: between the outcome handed out last and the
line read last there are never more than `WINDOW` lines for each thread, however long one problem
takes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from ttsolve.core import Usage
from ttsolve.dataset import Entry
from ttsolve.engine import Engine, Event
from ttsolve.errors import ProblemTooLong
from ttsolve.strategies import Strategy

if TYPE_CHECKING:  # it opens SQLite, and --help does without
    from ttsolve.recall import StoredPair

LANES = 128  # samples in flight: twice what a generator decodes at once keeps it busy
FEWEST = 8  # problems in flight: while the last sample of one is drawn, others go on
WINDOW = 8  # lines for each thread
POLL = 0.05  # seconds between two looks at the stop event
PATIENCE = 5.0  # seconds for what is in flight to end when the batch is given up


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one line came to."""

    record: dict[str, object]  # nothing in it depends on what else was in flight, or stored
    usage: Usage = Usage()  # what was really computed
    foreign: bool = False  # the question has words that the pair does not know

    @property
    def failed(self) -> bool:
        return "error" in self.record

    @property
    def answered(self) -> bool:
        return self.record.get("answer") is not None


@dataclass(frozen=True)
class Solver:
    """Solves entries, in any thread: what their runs have in common."""

    strategy: Strategy
    models: StoredPair
    new_engine: Callable[[], Engine]

    def __call__(self, entry: Entry) -> Outcome | None:
        """The entry's outcome; None when it was stopped before its end."""
        problem = entry.problem
        if problem is None:
            return _failure(entry, str(entry.error))
        engine = self.new_engine()
        try:
            words = self.models.unknown_words(problem.question)
            solved = self.models.solve(problem, engine, self.strategy, words)
        except ProblemTooLong as error:
            return _failure(entry, str(error), engine.usage)
        result = solved.result
        if result.interrupted:
            return None
        record = {
            **_name(entry),
            "answer": result.answer,
            "confidence": round(result.share, 4),
            "strategy": result.strategy,
            "bill": {"units": engine.usage.units, **tokens_of(engine.trace)},
        }
        if solved.correct is not None:
            record["correct"] = solved.correct
        return Outcome(record, engine.usage, foreign=bool(words))


def tokens_of(trace: Sequence[Event]) -> dict[str, int]:
    """The tokens of a run, all of them: also those that another run had computed before it."""
    grown = [event for event in trace if event.verb != "score"]
    scored = [event for event in trace if event.verb == "score"]
    return {
        "generated_tokens": sum(e.child.tokens - e.parent.tokens for e in grown),
        "verifier_tokens": sum(
            new.tokens
            for event in scored
            for old, new in zip(event.parent.steps, event.child.steps, strict=True)
            if old.score is None
        ),
    }


def _name(entry: Entry) -> dict[str, object]:
    return {"file": entry.file, "id": entry.id} if entry.file else {"id": entry.id}


def _failure(entry: Entry, error: str, usage: Usage = Usage()) -> Outcome:
    return Outcome({**_name(entry), "line": entry.line, "error": error}, usage)


@dataclass
class Tally:
    """What the outcomes so far came to."""

    lines: int = 0
    answers: int = 0
    errors: int = 0
    graded: int = 0
    correct: int = 0
    foreign: int = 0
    usage: Usage = field(default_factory=Usage)  # its seconds are those of all threads

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        self.lines += 1
        self.answers += outcome.answered
        self.errors += outcome.failed
        self.graded += "correct" in outcome.record
        self.correct += outcome.record.get("correct") is True
        self.foreign += outcome.foreign
        self.usage += outcome.usage


# --- side by side -----------------------------------------------------------------------------


def enough(budget: int) -> int:
    """How many problems side by side keep a generator busy, each with so many units."""
    return max(LANES // budget, FEWEST)


Solve = Callable[[Entry], Outcome | None]


def outcomes(
    entries: Iterable[Entry],
    solver: Solve,
    stop: threading.Event,
    *,
    in_flight: int,
    ordered: bool = True,
) -> Generator[Outcome]:
    """The outcomes of the entries, in their order, or as they end.

    Args:
        stop: the one of the solver's engines. When it is set, nothing more is begun, what is in
            flight is dropped, and what had ended comes out. Giving the generator up sets it.

    Raises:
        Exception: what reading or solving raised, after the rest was stopped.
    """
    flight = _Flight(entries, solver, stop, in_flight)
    try:
        ended = flight.ended()
        for outcome in _in_order(ended) if ordered else (outcome for _, outcome in ended):
            yield outcome
            flight.room.release()
    except BaseException:
        flight.give_up()
        raise


def _in_order(ended: Iterable[tuple[int, Outcome]]) -> Iterator[Outcome]:
    held: dict[int, Outcome] = {}  # each waits for one before it
    following = 0
    for place, outcome in ended:
        held[place] = outcome
        while following in held:
            yield held.pop(following)
            following += 1
    yield from (held[place] for place in sorted(held))  # stopped: those before never ended


class _Flight:
    """Threads that read an entry, solve it, hand its outcome over, and read the next."""

    def __init__(
        self, entries: Iterable[Entry], solver: Solve, stop: threading.Event, threads: int
    ) -> None:
        self.room = threading.Semaphore(WINDOW * threads)
        self._solver = solver
        self._stop = stop
        self._entries = enumerate(entries)
        self._reading = threading.Lock()
        self._solving: set[int] = set()
        self._news: SimpleQueue[tuple[int, Outcome | None] | Exception | None] = SimpleQueue()
        self._threads = threads
        for _ in range(threads):  # daemons, since one may be reading what never comes
            threading.Thread(target=self._run, name="ttsolve-batch", daemon=True).start()

    def ended(self) -> Iterator[tuple[int, Outcome]]:
        """(place among the entries, outcome) of each that ended, as they end."""
        running = self._threads
        while running and (self._solving or not self._stop.is_set() or not self._news.empty()):
            try:
                news = self._news.get(timeout=POLL)
            except Empty:
                continue
            if news is None:
                running -= 1
            elif isinstance(news, Exception):
                raise news
            elif news[1] is not None:
                yield news[0], news[1]

    def give_up(self) -> None:
        """Stop what is in flight, and see it end: models must not be closed under it."""
        self._stop.set()
        deadline = time.monotonic() + PATIENCE
        while self._solving and time.monotonic() < deadline:
            time.sleep(POLL)

    def _run(self) -> None:
        try:
            while (taken := self._take()) is not None:
                place, entry = taken
                try:
                    self._news.put((place, self._solver(entry)))
                finally:
                    self._solving.discard(place)
        except Exception as error:
            self._news.put(error)
        else:
            self._news.put(None)

    def _take(self) -> tuple[int, Entry] | None:
        """The next entry; None when there is none, or the batch is stopped."""
        with self._reading:
            while not self.room.acquire(timeout=POLL):
                if self._stop.is_set():
                    return None
            taken = next(self._entries, None)
            if taken is None or self._stop.is_set():
                return None
            self._solving.add(taken[0])
            return taken
