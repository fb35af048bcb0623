"""The `ttsolve models` commands: what pairs there are, and what becomes one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from ttsolve import paths, render, render_pairs
from ttsolve.cli_options import FewShot, GpuLayers, ModelName
from ttsolve.errors import MissingExtra, UsageError
from ttsolve.own_pair import add_pair
from ttsolve.pair import default_pair, list_pairs, load_default, load_pair, set_default_pair
from ttsolve.pair_rules import FILE, NAME, check_new

models = typer.Typer(help="The pairs of models on this machine.", no_args_is_help=True)


@models.command("list")
def list_command() -> None:
    """List the pairs, one a line."""
    render_pairs.show_pairs(list_pairs(lambda error: render.note(str(error))))


@models.command("show")
def show_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, or its folder.")],
) -> None:
    """Show what a pair is made of, and what was measured of it."""
    render_pairs.show_pair(load_pair(name))


@models.command("add")
def add_command(
    generator: Annotated[
        str, typer.Argument(metavar="GGUF", help="The generator: a GGUF file, or an endpoint.")
    ],
    *,
    name: Annotated[str, typer.Option(metavar="NAME", help="What the pair is to be called.")],
    verifier: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="What `models export-prm` wrote; none: majority vote."),
    ] = None,
    model: ModelName = None,
    few_shot: FewShot = None,
) -> None:
    """Make a pair of your own models, from what their files say.

    Its folder holds a pair.toml, to be changed by hand, and links to the models: nothing large is
    copied, and the models have to stay where they are.
    """
    if not re.fullmatch(NAME, name):
        raise UsageError(f"{name!r} is no name of a pair: use letters, digits, - _ . only.")
    check_new(name)
    from ttsolve.pair_check import memory_needed

    folder = paths.user_pairs() / name
    pair = add_pair(folder, generator, verifier, few_shot, model, render.progress)
    render.line(f"{pair.name}: {pair.about}")
    render.line(memory_needed(pair))
    render.line(
        f"{folder / FILE}: what it is asked, and how; `ttsolve models check {name}` tries it"
    )


@models.command("check")
def check_command(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The pair; none: the default one.")
    ] = None,
    *,
    gpu_layers: GpuLayers = -1,
) -> None:
    """Verify a pair's files, and let it solve three problems.

    The exit code is 0 when its parts fit one another, else 1.
    """
    from ttsolve.pair_check import check_pair

    pair = load_pair(name, verify=False) if name else load_default(verify=False)
    report = check_pair(pair, gpu_layers, render.progress)
    for what, words in {"pair": f"{pair.name}: {pair.about}", **report.found}.items():
        render.line(f"{what:10} {render.printable(words)}")
    for sentence in report.misfits or ["yes"]:
        render.line(f"{'fits' if sentence == 'yes' else 'fits not':10} {sentence}")
    raise typer.Exit(int(bool(report.misfits)))


@models.command("pull")
def pull_command(
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Its repository on the hub.")],
) -> None:
    """Fetch a pair from the Hugging Face hub.

    HF_ENDPOINT names another hub. What was interrupted goes on where it was. Needs: pip install
    'ttsolve[hub]'.
    """
    from ttsolve.pull import pull_pair

    pair = pull_pair(repo, render.progress)
    render.line(f"{pair.name}: {pair.about}")


@models.command("default")
def default_command(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The pair; none: tell which it is.")
    ] = None,
) -> None:
    """Choose the pair that is used where none is named.

    The variable TTSOLVE_PAIR goes before it.
    """
    if name is not None:  # a folder is to be found from other folders too
        set_default_pair(name if re.fullmatch(NAME, name) else str(Path(name).resolve()))
    render.line(default_pair())


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
