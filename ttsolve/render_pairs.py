"""What pairs there are, what one is made of, and how fast it is: on stdout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ttsolve.pair import GeneratorFile, Pair
from ttsolve.render import line, printable, quantity

if TYPE_CHECKING:  # it opens llama.cpp, and most commands do not
    from ttsolve.bench import Report


def show_pairs(pairs: Sequence[Pair]) -> None:
    """The pairs, one a line."""
    width = max((len(pair.name) for pair in pairs), default=0)
    for pair in pairs:
        line(f"{pair.name:{width}}  {printable(pair.about)}")


def show_pair(pair: Pair) -> None:
    """What a pair is made of, and what was measured of it."""
    how = asdict(pair.sampling)
    rows = {
        "pair": f"{pair.name}: {pair.about}",
        "folder": str(pair.folder),
        "world": f"{pair.world.name}: {pair.world.about}" if pair.world else "not bound to one",
        "generator": _generator(pair.generator),
        "verifier": pair.verifier.file if pair.verifier else "none: the vote is by majority",
        "reviser": _reviser(pair),
        "sampling": ", ".join(f"{k} {how[k]}" for k in how if k not in ("steps", "seed")),
        **{f"measured {key}": json.dumps(value) for key, value in pair.measured.items()},
    }
    for key, value in rows.items():
        line(f"{key:10} {printable(value)}")


def _generator(file: GeneratorFile) -> str:
    if file.endpoint:
        return f"{file.model or 'the first model'} at {file.file}"
    return f"{file.file}, sha256 {file.sha256}"


def _reviser(pair: Pair) -> str:
    if pair.reviser is None:
        return "none: the generator revises, untrained"
    judge = pair.reviser.verifier
    return f"{pair.reviser.file}, judged by {judge.file if judge else 'the verifier'}"


def show_speed(report: Report) -> None:
    """What `bench` measured: tokens a second, and our engine's over the plain loop's."""
    line(
        f"{printable(report.generator)}: {quantity(report.params, ' parameters')}, "
        f"{report.device}, {report.kv} KV cache of {report.context} tokens a sequence"
    )
    line(f"{'':14} {'tokens/s':>9} {'ratio':>6} {'loops':>6} {'shared':>6}  outside llama_decode")
    line(f"{'plain loop':14} {report.plain.rate:>9,.0f} {1:>6.2f} {1:>6}")
    for speed, ratio in zip(report.engine, report.ratios, strict=True):
        line(
            f"{f'width {speed.width}':14} {speed.rate:>9,.0f} {ratio:>6.2f} {speed.loops:>6} "
            f"{speed.shared:>6.1f}  {speed.outside:.0%}"
        )
    if report.verifier:
        where = f"whole solutions, {report.verifier.device}"
        line(f"{'verifier':14} {report.verifier.scratch:>9,.0f} {'':14} {where}")
        line(f"{'':14} {report.verifier.incremental:>9,.0f} {'':14} step by step")
