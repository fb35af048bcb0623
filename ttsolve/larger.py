"""A larger generator to compare a pair with: how large it is, and what it answers greedily."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ttsolve.dataset import Entry
from ttsolve.errors import UsageError
from ttsolve.gguf_file import read_gguf
from ttsolve.pair import GeneratorFile, Pair
from ttsolve.policy import content_hash
from ttsolve.solve import SIM, open_models


@dataclass(frozen=True, slots=True)
class LargerModel:
    """A generator, or what one has answered elsewhere."""

    name: str
    params: int
    pair: Pair | None = None  # to be measured here, with the small pair's prompt
    results: Path | None = None  # measured elsewhere: JSON lines of `ttsolve batch` or `eval`


def larger_model(
    gguf: Path | None, results: Path | None, params: float | None, small: Pair
) -> LargerModel | None:
    """The larger generator the user named; None: none.

    Raises:
        UsageError: when it is named twice, its size is not known, or it is no larger than `small`.
        ModelError: when its file cannot be read.
    """
    named = _named(gguf, results, params, small)
    if named and named.params <= params_of(small):
        raise UsageError(f"{named.name} is no larger than {small.name}: name a larger generator.")
    return named


def _named(
    gguf: Path | None, results: Path | None, params: float | None, small: Pair
) -> LargerModel | None:
    if gguf and results:
        raise UsageError("--larger is measured here: leave --larger or --larger-results out.")
    if gguf:
        if params:
            raise UsageError("The file says how large it is: leave --larger-params out.")
        head = read_gguf(gguf)
        file = GeneratorFile(str(gguf.resolve()), sha256="")
        about = f"A larger generator beside {small.name}."
        pair = replace(small, name=gguf.stem, about=about, generator=file, verifier=None)
        return LargerModel(gguf.name, head.params, pair)
    if results:
        if not params:
            raise UsageError("How large the other generator is, is not known: say --larger-params.")
        if not math.isfinite(params):
            raise UsageError(f"No model has {params} parameters: give a number to --larger-params.")
        return LargerModel(results.name, int(params), results=results)
    if params:
        raise UsageError("--larger-params goes with --larger-results: name its results as well.")
    return None


def params_of(pair: Pair) -> int:
    """The number of a pair's generator's parameters.

    Raises:
        ModelError: when its file cannot be read.
        UsageError: when it has none: it is behind an endpoint.
    """
    if pair.generator.endpoint:
        raise UsageError("How large a model behind an endpoint is, is not known: use a GGUF file.")
    if pair is SIM:
        return open_models(pair)[0].params
    return read_gguf(pair.generator_path).params


def greedy_results(file: Path, entries: Sequence[Entry]) -> dict[str, float]:
    """How often each problem was answered rightly, 0..1, by its content hash.

    A line has a problem's `content` or `id` (in rows: `problem`), and `right` or `correct`.

    Raises:
        UsageError: when the file cannot be read or understood, or has none of the problems.
    """
    by_id = {str(e.id): content_hash(e.problem.question) for e in entries if e.problem}
    known = set(by_id.values())
    out: dict[str, float] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise UsageError(f"Cannot read {file} ({error}): give JSON lines in UTF-8.") from error
    for number, line in enumerate(lines, 1):
        record = _record(file, number, line)
        if record is None:
            continue
        content = record.get("content") or by_id.get(str(record.get("id", record.get("problem"))))
        value = record.get("right", record.get("correct"))
        if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
            raise UsageError(
                f'{file}, line {number} does not say whether the answer is right: write "right" '
                'or "correct" with a number from 0 to 1.'
            )
        if content in known:
            out[content] = float(value)
    if not out:
        raise UsageError(f"{file} has none of the problems: their ids, or content, must be equal.")
    return out


def _record(file: Path, number: int, line: str) -> Mapping[str, Any] | None:
    """The line's object; None: it is empty, or tells of an error."""
    if not line.strip():
        return None
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise UsageError(f"{file}, line {number} is no JSON object: write one object a line.")
    return None if "error" in record else record
