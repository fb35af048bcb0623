"""The settings of a strategy: fields of its dataclass, typed and bounded by what they declare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import Field, field, fields
from typing import Any, ClassVar, Protocol

from ttsolve.errors import UsageError


class HasSettings(Protocol):
    """A dataclass; its field `n` follows from the budget, the others are settings."""

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


def setting(default: int, *, least: int = 1) -> Any:
    """A field for a whole number that is `least` or more."""
    return field(default=default, metadata={"least": least})


def check(strategy: HasSettings) -> None:
    """Every field is at least what it declares.

    Raises:
        UsageError: when one is not.
    """
    for f in fields(strategy):
        _whole(f, getattr(strategy, f.name))


def read_settings(kind: type[HasSettings], given: Mapping[str, object]) -> dict[str, int]:
    """The settings a user gave, as what the strategy declares them to be.

    Raises:
        UsageError: when the strategy has no such setting, or not with such a value.
    """
    known = {f.name: f for f in fields(kind) if f.name != "n"}
    for name in given:
        if name not in known:
            use = f"use {one_of(known)}" if known else "it has none, so leave it out"
            raise UsageError(f"The strategy {kind.name!r} has no setting {name!r}: {use}.")
    return {name: _whole(known[name], value) for name, value in given.items()}


def one_of(names: Iterable[str]) -> str:
    """The names as a choice: "a, b or c"."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _whole(f: Field[Any], value: object) -> int:
    least: int = f.metadata.get("least", 1)
    try:
        number = int(str(value))
    except ValueError:
        number = least - 1
    if number < least:
        raise UsageError(
            f"The setting {f.name}={value} is not possible: give a whole number, {least} or more."
        )
    return number
