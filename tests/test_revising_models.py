"""Revisions on llama.cpp and ONNX Runtime: what is read, what it costs, and that it is the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ttsolve.core import Problem, Solution, Step, Usage
from ttsolve.engine import Engine, Sampling
from ttsolve.engines.bpe import ByteBpe
from ttsolve.engines.llama import LlamaGenerator
from ttsolve.engines.onnx_prm import OnnxVerifier
from ttsolve.pair import Pair
from ttsolve.prompts import AGAIN, PromptFormat
from ttsolve.solve import open_models, open_reviser
from ttsolve.strategies import Revisions

PROBLEM = Problem("Make 24 from 4, 7, 8, 8.")
ATTEMPTS = (
    "8 * 4 = 32, left 7 8 32\n8 - 7 = 1, left 1 32\n32 - 1 = 31\nAnswer: 8 * 4 - (8 - 7)\n",
    "8 + 8 = 16, left 4 7 16\nAnswer: 16 + 4 + 7",  # cut before its last separator
)


def solution(text: str, *attempts: Solution, finish: str | None = "stop") -> Solution:
    steps = tuple(Step(line, tokens=1) for line in text.splitlines(keepends=True))
    return Solution(PROBLEM, steps, finish, attempts, chain=0)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def reviser(revising: Pair) -> Iterator[LlamaGenerator]:
    generator, _ = open_reviser(revising)
    assert isinstance(generator, LlamaGenerator)
    with generator:
        yield generator


@pytest.fixture(scope="module")
def judge(revising: Pair) -> OnnxVerifier:
    return new_judge(revising)


def new_judge(pair: Pair) -> OnnxVerifier:
    assert pair.verifier_path is not None
    assert pair.tokenizer_path is not None
    return OnnxVerifier(pair.verifier_path, pair.tokenizer_path, pair.prompt)


# --- what is read -----------------------------------------------------------------------------


def test_generator_and_verifier_read_the_same_and_what_was_trained(
    revising: Pair, reviser: LlamaGenerator, judge: OnnxVerifier
) -> None:
    """The question before every attempt, each attempt with its separator."""
    earlier = tuple(solution(text) for text in ATTEMPTS)
    asked = "Make 24 from 4, 7, 8, 8.\n"
    text = asked + ATTEMPTS[0] + asked + ATTEMPTS[1] + "\n" + asked
    assert revising.tokenizer_path is not None
    ids = ByteBpe(revising.tokenizer_path).encode(text)
    prefix = solution("", *earlier, finish=None)
    assert reviser._before(prefix).tolist()[1:] == ids
    new = solution("8 - 7 = 1, left 1 4 8\n", *earlier)
    line = ByteBpe(revising.tokenizer_path).encode("8 - 7 = 1, left 1 4 8\n")
    assert judge.tokens(new)[1:] == ids + line


def test_the_reader_of_a_reviser_is_that_of_its_training(
    revising: Pair, reviser: LlamaGenerator
) -> None:
    pytest.importorskip("torch")
    from ttsolve.train.reviser import document
    from ttsolve.train.revisions import Trajectory
    from ttsolve.train.tokenizer import load_tokenizer

    assert revising.tokenizer_path is not None
    texts = tuple(text.removesuffix("\n") + "\n" for text in ATTEMPTS)
    trained = document(
        Trajectory(PROBLEM.question, texts, "Answer: 1\n"), load_tokenizer(revising.tokenizer_path)
    )
    prefix = solution("", *(solution(text) for text in ATTEMPTS), finish=None)
    assert reviser._before(prefix).tolist() == list(trained.tokens[: trained.target])


def test_the_oldest_attempts_give_way_where_there_is_no_room(revising: Pair) -> None:
    """What comes back says what was shown; and what was shown is all that counts."""
    path = revising.reviser_path
    assert path is not None
    how = Sampling(temperature=0.0, max_tokens=40)
    attempts = tuple(replace(solution("1 + 1 = 2\n" * i), chain=None) for i in range(1, 6))
    with LlamaGenerator(path, revising.prompt, width=4, context=120) as short:
        out, _ = short.sample(
            [solution("", *attempts[:k], finish=None) for k in range(6)], [how] * 6
        )
        held = [len(one.attempts) for one in out]
        assert held[:2] == [0, 1]
        assert held[-1] < 5
        for k, one in enumerate(out):
            assert one.attempts == attempts[k - held[k] : k]
            used = len(short._before(one)) + how.max_tokens
            assert used <= short.context
            more = replace(one, attempts=attempts[max(0, k - held[k] - 1) : k])
            if held[k] < k:  # one more would not have fitted
                assert len(short._before(more)) + how.max_tokens > short.context
            [alone], _ = short.sample([replace(one, steps=(), finish=None)], [how])
            assert alone == one
        none = Sampling(temperature=0.0, max_tokens=200)
        [bare], _ = short.sample([solution("", *attempts, finish=None)], [none])
        assert (bare.attempts, bare.finish) == ((), "length")


# --- what it costs ----------------------------------------------------------------------------


class Noting:
    """A generator that notes what each call cost."""

    def __init__(self, generator: LlamaGenerator) -> None:
        self.generator, self.name, self.params = generator, generator.name, generator.params
        self.bills: list[Usage] = []

    def sample(self, *asked, **more):  # type: ignore[no-untyped-def]
        out, usage = self.generator.sample(*asked, **more)
        self.bills.append(usage)
        return out, usage


@pytest.fixture(scope="module")
def run(revising: Pair, reviser: LlamaGenerator) -> tuple[Engine, Noting, list[Solution]]:
    """Four chains of sixteen."""
    generator, verifier = open_models(revising)
    notes = Noting(reviser)
    engine = Engine(generator, verifier, notes, new_judge(revising), sampling=revising.sampling)
    return engine, notes, Revisions(64, chains=4, memory=4)(PROBLEM, engine)


def test_every_attempt_is_decoded_once_as_output_and_at_most_once_a_move(
    run: tuple[Engine, Noting, list[Solution]], reviser: LlamaGenerator
) -> None:
    """While a chain's context grows only what was drawn last is decoded again; when the oldest
    attempt leaves it, what stands behind the prompt has moved, and is."""
    engine, notes, candidates = run
    assert len(notes.bills) == 16
    prompt = len(reviser._before(PROBLEM.root))
    for number, bill in enumerate(notes.bills):
        attempts = [candidates[chain * 16 + number] for chain in range(4)]
        assert sum(a.tokens for a in attempts) <= bill.generated_tokens
        assert bill.generated_tokens <= sum(a.tokens + 1 for a in attempts)  # that of the end
        read = [len(reviser._before(attempt)) for attempt in attempts]
        assert bill.prompt_tokens + bill.reused_tokens == sum(read)
        if number == 0:
            assert bill.prompt_tokens <= prompt
        elif number <= 4:  # the last token drawn, a separator that it may lack, the question
            assert bill.prompt_tokens <= (2 + prompt) * 4
        else:
            assert bill.prompt_tokens <= sum(read) - 4 * prompt
    assert all(1 < a.tokens <= 40 for a in candidates)
    assert engine.usage.reused_tokens == sum(bill.reused_tokens for bill in notes.bills)


def test_the_verifier_computes_an_attempt_once_until_it_moves(
    run: tuple[Engine, Noting, list[Solution]], revising: Pair, judge: OnnxVerifier
) -> None:
    """Judged round by round or all at once: the same scores, of as many tokens."""
    engine, _, candidates = run
    bare = [
        replace(c, steps=tuple(replace(step, score=None) for step in c.steps)) for c in candidates
    ]
    whole, usage = new_judge(revising).score(bare)
    for one, same in zip(candidates, whole, strict=True):
        assert one.scores == pytest.approx(same.scores, abs=1e-4)
    assert engine.usage.verifier_tokens == usage.verifier_tokens
    first = [c for c in bare if len(c.attempts) < 4]  # before anything moves
    tokens = {tuple(judge.tokens(c)[: i + 1]) for c in first for i in range(len(judge.tokens(c)))}
    _, usage = new_judge(revising).score(first)
    assert usage.verifier_tokens == len(tokens)


def test_an_attempts_score_depends_on_what_stands_before_it(judge: OnnxVerifier) -> None:
    earlier = tuple(solution(text) for text in ATTEMPTS)
    alone, behind = solution(ATTEMPTS[0]), solution(ATTEMPTS[0], *earlier)
    out, _ = judge.score([alone, behind])
    assert out[0].scores != pytest.approx(out[1].scores, abs=1e-3)
    assert out[1].attempts == earlier


def test_a_chain_grown_alone_is_the_same(
    run: tuple[Engine, Noting, list[Solution]], revising: Pair, reviser: LlamaGenerator
) -> None:
    """Each attempt, drawn again by a model that saw nothing before."""
    path = revising.reviser_path
    assert path is not None
    greedy = replace(revising.sampling, temperature=0.0)
    *_, candidates = run
    some = [replace(c, steps=(), finish=None) for c in candidates[:16:5]]
    here, _ = reviser.sample(some, [greedy] * len(some))
    with LlamaGenerator(path, revising.prompt, width=1) as fresh:
        for prefix, found in zip(some, here, strict=True):
            [again], _ = fresh.sample([prefix], [greedy])
            assert again == found


# --- by prompt --------------------------------------------------------------------------------

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}|{% endfor %}<assistant>"


def test_a_chat_model_sees_its_attempts_as_turns(tmp_path: Path) -> None:
    """And the oldest give way, so that the problem itself is never too long for them."""
    from gguf_maker import TINY, make_gguf

    path = make_gguf(tmp_path / "chat.gguf", replace(TINY, context=2048), chat_template=TEMPLATE)
    how = Sampling(temperature=0.0, max_tokens=30)
    attempts = (solution("one\n"), solution("two\n"), solution("three\n" * 60))
    chat = PromptFormat(chat=True)

    def room(context: int) -> Solution:
        with LlamaGenerator(path, chat, width=2, context=context) as generator:
            [one], _ = generator.sample([solution("", *attempts, finish=None)], [how])
            return one

    with LlamaGenerator(path, chat, width=2) as generator:
        turns = [f"<assistant>{a.text.strip()}|<user>{AGAIN}|" for a in attempts]
        text = f"<user>{PROBLEM.question}\n|{turns[0]}{turns[1]}<assistant>"
        prefix = solution("", *attempts[:2], finish=None)
        assert generator._before(prefix).tolist()[1:] == generator.tokenize(text)
        size = len(generator._before(solution("", *attempts))) + how.max_tokens
    assert room(size).attempts == attempts
    assert room(size - 1).attempts == attempts[1:]
    assert room(256).attempts == ()
