"""The main path: a strategy spends the engine's budget on a problem, and its candidates vote."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, runtime_checkable

from ttsolve import gpu
from ttsolve.core import Problem, Result
from ttsolve.engine import Engine, Generator, Verifier
from ttsolve.errors import UsageError
from ttsolve.pair import GeneratorFile, Pair, VerifierFiles, World
from ttsolve.strategies import Strategy
from ttsolve.vote import Aggregation, best_of_all

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
NUMBER = re.compile(r"[0-9]+")


def solve(problem: Problem, engine: Engine, strategy: Strategy, pair: Pair) -> Result:
    """Answer one problem: run the strategy, let its candidates vote.

    Scored candidates vote best-of-N weighted (chains of revisions among themselves first), others
    by majority. The pair says how an answer is
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
    vote = best_of_all(candidates, by, pair.prompt.answer)
    revised = any(candidate.chain is not None for candidate in candidates)
    settings = {
        **asdict(strategy),
        "temperature": engine.sampling.temperature,
        "vote": vote.method,
        "aggregation": by,
        "verifier": engine.verifier.name if engine.verifier else None,
        **(_revisers(engine) if revised else {}),
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
        votes=vote.weights,
    )


def _revisers(engine: Engine) -> dict[str, object]:
    """What a run says of the models that revised, and judged revisions."""
    judge = engine.revision_verifier
    return {
        "reviser": engine.reviser.name if engine.reviser else "untrained",
        "revision_verifier": judge.name if judge else None,
    }


def aggregation_of(pair: Pair) -> Aggregation:
    """How the scores of a solution's steps become the solution's score."""
    verifier = pair.verifier or (pair.reviser.verifier if pair.reviser else None)
    return verifier.aggregation if verifier else "last"


def open_models(pair: Pair, gpu_layers: int = -1) -> tuple[Generator, Verifier | None]:
    """The pair's generator and verifier, ready to be shared by any number of runs.

    `gpu_layers`: how many layers of the generator go to the GPU, where there is one; -1: all; 0:
    the verifier stays on the CPU as well.

    Raises:
        ModelError: when a file is missing, damaged or of the wrong kind, or the GPU has no room.
    """
    # The runtimes take a moment to import: a command that opens no model does not pay for them.
    if pair is SIM:
        from ttsolve.engines.sim import SimGenerator, SimVerifier

        return SimGenerator(), SimVerifier()
    own = None if pair.generator.endpoint else pair.generator_path
    gpu.look(gpu.Wanted(own, pair.generator.context, pair.verifier_path), gpu_layers)
    return _open_generator(pair, gpu_layers), open_verifier(pair, pair.verifier, gpu_layers)


def _open_generator(pair: Pair, gpu_layers: int) -> Generator:
    if url := pair.generator.endpoint:
        from ttsolve.engines.endpoint import EndpointGenerator

        return EndpointGenerator(url, pair.prompt, pair.generator.model)
    from ttsolve.engines.llama import LlamaGenerator

    return LlamaGenerator(
        pair.generator_path, pair.prompt, context=pair.generator.context, gpu_layers=gpu_layers
    )


def open_reviser(pair: Pair, gpu_layers: int = -1) -> tuple[Generator, Verifier | None]:
    """The reviser of a pair that has one, and the reviser's verifier: see `open_models`.

    Raises:
        ModelError: when a file is missing, damaged or of the wrong kind.
    """
    from ttsolve.engines.llama import LlamaGenerator
    from ttsolve.gguf_file import read_gguf

    assert pair.reviser is not None
    assert pair.reviser_path is not None
    over = read_gguf(pair.reviser_path).metadata.get("general.type") == "adapter"
    path = pair.generator_path if over else pair.reviser_path
    judge = pair.folder / pair.reviser.verifier.file if pair.reviser.verifier else None
    gpu.look(gpu.Wanted(path, pair.generator.context, judge), gpu_layers)
    reviser = LlamaGenerator(
        path,
        pair.prompt,
        adapter=pair.reviser_path if over else None,
        context=pair.generator.context,
        gpu_layers=gpu_layers,
    )
    return reviser, open_verifier(pair, pair.reviser.verifier, gpu_layers)


def open_verifier(pair: Pair, files: VerifierFiles | None, gpu_layers: int) -> Verifier | None:
    """A verifier of the pair, if there are files of it: see `open_models`."""
    if files is None:
        return None
    from ttsolve.engines.onnx_prm import OnnxVerifier

    return OnnxVerifier(
        pair.folder / files.file,
        pair.folder / files.tokenizer,
        pair.prompt,
        device="auto" if gpu_layers else "cpu",
    )


def unknown_words(
    question: str, tokenize: Callable[[str], Sequence[int]], world: World | None = None
) -> list[str]:
    """The question's words, numbers and signs that a generator with a closed world has never seen.

    The tokenizer of such a generator has one token for each word of its world (with or without a
    space before it), and cuts every other word into pieces. A question without any word is none of
    its sentences: it is named whole.
    """
    words = dict.fromkeys(WORD.findall(question))
    found = [w for w in words if min(len(tokenize(w)), len(tokenize(f" {w}"))) > 1]
    if world and world.largest is not None:
        # By their digits first: of very many, `int` would refuse to make a number.
        most = len(str(world.largest))
        numbers = (n.lstrip("0") for n in NUMBER.findall(question))
        found += [n for n in numbers if len(n) > most or int(n or "0") > world.largest]
    if world and world.signs:
        others = (c for c in question if not c.isalnum() and not c.isspace())
        found += [c for c in others if c not in world.signs]
    return list(dict.fromkeys(found if words or found else [question]))
