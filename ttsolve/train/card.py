"""The figures of a pair as data (measured.json) and as Markdown for its model card."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ttsolve import measure
from ttsolve.core import Problem
from ttsolve.files import write_whole
from ttsolve.measure import Bin, Estimate, Pool
from ttsolve.train.figures import (
    aggregation_table,
    by_kind,
    calibration_by_step,
    hand_seen,
    pass_by,
    vote_table,
)
from ttsolve.train.work import WILD

ONE_ANSWER = "problems with one right answer"


def split_figures(
    pools: Sequence[Pool], likelihoods: Mapping[str, Sequence[Pool]]
) -> dict[str, Any]:
    """Everything about a split: pass@1 and its spread, votes, AUC, calibration.

    likelihoods: for each base line, the same kind of pools with its values as `likelihood`.
    """
    size = min(len(p.right) for p in pools)
    single = [p for p in pools if p.subject != "countdown"]
    steps = calibration_by_step(pools)
    return {
        "problems": len(pools),
        "samples": size,
        "pass@1": measure.pass_at(pools),
        "pass@64": measure.pass_at(pools, min(64, size)),
        "quintiles": measure.quintiles(pools),
        "pass@1 by subject": pass_by(pools, lambda p: p.subject),
        "votes": vote_table(pools),
        f"votes, {ONE_ANSWER}": vote_table(single),
        "votes by aggregation": aggregation_table(pools),
        "auc": {k: measure.auc(v) for k, v in by_kind(pools).items()},
        "auc by subject": measure.auc_by_subject(pools),
        "auc by step": measure.auc_by_step(pools),
        "auc of base lines": {
            name: {k: measure.auc(v, measure.likelihood_of) for k, v in by_kind(known).items()}
            for name, known in likelihoods.items()
        },
        "auc on the problems of the base lines": {
            k: measure.auc(v) for k, v in by_kind(next(iter(likelihoods.values()), [])).items()
        },
        "calibration by step": steps,
        "calibration error": measure.calibration_error(steps),
    }


def slip_figures(
    pools: Sequence[Pool], likelihoods: Mapping[str, Sequence[Pool]]
) -> dict[str, Any]:
    """How well slips in local subjects are told, by the verifier and by each base line."""
    return {
        "samples": min(len(p.right) for p in pools),
        "pass@1": measure.pass_at(pools),
        "auc": measure.auc(pools),
        "auc of base lines": {
            name: measure.auc(known, measure.likelihood_of) for name, known in likelihoods.items()
        },
    }


def hands_figures(hands: Sequence[Problem], pools: Sequence[Pool]) -> dict[str, Any]:
    """The Game of 24: all hands, and the halves that training may have seen and cannot have."""
    both = list(zip(hands, pools, strict=True))
    halves = {
        "all hands": list(pools),
        "numbers seen with other targets": [p for hand, p in both if hand_seen(hand)],
        "numbers never seen": [p for hand, p in both if not hand_seen(hand)],
    }
    return {name: {"hands": len(half), "votes": vote_table(half)} for name, half in halves.items()}


def headline(figures: dict[str, Any]) -> dict[str, Any]:
    """The few figures that pair.toml carries, from the largest N up to 64."""
    test, hands = figures["test"], figures["game24"]["all hands"]["votes"]
    row = [r for r in test["votes"] if r["n"] <= 64][-1]
    hand = [r for r in hands if r["n"] <= 64][-1]
    wanted = {
        "test": {"problems": test["problems"], "n": row["n"], "pass_at_1": test["pass@1"]},
        "game24": {"hands": figures["game24"]["all hands"]["hands"], "n": hand["n"]},
    }
    wanted["test"] |= {key: row[key] for key in ("weighted", "best", "majority", "pass")}
    wanted["game24"] |= {key: hand[key] for key in ("weighted", "pass")}
    return {
        part: {k: round(v.value, 3) if isinstance(v, Estimate) else v for k, v in values.items()}
        for part, values in wanted.items()
    }


def plain(value: Any) -> Any:
    """For JSON: dataclasses as objects, numbers rounded, NaN as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else round(float(value), 4)
    return value


BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def write_figures(folder: Path, figures: dict[str, Any]) -> None:
    """measured.json, calibration.png, and the tables between two marks in the card, README.md."""
    text = json.dumps(plain(figures), indent=1)
    write_whole(folder / "measured.json", text + "\n")
    plot_calibration(figures["test"]["calibration by step"], folder / "calibration.png")
    card = folder / "README.md"
    words = card.read_text(encoding="utf-8") if card.exists() else f"# {folder.name}\n\n"
    before, _, rest = words.partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = f"{BEGIN}\n{markdown(figures)}\n{END}"
    write_whole(card, f"{before}{tables}{after or chr(10)}")


def markdown(figures: dict[str, Any]) -> str:
    """The tables of the model card."""
    test = figures["test"]
    parts = [
        f"## Test split: {test['problems']} problems, {test['samples']} samples each\n",
        f"pass@1 {test['pass@1']}; pass@64 {test['pass@64']}. Means of pass@1 by fifths of the "
        f"problems, hardest first: {', '.join(f'{q:.3f}' for q in test['quintiles'])}.\n",
        _votes(test["votes"]),
        f"The same on the {ONE_ANSWER} (number games left out):\n",
        _votes(test[f"votes, {ONE_ANSWER}"]),
        "The weighted vote with each solution's score made of those of its steps: the last one's, "
        "the least, or their product:\n",
        _aggregations(test["votes by aggregation"]),
        "## pass@1 and the verifier's AUC by subject\n",
        "AUC: how often a right sample's last-step score is above a wrong one's of the same "
        "problem; n counts problems that have both.\n",
        _subjects(test),
        "## The verifier against the generator's own log-likelihood\n",
        _base_lines(test),
        *_slips(figures),
        "AUC of the score of the n-th step (a step of the same number in right and wrong samples): "
        + ", ".join(f"{i}: {e.value:.3f} (n={e.n})" for i, e in enumerate(test["auc by step"], 1))
        + ".\n",
        f"Calibration over all steps: error {test['calibration error']:.4f} "
        "([calibration.png](calibration.png)).\n",
    ]
    for name, half in figures.get("game24", {}).items():
        parts += [f"## Game of 24, {name}: {half['hands']}\n", _votes(half["votes"])]
    return "\n".join(parts)


def _votes(rows: Sequence[dict[str, Any]]) -> str:
    heads = {
        "weighted": "best-of-N weighted",
        "best": "best-of-N",
        "majority": "majority",
        "pass": "pass@N",
        "weighted_minus_majority": "weighted - majority",
    }
    return _by_n(rows, heads)


def _aggregations(rows: Sequence[dict[str, Any]]) -> str:
    return _by_n(rows, {key: key for row in rows[:1] for key in row if key != "n"})


def _by_n(rows: Sequence[dict[str, Any]], heads: Mapping[str, str]) -> str:
    """A row for each N, a column for each head."""
    body = "".join(
        f"| {row['n']} | " + " | ".join(row[key].brief for key in heads) + " |\n" for row in rows
    )
    return f"| N | {' | '.join(heads.values())} |\n|---|{'---|' * len(heads)}\n{body}"


def _subjects(test: dict[str, Any]) -> str:
    rows = [
        f"| {subject} | {passed} | {test['auc by subject'][subject]} |\n"
        for subject, passed in test["pass@1 by subject"].items()
    ]
    return "| subject | pass@1 | AUC |\n|---|---|---|\n" + "".join(rows)


def _base_lines(test: dict[str, Any]) -> str:
    every = test["auc"]
    rows = [f"| verifier, last step, all samples | {every['local']} | {every['choice']} |\n"]
    same = test["auc on the problems of the base lines"]
    rows.append(f"| verifier, last step, same samples | {same['local']} | {same['choice']} |\n")
    for name, areas in test["auc of base lines"].items():
        rows.append(f"| {name} | {areas['local']} | {areas['choice']} |\n")
    return "| AUC within problems | local subjects | choice subjects |\n|---|---|---|\n" + "".join(
        rows
    )


def _slips(figures: dict[str, Any]) -> list[str]:
    if "slips" not in figures:
        return []
    slips = figures["slips"]
    rows = {"verifier, last step": slips["auc"]} | slips["auc of base lines"]
    return [
        f"The problems of local subjects again, {slips['samples']} samples each of a wilder "
        f"sampling (temperature {WILD.temperature:g}, min-p {WILD.min_p:g}; pass@1 "
        f"{slips['pass@1']}), as some of the verifier's labels are:\n",
        "| AUC within problems | local subjects |\n|---|---|\n"
        + "".join(f"| {name} | {area} |\n" for name, area in rows.items()),
    ]


def plot_calibration(bins: Sequence[Bin], file: Path) -> None:
    """Share of right samples against the verifier's score, over all steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 4.2), dpi=120)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    known = [b for b in bins if b.count]
    axes.plot([b.score for b in known], [b.right for b in known], "o-", color="#2a6f97")
    for b in known:
        axes.annotate(
            f"{b.count:,}", (b.score, b.right), (4, -10), textcoords="offset points", fontsize=7
        )
    axes.set(xlabel="verifier's score of a step", ylabel="share of samples that end right")
    axes.set_title(
        "Calibration of step scores, test split (number of steps beside each point)", fontsize=8
    )
    figure.tight_layout()
    figure.savefig(file)
    pyplot.close(figure)
