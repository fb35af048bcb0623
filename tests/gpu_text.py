"""Where greedy text parts between two devices, and how near a tie the tokens there were."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import llama_cpp

from gpu_raw import Raw
from ttsolve.core import Problem
from ttsolve.engines.llama import LlamaGenerator
from ttsolve.pair import Pair

END = -1  # stands for whichever token ends a text


@dataclass(frozen=True, slots=True)
class Difference:
    """Two texts of one problem that are equal up to a token."""

    problem: Problem
    place: int  # which of the text's tokens
    gap: float  # logits that the one's token is ahead of the other's, as the CPU computes them


def differences(
    pair: Pair, problems: Sequence[Problem], one: dict[str, Any], other: dict[str, Any]
) -> list[Difference]:
    """Where the pair's greedy texts part between two ways to open its generator."""
    found = []
    with (
        LlamaGenerator(pair.generator_path, pair.prompt, **one) as first,
        LlamaGenerator(pair.generator_path, pair.prompt, **other) as second,
    ):
        roots = [problem.root for problem in problems]
        how = [replace(pair.sampling, temperature=0.0)] * len(roots)
        texts = zip(first.sample(roots, how)[0], second.sample(roots, how)[0], strict=True)
        for a, b in texts:
            ids = [[*s.ids, *([END] if s.finish == "stop" else [])] for s in (a, b)]
            place = parting(*ids)
            if place is not None:
                prefix = [*prompt_ids(pair, a.problem), *ids[0][:place]]
                gap = ahead(pair, prefix, *((*own, END)[place] for own in ids))
                found.append(Difference(a.problem, place, gap))
    return found


def parting(a: Sequence[int], b: Sequence[int]) -> int | None:
    """The first place at which two lists differ; None: they are equal."""
    pairs = enumerate(zip_longest(a, b, fillvalue=END))
    return next((i for i, (x, y) in pairs if x != y), None)


def ahead(pair: Pair, prefix: Sequence[int], a: int, b: int) -> float:
    """How far token `a` is ahead of `b` after the prefix, in logits of the CPU."""
    raw = Raw(pair.generator_path, width=1, context=len(prefix) + 1, gpu_layers=0)
    try:
        for start in range(0, len(prefix), 512):
            part = prefix[start : start + 512]
            raw.decode(part, range(start, start + len(part)), [0] * len(part), last_only=True)
        logits, ends = raw.logits(1)[0], raw.ends()
        x, y = (logits[ends].max() if token == END else logits[token] for token in (a, b))
        return float(x - y)
    finally:
        raw.close()


def prompt_ids(pair: Pair, problem: Problem) -> list[int]:
    """The tokens of a problem's prompt, as llama.cpp itself cuts it."""
    with closing(llama_cpp.Llama(str(pair.generator_path), vocab_only=True, verbose=False)) as own:
        text = pair.prompt.render(problem.question).encode()
        return own.tokenize(text, add_bos=True, special=True)
