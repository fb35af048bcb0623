"""What a reviser learns from: wrong attempts, then a right one (paper section 6.1, after RISE).

All samples of a question are drawn side by side; trajectories are put together afterwards. A
*trajectory* is a question, up to four wrong attempts as its context, and a right one as its target.
The last wrong attempt is the one most like the target, character by character, so that a reviser
learns to correct what it sees and not to start anew; the others are any.

So a reviser never sees a right attempt, and turns many of those wrong that it meets in its own
chains. Where most first attempts are right already, chains then get worse. A *keeping* trajectory,
which the paper does not have, shows a right attempt last, with itself as the target; or several
times, as chains that keep it do. Beside such a wrong one that comes last is shown as many times: or
a reviser learns that what was said twice is right, and never leaves a mistake it made twice.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from ttsolve.files import write_whole
from ttsolve.train.labels import MEMORY
from ttsolve.train.pool_file import Drawn, read_pool

PER_QUESTION = 12  # right samples of a question that become targets, at most


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One example for a reviser. Texts end with a line break."""

    question: str
    context: tuple[str, ...]  # wrong attempts, the oldest first
    target: str  # a right one


def trajectories(drawn: Drawn, seed: int = 0, keep: float = 0.0) -> list[Trajectory]:
    """The trajectories of one problem's samples; samples without an answer are left out.

    For each right sample a number from 0 to `MEMORY` is drawn, and as many wrong samples, or as
    many as there are. Of the right ones at most `PER_QUESTION` are taken, and one more than there
    are wrong ones: easy questions have many, and little to learn from.

    keep: the share of keeping trajectories; the wrong attempt that comes last in the others may
        then stand there several times. 0: the paper's recipe.
    """
    question = drawn.problem.question
    dice = random.Random(f"{seed}/{question}")
    parsable = [s for s in drawn.samples if s.answer is not None]
    wrong = [_line_ended(s.text) for s in parsable if not s.right]
    right = [_line_ended(s.text) for s in parsable if s.right]
    chosen = dice.sample(right, min(len(right), PER_QUESTION, 1 + len(wrong)))
    made = []
    for target in chosen:
        if keep and dice.random() < keep:
            shown = kept(target, wrong, dice)
        else:
            shown = context(target, wrong, dice, again=keep > 0)
        made.append(Trajectory(question, shown, target))
    return made


def context(
    target: str, wrong: Sequence[str], dice: random.Random, again: bool = False
) -> tuple[str, ...]:
    """The wrong attempts before a target: uniformly many, the one nearest to it last.

    again: whether that one may stand there several times, each number of times alike often.
    """
    count = dice.randint(0, MEMORY)
    if not (count and wrong):
        return ()
    distances = cdist([target], wrong, scorer=Levenshtein.distance)[0]
    nearest = int(distances.argmin())
    others = [text for i, text in enumerate(wrong) if i != nearest]
    times = dice.randint(1, count) if again else 1
    return _ending(wrong[nearest], times, others, count, dice)


def kept(target: str, wrong: Sequence[str], dice: random.Random) -> tuple[str, ...]:
    """The attempts before a target that is to be kept: wrong ones, then itself, once or more."""
    count = dice.randint(1, MEMORY)
    return _ending(target, dice.randint(1, count), wrong, count, dice)


def _ending(
    last: str, times: int, others: Sequence[str], count: int, dice: random.Random
) -> tuple[str, ...]:
    """So many attempts, or as many as there are: any others, then the last one several times."""
    before = dice.sample(others, min(count - times, len(others)))
    return (*before, *[last] * times)


def write_trajectories(pool: Path, file: Path, seed: int = 0, keep: float = 0.0) -> int:
    """Put the trajectories of all problems of a pool into a file, a line each; their number.

    Raises:
        StorageError: the file could not be written; nothing half-written stays.
    """
    made = (t for drawn in read_pool(pool) for t in trajectories(drawn, seed, keep))
    lines = [json.dumps(asdict(t)) for t in made]
    write_whole(file, "".join(f"{line}\n" for line in lines))
    return len(lines)


def read_trajectories(files: Sequence[Path]) -> Iterator[Trajectory]:
    """The trajectories in such files."""
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield Trajectory(row["question"], tuple(row["context"]), row["target"])


def _line_ended(text: str) -> str:
    return text.rstrip("\n") + "\n"
