"""The `ttsolve train` commands: parse, and call the functions of `ttsolve.train`.

All of them work in one folder, in this order: data, generator, labels, prm; revisions-data,
reviser, chains, revision-verifier; export, measure, compare. Each goes on where it stopped when it
is run again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ttsolve import render
from ttsolve.cli_store import CacheFile, NoCache, stored_pair
from ttsolve.engine import Sampling
from ttsolve.errors import MissingExtra
from ttsolve.pair import load_pair

train = typer.Typer(
    help="Train a pair from nothing.\n\nNeeds: pip install 'ttsolve[train]'.", no_args_is_help=True
)

Work = Annotated[Path, typer.Argument(help="The folder that holds everything of this training.")]
Subjects = Annotated[
    list[str] | None, typer.Option("--subject", help="Only problems of it; may be repeated.")
]
Millions = Annotated[float, typer.Option(min=0.001, help="Tokens to train on, in millions.")]
Seed = Annotated[int, typer.Option(help="Equal seeds give equal data.")]
Judges = Annotated[int, typer.Option(min=1, help="Layers above the language model's.")]
Start = Annotated[
    Path | None,
    typer.Option("--from", help="A verifier.onnx to go on from, instead of the generator."),
]
Former = Annotated[
    Path | None,
    typer.Option(
        "--former",
        help="The generator.gguf that --from was grown from, if the folder's is another.",
    ),
]
Temperature = Annotated[float, typer.Option(min=0.0, help="Of the samples.")]
MinP = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="No token below this share of the likeliest one's.")
]


@contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"Training needs {error.name}, which is not installed: pip install 'ttsolve[train]'."
        ) from error


def _sampling(temperature: float, min_p: float) -> Sampling:
    from ttsolve.train.work import SAMPLING

    return replace(SAMPLING, temperature=temperature, min_p=min_p)


@train.command()
def data(
    folder: Annotated[Path, typer.Argument(help="Where the problems are written.")],
    test: Annotated[int, typer.Option(min=1, help="Problems of the test split.")] = 500,
    calibration: Annotated[int, typer.Option(min=1, help="Of the calibration split.")] = 500,
    subject: Subjects = None,
    level: Annotated[
        list[int] | None,
        typer.Option(min=1, max=5, help="Only of it, 1 easy to 5 hard; may be repeated."),
    ] = None,
) -> None:
    """Write PocketMath's splits and the Game-of-24 hands.

    test.jsonl, calibration.jsonl and game24.jsonl, a problem a line.
    """
    from ttsolve.train.data import write_data

    for file, count in write_data(folder, test, calibration, subject or (), level or ()):
        render.line(f"{file}: {count} problems")


@train.command()
def generator(
    work: Work,
    tokens: Millions = 33.0,
    layers: Annotated[int, typer.Option(min=1, help="Decoder layers.")] = 5,
    width: Annotated[int, typer.Option(min=32, help="Width, a multiple of 32.")] = 128,
    games: Annotated[
        float, typer.Option(min=0.0, help="How often four-number games are drawn; most: 1.")
    ] = 25.0,
    seed: Seed = 0,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="A generator.gguf to go on from, with its tokenizer."),
    ] = None,
) -> None:
    """Train the generator on PocketMath, from nothing.

    Writes generator.gguf. With more --tokens than before it goes on from where it ended.
    """
    with _extra():
        from ttsolve.train.run import make_generator

        make_generator(work, int(tokens * 1e6), layers, width, games, seed, render.progress, start)


@train.command()
def labels(
    work: Work,
    problems: Annotated[int, typer.Option(min=1, help="Training problems to sample.")] = 20_000,
    samples: Annotated[int, typer.Option(min=1, help="Samples of each problem.")] = 16,
    rollouts: Annotated[
        int, typer.Option(min=0, help="Further samples from every step of these; 0: none.")
    ] = 0,
    subject: Subjects = None,
    temperature: Temperature = 1.5,
    min_p: MinP = 0.03,
    seed: Seed = 0,
) -> None:
    """Sample solutions of training problems and grade them.

    Writes labels-SEED.jsonl. Run it with several seeds at a time to use several cores: the
    verifier learns from all files.
    """
    with _extra():
        from ttsolve.train.run import make_labels

        how = _sampling(temperature, min_p)
        make_labels(work, problems, samples, rollouts, subject or (), how, seed, render.progress)


@train.command()
def prm(
    work: Work,
    tokens: Millions = 16.0,
    judges: Judges = 2,
    seed: Seed = 0,
    start: Start = None,
    former: Former = None,
) -> None:
    """Train the process reward model on the labels.

    Writes verifier.onnx.
    """
    with _extra():
        from ttsolve.train.run import make_verifier

        wanted = int(tokens * 1e6)
        make_verifier(work, wanted, judges, seed, render.progress, "prm", start, former)


@train.command()
def orm(
    work: Work,
    tokens: Millions = 16.0,
    judges: Judges = 2,
    seed: Seed = 0,
    start: Start = None,
    former: Former = None,
) -> None:
    """Train an outcome reward model on the same samples.

    Writes orm.onnx, to compare the process reward model with.
    """
    with _extra():
        from ttsolve.train.run import make_verifier

        wanted = int(tokens * 1e6)
        make_verifier(work, wanted, judges, seed, render.progress, "orm", start, former)


@train.command("revisions-data")
def revisions_data(
    work: Work,
    problems: Annotated[int, typer.Option(min=1, help="Training problems to sample.")] = 3000,
    samples: Annotated[int, typer.Option(min=2, help="Samples of each problem.")] = 64,
    temperature: Temperature = 1.8,
    min_p: MinP = 0.001,
    keep: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share that shows a right attempt, to be kept; wrong ones then repeat as well.",
        ),
    ] = 0.0,
    labels: Annotated[
        bool, typer.Option("--labels", help="Make some of the verifier's labelled samples as well.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Pair wrong attempts with the right ones that follow.

    Writes attempts-SEED.jsonl and, made of them, revisions-SEED.jsonl: what the reviser learns
    from. Run it with several seeds at a time to use several cores.
    """
    with _extra():
        from ttsolve.train.run import make_revisions_data

        how = _sampling(temperature, min_p)
        make_revisions_data(work, problems, samples, how, keep, seed, render.progress, labels)


@train.command()
def reviser(
    work: Work,
    tokens: Millions = 3.0,
    layers: Annotated[
        int, typer.Option(min=0, help="Further layers, on top of the generator's.")
    ] = 0,
    rate: Annotated[
        float, typer.Option(min=1e-6, max=1.0, help="Learning rate, at its highest.")
    ] = 7e-4,
    temperature: Temperature = 1.5,
    min_p: MinP = 0.03,
    seed: Seed = 0,
) -> None:
    """Train the reviser on the trajectories.

    Goes on from the generator and writes reviser.gguf. Of the checkpoints whose
    sampled revisions of held-out problems are right most often, within a standard error, the last
    is kept.
    """
    with _extra():
        from ttsolve.train.run import make_reviser

        how = _sampling(temperature, min_p)
        make_reviser(work, int(tokens * 1e6), layers, rate, how, seed, render.progress)


@train.command()
def chains(
    work: Work,
    problems: Annotated[int, typer.Option(min=1, help="Training problems to sample.")] = 6000,
    chains: Annotated[int, typer.Option(min=1, help="Chains of each problem.")] = 4,
    length: Annotated[int, typer.Option(min=2, help="Attempts of each chain.")] = 5,
    temperature: Temperature = 1.5,
    min_p: MinP = 0.03,
    seed: Seed = 0,
) -> None:
    """Let the reviser revise; grade its attempts.

    Writes chains-SEED.jsonl: chains at training problems.
    """
    with _extra():
        from ttsolve.train.run import make_chains

        how = _sampling(temperature, min_p)
        make_chains(work, problems, chains, length, how, seed, render.progress)


@train.command("revision-verifier")
def revision_verifier(
    work: Work,
    tokens: Millions = 8.0,
    judges: Judges = 2,
    seed: Seed = 0,
    start: Start = None,
) -> None:
    """Train the reviser's own verifier on its chains.

    Writes revision-verifier.onnx.
    """
    with _extra():
        from ttsolve.train.run import make_verifier

        wanted = int(tokens * 1e6)
        make_verifier(work, wanted, judges, seed, render.progress, "revision-verifier", start)


@train.command()
def export(
    work: Work,
    output: Annotated[Path, typer.Option("--output", "-o", help="The pair's folder.")],
    temperature: Temperature = 1.5,
    min_p: MinP = 0.03,
) -> None:
    """Put what was trained into a pair's folder.

    Generator, verifier and tokenizer, the reviser and its verifier if there are any, and a
    pair.toml that names them.
    """
    with _extra():
        from ttsolve.train.finish import export_pair

        render.line(f"{export_pair(work, output, _sampling(temperature, min_p))}")


@train.command()
def measure(
    pair: Annotated[Path, typer.Argument(help="The pair's folder.")],
    work: Work,
    samples: Annotated[int, typer.Option(min=1, help="Samples of each test problem.")] = 256,
    hands: Annotated[int, typer.Option(min=1, help="Samples of each Game-of-24 hand.")] = 256,
) -> None:
    """Measure a pair on its test split and the Game of 24.

    Writes the figures of its card.
    """
    with _extra():
        from ttsolve.train.finish import measure_pair

        measure_pair(pair, work, samples, hands, render.progress)


@train.command()
def compare(
    work: Work,
    verifiers: Annotated[list[Path], typer.Argument(help="Verifiers (ONNX), the first ahead.")],
    split: Annotated[
        str, typer.Option(help="Which samples of `train measure`: test, game24 or slips.")
    ] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="The first problems alone.")] = None,
) -> None:
    """Compare verifiers on the same samples.

    AUC within problems, by step, and votes, as Markdown; of the others the lead over the first.
    """
    with _extra():
        from ttsolve.train.compare import compare_verifiers

        render.line(compare_verifiers(work, split, verifiers, limit, render.progress))


@train.command("measure-reviser")
def measure_reviser(
    pair: Annotated[Path, typer.Argument(help="The pair's folder.")],
    problems: Annotated[int, typer.Option(min=2, help="Of the pair's test split.")] = 500,
    chains: Annotated[int, typer.Option(min=1, help="Chains of each problem.")] = 4,
    length: Annotated[int, typer.Option(min=2, help="Attempts of each chain.")] = 16,
    seed: Seed = 0,
    figures: Annotated[
        Path | None,
        typer.Option(
            help="A folder for attempts.png, parallel.png, ratios-N.png; default: no plots."
        ),
    ] = None,
    cache: CacheFile = None,
    no_cache: NoCache = False,
) -> None:
    """Measure chains of revisions on the test split.

    pass@1 by attempt, all votes and ratios, as Markdown.
    """
    with _extra():
        from ttsolve.chains_report import draw, revised, written
        from ttsolve.files import check_folder
        from ttsolve.plots import check_plot
        from ttsolve.train.data import read_problems
        from ttsolve.train.work import needed

        if figures is not None:
            check_plot(figures / "attempts.png")
            check_folder(figures, "--figures")
        chosen = load_pair(pair)
        some = read_problems(needed(pair / "data" / "test.jsonl", "data"))[:problems]
        with stored_pair(chosen, -1, cache, no_cache) as models:
            found = revised(some, models, chains, length, seed=seed, say=render.progress)
        render.line(written(found))
        if figures is not None:
            draw(found, figures, chosen.name)
