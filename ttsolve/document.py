"""A report with tables and figures, as Markdown beside its figures and as one HTML file."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from ttsolve.errors import StorageError
from ttsolve.files import ROOM, write_whole

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 14px; margin: 1rem 0; }
th, td { border: 1px solid #ccc; padding: .3rem .55rem; text-align: left; vertical-align: top; }
th { background: #f3f3f3; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.holds, td.not, td.unknown { white-space: nowrap; }
td.holds { background: #dcf2dc; } td.not { background: #f8dcdc; } td.unknown { background: #eee; }
figure { margin: 1rem 0; }
img { max-width: 100%; }
"""
NUMBER = re.compile(r"[-+]?\d[\d,.]*( \([\d.]+\))?( \[[^]]*\](, n=[\d,]+)?)?")
CLASSES = {"holds": "holds", "does not hold": "not", "cannot tell": "unknown"}


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: a head, and rows of as many cells."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture that was drawn, in the report's folder."""

    file: Path  # .png
    caption: str  # for those who cannot see it


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, paragraphs, then a table and a figure where there are any."""

    title: str
    paragraphs: tuple[str, ...] = ()
    table: Grid | None = None
    figure: Figure | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A title, and sections."""

    title: str
    sections: tuple[Section, ...]


def write_document(document: Document, folder: Path, name: str) -> tuple[Path, Path]:
    """Write NAME.md and NAME.html into the folder where the figures are; the HTML needs no other.

    Raises:
        StorageError: when one cannot be written.
    """
    files = folder / f"{name}.md", folder / f"{name}.html"
    for file, lines in zip(files, (_markdown(document), _html(document)), strict=True):
        write_whole(file, "\n".join(lines) + "\n")
    return files


# --- Markdown ---------------------------------------------------------------------------------


def _markdown(document: Document) -> Iterator[str]:
    yield f"# {document.title}"
    for section in document.sections:
        yield f"\n## {section.title}"
        for paragraph in section.paragraphs:
            yield f"\n{paragraph}"
        if section.table:
            yield ""
            yield from markdown_table(section.table)
        if section.figure:
            yield f"\n![{section.figure.caption}]({section.figure.file.name})"


def markdown_table(table: Grid) -> Iterator[str]:
    """The lines of a table in Markdown."""
    yield _markdown_row(table.head)
    yield "|" + "---|" * len(table.head)
    yield from map(_markdown_row, table.rows)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


# --- HTML -------------------------------------------------------------------------------------


def _html(document: Document) -> Iterator[str]:
    title = escape(document.title)
    yield f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>'
    yield f"<style>{STYLE}</style>\n<h1>{title}</h1>"
    for section in document.sections:
        yield f"<h2>{escape(section.title)}</h2>"
        for paragraph in section.paragraphs:
            yield f"<p>{escape(paragraph)}</p>"
        if section.table:
            yield from _html_table(section.table)
        if section.figure:
            yield _html_figure(section.figure)
    yield "</html>"


def _html_table(table: Grid) -> Iterator[str]:
    yield "<table>"
    yield "<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in table.head) + "</tr>"
    for row in table.rows:
        yield "<tr>" + "".join(map(_html_cell, row)) + "</tr>"
    yield "</table>"


def _html_cell(cell: str) -> str:
    kind = CLASSES.get(cell, "number" if NUMBER.fullmatch(cell) else "")
    return f'<td class="{kind}">{escape(cell)}</td>' if kind else f"<td>{escape(cell)}</td>"


def _html_figure(figure: Figure) -> str:
    try:
        data = b64encode(figure.file.read_bytes()).decode()
    except OSError as error:
        raise StorageError(f"Cannot read {figure.file} ({error.strerror}): {ROOM}.") from error
    caption = escape(figure.caption)
    return f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"></figure>'
