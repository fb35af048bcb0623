"""A pair.toml as frozen dataclasses and back: a field is a key, a nested dataclass a table, a tuple
of dataclasses an array of tables.

Whatever is wrong in the file becomes one sentence that names the file, the key and the remedy.
Knows nothing of what a pair is.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from datetime import date, time
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ttsolve.errors import PairError

T = TypeVar("T")
RUN_FIELDS = ("folder", "steps", "seed")  # of one run, or one disk: neither read nor written
LONG = 60  # characters: a longer text is written with its line breaks
KINDS: dict[Any, tuple[type | tuple[type, ...], str]] = {
    str: (str, "a text in quotes"),
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    dict: (dict, "a table"),
    tuple: (list, "a list in brackets"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """A key of a file, for error messages."""

    file: Path
    key: str = ""  # dotted; "": the whole file

    def __truediv__(self, key: str) -> Place:
        return Place(self.file, f"{self.key}.{key}".lstrip("."))

    def wrong(self, trouble: str, remedy: str) -> PairError:
        return PairError(f"{self.file}: {self.key} {trouble}: {remedy}.")


def read(kind: type[T], file: Path, remedy: str = "name the folder of a pair", **given: Any) -> T:
    """The dataclass that the file describes; `given` fields come from elsewhere.

    `remedy` ends the sentence on a file that cannot be read.

    Raises:
        PairError: the file cannot be read, or a key is unknown, missing or of a wrong type.
    """
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or error
        raise PairError(f"Cannot read {file} ({reason}): {remedy}.") from error
    except ValueError as error:  # of TOML or of UTF-8
        raise PairError(f"{file} is not TOML ({error}): correct it.") from error
    return _build(kind, table, Place(file), given)


def dump(value: Any) -> str:
    """The dataclass as TOML, defaults included: a file keeps its meaning when defaults change."""
    return "\n".join(_lines(_table(value), "")) + "\n"


def use(word: str, known: Sequence[str]) -> str:
    """The first half of a remedy: the nearest known word, else all of them, else nothing."""
    near = get_close_matches(word, known, n=1) or known
    return f"use {' or '.join(map(repr, near))}, or " if near else ""


def _keys(kind: Any) -> dict[str, Field[Any]]:
    return {f.name: f for f in fields(kind) if f.name not in RUN_FIELDS}


def _build(kind: type[T], table: Mapping[str, Any], place: Place, given: Mapping[str, Any]) -> T:
    hints, known = get_type_hints(kind), _keys(kind)
    for key in table:
        if key not in known:
            remedy = f"{use(key, list(known))}remove it"
            raise (place / key).wrong("is not a known key", remedy)
    for key, f in known.items():
        if key not in table and f.default is MISSING and f.default_factory is MISSING:
            raise (place / key).wrong("is missing", "add it")
    values = {key: _value(table[key], hints[key], place / key) for key in table}
    return kind(**given, **values)


def _value(value: Any, hint: Any, place: Place) -> Any:
    """The value, when it is what the field's annotation asks for."""
    if NoneType in get_args(hint):
        hint = next(kind for kind in get_args(hint) if kind is not NoneType)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise place.wrong(f"is {value!r}", f"write {' or '.join(map(repr, get_args(hint)))}")
        return value
    wanted, word = KINDS[dict if is_dataclass(hint) else get_origin(hint) or hint]
    if wanted is list and isinstance(value, list):
        each = get_args(hint)[0]
        return tuple(_value(item, each, place / str(i)) for i, item in enumerate(value))
    if not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool):
        raise place.wrong(f"is {value!r}", f"write {word}")
    return _build(hint, value, place, {}) if is_dataclass(hint) else value  # type: ignore[arg-type]


def _table(value: Any) -> dict[str, Any]:
    items = ((key, getattr(value, key)) for key in _keys(value))
    return {key: _plain(item) for key, item in items if item is not None and item != {}}


def _plain(item: Any) -> Any:
    if isinstance(item, tuple):
        return tuple(map(_plain, item))
    return _table(item) if is_dataclass(item) else item


def _are_tables(item: Any) -> bool:
    return isinstance(item, tuple) and bool(item) and isinstance(item[0], dict)


def _lines(table: Mapping[str, Any], parent: str) -> Iterator[str]:
    for key, item in table.items():
        if not isinstance(item, dict) and not _are_tables(item):
            yield f"{_key(key)} = {_lines_of(item) or _literal(item)}"
    for key, item in table.items():
        if isinstance(item, dict):
            yield f"\n[{parent}{_key(key)}]"
            yield from _lines(item, f"{parent}{_key(key)}.")
        for each in item if _are_tables(item) else ():
            yield f"\n[[{parent}{_key(key)}]]"
            yield from _lines(each, f"{parent}{_key(key)}.")


def _lines_of(item: Any) -> str:
    """A long text with line breaks as it is read best; "": it is none."""
    if not isinstance(item, str) or "\n" not in item or len(item) <= LONG:
        return ""
    return '"""\n' + "\n".join(map(_escaped, item.split("\n"))) + '"""'


def _escaped(text: str) -> str:
    """The text as it stands between quotes: as in JSON, but for DEL."""
    return json.dumps(text, ensure_ascii=False)[1:-1].replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _literal(key)


def _literal(item: Any) -> str:
    if isinstance(item, str):
        return f'"{_escaped(item)}"'
    if isinstance(item, bool):
        return str(item).lower()
    if isinstance(item, list | tuple):
        return f"[{', '.join(map(_literal, item))}]"
    if isinstance(item, dict):
        return f"{{{', '.join(f'{_key(key)} = {_literal(value)}' for key, value in item.items())}}}"
    return item.isoformat() if isinstance(item, date | time) else repr(item)
