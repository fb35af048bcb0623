"""Checkpoints: written beside the old one, then put in its place: a good file always stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ttsolve.errors import ModelError, UsageError
from ttsolve.files import replacing


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values.

    Raises:
        StorageError: no space or no permission; what was at `path` survives.
    """
    remedy = "free some space and run the same command again, it goes on from the last checkpoint"
    with replacing(path, remedy) as part:
        try:
            torch.save(state, part)
        except RuntimeError as error:  # how torch reports a full disk
            raise OSError(str(error)) from error


def load_state(path: Path) -> dict[str, Any]:
    """Read them back; only tensors and plain values are accepted.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever torch's readers of its several formats raise
        raise ModelError(
            f"{path} is no checkpoint, or a damaged one: remove it and run the training again."
        ) from error


def resume(path: Path, model: nn.Module, tuning: list[torch.optim.Optimizer]) -> dict[str, Any]:
    """Load a checkpoint, if there is one, into model and optimisers; what it says ("step", ...).

    Raises:
        UsageError: it holds a model of another shape.
    """
    if not path.exists():
        return {"step": 0}
    state = load_state(path)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise UsageError(
            f"{path} holds a model of another shape: go on with its options or in another folder."
        ) from error
    for optimiser, kept in zip(tuning, state["optimisers"], strict=True):
        optimiser.load_state_dict(kept)
    return state
