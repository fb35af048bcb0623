"""Problems from files: text with a question a line, JSON lines, CSV. Read as they are needed.

What is in memory does not grow with the input: a line longer than `LINE_LIMIT` is passed over
without being held. A line that holds no problem becomes an `Entry` with an error, so that one bad
line does not end a run of thousands.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Literal, Protocol

from ttsolve.core import Problem
from ttsolve.errors import UsageError
from ttsolve.fields import BadRecord, Fields, asks, checked, id_in, problem_in

Format = Literal["text", "jsonl", "csv"]
SUFFIXES: Mapping[str, Format] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "csv",
}  # fmt: skip
LINE_LIMIT = 1 << 20  # bytes
MEND = "mend it, or tell `ttsolve batch` by --format what the file is"
CHUNK = 1 << 16  # bytes of one read
LINE_END = re.compile(rb"\n|\r(?!\n)")  # old Macs, and what was made there, have \r alone
FOREIGN = {  # how files begin that are no text, or not UTF-8
    b"\xff\xfe": "UTF-16 text", b"\xfe\xff": "UTF-16 text", b"PAR1": "a Parquet file",
    b"\x1f\x8b": "compressed", b"PK\x03\x04": "a ZIP archive or a workbook",
}  # fmt: skip


class Source(Protocol):
    """Where bytes come from: an unbuffered file, which returns what there is, does best."""

    def read(self, size: int, /) -> bytes | None:
        """Up to `size` bytes; b"" at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """What one line, or one record of several lines, holds: a problem, or an error."""

    line: int  # its first line, counted from 1
    id: str | int  # its own id, else the line
    problem: Problem | None = None
    error: str | None = None  # one sentence
    file: str = ""  # where several are read: this one's name


def read(
    source: Source, name: str, kind: Format | None = None, named: Fields = Fields()
) -> Iterator[Entry]:
    """The entries of one file, in order; lines without any text are passed over.

    Args:
        name: what an error calls the file; its suffix says what it is.
        kind: what it is, whatever it is called; else, without a suffix that says it, the first line
            does: `{` begins JSON lines, a CSV file begins with a header that names the question.

    Raises:
        UsageError: when the file as a whole cannot be used.
    """
    lines = _numbered(source, name)
    first = next((line for line in lines if line[1] is None or line[1].strip()), None)
    if first is None:
        return
    kind = kind or _by_suffix(name) or _by_first_line(first[1] or b"", named)
    lines = chain([first], lines)
    if kind == "csv":
        yield from _csv(lines, name, named)
    elif kind == "jsonl":
        yield from _json_lines(lines, name, named)
    else:
        yield from _text(lines)


# --- lines ------------------------------------------------------------------------------------

Line = tuple[int, bytes | None]  # its number; its bytes without the end, None: over LINE_LIMIT


def _numbered(source: Source, name: str) -> Iterator[Line]:
    number, held, last = 0, bytearray(), b""
    while chunk := source.read(CHUNK):
        if not number and not held:
            _check_beginning(chunk, name)
        chunk = last + chunk
        last = b"\r" if chunk.endswith(b"\r") else b""  # what follows it tells whether a line ends
        *ended, rest = LINE_END.split(chunk.removesuffix(b"\r"))
        for part in ended:
            held += part
            number += 1
            yield number, _whole(held)
            held.clear()
        if len(held) <= LINE_LIMIT:  # of a longer one only its length counts
            held += rest
    held += last
    if held:
        yield number + 1, _whole(held)


def _whole(held: bytearray) -> bytes | None:
    # Windows marks UTF-8 by three bytes, which `cat` may bring to the begin of any line.
    return bytes(held.removeprefix(b"\xef\xbb\xbf")) if len(held) <= LINE_LIMIT else None


def _check_beginning(chunk: bytes, name: str) -> None:
    for beginning, what in FOREIGN.items():
        if chunk.startswith(beginning):
            raise UsageError(
                f"{name} is {what}: convert it to UTF-8 text, JSON lines or CSV first."
            )


def _decoded(data: bytes | None) -> str:
    if data is None:
        raise BadRecord(f"The line is longer than {LINE_LIMIT:,} bytes: shorten it.")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadRecord("The line is not UTF-8 text: convert it.") from None


# --- formats ----------------------------------------------------------------------------------


def _by_suffix(name: str) -> Format | None:
    return next((kind for suffix, kind in SUFFIXES.items() if name.lower().endswith(suffix)), None)


def _by_first_line(data: bytes, named: Fields) -> Format:
    if re.match(rb"\s*(?:\{|\[\s*(?:\{|$))", data):
        return "jsonl"
    header = data.decode(errors="replace")
    columns = header.strip().split(_delimiter(header))
    return "csv" if len(columns) > 1 and asks(columns, named) else "text"


def _text(lines: Iterable[Line]) -> Iterator[Entry]:
    for number, data in lines:
        try:
            if question := _decoded(data).strip():
                yield Entry(number, number, Problem(checked(question)))
        except BadRecord as error:
            yield Entry(number, number, error=str(error))


def _json_lines(lines: Iterable[Line], name: str, named: Fields) -> Iterator[Entry]:
    begun = False
    for number, data in lines:
        if not begun and data and data.lstrip().startswith(b"["):
            raise UsageError(
                f"{name} is one JSON array: make a line of each record, as `jq -c '.[]'` does."
            )
        begun = True
        try:
            if text := _decoded(data).strip():
                yield _entry(number, _object(text), named)
        except BadRecord as error:
            yield Entry(number, number, error=str(error))


def _object(text: str) -> dict[str, object]:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        why = f"{error.msg}, column {error.colno}"
        raise BadRecord(f"The line is no JSON ({why}): {MEND}.") from None
    except (ValueError, RecursionError):  # a number of 5,000 digits, 10,000 brackets
        raise BadRecord("The line is JSON beyond all bounds: simplify it.") from None
    if not isinstance(record, dict):
        raise BadRecord('The line is no JSON object: write it as {"question": …}.')
    return record


def _entry(number: int, record: dict[str, object], named: Fields) -> Entry:
    own = id_in(record)
    name = number if own is None else own
    try:
        return Entry(number, name, problem_in(record, named))
    except BadRecord as error:
        return Entry(number, name, error=str(error))


def _csv(lines: Iterator[Line], name: str, named: Fields) -> Iterator[Entry]:
    first = next(lines)
    at = first[0]  # the last line that the reader took
    delimiter = _delimiter((first[1] or b"").decode(errors="replace"))

    def texts() -> Iterator[str]:
        nonlocal at
        for number, data in chain([first], lines):
            at = number
            # What is over the reader's own limit is an error of the record it stands in.
            over = "x" * (csv.field_size_limit() + 1)
            yield over if data is None else data.decode(errors="surrogateescape") + "\n"

    rows = csv.reader(texts(), delimiter=delimiter, strict=True)
    columns = _header(rows, name, named)
    while True:
        number = at + 1
        try:
            row = next(rows)
            if row:
                yield _entry(number, _cells(columns, row), named)
        except StopIteration:
            return
        except csv.Error as error:
            where = f"line {number}" if at == number else f"lines {number} to {at}"
            yield Entry(number, number, error=f"This is no CSV ({where}: {error}): {MEND}.")
        except BadRecord as error:
            yield Entry(number, number, error=str(error))


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


def _header(rows: Iterator[list[str]], name: str, named: Fields) -> list[str]:
    try:
        columns = [column.strip() for column in next(rows)]
    except csv.Error as error:
        raise UsageError(f"{name} does not begin with a CSV header ({error}): write one.") from None
    if not asks(columns, named):
        have = ", ".join(columns[:8])
        raise UsageError(
            f"No column of {name} holds the question (there are: {have}): write a header, or name "
            "its column with --question-field."
        )
    return columns


def _cells(columns: list[str], row: list[str]) -> dict[str, object]:
    if len(row) != len(columns):
        raise BadRecord(f"The record has {len(row)} cells and the header {len(columns)}: mend it.")
    if any("\udc80" <= c <= "\udcff" for cell in row for c in cell):
        raise BadRecord("The record is not UTF-8 text: convert it.")
    return dict(zip(columns, row, strict=True))
