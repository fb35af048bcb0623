"""The `ttsolve models` commands: what pairs there are, and what becomes one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ttsolve import render
from ttsolve.errors import MissingExtra
from ttsolve.pair import list_pairs, load_pair

models = typer.Typer(help="The pairs of models on this machine.", no_args_is_help=True)


@models.command("list")
def list_command() -> None:
    """List the pairs, one a line."""
    render.show_pairs(list_pairs())


@models.command("show")
def show_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, or its folder.")],
) -> None:
    """Show what a pair is made of, and what was measured of it."""
    render.show_pair(load_pair(name))


@models.command("export-prm")
def export_prm_command(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A Hugging Face folder, or the hub's id of a model."),
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write into.")],
    dtype: Annotated[
        Literal["f32", "f16", "int8"], typer.Option(help="What the matrices are stored in.")
    ] = "f32",
    family: Annotated[
        str | None, typer.Option(metavar="NAME", help="How it was trained; default: as it shows.")
    ] = None,
    mark: Annotated[
        str | None, typer.Option(metavar="TEXT", help=r"What ends a step, with \n: the family's.")
    ] = None,
    context: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Tokens it may read; default: its own.")
    ] = None,
) -> None:
    """Write a published reward model as a verifier: ONNX, tokenizer and verifier.toml.

    Its scores are compared with those of transformers before anything stays on the disk. Code of a
    model's repository is never run. Needs: pip install 'ttsolve[train]', and 4 bytes of memory for
    each parameter.
    """
    try:
        from ttsolve.train.export_prm import export_prm
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"Exporting needs {error.name}, which is not installed: pip install 'ttsolve[train]'."
        ) from error
    how = export_prm(
        source,
        output,
        dtype=dtype,
        family=family,
        mark=mark.replace(r"\n", "\n") if mark else None,
        context=context,
        report=render.progress,
    )
    render.line(
        f"{output}: family {how.family}, {how.context} tokens, steps end with "
        f"{how.separator!r}, aggregation {how.aggregation}"
    )
