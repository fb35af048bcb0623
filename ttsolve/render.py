"""Everything that is shown: results go to stdout; the live line, notes and errors to stderr.

Texts that a generator or a user wrote are printed with control characters replaced, so that they
cannot move the cursor or colour the terminal.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ttsolve.answers import answer_of
from ttsolve.core import Result, Solution, Usage
from ttsolve.engine import Event
from ttsolve.pair import GeneratorFile, Pair
from ttsolve.solve import aggregation_of
from ttsolve.vote import score_of

if TYPE_CHECKING:  # it opens llama.cpp, and most commands do not
    from ttsolve.bench import Report


UNTRAINED = (
    "by prompt: this pair has no reviser, and a model that was not trained for it seldom corrects "
    "itself"
)


def printable(text: str) -> str:
    """The text on one line, control characters (but no letter of any script) shown as `�`."""
    return "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))


def quantity(value: float, unit: str) -> str:
    """Three digits and an SI prefix: quantity(6.13e9, "FLOP") == "6.13 GFLOP"."""
    thousands = 0
    while abs(value) >= 999.5 and thousands < 6:
        value, thousands = value / 1000, thousands + 1
    return f"{value:.3g} {' kMGTPE'[thousands].strip()}{unit}"


# --- results (stdout) ---------------------------------------------------------------------------


def show_result(result: Result, pair: Pair, *, all_steps: bool = False) -> None:
    """The answer first; then its share of the vote, what was spent, the steps with their scores.

    `all_steps` shows every distinct candidate, else there is the best one that gives the answer.
    """
    out = Console(highlight=False, soft_wrap=True)
    answer = "(no answer)" if result.answer is None else printable(result.answer)
    out.print(Text(answer, style="bold"))
    out.print(Text(f"share  {share_line(result, pair)}"))
    out.print(Text(f"spent  {bill_line(result.usage, settings_of(result))}"))
    if "chosen" in result.settings:
        out.print(Text(f"auto   {choice_line(result)}"))
    if result.settings.get("reviser") == "untrained":
        out.print(Text(f"revise {UNTRAINED}"))
    for title, candidate in _titled(result, pair, all_steps):
        out.print()
        out.print(Text(title, style="dim"))
        for step in candidate.steps:
            out.print(colored(step.score), Text(printable(step.text)))


def _titled(result: Result, pair: Pair, all_steps: bool) -> list[tuple[str, Solution]]:
    """The candidates to be shown, with their titles: chains of revisions in their own order."""
    if all_steps and any(candidate.chain is not None for candidate in result.candidates):
        named = zip(attempt_names(result.candidates), result.candidates, strict=True)
        return [(f"{name}: {candidate_line(one, 1, pair)}", one) for name, one in named]
    shown = distinct(result.candidates, pair)
    if not all_steps:
        shown = [one for one in shown if result.best and one[0].text == result.best.text]
    return [(candidate_line(one, copies, pair), one) for one, copies in shown]


def choice_line(result: Result) -> str:
    """What `auto` chose, why, and how sure it is."""
    told = result.settings
    parts = [f"{told['chosen']}: {told['why']}"]
    if isinstance(chance := told.get("probability"), float):
        parts.append(f"right with probability {chance:.2f}")
    if isinstance(promise := told.get("confidence"), float):
        ended = "stopped early" if told.get("stopped") else "the whole budget was spent"
        parts.append(f"{promise} was asked for, {ended}")
    return printable("; ".join(parts))


def share_line(result: Result, pair: Pair) -> str:
    """How the vote went, in words."""
    answered = sum(answer_of(c, pair.prompt.answer) is not None for c in result.candidates)
    without = "" if result.settings["verifier"] else "; there is no verifier"
    return (
        f"{result.share:.2f} of the {result.settings['vote']} vote, "
        f"{answered} of {len(result.candidates)} candidates with an answer{without}"
    )


def settings_of(result: Result) -> str:
    """The strategy's own settings, in words; those of `auto` have a line of their own."""
    if "chosen" in result.settings:
        return ""
    common = ("n", "temperature", "vote", "aggregation", "verifier", "reviser", "revision_verifier")
    settings = {k: v for k, v in result.settings.items() if k not in common and v != ""}
    own = (f"{key} {value}" for key, value in settings.items())
    return ", ".join(own)


def bill_line(bill: Usage, settings: str = "") -> str:
    """What was spent, in words; `settings`: on what."""
    parts = [
        f"{bill.units} unit{'' if bill.units == 1 else 's'}" + f" ({settings})" * bool(settings),
        f"{bill.generated_tokens:,} tokens generated{_recalled(bill.recalled_tokens)}",
        f"{bill.prompt_tokens:,} of prompts ({bill.reused_tokens:,} reused)",
        f"{bill.verifier_tokens:,} verified{_recalled(bill.recalled_scores, ' scores')}",
        f"{bill.seconds:.2f} s",
        f"{quantity(bill.generator_flops, 'FLOP')} + {quantity(bill.verifier_flops, 'FLOP')}",
    ]
    return ", ".join(parts)


def _recalled(number: int, what: str = "") -> str:
    return f" ({number:,}{what} recalled)" if number else ""


def candidate_line(candidate: Solution, copies: int, pair: Pair) -> str:
    """One candidate, in words."""
    score = score_of(candidate, aggregation_of(pair))
    words = ["solution" if candidate.finish == "stop" else f"solution cut by {candidate.finish}"]
    words += [f"score {score:.2f}"] if score is not None else []
    words += [f"sampled {copies} times"] if copies > 1 else []
    return ", ".join(words)


def attempt_names(candidates: Sequence[Solution]) -> list[str]:
    """Which attempt of which chain of revisions each candidate is, both counted from 1."""
    counts: Counter[int] = Counter()
    names = []
    for candidate in candidates:
        if candidate.chain is None:
            names.append("no chain")
            continue
        counts[candidate.chain] += 1
        names.append(f"chain {candidate.chain + 1}, attempt {counts[candidate.chain]}")
    return names


def colored(score: float | None) -> Text:
    """A step's score, green where the verifier trusts it and red where not."""
    if score is None:
        return Text("     -", style="dim")
    return Text(f"  {score:.2f}", style="green" if score >= 0.5 else "red")


def distinct(candidates: Sequence[Solution], pair: Pair) -> list[tuple[Solution, int]]:
    """Every text once, with how often it came: highest score first, then the most frequent."""
    copies = Counter(c.text for c in candidates if c.steps)
    first = {c.text: c for c in reversed(candidates)}
    pairs = [(first[text], count) for text, count in copies.items()]
    return sorted(
        pairs, key=lambda p: (score_of(p[0], aggregation_of(pair)) or 0.0, p[1]), reverse=True
    )


def as_json(result: Result, pair: Pair) -> str:
    """The result as one line of JSON. Only an interrupted one has the key `interrupted`."""
    bill = asdict(result.usage)
    record = {
        "problem": result.problem.question,
        "answer": result.answer,
        "share": result.share,
        "strategy": result.strategy,
        "settings": result.settings,
        "seed": result.seed,
        "pair": result.pair,
        "units": bill.pop("units"),
        "bill": bill,
        "candidates": [
            {
                "answer": answer_of(candidate, pair.prompt.answer),
                "score": score_of(candidate, aggregation_of(pair)),
                "steps": [{"text": step.text, "score": step.score} for step in candidate.steps],
                "finish": candidate.finish,
                **_chain_record(candidate),
            }
            for candidate in result.candidates
        ],
    }
    if result.interrupted:
        record["interrupted"] = True
    return json.dumps(record, allow_nan=False)


def _chain_record(candidate: Solution) -> dict[str, object]:
    """What is said of a candidate in a chain of revisions: which, and how many before it it saw."""
    if candidate.chain is None:
        return {}
    return {"chain": candidate.chain, "shown": len(candidate.attempts)}


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
    line(f"{'':14} {'tokens/s':>9} {'ratio':>6}  outside llama_decode")
    line(f"{'plain loop':14} {report.plain.rate:>9,.0f} {1:>6.2f}")
    for speed, ratio in zip(report.engine, report.ratios, strict=True):
        line(f"{f'width {speed.width}':14} {speed.rate:>9,.0f} {ratio:>6.2f}  {speed.outside:.0%}")
    if report.verifier:
        line(f"{'verifier':14} {report.verifier.scratch:>9,.0f}         whole solutions")
        line(f"{'':14} {report.verifier.incremental:>9,.0f}         step by step")


def line(text: str) -> None:
    """One line on stdout, as it is."""
    sys.stdout.write(text + "\n")


# --- everything else (stderr) -------------------------------------------------------------------


def note(sentence: str, style: str = "yellow") -> None:
    """A sentence beside the result."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(sentence, style=style))


def warn_of_another_world(pair: Pair, words: Sequence[str]) -> None:
    """A word about a problem in which there are words that the pair does not know."""
    if pair.world and words:
        note(
            f"The pair {pair.name} knows no world but {pair.world.name}, and this problem has "
            f"words from outside it ({', '.join(words[:3])}): choose a larger pair, and do not "
            "trust this answer."
        )


def progress(sentence: str) -> None:
    """A line about a long job that goes on."""
    note(sentence, style="")


def error(sentence: str) -> None:
    """The sentence that ends a run."""
    note(f"Error: {sentence}", style="red")


class LiveLine:
    """The live line: samples, speed, and the answer that most samples gave so far.

    Silent when stderr is no terminal. An `Engine` tells it what happens (it is a `listen`).
    """

    def __init__(self, samples: int, mark: str, clock: Callable[[], float] = time.perf_counter):
        self.samples, self.mark, self.clock = samples, mark, clock
        self.done = 0
        self.cut = 0  # of those that are done
        self.tokens = 0
        self.answers: Counter[str] = Counter()
        self._started: float | None = None  # None: the models are still being opened
        self._last = 0.0  # when the last sample ended: while they are scored the speed stands
        console = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(
                console=console,
                get_renderable=self.line,
                refresh_per_second=8,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )

    def begin(self) -> None:
        """The models are open: the clock of the speed starts, and what was recalled is no speed."""
        self._started = self._last = self.clock()
        self.tokens = 0

    def __call__(self, event: Event) -> None:
        if event.verb == "sample":
            self.done += 1
            self.cut += event.child.finish == "budget"
            self.tokens += event.child.tokens - event.parent.tokens
            self._last = self.clock()
            if answer := answer_of(event.child, self.mark):
                self.answers[answer] += 1

    def rate(self) -> float:
        """Tokens sampled a second, since the models are open."""
        if self._started is None:
            return 0.0
        return self.tokens / max(self._last - self._started, 1e-6)

    def line(self) -> Text:
        """What the line says now."""
        if self._started is None:
            return Text("opening the models …", style="dim")
        text = Text.assemble(
            (f"{self.done - self.cut}/{self.samples}", "bold"),
            f" samples · {self.rate():,.0f} tokens/s",
        )
        if self.answers:
            answer, count = self.answers.most_common(1)[0]
            text.append(" · leading: ")
            text.append(printable(answer)[:60], style="bold")
            text.append(f" ({count / self.answers.total():.0%} of the answers)")
        if self.done >= self.samples:
            text.append(" · scoring")
        return text

    def __enter__(self) -> LiveLine:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
