"""The verifier: a process reward model in ONNX Runtime that computes new tokens only.

A step's score is sigmoid(logit at the token its `Reader` names, as a rule its last). The steps of
all solutions of a call form a tree (with the steps of earlier calls: `ScoreTree`); every unbroken
run of new steps is one row of a batch, its keys and values go behind those of its prefix, and so no
step is computed twice.
"""

from __future__ import annotations

import contextlib
import io
import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort

from ttsolve.core import Solution, Step, Usage
from ttsolve.engines.cuda import cuda_loads, gpu_found
from ttsolve.engines.misfit import Misfits
from ttsolve.engines.prm_reader import NOTES, PUBLISHED, Reading, open_reader
from ttsolve.engines.scoretree import Array, Node, Run, ScoreTree, batches, levels
from ttsolve.errors import ModelError
from ttsolve.prompts import PromptFormat

Device = Literal["auto", "cpu", "cuda"]
CELLS = 4096  # of a batch: rows · (past + new tokens); more only takes more memory
INPUTS = {"input_ids", "attention_mask", "position_ids"}
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxVerifier:
    """A `Verifier`: a model written by `ttsolve train export` or `ttsolve models export-prm`.

    memory_mb: what is kept from call to call; threads: None, ONNX Runtime chooses; device: where
    to run ("auto": the GPU when its libraries load), and afterwards where it runs.

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
    ):
        self.device = _choose(device)
        self._session = _open(path, threads, self.device)
        self._past = [i for i in self._session.get_inputs() if i.name.startswith("past.")]
        self._present = [i.name.replace("past.", "present.") for i in self._past]
        notes = self._notes(path)
        self._gathers = notes["format"] == PUBLISHED
        self._reader, self._bpe = open_reader(path, notes, tokenizer, prompt)
        layout = blake2b(self._reader.key.encode(), digest_size=4).hexdigest()
        self.name = f"{notes['digest'][:24]}-{layout}"
        self.params = int(notes["params"])
        self.context = self._reader.context  # tokens
        self.vectors = len(self._reader.tests)  # that are about to be checked
        self._tree = ScoreTree(memory_mb * 2**20)
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
            for group in self._groups(solutions):
                computed += self._compute(group)
                out += [_filled(one.solution, one.judged) for one in group]
                self._tree.forget()
            return out, Usage(verifier_tokens=computed)

    def _groups(self, solutions: Iterable[Solution]) -> Iterator[list[Reading]]:
        """The solutions with their nodes, as many at once as memory may keep."""
        room = self._tree.limit // self._cell_bytes
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
            for batch in batches(runs, CELLS):
                self._compute_batch(batch, grows)
        return sum(len(node.ids) for node in todo)

    def _compute_batch(self, runs: list[Run], grows: set[Node]) -> None:
        past = max(run.start for run in runs)
        feed = self._feed(runs, past, new=max(run.length for run in runs))
        kept = [run.steps_up_to(grows) for run in runs]
        outputs = ["logits", *self._present] if any(kept) else ["logits"]
        logits, *present = self._session.run(outputs, feed)
        for row, run in enumerate(runs):
            for i, place in enumerate(self._places(run)):
                logit = float(logits[row, i if self._gathers else place])
                # the sigmoid, without its overflow
                run.steps[i].score = (1 + math.tanh(logit / 2)) / 2
            for node in run.nodes[: kept[row]]:
                cells = slice(past + node.start - run.start, past + node.end - run.start)
                self._tree.keep(node, [array[row, :, cells] for array in present])

    def _places(self, run: Run) -> list[int]:
        """Where in a run its steps are read."""
        return [node.end - run.start + self._reader.read for node in run.steps]

    def _feed(self, runs: list[Run], past: int, new: int) -> dict[str, Array]:
        """One row per run: what is before it padded on the left, its own tokens on the right."""
        ids, positions = np.zeros((2, len(runs), new), dtype=np.int64)
        attention = np.zeros((len(runs), past + new), dtype=np.int64)
        caches = {
            i.name: np.zeros((len(runs), i.shape[1], past, i.shape[3]), TYPES[i.type])
            for i in self._past
        }
        for row, run in enumerate(runs):
            shift = past - run.start
            ids[row, : run.length] = run.ids
            positions[row, : run.length] = range(run.start, run.start + run.length)
            attention[row, shift : past + run.length] = 1
            for node in run.first.before():
                cells = slice(shift + node.start, shift + node.end)
                for array, kept in zip(caches.values(), node.past or (), strict=True):
                    array[row, :, cells] = kept
        feed = {"input_ids": ids, "attention_mask": attention, "position_ids": positions, **caches}
        if self._gathers:
            steps = max(1, *(len(run.steps) for run in runs))
            feed["step_positions"] = np.zeros((len(runs), steps), dtype=np.int64)
            for row, run in enumerate(runs):
                feed["step_positions"][row, : len(run.steps)] = self._places(run)
        return feed

    def _notes(self, path: Path) -> dict[str, str]:
        """What ttsolve wrote into the model's metadata."""
        metadata = self._session.get_modelmeta().custom_metadata_map
        ours = (key for key in metadata if key.startswith("ttsolve."))
        notes = {key.removeprefix("ttsolve."): metadata[key] for key in ours}
        inputs = {i.name for i in self._session.get_inputs()}
        if not notes.keys() >= NOTES.get(notes.get("format", ""), {""}) or not inputs >= INPUTS:
            raise ModelError(
                f"{path} is an ONNX model but no verifier of ttsolve; write one with "
                "`ttsolve models export-prm` or `ttsolve train export`."
            )
        return notes

    @property
    def _cell_bytes(self) -> int:
        """Bytes of one token's keys and values."""
        return sum(i.shape[1] * i.shape[3] * np.dtype(TYPES[i.type]).itemsize for i in self._past)


def _filled(solution: Solution, nodes: list[Node]) -> Solution:
    def scored(step: Step, node: Node) -> Step:
        return step if step.score is not None else replace(step, score=node.score or 0.0)

    steps = (scored(step, node) for step, node in zip(solution.steps, nodes, strict=True))
    return replace(solution, steps=tuple(steps))


def _choose(device: Device) -> Device:
    if device == "cpu" or _cuda_works():
        return "cpu" if device == "cpu" else "cuda"
    if device == "cuda":
        raise ModelError(
            "The verifier cannot run on CUDA: its libraries or the GPU's driver do not load; "
            "install them or use device 'auto'."
        )
    return "cpu"


def _cuda_works() -> bool:
    # Asked for a provider whose libraries are missing, ONNX Runtime prints errors and falls back.
    if "CUDAExecutionProvider" not in ort.get_available_providers() or not gpu_found():
        return False
    with contextlib.redirect_stdout(io.StringIO()):
        ort.preload_dlls()  # those of the nvidia-* wheels; what it misses, it prints
    return cuda_loads(ort.cuda_version)


def _open(path: Path, threads: int | None, device: Device) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, and told in our own words
    options.intra_op_num_threads = threads or 0
    # Threads that spin between calls take the cores from the generator.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = ["CUDAExecutionProvider"] * (device == "cuda") + ["CPUExecutionProvider"]
    if not path.is_file():
        raise ModelError(f"There is no verifier {path}: install the pair again.")
    try:
        return ort.InferenceSession(path, options, providers=providers)
    except Exception as error:  # ONNX Runtime's own errors share no base class
        raise ModelError(
            f"The verifier {path} is no ONNX model or is damaged; install the pair again."
        ) from error
