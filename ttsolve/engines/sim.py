"""A generator and a verifier made of dice: for tests, and for trying a strategy without a model.

The text of a prefix and the seed of the sample are the seed of its continuation, so what a call
returns never depends on what else was in the batch, nor on how the work was cut into calls.
"""

from __future__ import annotations

import math
import random
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from ttsolve.core import Solution, Step, Usage
from ttsolve.engine import Sampling, Watch

RIGHT_ANSWER = "42"
TOKENS = 10  # of every step
CHANCE = re.compile(r"\bp=(0?\.[0-9]+|[01](?![0-9.]))")  # in a question


@dataclass
class SimGenerator:
    """Dice that write solutions of `depth` steps, each right with probability `p_step`.

    The answer is `RIGHT_ANSWER` when every step was right, else another number. A question that
    says `p=0.6` has that probability for each of its steps: a problem of known difficulty.
    """

    p_step: float = 0.8
    depth: int = 5
    delay: float = 0.0  # seconds a sample takes, so that the live view has something to show
    params: int = 1_000_000
    name: str = "sim"
    batches: int = field(default=0, compare=False)  # how many calls of `sample` there were

    def sample(
        self,
        prefixes: Sequence[Solution],
        how: Sequence[Sampling],
        watch: Watch | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[list[Solution], Usage]:
        """Continue each prefix as its `Sampling` says (temperature 0: every die shows its mode)."""
        self.batches += 1
        out = []
        for i, (prefix, sampling) in enumerate(zip(prefixes, how, strict=True)):
            if stop and stop.is_set():
                out.append(replace(prefix, finish="budget"))
                continue
            if self.delay:
                time.sleep(self.delay)
            out.append(self._grow(prefix, sampling))
            if watch:
                watch(i, out[-1])
        before = sum(prefix.tokens for prefix in prefixes)
        generated = sum(solution.tokens for solution in out) - before
        questions = {prefix.problem.question for prefix in prefixes}
        prompt = sum(len(question.split()) for question in questions)
        return out, Usage(generated_tokens=generated, prompt_tokens=prompt, reused_tokens=before)

    def _grow(self, prefix: Solution, how: Sampling) -> Solution:
        steps = self.depth if how.steps is None else how.steps
        room = prefix.tokens + how.max_tokens
        for _ in range(min(steps, self.depth - len(prefix.steps))):
            if prefix.tokens + TOKENS > room:
                return replace(prefix, finish="length")
            prefix = prefix.grow(self._step(prefix, how))
        return replace(prefix, finish="stop") if len(prefix.steps) == self.depth else prefix

    def chance(self, question: str) -> float:
        """The probability that a step is right."""
        said = CHANCE.search(question)
        return float(said[1]) if said else self.p_step

    def _step(self, prefix: Solution, how: Sampling) -> Step:
        seed = how.seed if how.temperature else None
        dice = _dice(prefix.problem.question, prefix.text, len(prefix.attempts), seed)
        chance = self.chance(prefix.problem.question)
        right = dice.random() < chance if how.temperature else chance > 0.5
        right_before = "wrong" not in prefix.text
        if len(prefix.steps) < self.depth - 1:
            return Step("right\n" if right else f"wrong {dice.randrange(3)}\n", TOKENS)
        answer = RIGHT_ANSWER if right and right_before else dice.choice((40, 41, 43, 44))
        return Step(f"Answer: {answer}\n", TOKENS)


@dataclass
class SimVerifier:
    """Knows the truth of every step, and adds noise that is always the same for the same text."""

    noise: float = 1.5  # standard deviation, in logits
    params: int = 1_000_000
    name: str = "sim"

    def score(self, solutions: Sequence[Solution]) -> tuple[list[Solution], Usage]:
        """Fill in the score of every step that has none."""
        tokens = sum(s.tokens for solution in solutions for s in solution.steps if s.score is None)
        return [self._scored(solution) for solution in solutions], Usage(verifier_tokens=tokens)

    def _scored(self, solution: Solution) -> Solution:
        text, steps = "", []
        for step in solution.steps:
            text += step.text
            steps.append(step if step.score is not None else self._judged(step, text, solution))
        return replace(solution, steps=tuple(steps))

    def _judged(self, step: Step, text: str, solution: Solution) -> Step:
        wrong = "wrong" in text or ("Answer" in text and RIGHT_ANSWER not in text)
        noise = _dice("score", solution.problem.question, text).gauss(0, self.noise)
        return replace(step, score=1 / (1 + math.exp(-noise - (-2 if wrong else 2))))


def _dice(*key: object) -> random.Random:
    return random.Random(blake2b(repr(key).encode(), digest_size=8).digest())
