"""What everything shown is made of: results go to stdout, live lines, notes and errors to stderr.

Texts that a generator or a user wrote are printed with control characters replaced, so that they
cannot move the cursor or colour the terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from rich.console import Console
from rich.text import Text


def printable(text: str) -> str:
    """The text on one line, control characters (but no letter of any script) shown as `�`."""
    return "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))


def quantity(value: float, unit: str) -> str:
    """Three digits and an SI prefix: quantity(6.13e9, "FLOP") == "6.13 GFLOP"."""
    thousands = 0
    while abs(value) >= 999.5 and thousands < 6:
        value, thousands = value / 1000, thousands + 1
    return f"{value:.3g} {' kMGTPE'[thousands].strip()}{unit}"


def in_words(settings: Mapping[str, object], *hidden: str) -> str:
    """A run's settings but for those hidden or unset, numbers to two digits."""
    shown = {k: v for k, v in settings.items() if k not in hidden and v not in ("", None)}
    said = ((k, round(v, 2) if isinstance(v, float) else v) for k, v in shown.items())
    return printable(", ".join(f"{key} {value}" for key, value in said))


def ending(finish: str | None) -> str:
    """How something ended that did not stop by itself: what Ctrl-C left has finish "budget" too."""
    return "not ended" if finish == "budget" else f"cut by {finish}"


def colored(score: float | None) -> Text:
    """A step's score, green where the verifier trusts it and red where not."""
    if score is None:
        return Text("     -", style="dim")
    return Text(f"  {score:.2f}", style="green" if score >= 0.5 else "red")


# --- results (stdout) ---------------------------------------------------------------------------


def line(text: str) -> None:
    """One line on stdout, as it is."""
    sys.stdout.write(text + "\n")


# --- everything else (stderr) -------------------------------------------------------------------


def note(sentence: str, style: str = "yellow") -> None:
    """A sentence beside the result."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(sentence, style=style))


def progress(sentence: str) -> None:
    """A line about a long job that goes on."""
    note(sentence, style="")


def error(sentence: str) -> None:
    """The sentence that ends a run."""
    note(f"Error: {sentence}", style="red")
