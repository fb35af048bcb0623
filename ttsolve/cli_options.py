"""The options that several commands share, and what they mean."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from ttsolve.auto import Auto, plan_for
from ttsolve.engine import Sampling
from ttsolve.errors import UsageError
from ttsolve.own_pair import is_endpoint, own_endpoint, own_generator
from ttsolve.pair import Pair, default_pair, load_default, load_pair
from ttsolve.solve import SIM
from ttsolve.strategies import STRATEGIES, Strategy, one_of

BUDGETS = range(1, 65536 + 1)
SEEDS = range(-(2**63), 2**63)
DEFAULT_STRATEGY = Auto.name
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def budget_of(text: str) -> int:
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


def _seed(text: str) -> int:
    """The seed the user wants: 64 bits, as the store keeps it.

    Raises:
        UsageError: when it is no whole number, or out of range.
    """
    with suppress(ValueError):
        if int(str(text)) in SEEDS:
            return int(str(text))
    allowed = f"a whole number from {SEEDS[0]} to {SEEDS[-1]}"
    raise UsageError(f"The seed {text!r} is not possible: give {allowed}.")


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


def confidence_of(text: str) -> float:
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
    int,
    typer.Option(
        parser=budget_of, metavar="N", help="How many solutions may be sampled, for each problem."
    ),
]
StrategyName = Annotated[
    str,
    typer.Option(metavar="NAME", help=f"How they are used: {one_of([Auto.name, *STRATEGIES])}."),
]
Confidence = Annotated[
    float | None,
    typer.Option(
        parser=confidence_of,
        metavar="P",
        help="With auto: stop when the answer is so surely right.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the strategy, as width=4."),
]
PairName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The pair: a name (see `ttsolve models list`) or a folder."),
]
GeneratorPath = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|URL", help="A GGUF file or an endpoint in place of a pair; majority vote."
    ),
]
ModelName = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="Which model of the endpoint.")
]
FewShot = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Solved examples with {question} behind them, for a prompt."),
]
SEED = typer.Option(parser=_seed, metavar="N", help="Equal seeds give equal samples.")
Seed = Annotated[int, SEED]
Temperature = Annotated[
    float | None,
    typer.Option(parser=_temperature, metavar="T", help="0: greedy; default: the pair's own."),
]
GpuLayers = Annotated[
    int, typer.Option(min=-1, metavar="N", help="Layers of the generator on the GPU; -1: all.")
]
InFlight = Annotated[
    int | None,
    typer.Option(
        min=1, max=256, metavar="N", help="Problems side by side; else 128 / budget, at least 8."
    ),
]
QuestionField = Annotated[
    str | None, typer.Option(metavar="FIELD", help="The field that holds the question.")
]
AnswerField = Annotated[
    str | None, typer.Option(metavar="FIELD", help="The field that holds the known answer.")
]


def chosen_pair(
    name: str | None,
    generator: str | None,
    few_shot: Path | None = None,
    model: str | None = None,
) -> Pair:
    """The pair the user chose: by its name or folder, or a generator alone; else the default one.

    Raises:
        UsageError: when what was given does not go together.
        PairError, ModelError: when what was named cannot be used.
    """
    if generator is None:
        if few_shot or model:
            option = "--few-shot" if few_shot else "--model"
            raise UsageError(f"{option} belongs to a --generator: a pair says it in its pair.toml.")
        if (name or default_pair()) == SIM.name:
            return SIM
        return load_pair(name) if name else load_default()
    if name is not None:
        raise UsageError("--generator takes the place of a pair: leave --pair or --generator out.")
    if is_endpoint(generator):
        return own_endpoint(generator, model, few_shot)
    if model:
        raise UsageError("--model belongs to an endpoint: give --generator http://HOST/v1 with it.")
    return own_generator(Path(generator), few_shot)


def chosen_sampling(pair: Pair, temperature: float | None) -> Sampling:
    """The pair's own sampling, at the temperature the user chose."""
    return pair.sampling if temperature is None else replace(pair.sampling, temperature=temperature)


def chosen_strategy(
    name: str,
    budget: int,
    settings: list[str] | None,
    pair: Pair,
    confidence: float | None = None,
    temperature: float | None = None,
) -> Strategy:
    """The strategy the user chose, sized to spend the budget.

    Raises:
        UsageError: when there is none of that name, or it has no such setting or value.
    """
    given = settings_of(settings or (), "--set ")
    return plan_for(name, budget, pair, given, confidence=confidence, temperature=temperature)


def settings_of(words: Iterable[str], option: str = "") -> dict[str, str]:
    """Words as width=4 by their keys; `option`: what the user types before each.

    Raises:
        UsageError: when one has no value.
    """
    pairs = [text.partition("=") for text in words]
    for key, equals, _ in pairs:
        if not equals:
            raise UsageError(f"The setting {key!r} has no value: write {option}{key}=VALUE.")
    return {key: value for key, _, value in pairs}


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
