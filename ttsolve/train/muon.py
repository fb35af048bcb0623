"""Muon: momentum whose matrices are orthogonalised before they are applied (Jordan et al. 2024).

Batched over equal shapes, and in bfloat16 only where that is fast, because the version that comes
with PyTorch works in bfloat16 one matrix at a time, which on most CPUs is several times slower than
the training step itself. Here it reached AdamW's loss in half the steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ttsolve.train.precision import fast_bf16


class Muon(torch.optim.Optimizer):
    """For the weight matrices of hidden layers; everything else belongs to AdamW."""

    def __init__(self, matrices: Iterable[Tensor], lr: float, weight_decay: float = 0.02):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for matrices in _by_shape(m for m in group["params"] if m.grad is not None):
                self._step(matrices, group)

    def _step(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        gradients = torch.stack([m.grad for m in matrices if m.grad is not None])
        momenta = [self.state[m].setdefault("momentum", torch.zeros_like(m)) for m in matrices]
        momentum = torch.stack(momenta).lerp_(gradients, 1 - group["momentum"])
        update = orthogonalise(gradients.lerp(momentum, group["momentum"]))
        # Scaled to the size of an AdamW update, so that both share one learning rate.
        rate = group["lr"] * 0.2 * max(matrices[0].shape) ** 0.5
        for matrix, own, kept, step in zip(matrices, momenta, momentum, update, strict=True):
            own.copy_(kept)
            matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-rate)


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: 5 rounds of Newton-Schulz.

    matrices: [count, rows, columns]; singular values end between 0.6 and 1.3 or so.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(torch.bfloat16 if fast_bf16() else matrices.dtype)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = torch.baddbmm(
            x, torch.baddbmm(square, square, square, beta=-4.775, alpha=2.0315), x, beta=3.4445
        )
    return (x.mT if tall else x).to(matrices.dtype)


def optimisers(model: nn.Module, rate: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings, norms, heads and biases."""
    matrices, others = list[Tensor](), list[Tensor]()
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            hidden = weight.dim() == 2 and min(weight.shape) >= 32 and "embedding" not in name
            (matrices if hidden else others).append(weight)
    return [
        Muon(matrices, rate, weight_decay),
        torch.optim.AdamW(others, rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _by_shape(matrices: Iterable[Tensor]) -> list[list[Tensor]]:
    shapes: dict[tuple[int, ...], list[Tensor]] = {}
    for matrix in matrices:
        shapes.setdefault(tuple(matrix.shape), []).append(matrix)
    return list(shapes.values())
