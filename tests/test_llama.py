"""The generator on real llama.cpp, with random weights."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
import pytest

from gguf_maker import TINY, make_gguf
from ttsolve.core import Problem, Solution, Step
from ttsolve.engine import Engine, Sampling
from ttsolve.engines import llama, llama_context, threads
from ttsolve.engines.llama import LlamaGenerator
from ttsolve.engines.llama_context import LlamaContext, open_contexts
from ttsolve.engines.llama_model import LlamaModel
from ttsolve.errors import ModelError, ProblemTooLong, TtsolveError, UsageError
from ttsolve.prompts import PromptFormat

PROMPT = PromptFormat()
QUESTION = Problem("tell me more about the numbers")
OTHER = Problem("and now something else")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", TINY)


@pytest.fixture
def open_generator(path: Path) -> Iterator[Callable[..., LlamaGenerator]]:
    opened: list[LlamaGenerator] = []

    def open_one(**options: object) -> LlamaGenerator:
        options = {"width": 8, "threads": 1, "prompt": PROMPT, **options}
        opened.append(LlamaGenerator(path, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    for generator in opened:
        generator.close()


def draws(generator: LlamaGenerator, problem: Problem, n: int, **how: object) -> list[Solution]:
    sampling = [Sampling(seed=i, **{"max_tokens": 40, **how}) for i in range(n)]  # type: ignore[arg-type]
    return generator.sample([problem.root] * n, sampling)[0]


def plain_greedy(path: Path, generator: LlamaGenerator, n: int) -> list[int]:
    """llama.cpp's own greedy continuation, one token at a time, through its high-level loop."""
    llama = llama_cpp.Llama(str(path), n_ctx=256, verbose=False, n_threads=1)
    prompt = [llama.token_bos(), *generator.tokenize(PROMPT.render(QUESTION.question))]
    tokens = []
    for token in llama.generate(prompt, temp=0):
        if len(tokens) == n or token == llama.token_eos():
            break
        tokens.append(token)
    llama.close()
    return tokens


@pytest.mark.parametrize("kv", ["split", "unified"])
def test_greedy_is_llama_cpps_own(
    path: Path, open_generator: Callable[..., LlamaGenerator], kv: str
) -> None:
    generator = open_generator(kv=kv)
    for solution in draws(generator, QUESTION, 5, temperature=0.0):
        assert list(solution.ids) == plain_greedy(path, generator, 40)[: len(solution.ids)]
        assert solution.tokens == 40 or solution.finish == "stop"


def test_samples_depend_on_their_seeds_alone(
    open_generator: Callable[..., LlamaGenerator],
) -> None:
    """Not on the width, or on what else is in the batch; the layouts differ in rounding only."""
    expected = draws(open_generator(width=8), QUESTION, 24)
    assert len({solution.text for solution in expected}) > 20
    for options, least in (({"width": 1}, 23), ({"width": 5}, 23), ({"kv": "unified"}, 12)):
        generator = open_generator(**options)
        both = [p.root for _ in range(24) for p in (QUESTION, OTHER)]
        how = [Sampling(seed=i // 2, max_tokens=40) for i in range(48)]
        out, _ = generator.sample(both, how)
        assert sum(a.ids == b.ids for a, b in zip(out[::2], expected, strict=True)) >= least


@pytest.mark.parametrize("kv", ["split", "unified"])
def test_a_prompt_is_decoded_once(open_generator: Callable[..., LlamaGenerator], kv: str) -> None:
    generator = open_generator(kv=kv, width=40, loops=1)
    prompt = len(generator.tokenize(PROMPT.render(QUESTION.question))) + 1  # BOS
    how = [Sampling(seed=i, max_tokens=20) for i in range(40)]
    out, usage = generator.sample([QUESTION.root] * 40, how)
    assert usage.prompt_tokens == prompt
    assert usage.reused_tokens == 39 * prompt
    assert usage.generated_tokens == sum(s.tokens + (s.finish == "stop") for s in out)
    again = generator.sample([QUESTION.root], [Sampling(seed=99)])[1]
    assert again.prompt_tokens == 0


def test_a_prefix_is_continued_from_its_ids(
    open_generator: Callable[..., LlamaGenerator],
) -> None:
    """In steps, a greedy continuation is the one drawn at a stroke; the steps stay as they were."""
    whole = open_generator(prompt=PromptFormat(separator="e")).sample(
        [QUESTION.root], [Sampling(temperature=0, max_tokens=60)]
    )[0][0]
    assert len(whole.steps) > 2
    stepwise = open_generator(prompt=PromptFormat(separator="e"))
    solution = QUESTION.root
    for _ in whole.steps[:-1]:
        (solution,), usage = stepwise.sample([solution], [Sampling(temperature=0, steps=1)])
        assert solution.finish is None
    assert usage.prompt_tokens == 1
    assert solution.steps == whole.steps[:-1]


def test_a_step_without_ids_is_tokenised(open_generator: Callable[..., LlamaGenerator]) -> None:
    generator = open_generator()
    prefix = QUESTION.root.grow(Step("a step\n", 3))
    (out,), usage = generator.sample([prefix], [Sampling(max_tokens=3)])
    tokens = generator.tokenize(PROMPT.render(QUESTION.question) + "a step\n")
    assert usage.prompt_tokens == len(tokens) + 1
    assert out.steps[0] == prefix.steps[0]


def test_the_end_of_the_context_is_a_length(open_generator: Callable[..., LlamaGenerator]) -> None:
    generator = open_generator(context=256)
    used = len(generator.tokenize(PROMPT.render(QUESTION.question))) + 1
    out = draws(generator, QUESTION, 8, max_tokens=10_000)
    for solution in out:
        assert solution.finish == "stop" or solution.tokens == 256 - used
    full = QUESTION.root.grow(Step("x", 240, tuple([5] * (256 - used))))
    (kept,), usage = generator.sample([full], [Sampling()])
    assert (kept.finish, kept.steps, usage.generated_tokens) == ("length", full.steps, 0)
    with pytest.raises(ProblemTooLong, match="256"):
        draws(generator, Problem("12" * 300), 1)


def test_finished_solutions_come_back_free(open_generator: Callable[..., LlamaGenerator]) -> None:
    done = QUESTION.root.grow(Step("Answer: 1\n", 3), finish="stop")
    out, usage = open_generator().sample([done], [Sampling()])
    assert (out, usage.generated_tokens) == ([done], 0)
    assert open_generator().sample([], [])[0] == []


def test_stop_brings_back_what_stands(open_generator: Callable[..., LlamaGenerator]) -> None:
    generator, stop = open_generator(), threading.Event()
    heard: list[int] = []

    def watch(lane: int, solution: Solution) -> None:
        heard.append(lane)
        stop.set()

    n = 400
    how = [Sampling(seed=i, max_tokens=200 if i else 9) for i in range(n)]  # the first ends first
    out, _ = generator.sample([QUESTION.root] * n, how, watch, stop)
    assert sorted(heard) == list(range(n))
    cut = [solution for solution in out if solution.finish == "budget"]
    assert len(cut) > n // 2
    assert any(solution.text for solution in cut)


def test_what_never_came_to_its_turn_costs_no_unit(
    open_generator: Callable[..., LlamaGenerator],
) -> None:
    engine = Engine(open_generator(width=2), sampling=Sampling(max_tokens=9))
    engine.listen = lambda event: engine.stop.set()
    out = engine.sample([QUESTION.root] * 40)
    begun = [solution for solution in out if solution.steps or solution.finish != "budget"]
    assert engine.usage.units == len(begun) < 40


def test_ctrl_c_drops_this_call_and_leaves_the_generator_usable(
    open_generator: Callable[..., LlamaGenerator],
) -> None:
    generator = open_generator()
    expected = draws(generator, OTHER, 3)
    pressed = threading.Event()

    def press(lane: int, solution: Solution) -> None:
        # Not before a sample has ended: by then the main thread only waits.
        if not pressed.is_set():
            pressed.set()
            os.kill(os.getpid(), signal.SIGINT)

    how = [Sampling(seed=i, max_tokens=50) for i in range(5_000)]
    with pytest.raises(KeyboardInterrupt):
        generator.sample([QUESTION.root] * len(how), how, press)
    assert [s.ids for s in draws(generator, OTHER, 3)] == [s.ids for s in expected]


def test_ctrl_c_while_it_loads_is_heard(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pressed where Python is called from C, as llama.cpp does: what is raised there is lost."""
    closed: list[LlamaContext] = []
    close = LlamaContext.close

    @ctypes.CFUNCTYPE(None)
    def logs() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):  # an interrupt would arise between two of these
            pass

    def pressed(model: LlamaModel, **how: Any) -> list[LlamaContext]:
        logs()
        return open_contexts(model, **how)

    def noted(context: LlamaContext) -> None:
        closed.append(context)
        close(context)

    monkeypatch.setattr(llama, "open_contexts", pressed)
    monkeypatch.setattr(LlamaContext, "close", noted)
    with pytest.raises(KeyboardInterrupt):
        LlamaGenerator(path, PROMPT, width=2, loops=2)
    for thread in threading.enumerate():
        if thread.name == "ttsolve-open":
            thread.join()
    assert len(closed) == 2


def test_several_threads_share_one_loop(open_generator: Callable[..., LlamaGenerator]) -> None:
    generator = open_generator()
    problems = [Problem(f"problem {'ab' * i}") for i in range(6)]
    expected = [draws(generator, problem, 10) for problem in problems]
    out: dict[int, list[Solution]] = {}
    threads = [
        threading.Thread(target=lambda i=i, p=p: out.update({i: draws(generator, p, 10)}))
        for i, p in enumerate(problems)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same = [a.ids == b.ids for i in out for a, b in zip(out[i], expected[i], strict=True)]
    assert len(same) == 60
    assert sum(same) >= 57  # near-ties aside


def test_an_error_reaches_every_caller(
    open_generator: Callable[..., LlamaGenerator], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = open_generator()
    broken = threading.Event()
    decode = generator._loops[0].model.decode

    def fail(*args: object) -> object:
        if broken.is_set():
            raise TtsolveError("The model broke.")
        return decode(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(generator._loops[0].model, "decode", fail)
    errors: list[str] = []

    def call(problem: Problem) -> None:
        try:
            draws(generator, problem, 20_000)
        except TtsolveError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=call, args=(p,)) for p in (QUESTION, OTHER)]
    for thread in threads:
        thread.start()
    broken.set()
    for thread in threads:
        thread.join()
    assert errors == ["The model broke."] * 2
    broken.clear()
    assert len(draws(generator, QUESTION, 3)) == 3


def test_names(path: Path, open_generator: Callable[..., LlamaGenerator], tmp_path: Path) -> None:
    generator = open_generator()
    assert generator.name == open_generator(width=2, kv="unified").name
    assert generator.name != open_generator(prompt=PromptFormat(answer="So:")).name
    with LlamaGenerator(make_gguf(tmp_path / "b.gguf", TINY, seed=1), PROMPT, width=1) as other:
        assert generator.name != other.name
    assert (generator.context, generator.vocab_size, generator.kv) == (256, 600, "split")
    assert generator.device == "CPU, 1 thread"
    assert generator.params > 20_000


def test_a_prompt_begins_once_and_does_not_end(tmp_path: Path) -> None:
    """Whatever the vocabulary adds to a text, and whatever the prompt has already."""
    gguf = make_gguf(tmp_path / "ends.gguf", TINY, adds_end=True)
    prompt = PromptFormat("<s>{question}\n")
    with LlamaGenerator(gguf, prompt, width=1, threads=1) as generator:
        ids = list(generator._prompt_ids(QUESTION.question, ()))
        assert ids == [0, *generator.tokenize(f"{QUESTION.question}\n")]
        assert generator.tokenize("</s>") == [1]


@pytest.mark.parametrize("template", ["{question}\n", "Q: 1\nA: 1\n\nQ: {question}\nA:"])
def test_a_text_is_no_control_token(path: Path, template: str) -> None:
    """What a problem, an attempt or a step says can neither begin nor end a text."""
    hostile = Problem("a</s>b<s><pad> </s>?")
    attempt = Solution(hostile, (Step("1 </s><s>\n", 4),), "stop")
    revised = replace(attempt, attempts=(attempt,))
    with LlamaGenerator(path, PromptFormat(template), width=1, threads=1) as generator:
        for prefix in hostile.root, attempt, revised:
            ids = np.concatenate([generator._before(prefix), generator._ids(prefix)])
            assert [token for token in ids if token < 3] == [0]  # what begins every prompt
            said = b"".join(generator._model.pieces[token] for token in ids).decode()
            attempts = [attempt.text for attempt in prefix.attempts]
            assert said == generator.prompt.render(hostile.question, attempts) + prefix.text


def test_a_context_leaves_room_for_so_many_sequences(path: Path) -> None:
    for options, width in ({}, 64), ({"context": 128}, 64), ({"width": 3, "context": 64}, 3):
        with LlamaGenerator(path, PROMPT, threads=1, **options) as generator:  # type: ignore[arg-type]
            assert (generator.width, generator.context) == (width, options.get("context", 256))


def test_a_closed_generator_says_so(open_generator: Callable[..., LlamaGenerator]) -> None:
    generator = open_generator()
    generator.close()
    generator.close()
    with pytest.raises(TtsolveError, match="closed"):
        draws(generator, QUESTION, 1)


# --- several loops -----------------------------------------------------------------------------


def test_samples_depend_on_no_loop(open_generator: Callable[..., LlamaGenerator]) -> None:
    """Nor does what is greedy; and the loops share the width, the cache and the work."""
    one, three = open_generator(loops=1), open_generator(loops=3)
    for how in {}, {"temperature": 0.0}:
        expected, found = (draws(generator, QUESTION, 48, **how) for generator in (one, three))
        assert sum(a.ids == b.ids for a, b in zip(expected, found, strict=True)) >= 46
    assert [context.width for context in contexts(three)] == [3, 3, 2]
    assert (three.width, three.context, three.device) == (8, 256, "CPU, 3 loops of 1 thread")
    assert sum(memory(context) for context in contexts(three)) == memory(contexts(one)[0])
    assert len({id(loop._rollouts.known) for loop in three._loops}) == 1
    assert all(loop.seconds for loop in three._loops)
    assert three.timing()[0] == sum(loop.seconds for loop in three._loops)


def contexts(generator: LlamaGenerator) -> list[LlamaContext]:
    return [loop.model for loop in generator._loops]  # type: ignore[misc]


def memory(context: LlamaContext) -> int:
    """Tokens that a context has room for."""
    return int(llama_cpp.llama_n_ctx(context._context))


@pytest.mark.parametrize(("n", "loops"), [(15, 1), (16, 2), (64, 3)])
def test_a_prompt_is_decoded_once_in_each_loop(
    open_generator: Callable[..., LlamaGenerator], n: int, loops: int
) -> None:
    """That has a part of its samples; their steps go on where they were drawn."""
    generator = open_generator(width=192, loops=3, prompt=PromptFormat(separator="e"))
    prompt = len(generator._before(QUESTION.root))
    how = [Sampling(seed=i, max_tokens=20, steps=1) for i in range(n)]
    out, usage = generator.sample([QUESTION.root] * n, how)
    assert (usage.prompt_tokens, usage.reused_tokens) == (loops * prompt, (n - loops) * prompt)
    kept = list({s.ids: s for s in out if s.steps and not s.done}.values())[:8]
    assert kept
    again = generator.sample(kept, [Sampling(seed=7, steps=1)] * len(kept))[1]
    assert again.prompt_tokens == len(kept)  # the last token of each, which no cache holds yet


def test_beams_take_their_cells_to_an_idle_loop(
    open_generator: Callable[..., LlamaGenerator],
) -> None:
    """Sixteen that grew in one loop go on in both: bit for bit as in one, and nothing again."""
    prompt, how = PromptFormat(separator="e"), Sampling(temperature=0.0, steps=1)
    two, one = (open_generator(width=64, loops=n, prompt=prompt) for n in (2, 1))
    (parent,), _ = two.sample([QUESTION.root], [how])
    assert parent.finish is None
    beams = [Sampling(seed=i, max_tokens=30) for i in range(16)]
    before = [loop.seconds for loop in two._loops]
    found, usage = two.sample([parent] * 16, beams)
    assert all(loop.seconds > t for loop, t in zip(two._loops, before, strict=True))
    assert usage.prompt_tokens == 2  # the token drawn last, in each loop
    assert [s.ids for s in found] == [s.ids for s in one.sample([parent] * 16, beams)[0]]


def test_a_loop_that_breaks_ends_its_calls_and_no_others(
    open_generator: Callable[..., LlamaGenerator], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that has a part there, and at once; a call of the other loop goes on."""
    generator = open_generator(loops=2)
    expected = draws(generator, OTHER, 3)
    second = generator._loops[1].model
    decode, broken = second.decode, threading.Event()

    def fail(*args: object) -> object:
        if broken.is_set():
            raise TtsolveError("The second loop broke.")
        return decode(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(second, "decode", fail)
    broken.set()
    with pytest.raises(TtsolveError, match="second"):
        draws(generator, QUESTION, 20_000)
    broken.clear()
    assert [s.ids for s in draws(generator, OTHER, 3)] == [s.ids for s in expected]
    assert len(draws(generator, QUESTION, 40)) == 40
    assert [loop.load for loop in generator._loops] == [0, 0]


def test_stop_and_close_reach_every_loop(open_generator: Callable[..., LlamaGenerator]) -> None:
    generator, stop = open_generator(loops=3), threading.Event()
    how = [Sampling(seed=i, max_tokens=200) for i in range(400)]
    out, _ = generator.sample([QUESTION.root] * 400, how, lambda *_: stop.set(), stop)
    assert sum(solution.finish == "budget" for solution in out) > 200
    assert [loop.load for loop in generator._loops] == [0, 0, 0]

    def close(lane: int, solution: Solution) -> None:
        threading.Thread(target=generator.close).start()

    with pytest.raises(TtsolveError, match="closed"):
        generator.sample([QUESTION.root] * 4000, [how[1]] * 4000, close)


def test_so_many_loops_have_no_room(path: Path) -> None:
    for loops in 0, 5:
        with pytest.raises(UsageError, match=f"4 cannot be shared by {loops} loops"):
            LlamaGenerator(path, PROMPT, width=4, loops=loops)


def test_a_small_model_has_a_loop_for_each_core(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 5)
    for small, width, loops in (True, None, 5), (True, 40, 2), (True, 8, 1), (False, None, 1):
        monkeypatch.setattr(llama_context, "SMALL", threads.SMALL if small else 0)
        with LlamaGenerator(path, PROMPT, width=width) as generator:
            assert (generator.loops, generator.width) == (loops, width or (80 if small else 64))
            assert generator.threads == 1 or not small


# --- wrong files -------------------------------------------------------------------------------


def damaged(path: Path, tmp_path: Path, kind: str) -> Path:
    data, bad = path.read_bytes(), tmp_path / "bad.gguf"
    if kind == "missing":
        return bad
    content = {
        "empty": b"",
        "not GGUF": b"PK\3\4" + data[4:],
        "cut in the header": data[:200],
        "cut at the end": data[:-1000],
        "architecture": data.replace(b"llama", b"lxama"),
    }
    bad.write_bytes(content[kind])
    return bad


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "There is no generator at"),
        ("empty", "is not a GGUF file"),
        ("not GGUF", "is not a GGUF file"),
        ("cut in the header", "remaining file size"),
        ("cut at the end", "not within the file bounds"),
        ("architecture", "unknown model architecture: 'lxama'"),
    ],
)
def test_bad_files_are_one_sentence(
    path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, says: str
) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        LlamaGenerator(damaged(path, tmp_path, kind), PROMPT)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_vocabulary_alone_is_no_generator(path: Path, tmp_path: Path) -> None:
    """Keys of another file's tokenizer, and no weights."""
    from gguf_maker import copy_tokenizer

    writer = gguf.GGUFWriter(tmp_path / "vocabulary.gguf", "llama")
    assert copy_tokenizer(gguf.GGUFReader(path), writer) == 600
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelError):
        LlamaGenerator(tmp_path / "vocabulary.gguf", PROMPT)


def test_the_abort_callback_reads_its_flag() -> None:
    """A C string of length 0 or 1 is what llama.cpp is told to ask."""
    flag = ctypes.create_string_buffer(2)
    ask = ctypes.cast(ctypes.CDLL(None).strlen, llama_cpp.ggml_abort_callback)
    assert not ask(ctypes.addressof(flag))
    flag[0] = b"x"
    assert ask(ctypes.addressof(flag))
