"""A published reward model as a verifier of ttsolve: verifier.onnx, tokenizer.json, verifier.toml.

The stock transformers backbone computes the test vectors, over the tokens of the family's own code
(`layouts.py`); what ttsolve makes of the same solutions must agree before any file is left behind.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from ttsolve import toml
from ttsolve.core import Problem, Solution, Step
from ttsolve.engines.onnx_prm import OnnxVerifier
from ttsolve.engines.prm_format import PrmFormat
from ttsolve.engines.prm_reader import PUBLISHED, PrmReader
from ttsolve.engines.scoretree import ScoreTree
from ttsolve.engines.tokens import Tokenizer, open_tokenizer
from ttsolve.errors import ModelError, StorageError
from ttsolve.files import ROOM
from ttsolve.prompts import PromptFormat
from ttsolve.train.decoder import Data, Dtype, Head, decoder_graph
from ttsolve.train.families import Family, family_of
from ttsolve.train.published import Published, Weights, open_published

ONNX, DATA, TOKENIZER, FORMAT = (
    "verifier.onnx",
    "verifier.onnx.data",
    "tokenizer.json",
    "verifier.toml",
)
INSIDE = 2**31 - 2**27  # bytes of weights in the ONNX file itself; protobuf ends at 2 GB
TOLERANCE = {"f32": 0.005, "f16": 0.02, "int8": 0.1}  # of a score, on any processor
SAMPLES = [
    (
        "Janet's ducks lay 16 eggs a day. She eats 3 and sells the rest at $2 each. How much?",
        ["She has 16 - 3 = 13 eggs left.", "13 * 2 = 26, so she makes $26.", "Answer: 26"],
    ),
    (
        "Solve $x^2 = 1{,}024$ for x ≥ 0.",
        ["Step 1: √1024 = 32", "“−32” is excluded (负数不行) 🙂", "So \\boxed{32}."],
    ),
    ("Is 7 prime?", ["2, 3, 5: none divides 7\nso (a) it is prime:\t7 = 7 * 1", "yes"]),
]


def export_prm(
    source: str,
    folder: Path,
    *,
    dtype: Dtype = "f32",
    family: str | None = None,
    mark: str | None = None,
    context: int | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> PrmFormat:
    """Write the model in `source` (a Hugging Face folder, or the hub's id of one) into `folder`.

    `family`, `mark` (what ends a step) and `context` (tokens) come from the model where None.

    Raises:
        ModelError: the model cannot be read, or gives something else than its family's code.
        UsageError: it is of no known family.
        StorageError: the files could not be written; nothing half-written stays.
    """
    model = open_published(source)
    kind = family_of(source.rstrip("/"), model.config.architectures or [], family)
    kind = kind if mark is None else replace(kind, mark=mark)
    report(f"{source}: family {kind.name}, {model.config.model_type}, written as {dtype}")
    how = PrmFormat(
        family=kind.name,
        context=context or min(model.context, kind.context),
        tolerance=TOLERANCE[dtype],
        separator=kind.separator,
        link=kind.link,
        aggregation=kind.aggregation,
        **kind.layout(model.tokenizer, kind.mark),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as name:
            part = Path(name)
            how = _write(part, model, kind, how, dtype)
            report("comparing its scores with those of transformers")
            prompt = PromptFormat(separator=how.separator)
            OnnxVerifier(part / ONNX, part / TOKENIZER, prompt, device="cpu")
            for file in sorted(part.iterdir(), reverse=True):
                os.replace(file, folder / file.name)
    except OSError as error:
        raise StorageError(f"Cannot write into {folder} ({error.strerror}): {ROOM}.") from error
    return how


def _write(part: Path, model: Published, kind: Family, how: PrmFormat, dtype: Dtype) -> PrmFormat:
    """All files; the format with its test vectors."""
    model.tokenizer.backend_tokenizer.save(str(part / TOKENIZER))
    tokenizer = open_tokenizer(part / TOKENIZER)
    head = model.head(kind)
    how = replace(how, vectors=_vectors(model, kind, how, tokenizer, head))
    (part / FORMAT).write_text(toml.dump(how), encoding="utf-8", newline="\n")
    weights = Weights(model.backbone)
    params = sum(weight.size for weight in weights.values())
    with ExitStack() as stack:
        data = Data()
        if params * (2 if dtype == "f16" else 4) > INSIDE:
            data = Data(stack.enter_context((part / DATA).open("wb")), DATA)
        graph = decoder_graph(weights, model.decoder, head, dtype, data)
    notes = {
        "format": PUBLISHED,
        "digest": data.digest.hexdigest(),
        "tokenizer": tokenizer.sha256,
        "vocabulary": str(tokenizer.vocabulary),
        "params": str(params),
        "family": how.family,
        "dtype": dtype,
    }
    helper.set_model_props(graph, {f"ttsolve.{key}": note for key, note in notes.items()})
    (part / ONNX).write_bytes(graph.SerializeToString())
    return how


def _vectors(
    model: Published, kind: Family, how: PrmFormat, tokenizer: Tokenizer, head: Head
) -> dict[str, Any]:
    """The test vectors: the family's own tokens, the stock backbone's scores.

    Raises:
        ModelError: ttsolve would read other tokens, or read at others, than the family's code.
    """
    vectors = {}
    for i, (question, plain) in enumerate(SAMPLES, start=1):
        steps = [step + kind.separator for step in plain]
        ids, places = kind.published(
            model.tokenizer, kind.mark, question, steps if how.whole else plain
        )
        end = places[-1] - how.read if places else 0  # what is behind has no part in the score
        if (ids[:end], places) != _read(how, tokenizer, question, steps):
            raise ModelError(
                f"The tokenizer of {model.source} does not cut text as the family {kind.name!r} "
                "does: name another with --family, or its mark with --mark."
            )
        hidden = model.hidden(ids)[places]
        scores = [float(score) for score in _scores(hidden, head)] * (len(steps) // len(places))
        vectors[str(i)] = {"question": question, "steps": steps, "ids": ids[:end], "scores": scores}
    return vectors


def _read(
    how: PrmFormat, tokenizer: Tokenizer, question: str, steps: Sequence[str]
) -> tuple[list[int], list[int]]:
    """The tokens that ttsolve reads of a solution, and where in them its scores are."""
    reader = PrmReader(how, tokenizer)
    solution = Solution(Problem(question), tuple(Step(step, tokens=0) for step in steps))
    texts, places = reader.texts(solution)
    nodes = ScoreTree(limit=0).path(texts, reader.encode)
    ends = [nodes[place].end + how.read for place in dict.fromkeys(places)]
    return [token for node in nodes for token in node.ids], ends


def _scores(hidden: Any, head: Head) -> Any:
    """What the graph's head computes, in f64: [steps]."""
    x = hidden.astype(np.float64)
    if head.inner is not None and head.inner_bias is not None:
        x = np.maximum(x @ head.inner.T + head.inner_bias, 0)
    return 1 / (1 + np.exp(-(x @ head.weight + head.bias)))
