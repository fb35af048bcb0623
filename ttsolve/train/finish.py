"""The end of a training: a pair's folder from what was trained, and the figures measured of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ttsolve.engine import Sampling
from ttsolve.engines.llama import LlamaGenerator
from ttsolve.engines.onnx_prm import OnnxVerifier
from ttsolve.errors import PairError, UsageError
from ttsolve.files import replacing
from ttsolve.measure import Pool
from ttsolve.pair import (
    GeneratorFile,
    Pair,
    ReviserFiles,
    VerifierFiles,
    load_pair,
    write_pair,
)
from ttsolve.pair_files import file_sha256
from ttsolve.pocketmath import LOCAL
from ttsolve.train import generator as lm
from ttsolve.train.card import (
    hands_figures,
    headline,
    slip_figures,
    split_figures,
    write_figures,
)
from ttsolve.train.data import read_problems
from ttsolve.train.figures import scored_pool, token_likelihoods
from ttsolve.train.labels import draw
from ttsolve.train.pool_file import Drawn, read_pool
from ttsolve.train.tokenizer import load_tokenizer
from ttsolve.train.work import PROMPT, WILD, WORLD, Say, base, drawing, needed

FILES = {  # of a pair, and what makes them
    "tokenizer.json": "generator",
    "generator.gguf": "generator",
    "verifier.onnx": "prm",
}
COMPARED = 64  # samples of a problem whose likelihoods stand beside the verifier's scores
REVISER = ("reviser.gguf", "revision-verifier.onnx")  # a pair does without them


def export_pair(work: Path, folder: Path, sampling: Sampling) -> Path:
    """A pair's folder from what was trained; its pair.toml.

    A reviser (and its verifier) goes with it where one was trained. What was measured of a pair in
    that folder stays, if generator and verifier are the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = _known(folder)
    sha: dict[str, str] = {}
    for name in (*FILES, *REVISER):
        if name in FILES or (work / name).is_file():
            source = needed(work / name, FILES.get(name, ""))
            # Whole, as another process may have it open; a link leads to a file of the user's own.
            with replacing(folder / name, follow=False) as part:
                shutil.copyfile(source, part)
            sha[name] = file_sha256(folder / name)

    def judge(name: str) -> VerifierFiles | None:
        tokenizer = "tokenizer.json"
        return VerifierFiles(name, sha[name], tokenizer, sha[tokenizer]) if name in sha else None

    reviser, its_verifier = REVISER
    revises = ReviserFiles(reviser, sha[reviser], judge(its_verifier)) if reviser in sha else None
    pair = Pair(
        folder,
        folder.name,
        f"A small pair for the world of {WORLD.name}, trained by ttsolve from nothing.",
        GeneratorFile("generator.gguf", sha["generator.gguf"]),
        judge("verifier.onnx"),
        WORLD,
        PROMPT,
        sampling,
        reviser=revises,
    )
    if before and (before.generator, before.verifier) == (pair.generator, pair.verifier):
        pair = replace(pair, measured=before.measured)
    return write_pair(pair)


def _known(folder: Path) -> Pair | None:
    try:
        return load_pair(folder, verify=False)
    except PairError:
        return None


def measure_pair(folder: Path, work: Path, samples: int, hands: int, say: Say) -> None:
    """Sample, score, count, and write the figures into the pair's folder (see `card`)."""
    pair = load_pair(folder)
    if pair.verifier is None or pair.verifier_path is None or pair.tokenizer_path is None:
        raise UsageError(f"The pair {pair.name!r} has no verifier: measure a pair that has one.")
    verifier = OnnxVerifier(pair.verifier_path, pair.tokenizer_path, pair.prompt)
    drawn: dict[str, list[Drawn]] = {}
    with LlamaGenerator(pair.generator_path, pair.prompt) as generator:
        test, hands24 = (read_problems(folder / "data" / f"{f}.jsonl") for f in ("test", "game24"))
        for split, problems, count, how in (
            ("test", test, samples, pair.sampling),
            ("game24", hands24, hands, pair.sampling),
            ("slips", [p for p in test if p.subject in LOCAL], min(samples, COMPARED), WILD),
        ):
            file = work / f"pool-{split}.jsonl"
            draw(generator, problems, count, how, file, report=drawing(say))
            drawn[split] = list(read_pool(file))
    pools: dict[str, list[Pool]] = {}
    for split, known in drawn.items():
        pools[split] = []
        for i, d in enumerate(known, 1):
            pools[split].append(scored_pool(d, verifier))
            if i % 50 == 0:
                say(f"{split}: {i}/{len(known)} problems scored")
    figures = {
        "test": split_figures(pools["test"], _base_lines(work, drawn["test"], pools["test"])),
        "game24": hands_figures([d.problem for d in drawn["game24"]], pools["game24"]),
    }
    if drawn["slips"]:
        lines = _base_lines(work, drawn["slips"], pools["slips"])
        figures["slips"] = slip_figures(pools["slips"], lines)
    write_figures(folder, figures)
    write_pair(replace(pair, measured=headline(figures)))


def _base_lines(
    work: Path, drawn: Sequence[Drawn], pools: Sequence[Pool], samples: int = COMPARED
) -> dict[str, list[Pool]]:
    """The first samples of each pool, with the generator's own log-likelihoods."""
    if not (work / "tokenizer.json").exists():
        return {}
    model, tokenizer = lm.load_generator(base(work)), load_tokenizer(work / "tokenizer.json")
    lines: dict[str, list[Pool]] = {
        "log-likelihood of the solution": [],
        "log-likelihood of its least likely token": [],
    }
    for d, pool in zip(drawn, pools, strict=True):
        few = Drawn(d.problem, d.samples[:samples])
        both = token_likelihoods(model, tokenizer, few)
        for line, values in zip(lines.values(), both, strict=True):
            line.append(
                replace(
                    pool,
                    answers=pool.answers[:samples],
                    right=pool.right[:samples],
                    scores=pool.scores[:samples],
                    tokens=None,
                    steps=None,
                    likelihood=values,
                )
            )
    return lines
