"""Solutions as the tokens that a verifier was trained on: its own kind's, or a published family's.

Texts here are nodes of the verifier's tree: a question, and behind it one text for each step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ttsolve.core import Solution
from ttsolve.engines.bpe import ByteBpe
from ttsolve.engines.prm_format import PrmFormat, Vector, load_format
from ttsolve.engines.scoretree import Node
from ttsolve.engines.tokens import Tokenizer, open_tokenizer
from ttsolve.errors import ModelError, ProblemTooLong
from ttsolve.prompts import PromptFormat

PUBLISHED = "2"  # the format of `models export-prm`: its graph reads where it is told
_ALL = {"format", "digest", "tokenizer", "vocabulary", "params"}
NOTES = {"1": _ALL | {"bos", "context"}, PUBLISHED: _ALL}  # in the metadata of each format
Part = tuple[str, bool]  # a text; True: layout, in which special tokens are read as such
NUMBER = re.compile(r"\AStep \d+:\s*")


@dataclass(frozen=True, slots=True)
class Reading:
    """A solution as nodes of the tree."""

    solution: Solution
    path: Sequence[Node]  # the question and what stands behind it
    places: Sequence[int]  # for each step, which node of the path has its score

    @property
    def judged(self) -> list[Node]:
        """The node of each step."""
        return [self.path[place] for place in self.places]

    def missing(self, context: int) -> list[Node]:
        """The nodes to compute before all steps within the context can have scores."""
        asked = -1
        for place, step in zip(self.places, self.solution.steps, strict=True):
            node = self.path[place]
            if step.score is None and node.score is None and node.end <= context:
                asked = place
        return [node for node in self.path[: asked + 1] if node.past is None]


class Reader(Protocol):
    """How a verifier reads solutions."""

    context: int  # tokens
    read: int  # which of a step's tokens has its score; -1: the last
    whole: bool  # it judges solutions, not steps
    key: str  # equal keys, equal tokens
    tests: Sequence[Vector]

    @property
    def how(self) -> PrmFormat | None:
        """What the verifier.toml of a published model says."""
        ...

    def texts(self, solution: Solution) -> tuple[list[str], list[int]]:
        """The question and what stands behind it; for each step, which of these has its score."""
        ...

    def encode(self, text: str, parent: Node) -> list[int]:
        """The tokens of a text behind its parent, which for a question is the root.

        Raises:
            ProblemTooLong: a question fills the context by itself.
        """
        ...


class OwnReader:
    """Reads for a verifier that ttsolve trained: the generator's prompt, steps and separator.

    Earlier attempts stand before the solution, the question before each, their steps as those of
    the solution itself: what was computed of an attempt when it was judged is there for the next.
    """

    read = -1
    whole = False
    how = None
    tests: Sequence[Vector] = ()

    def __init__(self, prompt: PromptFormat, tokenizer: Tokenizer, bos: int, context: int):
        self.context = context
        self.key = repr(prompt)
        self._prompt = prompt
        self._tokenizer = tokenizer
        self._bos = bos

    def texts(self, solution: Solution) -> tuple[list[str], list[int]]:
        """The prompt and the steps of every attempt, the solution last; steps with a separator."""
        question, separator = solution.problem.question, self._prompt.separator
        texts = [self._prompt.render(question)]
        for attempt in solution.attempts:
            texts += [step.text.removesuffix(separator) + separator for step in attempt.steps]
            texts.append(self._prompt.again(question))
        first = len(texts)
        texts += [step.text.removesuffix(separator) + separator for step in solution.steps]
        return texts, list(range(first, len(texts)))

    def encode(self, text: str, parent: Node) -> list[int]:
        """The tokens of a text alone; a prompt begins with the begin-of-text token."""
        ids = self._tokenizer.encode(text)
        return ids if parent.parent else _fitting([self._bos, *ids], self.context)


class PrmReader:
    """Reads for a published model, as its verifier.toml says."""

    def __init__(self, how: PrmFormat, tokenizer: Tokenizer):
        self.context = how.context
        self.read = how.read
        self.whole = how.whole
        self.key = repr(replace(how, vectors={}))
        self.tests: Sequence[Vector] = how.tests
        self.how = how
        self._tokenizer = tokenizer
        marks = sorted(tokenizer.special, key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, marks))})" if marks else "()(?!)")

    def texts(self, solution: Solution) -> tuple[list[str], list[int]]:
        """The question and the steps.

        An empty step says nothing (but where each line has a mark): it is scored as the one before.
        An outcome reward model gives its score to every step of what it judges.
        """
        texts, places = [solution.problem.question.strip()], []
        if self.whole and solution.steps:
            return [*texts, solution.text.strip()], [1] * len(solution.steps)
        for step in solution.steps:
            text = self._stripped(step.text)
            if text or self.how.lines:
                texts.append(text)
            places.append(len(texts) - 1)
        return texts, places

    def encode(self, text: str, parent: Node) -> list[int]:
        """The tokens of a question, or of a step and its mark behind what stands before them."""
        before = [node.text for node in (parent, *parent.before()) if node.parent][::-1]
        if not before:
            return _fitting(self._joined(self._laid_out(text, 0)), self.context)
        if self.how.apart:
            return self._apart(text)
        # Tokens at the border depend on what stands before it, but on nothing before a mark.
        near = self._laid_out(before[-1], len(before) - 1)
        skipped = len(self._joined(near))
        return self._joined([*near, *self._laid_out(text, len(before))])[skipped:]

    def _stripped(self, text: str) -> str:
        match self.how.strip:
            case "newlines":
                return text.rstrip("\n")
            case "right":
                return text.rstrip()
        return text.strip()

    def _laid_out(self, text: str, number: int) -> list[Part]:
        """The text in its place: the question (number 0) or a step."""
        layout, place = self.how.prompt, "{question}"
        if number:
            layout, place = (number == 1 and self.how.first) or self.how.step, "{step}"
        if "{number}" in layout:
            layout, text = layout.replace("{number}", str(number)), NUMBER.sub("", text)
        before, after = layout.split(place)
        return [(before, True), (text, False), (after, True)]

    def _apart(self, text: str) -> list[int]:
        before, after = self.how.step.split("{step}")
        ids = self._joined([(before, True)])
        for line in text.split("\n") if self.how.lines else [text]:
            ids += self._joined([(line, False)]) + self._joined([(after, True)])
        return ids

    def _joined(self, parts: Sequence[Part]) -> list[int]:
        """The tokens of the parts as one text, cut at the layout's special tokens only."""
        ids: list[int] = []
        run = ""
        for piece, special in [*self._pieces(parts), ("", True)]:
            if not special:
                run += piece
                continue
            ids += self._tokenizer.encode(run) if run else []
            ids += [self._tokenizer.special[piece]] if piece else []
            run = ""
        return ids

    def _pieces(self, parts: Sequence[Part]) -> Iterator[tuple[str, bool]]:
        """(text, whether it is one special token) of what the parts consist of."""
        for text, layout in parts:
            if not layout:
                yield text, False
                continue
            yield from ((s, i % 2 == 1) for i, s in enumerate(self._special.split(text)) if s)


def _fitting(ids: list[int], context: int) -> list[int]:
    if len(ids) > context:
        raise ProblemTooLong(
            f"The problem has {len(ids)} tokens and the verifier reads {context}; shorten it or "
            "use another pair."
        )
    return ids


def open_reader(
    path: Path, notes: Mapping[str, str], tokenizer: Path, prompt: PromptFormat
) -> tuple[Reader, Tokenizer]:
    """The reader of an ONNX file, from its metadata, and its tokenizer.

    Raises:
        ModelError: the tokenizer is damaged, or not the model's.
        PairError: the verifier.toml of a published model is missing or wrong.
        MissingExtra: the tokenizer needs a package that is not installed.
    """
    published = notes["format"] == PUBLISHED
    bpe = open_tokenizer(tokenizer) if published else ByteBpe(tokenizer)
    if (bpe.sha256, bpe.vocabulary) != (notes["tokenizer"], int(notes["vocabulary"])):
        raise ModelError(
            f"The verifier {path} was made for another tokenizer than {tokenizer}; use the two "
            "files of one pair."
        )
    if published:
        return PrmReader(load_format(path), bpe), bpe
    return OwnReader(prompt, bpe, int(notes["bos"]), int(notes["context"])), bpe
