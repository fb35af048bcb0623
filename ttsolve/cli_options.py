"""The options that several commands share, and what they mean."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from ttsolve.auto import Auto, plan_for
from ttsolve.engine import Sampling
from ttsolve.errors import UsageError
from ttsolve.pair import DEFAULT, Pair, bare_pair, load_pair
from ttsolve.solve import SIM
from ttsolve.strategies import STRATEGIES, BestOfN, Strategy, one_of

BUDGETS = range(1, 65536 + 1)
DEFAULT_STRATEGY = BestOfN.name
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def _budget(text: str) -> int:
    """The number of units the user allows.

    Raises:
        UsageError: when it is no whole number, or out of range.
    """
    try:
        budget = int(str(text))
    except ValueError:
        budget = 0
    if budget not in BUDGETS:
        allowed = f"a whole number from {BUDGETS[0]} to {BUDGETS[-1]}"
        raise UsageError(f"The budget {text!r} cannot be spent: give {allowed}.")
    return budget


def _temperature(text: str) -> float:
    """The temperature the user wants.

    Raises:
        UsageError: when it is no number, or out of range.
    """
    try:
        temperature = float(text)
    except ValueError:
        temperature = math.nan
    if not 0 <= temperature < 100:
        raise UsageError(f"The temperature {text!r} is not possible: give a number from 0 to 100.")
    return temperature


def _confidence(text: str) -> float:
    """The probability at which the user wants to stop.

    Raises:
        UsageError: when it is no number, or out of range.
    """
    try:
        confidence = float(text)
    except ValueError:
        confidence = math.nan
    if not 0 < confidence < 1:
        raise UsageError(f"The confidence {text!r} is not possible: give one between 0 and 1.")
    return confidence


Budget = Annotated[
    int, typer.Option(parser=_budget, metavar="N", help="How many solutions may be sampled.")
]
StrategyName = Annotated[
    str,
    typer.Option(metavar="NAME", help=f"How they are used: {one_of([Auto.name, *STRATEGIES])}."),
]
Confidence = Annotated[
    float | None,
    typer.Option(
        parser=_confidence, metavar="P", help="With auto: stop when the answer is so surely right."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the strategy, as width=4."),
]
PairName = Annotated[
    str,
    typer.Option(metavar="NAME", help="The pair: a name (see `ttsolve models list`) or a folder."),
]
GeneratorPath = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A GGUF file in place of a pair; majority vote.")
]
Seed = Annotated[int, typer.Option(help="Equal seeds give equal samples.")]
Temperature = Annotated[
    float | None,
    typer.Option(parser=_temperature, metavar="T", help="0: greedy; default: the pair's own."),
]
GpuLayers = Annotated[
    int, typer.Option(min=-1, help="Layers of the generator on the GPU; -1: all.")
]
QuestionField = Annotated[
    str | None, typer.Option(metavar="FIELD", help="The field that holds the question.")
]
AnswerField = Annotated[
    str | None, typer.Option(metavar="FIELD", help="The field that holds the known answer.")
]


def chosen_pair(name: str, generator: Path | None) -> Pair:
    """The pair the user chose: by its name or folder, or a generator alone.

    Raises:
        UsageError: when both are given.
        PairError, ModelError: when what was named cannot be used.
    """
    if generator is None:
        return SIM if name == SIM.name else load_pair(name)
    if name != DEFAULT:
        raise UsageError("--generator takes the place of a pair: leave --pair or --generator out.")
    return bare_pair(generator)


def chosen_sampling(pair: Pair, temperature: float | None) -> Sampling:
    """The pair's own sampling, at the temperature the user chose."""
    return pair.sampling if temperature is None else replace(pair.sampling, temperature=temperature)


def chosen_strategy(
    name: str, budget: int, settings: list[str] | None, pair: Pair, confidence: float | None = None
) -> Strategy:
    """The strategy the user chose, sized to spend the budget.

    Raises:
        UsageError: when there is none of that name, or it has no such setting or value.
    """
    pairs = [text.partition("=") for text in settings or ()]
    for key, equals, _ in pairs:
        if not equals:
            raise UsageError(f"The setting {key!r} has no value: write --set {key}=VALUE.")
    given = {key: value for key, _, value in pairs}
    return plan_for(name, budget, pair, given, confidence=confidence)


@contextmanager
def ctrl_c_sets(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C ends the run in good order, the second at once."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
