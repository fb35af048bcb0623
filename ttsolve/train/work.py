"""The folder of a training: what its commands leave there for each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ttsolve.engine import Sampling
from ttsolve.errors import UsageError
from ttsolve.pair import World
from ttsolve.prompts import PromptFormat
from ttsolve.train.labels import Drawing

Say = Callable[[str], None]

PROMPT = PromptFormat(full_stop=True)
SAMPLING = Sampling(max_tokens=300)
# Local subjects go wrong by slips, and at a pair's own sampling few slips are left to find.
WILD = replace(SAMPLING, temperature=2.0, min_p=0.001)
WORLD = World(
    "PocketMath",
    "school problems with small whole numbers: number games, guess and check, coins, worksheets, "
    "expressions, equations, fractions, percentages, sequences, rates, divisors, quantities.",
    signs=".,?+-*/()=:%",
    largest=2500,
)


def base(work: Path) -> Path:
    """The LM to start from: the checkpoint, or where a pair was copied into the folder its GGUF."""
    checkpoint = work / "generator.pt"
    return checkpoint if checkpoint.is_file() else needed(work / "generator.gguf", "generator")


def made(work: Path, kind: str, command: str) -> tuple[Path, ...]:
    """The files that a command made, of all seeds."""
    files = tuple(sorted(work.glob(f"{kind}-*.jsonl")))
    if not files:
        raise UsageError(f"There are no {kind} in {work}: run `ttsolve train {command}` first.")
    return files


def needed(file: Path, command: str) -> Path:
    if not file.is_file():
        raise UsageError(f"There is no {file}: run `ttsolve train {command} {file.parent}` first.")
    return file


def drawing(say: Say) -> Callable[[Drawing], None]:
    """A report that says how far a drawing is."""

    def report(d: Drawing) -> None:
        say(
            f"{d.problems}/{d.of} problems, {d.tokens_per_second:,.0f} tokens/s, "
            f"{d.seconds_left:,.0f} s left"
        )

    return report
