"""The settings of a strategy: fields of its dataclass, typed and bounded by what they declare."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, field, fields
from typing import Any, ClassVar, Protocol

from ttsolve.errors import UsageError

Read = Callable[[str], object]  # a value, or None where the text is none


class HasSettings(Protocol):
    """A dataclass; its field `n` follows from the budget, the others are settings."""

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


def setting(default: int, *, least: int = 1) -> Any:
    """A field for a whole number that is `least` or more."""

    def read(text: str) -> int | None:
        if not re.fullmatch(r"[0-9]{1,18}", text):  # int() takes 1_0 and other scripts' digits
            return None
        number = int(text)
        return number if number >= least else None

    return _field(default, read, f"give a whole number, {least} or more")


def choice(*words: str) -> Any:
    """A field for one of the words, of which the first is the default."""
    return _field(words[0], {word: word for word in words}.get, f"give {one_of(words)}")


def proportion() -> Any:
    """A field for a ratio of two whole numbers, as "1:4"; "": none."""

    def read(text: str) -> str | None:
        return text if re.fullmatch(r"([1-9]\d{0,8}:[1-9]\d{0,8})?", text) else None

    return _field("", read, 'give two whole numbers, as in "1:4"')


def check(strategy: HasSettings) -> None:
    """Every field is what it declares.

    Raises:
        UsageError: when one is not.
    """
    for f in fields(strategy):
        _read(f, getattr(strategy, f.name))


def read_settings(kind: type[HasSettings], given: Mapping[str, object]) -> dict[str, Any]:
    """The settings a user gave, as what the strategy declares them to be.

    Raises:
        UsageError: when the strategy has no such setting, or not with such a value.
    """
    known = {f.name: f for f in fields(kind) if f.name != "n"}
    for name in given:
        if name not in known:
            use = f"use {one_of(known)}" if known else "it has none, so leave it out"
            raise UsageError(f"The strategy {kind.name!r} has no setting {name!r}: {use}.")
    return {name: _read(known[name], value) for name, value in given.items()}


def one_of(names: Iterable[str]) -> str:
    """The names as a choice: "a, b or c"."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _field(default: object, read: Read, remedy: str) -> Any:
    return field(default=default, metadata={"read": read, "remedy": remedy})


def _read(f: Field[Any], value: object) -> object:
    found = f.metadata["read"](str(value))
    if found is None:
        raise UsageError(f"The setting {f.name}={value} is not possible: {f.metadata['remedy']}.")
    return found
