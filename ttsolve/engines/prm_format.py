"""How a published process reward model is fed and read: the verifier.toml beside its ONNX file.

A model judges well only what is tokenised as in its training, so the file says how its text is
laid out, where a step's score is, and holds test vectors that must come out when it is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ttsolve import toml
from ttsolve.core import Problem, Solution, Step
from ttsolve.errors import ModelError
from ttsolve.vote import Aggregation

Link = Literal["softmax", "sigmoid", "difference", "identity"]
Strip = Literal["both", "right", "newlines"]


@dataclass(frozen=True, slots=True)
class PrmFormat:
    """A verifier.toml. Its layouts may hold special tokens; a question or a step never does."""

    family: str
    prompt: str  # what stands before the steps, with {question}
    step: str  # a step and its mark: {step}, and {number} where steps are numbered
    context: int  # tokens the model reads
    tolerance: float  # how far a score may be from a test vector's
    first: str = ""  # the first step, where it is laid out otherwise
    read: int = -1  # which of a step's tokens has its score; -1: the last
    apart: bool = False  # steps and marks are tokenised alone, not as one text
    lines: bool = False  # each line of a step has its mark, and the last one's score counts
    whole: bool = False  # an outcome reward model: it judges a solution as a whole
    strip: Strip = "both"  # what a step loses at its ends: white space, or line breaks on the right
    separator: str = "\n\n"  # of the generator that fits: it ends a step
    link: Link = "softmax"  # what makes the family's own score; here a score is sigmoid(logit)
    aggregation: Aggregation = "last"
    vectors: dict[str, Any] = field(default_factory=dict)  # test vectors, see `tests`

    @property
    def tests(self) -> list[Vector]:
        """The test vectors."""
        return [
            Vector(
                v["question"],
                tuple(v["steps"]),
                tuple(v["ids"]),
                tuple(v["scores"]),
                self.tolerance,
            )
            for v in self.vectors.values()
        ]


@dataclass(frozen=True, slots=True)
class Vector:
    """A test vector: a solution, the tokens it must become and the scores it must get."""

    question: str
    steps: tuple[str, ...]
    ids: tuple[int, ...]
    scores: tuple[float, ...]
    tolerance: float  # of the scores

    @property
    def solution(self) -> Solution:
        steps = tuple(Step(text, tokens=0) for text in self.steps)
        return Solution(Problem(self.question), steps, finish="stop")

    def check(self, ids: Sequence[int], scores: Sequence[float], path: Path) -> None:
        """Compare with what came out.

        Raises:
            ModelError: when it is something else.
        """
        differ = max(abs(a - b) for a, b in zip(scores, self.scores, strict=True))
        if tuple(ids) != self.ids or not differ <= self.tolerance:
            what = "tokens" if tuple(ids) != self.ids else f"scores (they differ by {differ:.3g})"
            raise ModelError(
                f"The verifier {path} does not reproduce the {what} of its test vectors: restore "
                "its files or export it again."
            )


def load_format(path: Path) -> PrmFormat:
    """The verifier.toml beside an ONNX file.

    Raises:
        PairError: it is missing or wrong.
    """
    file = path.with_suffix(".toml")
    how = toml.read(PrmFormat, file)
    for key, layout in ("prompt", how.prompt), ("step", how.step), ("first", how.first):
        place = "{question}" if key == "prompt" else "{step}"
        if layout.count(place) != 1 and (layout or key != "first"):
            raise toml.Place(file, key).wrong(f"does not hold {place} once", "write it there")
    try:
        assert how.tests
    except (AssertionError, KeyError, TypeError) as error:
        raise toml.Place(file, "vectors").wrong("is damaged", "export the model again") from error
    return how
