"""The verifier: a process reward model in ONNX Runtime that computes new tokens only.

A step's score is sigmoid(logit at the token its `Reader` names, as a rule its last). The steps of
all solutions of a call form a tree (with the steps of earlier calls: `ScoreTree`); every unbroken
run of new steps is one row of a batch, its keys and values go behind those of its prefix, and so no
step is computed twice.

On a CPU the batches are short, so that what one needs stays in a core's cache; those of a small
model are computed side by side, a core for each.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from ttsolve.core import Solution, Step, Usage
from ttsolve.engines.misfit import Misfits
from ttsolve.engines.onnx_model import Device, OnnxModel
from ttsolve.engines.prm_reader import NOTES, PUBLISHED, Reading, open_reader
from ttsolve.engines.scoretree import Array, Node, Run, ScoreTree, batches, levels
from ttsolve.engines.step_keys import DeviceKeys, HostKeys, Places, StepKeys
from ttsolve.errors import ModelError
from ttsolve.prompts import PromptFormat

CELLS = 4096  # of a batch: rows · (past + new tokens); more only takes more memory
NEW = 256  # tokens that a batch computes on a CPU, if it has more rows than one
INPUTS = {"input_ids", "attention_mask", "position_ids"}


class OnnxVerifier:
    """A `Verifier`: a model written by `ttsolve train export` or `ttsolve models export-prm`.

    memory_mb: what is kept from call to call; threads: of the CPU (None: all cores); device: where
    to run ("auto": the GPU when its libraries load), and afterwards where it runs; pooled: keys and
    values stay on the device (None: if it is a GPU), in a pool of memory_mb and room for one long
    solution.

    Raises:
        ModelError: a file is missing, damaged or of the wrong kind, the tokenizer is not the
            model's, its test vectors do not come out, or the device "cuda" does not work here.
        PairError: the verifier.toml of a published model is missing or wrong.
    """

    def __init__(
        self,
        path: Path,
        tokenizer: Path,
        prompt: PromptFormat,
        *,
        memory_mb: int = 512,
        threads: int | None = None,
        device: Device = "auto",
        pooled: bool | None = None,
    ):
        self._model = OnnxModel(path, threads, device)
        self.device = self._model.device
        notes = self._notes(path)
        self._gathers = notes["format"] == PUBLISHED
        self._reader, self._bpe = open_reader(path, notes, tokenizer, prompt)
        layout = blake2b(self._reader.key.encode(), digest_size=4).hexdigest()
        self.name = f"{notes['digest'][:24]}-{layout}"
        self.params = int(notes["params"])
        self.context = self._reader.context  # tokens
        self.vectors = len(self._reader.tests)  # that are about to be checked
        self._keys, self._tree = self._memory(memory_mb * 2**20, pooled)
        self._lock = threading.Lock()
        self._misfits = Misfits(self.context, self._reader.whole)
        if self._reader.how:
            self._misfits.separator(prompt.separator, self._reader.how)
        for test in self._reader.tests:
            [scored], _ = self.score([test.solution])
            test.check(self.tokens(scored), scored.scores, path)

    def tokens(self, solution: Solution) -> list[int]:
        """The tokens that the verifier reads of a solution."""
        path = self._tree.path(self._reader.texts(solution)[0], self._reader.encode)
        return [token for node in path for token in node.ids]

    def score(self, solutions: Sequence[Solution]) -> tuple[list[Solution], Usage]:
        """Fill in the score of every step that has none; same order, same length.

        A step that ends beyond the verifier's context scores 0: nothing speaks for it, and the log
        says so.

        Raises:
            ProblemTooLong: a problem fills the verifier's context by itself.
        """
        with self._lock:
            out: list[Solution] = []
            computed = 0
            self._tree.forget()  # what a call that was interrupted has left
            for group in self._groups(solutions):
                computed += self._compute(group)
                out += [_filled(one.solution, one.judged) for one in group]
                self._tree.forget()
            return out, Usage(verifier_tokens=computed)

    def _groups(self, solutions: Iterable[Solution]) -> Iterator[list[Reading]]:
        """The solutions with their nodes, as many at once as memory may keep."""
        room = self._tree.limit // self._tree.cell_bytes
        group, tokens = [], 0
        for solution in solutions:
            texts, places = self._reader.texts(solution)
            path = self._tree.path(texts, self._reader.encode)
            group.append(Reading(solution, path, places))
            tokens += sum(len(node.ids) for node in path if node.past is None)
            steps = (len(node.ids) for node in path[1:])
            self._misfits.solution(path[-1].end, longest=max(steps, default=0))
            if tokens > room:
                yield group
                group, tokens = [], 0
        yield group

    def _compute(self, group: Iterable[Reading]) -> int:
        """Compute what the group's scores need; how many tokens that were."""
        todo: dict[Node, None] = {}
        grows: set[Node] = set()  # from where solutions may go on: keys and values worth keeping
        for one in group:
            todo.update(dict.fromkeys(one.missing(self.context)))
            # An attempt that has ended stands before the next one of its chain.
            ends = (one.solution.done and one.solution.chain is None) or self._reader.whole
            grows.update(one.path[:1] if ends else (one.path[0], one.path[-1]))
        plan = list(levels(todo))
        grows.update(run.first.parent for runs in plan for run in runs if run.first.parent)
        for runs in plan:
            cut = list(batches(runs, CELLS, NEW if self.device == "cpu" else CELLS))
            kept = [[run.steps_up_to(grows) for run in batch] for batch in cut]
            for done in zip(cut, kept, self._model.map(self._run, cut, kept), strict=True):
                self._take(*done)
        return sum(len(node.ids) for node in todo)

    def _past(self, runs: list[Run]) -> int:
        """How many cells stand before each row of a batch."""
        return max(self._keys.least, *(run.start for run in runs))

    def _run(self, runs: list[Run], kept: list[int]) -> tuple[Array, Any]:
        """The logits of a batch, and what it left; changes nothing, for other threads compute
        other batches."""
        past = self._past(runs)
        feed = self._feed(runs, past, new=max(run.length for run in runs))
        return self._keys.run(feed, runs, past, keep=any(kept))

    def _take(self, runs: list[Run], kept: list[int], outputs: tuple[Array, Any]) -> None:
        """Set the scores of a batch; keep the keys and values of so many steps of each run."""
        logits, left = outputs
        past = self._past(runs)
        steps: list[Places] = []
        for row, run in enumerate(runs):
            for i, place in enumerate(self._places(run)):
                logit = float(logits[row, i if self._gathers else place])
                if math.isnan(logit):
                    raise ModelError(
                        "The verifier gives a score that is no number: its weights are damaged, "
                        "export or fetch it anew."
                    )
                # the sigmoid, without its overflow
                run.steps[i].score = (1 + math.tanh(logit / 2)) / 2
            for node in run.nodes[: kept[row]]:
                cells = slice(past + node.start - run.start, past + node.end - run.start)
                steps.append((node, row, cells))
        if steps:
            self._keys.keep(steps, left)
            self._tree.kept(node for node, _, _ in steps)

    def _places(self, run: Run) -> list[int]:
        """Where in a run its steps are read."""
        return [node.end - run.start + self._reader.read for node in run.steps]

    def _feed(self, runs: list[Run], past: int, new: int) -> dict[str, Array]:
        """One row per run: what is before it padded on the left, its own tokens on the right; all
        but the keys and values."""
        ids, positions = np.zeros((2, len(runs), new), dtype=np.int64)
        attention = np.zeros((len(runs), past + new), dtype=np.int64)
        for row, run in enumerate(runs):
            shift = past - run.start
            ids[row, : run.length] = run.ids
            positions[row, : run.length] = range(run.start, run.start + run.length)
            attention[row, shift : past + run.length] = 1
        feed = {"input_ids": ids, "attention_mask": attention, "position_ids": positions}
        if self._gathers:
            steps = max(1, *(len(run.steps) for run in runs))
            feed["step_positions"] = np.zeros((len(runs), steps), dtype=np.int64)
            for row, run in enumerate(runs):
                feed["step_positions"][row, : len(run.steps)] = self._places(run)
        return feed

    def _notes(self, path: Path) -> dict[str, str]:
        """What ttsolve wrote into the model's metadata."""
        notes = self._model.notes
        known = notes.keys() >= NOTES.get(notes.get("format", ""), {""})
        if not known or not self._model.inputs >= INPUTS:
            raise ModelError(
                f"{path} is an ONNX model but no verifier of ttsolve; write one with "
                "`ttsolve models export-prm` or `ttsolve train export`."
            )
        return notes

    def _memory(self, limit: int, pooled: bool | None) -> tuple[StepKeys, ScoreTree]:
        """What holds keys and values, and the tree whose steps they are, in `limit` bytes."""
        past = self._model.past.values()
        cell = sum(shape[1] * shape[3] * np.dtype(dtype).itemsize for shape, dtype in past)
        keys: StepKeys = HostKeys(self._model)
        if self.device == "cuda" if pooled is None else pooled:
            limit //= 2  # as much as is kept from call to call comes new in one, and a solution
            keys = DeviceKeys(self._model.pool(2 * (limit // cell) + self.context))
        return keys, ScoreTree(limit, cell, keys.release)


def _filled(solution: Solution, nodes: list[Node]) -> Solution:
    def scored(step: Step, node: Node) -> Step:
        return step if step.score is not None else replace(step, score=node.score or 0.0)

    steps = (scored(step, node) for step, node in zip(solution.steps, nodes, strict=True))
    return replace(solution, steps=tuple(steps))
