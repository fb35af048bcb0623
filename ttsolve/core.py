"""The nouns: Problem, Step, Solution, Usage, Result. Every other module speaks in these."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

Finish = Literal["stop", "length", "budget"]


class NotScored(AssertionError):
    """A strategy asked for the score of a step that no verifier has seen: a bug in the strategy."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A question; and, for measuring only, how its answer is judged: no generator sees that."""

    question: str
    reference: str | None = None  # the known answer
    check: str | None = None  # a named checker, where many answers are right
    id: str = ""
    level: int | None = None  # 1 (easy) to 5 (hard), as its author graded it
    subject: str | None = None

    @property
    def root(self) -> Solution:
        """The empty prefix, from which every solution grows."""
        return Solution(self)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a solution."""

    text: str  # with its trailing separator, so that "".join(texts) is the solution
    tokens: int  # how many tokens the generator spent on it
    ids: tuple[int, ...] = ()  # the generator's own token ids (empty over HTTP)
    score: float | None = None  # P(correct | prefix up to here), 0..1; None: not scored yet


@dataclass(frozen=True, slots=True)
class Solution:
    """A solution, finished or not. Growing one makes a new one; prefixes are shared."""

    problem: Problem
    steps: tuple[Step, ...] = ()
    finish: Finish | None = (
        None  # "stop": it ended by itself; "length", "budget": it was cut; None: a prefix
    )
    attempts: tuple[Solution, ...] = ()  # earlier answers it was shown, oldest first (revisions)
    chain: int | None = None  # the chain of revisions it stands in, 0, 1, …; None: in none

    @property
    def done(self) -> bool:
        return self.finish is not None

    @property
    def text(self) -> str:
        return "".join(step.text for step in self.steps)

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(token for step in self.steps for token in step.ids)

    @property
    def tokens(self) -> int:
        return sum(step.tokens for step in self.steps)

    @property
    def scores(self) -> tuple[float, ...]:
        """The verifier's score of every step.

        Raises:
            NotScored: when a step has none.
        """
        if any(step.score is None for step in self.steps):
            raise NotScored(f"a step of {self.text!r} has no score")
        return tuple(step.score for step in self.steps if step.score is not None)

    def grow(self, *steps: Step, finish: Finish | None = None) -> Solution:
        """This prefix with further steps, and how it finished (None: it has not)."""
        return replace(self, steps=(*self.steps, *steps), finish=finish)


@dataclass(frozen=True, slots=True)
class Usage:
    """The bill: `units` are the paper's generations; tokens, seconds, FLOPs stand beside them."""

    units: int = 0  # generations charged against --budget
    generated_tokens: int = 0
    prompt_tokens: int = 0  # prompt (prefix) tokens the generator really decoded
    reused_tokens: int = 0  # tokens of prefixes, or of rollouts agreed with, that were cached
    verifier_tokens: int = 0  # tokens the verifier really computed
    seconds: float = 0.0
    generator_flops: float = 0.0  # 2 · parameters · tokens computed
    verifier_flops: float = 0.0
    recalled_tokens: int = 0  # generated tokens found in the store, and not computed again
    recalled_scores: int = 0  # scores of steps found there

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f) + getattr(other, f) for f in self.__dataclass_fields__))


@dataclass(frozen=True, slots=True)
class Result:
    """What `solve` returns."""

    problem: Problem
    answer: str | None  # None: no candidate gave one
    share: float  # the answer's part of the vote's total weight, 0..1
    candidates: tuple[Solution, ...]
    best: Solution | None  # the highest-scored candidate that gives the answer
    strategy: str
    settings: dict[str, object] = field(default_factory=dict)
    seed: int = 0
    pair: str = ""
    usage: Usage = Usage()
    interrupted: bool = False  # Ctrl-C ended the run; the answer is the best of what there was
    votes: tuple[tuple[str, float, int], ...] = ()  # (answer, weight, candidates), winner first
