"""How exactly a training computes: its gradients in bfloat16 are nearly those of float32.

And what it rounds off it rounds off for itself alone.
"""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="training needs the `train` extra")
pytest.importorskip("tokenizers", reason="training needs the `train` extra")
pytest.importorskip("regex", reason="training needs the `train` extra")

import torch

from train_maker import wild_model, write_tokenizer
from ttsolve.train import muon, precision
from ttsolve.train.generator import row_loss, subject_weights
from ttsolve.train.model import RewardModel
from ttsolve.train.prm import label_loss
from ttsolve.train.rows import ROW, Rows
from ttsolve.train.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def batch(path):
    return Rows(load_tokenizer(path), subject_weights(), 5, 4).batch(0, 0)


def gradients(monkeypatch, model, loss_of, fast: bool) -> tuple[float, torch.Tensor]:
    monkeypatch.setattr(precision, "fast_bf16", lambda: fast)
    model.zero_grad()
    with precision.mixed():
        loss = loss_of()
    loss.backward()
    known = [w.grad.flatten() for w in model.parameters() if w.grad is not None]
    assert {g.dtype for g in known} == {torch.float32}
    return loss.item(), torch.cat(known)


def alike(monkeypatch, model, loss_of) -> None:
    exact, g = gradients(monkeypatch, model, loss_of, fast=False)
    mixed, h = gradients(monkeypatch, model, loss_of, fast=True)
    assert mixed != exact
    assert mixed == pytest.approx(exact, rel=0.02)
    assert torch.cosine_similarity(g, h, dim=0) > 0.99


def test_a_generator_learns_the_same_in_bfloat16(monkeypatch, path, batch) -> None:
    model = wild_model(path).train()
    alike(monkeypatch, model, lambda: row_loss(model, *batch))


def test_so_does_a_verifier(monkeypatch, path, batch) -> None:
    torch.manual_seed(0)
    model = RewardModel(wild_model(path)).train()
    torch.nn.init.normal_(model.head.weight)
    ids, places, numbers, _ = batch
    targets, ones = torch.rand(len(ids), ROW), torch.ones(len(ids), ROW)
    alike(monkeypatch, model, lambda: label_loss(model, ids, places, numbers, targets, ones, ones))


def test_what_a_verifier_is_told_of_surprise_is_exact(monkeypatch, path, batch) -> None:
    model = RewardModel(wild_model(path))
    before = torch.randn(2, ROW, model.shape.width)
    told = model._surprise(before, batch[0])
    monkeypatch.setattr(precision, "fast_bf16", lambda: True)
    with precision.mixed():
        assert torch.equal(model._surprise(before, batch[0]), told)


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16)])
def test_orthogonalised_in_bfloat16_they_nearly_are(monkeypatch, shape: tuple[int, ...]) -> None:
    monkeypatch.setattr(muon, "fast_bf16", lambda: True)
    torch.manual_seed(0)
    result = muon.orthogonalise(torch.randn(shape))
    values = torch.linalg.svdvals(result)
    assert result.dtype == torch.float32
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_what_a_training_counts_as_0_does_not_stay_so() -> None:
    least, one = 5e-324, 1.0

    @precision.flushed()
    def train(fails: bool) -> bool:
        gone = least * one == 0
        if fails:
            raise KeyboardInterrupt
        return gone

    assert least * one > 0
    able = torch.set_flush_denormal(True)  # not every CPU is
    torch.set_flush_denormal(False)
    assert train(fails=False) is able
    assert least * one > 0
    with pytest.raises(KeyboardInterrupt):
        train(fails=True)
    assert least * one > 0
