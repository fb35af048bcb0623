"""The main path: a strategy spends the engine's budget on a problem, and its candidates vote."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from ttsolve.core import Problem, Result
from ttsolve.engine import Engine, Generator, Verifier
from ttsolve.errors import UsageError
from ttsolve.pair import GeneratorFile, Pair
from ttsolve.strategies import Strategy
from ttsolve.vote import Aggregation, best_of_n_weighted, majority, score_of

SIM = Pair(
    folder=Path("sim"),
    name="sim",
    about="Dice instead of models: for trying ttsolve out.",
    generator=GeneratorFile("", sha256=""),
)


@runtime_checkable
class Tokenizing(Protocol):
    """A generator that shows how it cuts a text into tokens."""

    def tokenize(self, text: str) -> Sequence[int]:
        """The text's token ids, without any begin-of-text token."""
        ...


WORD = re.compile(r"[^\W\d_]+")


def solve(problem: Problem, engine: Engine, strategy: Strategy, pair: Pair) -> Result:
    """Answer one problem: run the strategy, let its candidates vote.

    Scored candidates vote best-of-N weighted, others by majority. The pair says how an answer is
    marked, and how the scores of a solution's steps become one.

    Raises:
        UsageError: when the strategy ranks steps, and there is no verifier.
    """
    if strategy.ranks_steps and engine.verifier is None:
        raise UsageError(
            f"The strategy {strategy.name!r} ranks steps by a verifier, and the pair "
            f"{pair.name!r} has none: use best-of-n or majority, or another pair."
        )
    candidates = strategy(problem, engine)
    by = aggregation_of(pair)
    scored = any(score_of(candidate, by) is not None for candidate in candidates)
    vote = (best_of_n_weighted if scored else majority)(candidates, by, pair.prompt.answer)
    settings = {
        **asdict(strategy),
        "temperature": engine.sampling.temperature,
        "vote": vote.method,
        "aggregation": by,
        "verifier": engine.verifier.name if engine.verifier else None,
        **engine.decided,
    }
    return Result(
        problem=problem,
        answer=vote.answer,
        share=vote.share,
        candidates=tuple(candidates),
        best=vote.best,
        strategy=strategy.name,
        settings=settings,
        seed=engine.seed,
        pair=pair.name,
        usage=engine.usage,
        interrupted=engine.stop.is_set(),
    )


def aggregation_of(pair: Pair) -> Aggregation:
    """How the scores of a solution's steps become the solution's score."""
    return pair.verifier.aggregation if pair.verifier else "last"


def open_models(pair: Pair, gpu_layers: int = -1) -> tuple[Generator, Verifier | None]:
    """The pair's generator and verifier, ready to be shared by any number of runs.

    `gpu_layers`: how many layers of the generator go to the GPU, where there is one; -1: all; 0:
    the verifier stays on the CPU as well.

    Raises:
        ModelError: when a file is missing, damaged or of the wrong kind.
    """
    # The runtimes take a moment to import: a command that opens no model does not pay for them.
    if pair is SIM:
        from ttsolve.engines.sim import SimGenerator, SimVerifier

        return SimGenerator(), SimVerifier()
    from ttsolve.engines.llama import LlamaGenerator

    generator = LlamaGenerator(pair.generator_path, pair.prompt, gpu_layers=gpu_layers)
    if pair.verifier_path is None or pair.tokenizer_path is None:
        return generator, None
    from ttsolve.engines.onnx_prm import OnnxVerifier

    device: Literal["auto", "cpu"] = "auto" if gpu_layers else "cpu"
    verifier = OnnxVerifier(pair.verifier_path, pair.tokenizer_path, pair.prompt, device=device)
    return generator, verifier


def unknown_words(question: str, tokenize: Callable[[str], Sequence[int]]) -> list[str]:
    """The question's words that a generator with a closed list of words has never seen whole.

    The tokenizer of such a generator has one token for each word of its world (with or without a
    space before it), and cuts every other word into pieces.
    """
    words = dict.fromkeys(WORD.findall(question))
    return [w for w in words if min(len(tokenize(w)), len(tokenize(f" {w}"))) > 1]
