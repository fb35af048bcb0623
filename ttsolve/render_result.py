"""What a run came to: the answer, its vote, its bill, its candidates; or one line of JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from ttsolve.answers import answer_of
from ttsolve.core import Result, Solution, Usage
from ttsolve.pair import Pair
from ttsolve.render import colored, ending, note, printable, quantity
from ttsolve.solve import aggregation_of
from ttsolve.strategies import STRATEGIES
from ttsolve.vote import score_of

CLIP = 24  # characters of a word that is named
UNTRAINED = (
    "by prompt: this pair has no reviser, and a model that was not trained for it seldom corrects "
    "itself"
)


def show_result(result: Result, pair: Pair, *, all_steps: bool = False) -> None:
    """The answer first; then its share of the vote, what was spent, the steps with their scores.

    `all_steps` shows every distinct candidate, else there is the best one that gives the answer.
    """
    out = Console(highlight=False, soft_wrap=True)
    answer = "(no answer)" if result.answer is None else printable(result.answer)
    out.print(Text(answer, style="bold"))
    out.print(Text(f"share  {share_line(result, pair)}"))
    if cut := cut_line(result, pair):
        out.print(Text(f"cut    {cut}"))
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
    if isinstance(fitted := told.get("fitted_at"), float):
        parts.append(f"how surely right is known for temperature {fitted:g} alone")
    if isinstance(asked := told.get("confidence"), float):
        ended = "stopped early" if told.get("stopped") else "the whole budget was spent"
        promise = told.get("promise", asked)
        used = "" if promise == asked else f", {promise} is the next that is promised"
        parts.append(f"{asked} was asked for{used}, {ended}")
    return printable("; ".join(parts))


def share_line(result: Result, pair: Pair) -> str:
    """How the vote went, in words; of an interrupted run among the candidates that had begun."""
    all_begun = not result.interrupted
    begun = [c for c in result.candidates if all_begun or c.steps or c.finish != "budget"]
    answered = sum(answer_of(c, pair.prompt.answer) is not None for c in begun)
    without = "" if result.settings["verifier"] else "; there is no verifier"
    return (
        f"{result.share:.2f} of the {result.settings['vote']} vote, "
        f"{answered} of {len(begun)} candidates with an answer{without}"
    )


def cut_line(result: Result, pair: Pair) -> str | None:
    """Why there is no answer and what to do, where most solutions were cut; None: it is not so."""
    cut = [c for c in result.candidates if c.finish == "length"]
    total = len(result.candidates)
    if result.answer is not None or 2 * len(cut) <= total:
        return None
    some = "all" if len(cut) == total else f"{len(cut)} of {total}"
    most = pair.sampling.max_tokens  # of what is drawn at once: by a search a step
    how = STRATEGIES.get(str(result.settings.get("chosen", result.strategy)).partition(":")[0])
    searched = how is not None and how.ranks_steps
    drawn = [c.tokens for c in cut if c.steps and not searched]
    drawn += [c.steps[-1].tokens for c in cut if c.steps and searched]
    if max(drawn, default=0) >= most:
        return f"{some} solutions were cut at {most} tokens: raise max_tokens in its pair.toml"
    return (
        f"{some} solutions reached the end of the generator's context: shorten the problem, or use "
        "a pair with a longer context"
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
    words = ["solution" if candidate.finish == "stop" else f"solution {ending(candidate.finish)}"]
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


def warn_of_another_world(pair: Pair, words: Sequence[str]) -> None:
    """A word about a problem in which there is something that the pair does not know."""
    if pair.world and words:
        clipped = (w if len(w) <= CLIP else f"{w[:CLIP]}…" for w in words[:3])
        some = ", ".join(map(printable, clipped))
        note(
            f"The pair {pair.name} knows no world but {pair.world.name}, and this problem has "
            f"what is not of it ({some}): choose a larger pair, and do not trust this answer."
        )
