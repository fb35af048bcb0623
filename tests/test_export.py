"""Twins: torch and the files made from it say the same, in ONNX Runtime and in llama.cpp."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the `train` extra")

import llama_cpp
import onnxruntime as ort
import torch
from torch import nn

from onnx_maker import vocabulary_of, write_tokenizer
from ttsolve.core import Problem, Solution, Step
from ttsolve.engines.bpe import ByteBpe
from ttsolve.engines.onnx_prm import OnnxVerifier
from ttsolve.errors import ModelError, StorageError
from ttsolve.prompts import PromptFormat
from ttsolve.train.export import export_gguf, export_onnx
from ttsolve.train.import_gguf import read_gguf
from ttsolve.train.import_onnx import read_onnx
from ttsolve.train.model import LanguageModel, RewardModel, Shape, causal_mask

TEXT = "Tom has 12 apples + 2, and é 漢字.\n12 + 2 = 14\nAnswer: 14\n"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


@pytest.fixture(scope="module")
def reward(tokenizer):
    """Random weights, larger than a training would begin with, so that nothing is near zero."""
    torch.manual_seed(0)
    shape = Shape(vocabulary_of(tokenizer), layers=2, width=64, heads=2, hidden=96, context=256)
    model = RewardModel(LanguageModel(shape)).eval()
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            nn.init.normal_(weight, mean=1.0, std=0.1)
        else:
            nn.init.normal_(weight, std=0.5 if "embedding" in name else 0.15)
    return model


@pytest.fixture(scope="module")
def onnx(reward, tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "verifier.onnx"
    export_onnx(reward, tokenizer, path)
    return path


# --- ONNX --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def session(onnx):
    return ort.InferenceSession(onnx, providers=["CPUExecutionProvider"])


def run_torch(reward, ids, positions, attention, past):
    """`past` and what comes back: a flat list, without the empty values of the last layer."""
    pairs = [*zip(past[:-1:2], past[1::2], strict=True), (past[-1], past[-1][..., :0])]
    with torch.no_grad():
        mask = causal_mask(attention, ids.shape[1])
        logits, present = reward(ids, positions, mask, pairs)
    return [logits, *(tensor for pair in present for tensor in pair)][:-1]


def run_onnx(session, ids, positions, attention, past):
    names = [i.name for i in session.get_inputs() if i.name.startswith("past.")]
    feed = {"input_ids": ids, "position_ids": positions, "attention_mask": attention}
    feed |= dict(zip(names, past, strict=True))
    out = session.run(None, {name: tensor.numpy() for name, tensor in feed.items()})
    return [torch.from_numpy(array) for array in out]


def no_past(session, batch, cells=0):
    caches = [i for i in session.get_inputs() if i.name.startswith("past.")]
    return [torch.zeros(batch, i.shape[1], cells, i.shape[3]) for i in caches]


def assert_close(ours, theirs, real):
    """Equal within 1e-4 where `real` [batch, cells] is true; the logits are of the last cells."""
    logits, *caches = ours
    expected, *expected_caches = theirs
    new = real[:, -logits.shape[1] :]
    torch.testing.assert_close(logits[new], expected[new], atol=1e-4, rtol=0)
    for cache, expected_cache in zip(caches, expected_caches, strict=True):
        a, b = (c.transpose(1, 2)[real] for c in (cache, expected_cache))
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def random_ids(reward, batch, tokens):
    return torch.randint(0, reward.shape.vocabulary, (batch, tokens))


def test_a_verifier_is_read_back_exactly(onnx, reward):
    again = read_onnx(onnx, reward.shape)
    assert len(again.judges) == len(reward.judges)
    for name, weight in reward.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    higher = replace(reward.shape, layers=reward.shape.layers + 1)
    assert read_onnx(onnx, higher, fewer=True).shape == reward.shape


def test_only_whole_verifiers_over_that_generator_are_read(onnx, reward, tmp_path):
    (cut := tmp_path / "cut.onnx").write_bytes(onnx.read_bytes()[:-100])
    other = replace(reward.shape, hidden=reward.shape.hidden + 32)
    lower, higher = (replace(reward.shape, layers=reward.shape.layers + n) for n in (-1, 1))
    missing = tmp_path / "missing.onnx"
    whole = ((onnx, shape) for shape in (other, lower, higher))
    for path, shape in ((cut, reward.shape), (missing, reward.shape), *whole):
        with pytest.raises(ModelError, match="is no verifier that ttsolve trained"):
            read_onnx(path, shape)


@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (1, 40), (3, 17)])
def test_onnx_equals_torch_on_whole_texts(reward, session, batch, tokens):
    given = (
        random_ids(reward, batch, tokens),
        torch.arange(tokens).repeat(batch, 1),
        torch.ones(batch, tokens, dtype=torch.long),
        no_past(session, batch),
    )
    logits, *_ = theirs = run_torch(reward, *given)
    assert_close(run_onnx(session, *given), theirs, given[2] > 0)
    assert tokens == 1 or logits.std() > 0.1


def test_onnx_equals_torch_behind_pasts_of_different_lengths(reward, session):
    past, new = torch.tensor([0, 5, 9]), torch.tensor([6, 1, 4])
    cells = torch.arange(9 + 6)
    real = (cells >= 9 - past[:, None]) & (cells < 9 + new[:, None])
    behind = [torch.randn_like(cache) for cache in no_past(session, 3, cells=9)]
    behind = [cache * real[:, None, :9, None] for cache in behind]  # padded cells are zeros
    positions = (cells[9:] - 9 + past[:, None]).where(real[:, 9:], torch.tensor(0))
    given = (random_ids(reward, 3, 6), positions, real.long(), behind)
    assert_close(run_onnx(session, *given), run_torch(reward, *given), real)


def test_onnx_token_by_token_equals_torch_at_once(reward, session):
    ids, positions = random_ids(reward, 2, 12), torch.arange(12).repeat(2, 1)
    ones = torch.ones(2, 12, dtype=torch.long)
    whole, *_ = run_torch(reward, ids, positions, ones, no_past(session, 2))
    past = no_past(session, 2)
    for at in range(12):
        step = slice(at, at + 1)
        given = (ids[:, step], positions[:, step], ones[:, : at + 1], past)
        logits, *past = run_onnx(session, *given)
        torch.testing.assert_close(logits[:, 0], whole[:, at], atol=1e-4, rtol=0)


def test_the_verifier_scores_what_torch_scores(reward, onnx, tokenizer):
    prompt, lines = PromptFormat(), TEXT.splitlines(keepends=True)
    verifier = OnnxVerifier(onnx, tokenizer, prompt, threads=1)
    assert verifier.params == sum(weight.numel() for weight in reward.parameters())
    [out], _ = verifier.score([Solution(Problem(lines[0]), tuple(Step(x, 1) for x in lines[1:]))])
    bpe = ByteBpe(tokenizer)
    pieces = [bpe.encode(line) for line in lines]
    ids = torch.tensor([[bpe.special["<|bos|>"], *(token for piece in pieces for token in piece)]])
    ends = np.cumsum([len(piece) for piece in pieces])[1:]
    size = ids.shape[1]
    with torch.no_grad():
        mask = causal_mask(torch.ones_like(ids), size)
        logits, _ = reward(ids, torch.arange(size)[None], mask)
    assert out.scores == pytest.approx(logits.sigmoid()[0, ends].tolist(), abs=1e-4)


# --- GGUF --------------------------------------------------------------------------------------


def llama_logits(model: llama_cpp.Llama, ids: list[int]) -> torch.Tensor:
    model.reset()
    model.eval(ids)
    return torch.from_numpy(model.scores[: len(ids)].copy())


@pytest.mark.parametrize(("dtype", "tolerance"), [("f32", 1e-5), ("f16", 5e-3), ("q8_0", 0.06)])
def test_llama_cpp_equals_torch(reward, tokenizer, tmp_path, dtype, tolerance):
    path = tmp_path / "generator.gguf"
    export_gguf(reward.trunk, tokenizer, path, dtype)
    model = llama_cpp.Llama(
        str(path),
        n_ctx=256,
        logits_all=True,
        verbose=False,
        n_threads=1,
        n_gpu_layers=0,
        type_k=llama_cpp.GGML_TYPE_F32,  # so that the weights alone are rounded
        type_v=llama_cpp.GGML_TYPE_F32,
    )
    try:
        ids = model.tokenize(TEXT.encode(), special=False)
        bpe = ByteBpe(tokenizer)
        assert ids == [bpe.special["<|bos|>"], *bpe.encode(TEXT)]
        assert model.token_eos() == bpe.special["<|eos|>"]
        assert model.detokenize(ids[1:]).decode() == TEXT
        assert model.tokenize(b"<|eos|>", add_bos=False, special=True) == [model.token_eos()]
        ours = llama_logits(model, ids)
    finally:
        model.close()
    with torch.no_grad():
        given = torch.tensor([ids])
        mask = causal_mask(torch.ones_like(given), len(ids))
        hidden, _ = reward.trunk(given, torch.arange(len(ids))[None], mask)
        theirs = reward.trunk.logits(hidden)[0]
    assert theirs.std() > 1
    assert (ours - theirs).std() < tolerance * theirs.std()


# --- trouble -----------------------------------------------------------------------------------


def writers(reward, tokenizer):
    return [
        lambda path: export_gguf(reward.trunk, tokenizer, path),
        lambda path: export_onnx(reward, tokenizer, path),
    ]


@pytest.mark.parametrize("which", [0, 1], ids=["gguf", "onnx"])
def test_without_room_nothing_half_written_stays(reward, tokenizer, tmp_path, which, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "model"
    path.write_text("the old one")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="No space left on device"):
        writers(reward, tokenizer)[which](path)
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    assert path.read_text() == "the old one"
    with pytest.raises(StorageError, match="Not a directory"):
        writers(reward, tokenizer)[which](path / "below" / "model")


@pytest.mark.parametrize("which", [0, 1], ids=["gguf", "onnx"])
def test_another_tokenizer_is_refused(reward, tmp_path, which):
    other = write_tokenizer(tmp_path / "tokenizer.json", merges="t e")
    with pytest.raises(ModelError, match="has 259 tokens and the model"):
        writers(reward, other)[which](tmp_path / "model")


@pytest.mark.parametrize(("dtype", "loss"), [("f32", 0.0), ("f16", 1e-3), ("q8_0", 2e-2)])
def test_a_gguf_is_read_back_to_the_precision_of_its_weights(
    reward, tokenizer, tmp_path, dtype, loss
) -> None:
    export_gguf(reward.trunk, tokenizer, tmp_path / "generator.gguf", dtype)
    back = read_gguf(tmp_path / "generator.gguf")
    assert {**back.shape.as_dict(), "epsilon": 1e-5} == reward.trunk.shape.as_dict()
    for name, weight in reward.trunk.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], weight, rtol=0, atol=loss)


def test_a_file_that_is_no_generator_of_ours_is_one_sentence(onnx, tmp_path) -> None:
    for path in (onnx, tmp_path / "missing.gguf"):
        with pytest.raises(ModelError, match=r"^.* is no generator that ttsolve trained, .*\.$"):
            read_gguf(path)
