"""The verifier: a score never depends on how the work was cut, and nothing is computed twice."""

from __future__ import annotations

import json
import os
import random
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier, current_thread

import onnx
import pytest
from onnx import helper

from onnx_maker import EOS, write_tokenizer, write_verifier
from ttsolve.core import Problem, Solution, Step
from ttsolve.engines import onnx_model, onnx_prm
from ttsolve.engines.bpe import ByteBpe
from ttsolve.engines.onnx_model import OnnxModel
from ttsolve.engines.onnx_prm import OnnxVerifier
from ttsolve.engines.scoretree import OVERHEAD, Run, ScoreTree, batches
from ttsolve.errors import ModelError, ProblemTooLong
from ttsolve.prompts import PromptFormat

APPLES = Problem("Tom has 12 apples and eats 2. How many?")
PEARS = Problem("What is ten + 11?")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verifier")
    tokenizer = write_tokenizer(folder / "tokenizer.json")
    return write_verifier(folder / "verifier.onnx", tokenizer), tokenizer


@pytest.fixture
def make(files):
    return lambda **options: OnnxVerifier(*files, PromptFormat(), threads=1, **options)


def solution(problem, *texts, finish=None):
    return Solution(problem, tuple(Step(text, tokens=1) for text in texts), finish)


def tree_of_solutions(count=40, seed=1):
    """Solutions of two problems, of 1 to 5 steps, many of which share their first steps."""
    dice = random.Random(seed)
    steps = ["12 - 2 = 10\n", "So ten + 1 = 11\n", "é 漢字\n", "a" * 30 + "\n", "Answer: 10\n"]
    return [
        solution(
            dice.choice([APPLES, PEARS]),
            *(dice.choice(steps) for _ in range(dice.randint(1, 5))),
            finish=dice.choice([None, "stop"]),
        )
        for _ in range(count)
    ]


def scores(solutions):
    return [score for s in solutions for score in s.scores]


def close(a, b):
    return scores(a) == pytest.approx(scores(b), abs=1e-5)


def tokens(verifier, *texts):
    return sum(len(verifier._bpe.encode(text)) for text in texts)


# --- twins -------------------------------------------------------------------------------------


def test_scores_every_step_in_order(make):
    given = tree_of_solutions()
    out, _ = make().score(given)
    assert [s.text for s in out] == [s.text for s in given]
    assert all(0 < score < 1 for score in scores(out))
    assert len({round(score, 6) for score in scores(out)}) > 20


def test_a_batch_equals_one_by_one(make):
    forgetful, given = make(memory_mb=0), tree_of_solutions()
    alone = [forgetful.score([s])[0][0] for s in given]
    assert close(make().score(given)[0], alone)


def test_step_by_step_equals_the_whole_at_once(make):
    verifier, given = make(), tree_of_solutions()
    grown = [Solution(s.problem) for s in given]
    for i in range(5):
        grown = [
            g.grow(*s.steps[i : i + 1], finish=s.finish) for g, s in zip(grown, given, strict=True)
        ]
        grown, _ = verifier.score(grown)
    assert close(grown, make().score(given)[0])


@pytest.mark.parametrize("memory_mb", [0, 1])
def test_forgetting_changes_no_score(make, memory_mb, monkeypatch):
    monkeypatch.setattr(onnx_prm, "CELLS", 300)
    verifier, given = make(memory_mb=memory_mb), tree_of_solutions(150)
    expected = make().score(given)[0]
    assert close(verifier.score(given)[0], expected)
    assert verifier._tree._bytes <= memory_mb * 2**20
    assert close(verifier.score(given[::-1])[0], expected[::-1])


@pytest.mark.parametrize("small", [0, onnx_model.SMALL])
def test_several_cores_score_what_one_does(make, files, small, monkeypatch):
    monkeypatch.setattr(onnx_model, "SMALL", small)
    monkeypatch.setattr(onnx_prm, "NEW", 40)
    given = tree_of_solutions(150)
    expected, usage = make().score(given)
    out, used = OnnxVerifier(*files, PromptFormat(), threads=3).score(given)
    assert close(out, expected)
    assert used == usage


def test_no_more_threads_than_cores_that_it_may_use(files, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 3, 4, 7, 8}, raising=False)
    assert OnnxModel(files[0]).map.__self__._max_workers == 5


def test_a_small_model_runs_several_times_at_once(files, monkeypatch):
    meet = Barrier(2)
    model = OnnxModel(files[0], threads=2)
    assert sorted(model.map(lambda _: meet.wait(20), range(4))) == [0, 0, 1, 1]
    monkeypatch.setattr(onnx_model, "SMALL", files[0].stat().st_size)
    here = list(OnnxModel(files[0], threads=2).map(lambda _: current_thread(), range(4)))
    assert here == [current_thread()] * 4


@pytest.mark.parametrize("memory_mb", [0, 2, 64])
def test_a_pool_on_the_device_changes_no_score(make, memory_mb, monkeypatch):
    """The same code with the device "cpu" as with "cuda": keys and values never leave it."""
    monkeypatch.setattr(onnx_prm, "CELLS", 300)
    given, plain = tree_of_solutions(60), make()
    expected = scores(plain.score(given)[0])
    pooled = make(memory_mb=memory_mb, pooled=True)
    whole, usage = pooled.score(given)
    assert scores(whole) == pytest.approx(expected, abs=1e-6)
    assert usage == make(memory_mb=memory_mb // 2).score(given)[1]
    grown = [Solution(s.problem) for s in given]
    for i in range(5):
        steps = ((g, s.steps[i : i + 1], s.finish) for g, s in zip(grown, given, strict=True))
        grown, _ = pooled.score([g.grow(*step, finish=finish) for g, step, finish in steps])
    assert scores(grown) == pytest.approx(expected, abs=1e-6)


def test_a_pool_has_room_for_what_a_call_keeps(make):
    """Law: whatever is asked for, in whatever order, all cells are accounted for."""
    dice, pooled = random.Random(5), make(memory_mb=1, pooled=True)
    cells = pooled._keys._pool.free
    assert (cells - pooled.context) * pooled._tree.cell_bytes <= 2**20
    for seed in range(30):
        given = tree_of_solutions(dice.randint(1, 30), seed)
        pooled.score(given)
        held = [n for n in pooled._tree._ages if n.past is not None]
        assert pooled._keys._pool.free + sum(len(n.past) for n in held) == cells
        owned = [cell for n in held for cell in n.past.tolist()]
        assert len({0, *owned}) == len(owned) + 1
        assert all(len(n.past) == len(n.ids) for n in held)


def test_a_long_solution_fits_into_the_smallest_pool(make):
    pooled = make(memory_mb=0, pooled=True)
    long = solution(APPLES, *["12 - 2 = 10\n"] * 30)
    [scored], _ = pooled.score([long])
    assert close([scored], make().score([long])[0])
    assert scored.scores[-1] == 0  # beyond the context


def test_threads_compute_nothing_twice(make):
    verifier, given = make(), [solution(APPLES, "12 - 2 = 10\n" * 9, "Answer: 10\n")] * 32
    [expected], usage = make().score(given[:1])
    with ThreadPoolExecutor(8) as pool:
        out = list(pool.map(lambda s: verifier.score([s]), given))
    assert close([scored for [scored], _ in out], [expected] * 32)
    assert sum(used.verifier_tokens for _, used in out) == usage.verifier_tokens


# --- only new tokens are computed --------------------------------------------------------------


def test_a_grown_prefix_costs_its_new_step(make):
    verifier = make()
    first, second = "12 - 2 = 10\n", "Answer: 10\n"
    prompt = 1 + tokens(verifier, APPLES.question + "\n")
    [prefix], usage = verifier.score([solution(APPLES, first)])
    assert usage.verifier_tokens == prompt + tokens(verifier, first)
    [_], usage = verifier.score([prefix.grow(Step(second, 1), finish="stop")])
    assert usage.verifier_tokens == tokens(verifier, second)


def test_equal_steps_are_computed_once(make):
    verifier = make()
    first, second, third = "12 - 2 = 10\n", "Answer: 10\n", "Answer: 11\n"
    prompt = 1 + tokens(verifier, APPLES.question + "\n")
    given = [solution(APPLES, first, last, finish="stop") for last in (second, third, second)]
    _, usage = verifier.score(given)
    assert usage.verifier_tokens == prompt + tokens(verifier, first, second, third)
    _, usage = verifier.score(given)
    assert usage.verifier_tokens == 0


def test_the_prompt_is_computed_once_for_finished_solutions_too(make):
    verifier = make()
    verifier.score([solution(APPLES, "Answer: 1\n", finish="stop")])
    _, usage = verifier.score([solution(APPLES, "Answer: 2\n", finish="stop")])
    assert usage.verifier_tokens == tokens(verifier, "Answer: 2\n")


def test_a_finished_solution_keeps_its_scores_only(make):
    verifier = make()
    verifier.score([solution(APPLES, "12 - 2 = 10\n", "Answer: 10\n", finish="stop")])
    nodes = verifier._tree.path([APPLES.question + "\n", "12 - 2 = 10\n"], encode=None)
    assert [node.past is None for node in nodes] == [False, True]
    [cut], usage = verifier.score([solution(APPLES, "12 - 2 = 10\n", "Answer: 9\n")])
    assert usage.verifier_tokens == tokens(verifier, "12 - 2 = 10\n", "Answer: 9\n")
    assert close([cut], make().score([cut.problem.root.grow(*unscored(cut))])[0])


def unscored(solution):
    return [replace(step, score=None) for step in solution.steps]


def test_given_scores_stay_and_cost_nothing(make):
    verifier = make()
    given = Solution(APPLES, (Step("12 - 2 = 10\n", 1, score=0.25), Step("Answer: 1\n", 1)))
    [out], _ = verifier.score([given])
    assert out.steps[0].score == 0.25
    assert verifier.score([out])[1].verifier_tokens == 0
    assert verifier.score([]) == ([], verifier.score([out])[1])


# --- text --------------------------------------------------------------------------------------


def test_a_step_without_its_separator_is_the_same_step(make):
    given = [solution(APPLES, "Answer: 10"), solution(APPLES, "Answer: 10\n")]
    bare, full = make().score(given)[0]
    assert bare.scores == full.scores


def test_beyond_the_context_nothing_speaks_for_a_step(files, tmp_path, caplog):
    small = write_verifier(tmp_path / "small.onnx", files[1], context=64)
    verifier = OnnxVerifier(small, files[1], PromptFormat())
    given = solution(PEARS, "ten\n", "a" * 90 + "\n", "ten\n")
    [out], usage = verifier.score([given])
    assert out.scores[0] > 0
    assert out.scores[1:] == (0.0, 0.0)
    assert usage.verifier_tokens == 1 + tokens(verifier, PEARS.question + "\n", "ten\n")
    verifier.score([given, given])
    [said] = [record.getMessage() for record in caplog.records]  # once
    assert said.startswith("A solution has 110 tokens, and the verifier reads 64: steps beyond")
    with pytest.raises(ProblemTooLong, match="has 102 tokens and the verifier reads 64"):
        verifier.score([solution(Problem("a" * 100), "ten\n")])


TEXTS = ["Tom's 12 apples + ten\n", "  two  spaces\n\n\tand é 漢字 🙂", EOS, "", "Answer: 7\r\n"]


@pytest.mark.parametrize("shuffle", [False, True])
def test_tokens_are_those_of_the_tokenizers_package(tmp_path, shuffle, monkeypatch):
    tokenizers = pytest.importorskip("tokenizers", reason="needs the `train` extra")
    monkeypatch.setattr(socket, "socket", None)  # never the network
    path = write_tokenizer(tmp_path / "tokenizer.json", shuffle=shuffle)
    theirs, ours = tokenizers.Tokenizer.from_file(str(path)), ByteBpe(path)
    assert ours.vocabulary == theirs.get_vocab_size()
    for text in set(TEXTS) - {EOS}:
        assert ours.encode(text) == theirs.encode(text).ids
    assert ours.special[EOS] not in ours.encode(EOS)


# --- what the tree promises --------------------------------------------------------------------


def test_the_oldest_leaf_goes_first():
    tree = ScoreTree(limit=3 * OVERHEAD)
    tree.path(["p", "a", "b"], lambda text, parent: [0])
    tree.path(["p", "c"], lambda text, parent: [0])
    tree.forget()
    [prompt] = tree.root.children.values()
    assert set(prompt.children) == {"a", "c"}
    assert not prompt.children["a"].children


def test_batches_stay_within_their_cells(make):
    tree = ScoreTree(limit=0)
    lengths = [random.Random(3).randint(1, 40) for _ in range(50)]
    nodes = [
        tree.path(["p", str(i)], lambda text, parent, n=n: [0] * (n if parent.parent else 7))[-1]
        for i, n in enumerate(lengths)
    ]
    cut = list(batches([Run([node]) for node in nodes], cells=200, new=100))
    assert sorted(run.length for batch in cut for run in batch) == sorted(lengths)
    longest = [max(run.length for run in batch) for batch in cut]
    assert all(len(b) * (7 + most) <= 200 for b, most in zip(cut, longest, strict=True))
    assert all(len(b) * most <= 100 for b, most in zip(cut, longest, strict=True))
    assert len(cut) < 20


# --- wrong files -------------------------------------------------------------------------------


def _foreign(path: Path) -> Path:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [x], [y])
    opset = [helper.make_opsetid("", 18)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    )
    return path


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


BROKEN_VERIFIER = {
    "missing": (lambda good, new: new, "There is no verifier"),
    "empty": (lambda good, new: _written(new, b""), "damaged"),
    "text": (lambda good, new: _written(new, b"hello " * 100), "damaged"),
    "truncated": (lambda good, new: _written(new, good.read_bytes()[:-20_000]), "damaged"),
    "foreign": (lambda good, new: _foreign(new), "no verifier of ttsolve"),
}


@pytest.mark.parametrize("case", BROKEN_VERIFIER)
def test_a_wrong_verifier_file_is_one_sentence(files, tmp_path, case, capfd):
    spoil, words = BROKEN_VERIFIER[case]
    with pytest.raises(ModelError, match=words) as caught:
        OnnxVerifier(spoil(files[0], tmp_path / "broken.onnx"), files[1], PromptFormat())
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_score_that_is_no_number_is_one_sentence(files, tmp_path):
    model = onnx.load(files[0])
    for weights in model.graph.initializer:
        if weights.data_type == onnx.TensorProto.FLOAT:
            weights.raw_data = b"\xff" * len(weights.raw_data)
    onnx.save(model, tmp_path / "broken.onnx")
    broken = OnnxVerifier(tmp_path / "broken.onnx", files[1], PromptFormat(), threads=1)
    with pytest.raises(ModelError, match="a score that is no number"):
        broken.score([solution(APPLES, "12 - 2 = 10\n")])


BROKEN_TOKENIZER = {
    "missing": (None, "Cannot read the tokenizer"),
    "text": ("hello", "damaged or no byte-level BPE"),
    "list": ("[]", "damaged or no byte-level BPE"),
    "truncated": ('{"model": ', "damaged or no byte-level BPE"),
    "another": (json.dumps, "made for another tokenizer"),
}


@pytest.mark.parametrize("case", BROKEN_TOKENIZER)
def test_a_wrong_tokenizer_is_one_sentence(files, tmp_path, case):
    content, words = BROKEN_TOKENIZER[case]
    path = tmp_path / "tokenizer.json"
    if callable(content):
        write_tokenizer(path, merges="t e")
    elif content is not None:
        path.write_text(content)
    with pytest.raises(ModelError, match=words):
        OnnxVerifier(files[0], path, PromptFormat())


@pytest.mark.parametrize("wrong", ["7", 7.5, -1, True, None, 10**30])
@pytest.mark.parametrize("where", ["vocabulary", "added"])
def test_an_id_that_is_none_is_one_sentence(tmp_path, wrong, where):
    path = write_tokenizer(tmp_path / "tokenizer.json")
    state = json.loads(path.read_text())
    if where == "added":
        state["added_tokens"][0]["id"] = wrong
    else:
        state["model"]["vocab"][next(iter(state["model"]["vocab"]))] = wrong
    path.write_text(json.dumps(state))
    with pytest.raises(ModelError, match="is damaged or no byte-level BPE; use the tokenizer"):
        ByteBpe(path)


def test_cuda_is_asked_for_only_where_it_works(make, monkeypatch, capfd):
    monkeypatch.setattr(onnx_model, "cuda_works", lambda: False)
    assert make().device == "cpu"
    with pytest.raises(ModelError, match="cannot run on CUDA"):
        make(device="cuda")
    assert capfd.readouterr() == ("", "")


def test_a_device_without_room_is_one_sentence(make, monkeypatch):
    def full(*arguments):
        raise RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory")

    monkeypatch.setattr(onnx_model, "KeyPool", full)
    with pytest.raises(ModelError, match="do not fit into the GPU's memory: use smaller models"):
        make(pooled=True)
