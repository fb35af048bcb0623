"""A verifier's ONNX as weights again: where a pair is all there is, training goes on from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from ttsolve.errors import ModelError
from ttsolve.train.graph import RewardGraph, weights_digest
from ttsolve.train.model import LanguageModel, RewardModel, Shape


def read_onnx(path: Path, shape: Shape, *, fewer: bool = False) -> RewardModel:
    """The model in an ONNX that `export_onnx` wrote, over a trunk of the shape; exactly.

    fewer: whether the trunk may have fewer layers than the shape.

    Raises:
        ModelError: the file is missing or damaged, or a verifier of another shape or making.
    """
    try:
        proto = onnx.load(path)
        layers, judges = _depths(proto)
        if layers > shape.layers or (layers < shape.layers and not fewer):
            raise ValueError(f"The trunk has {layers} layers.")
        model = RewardModel(LanguageModel(replace(shape, layers=layers)), judges)
        model.load_state_dict(_weights(proto, model))
    except Exception as error:  # protobuf's, ONNX's and torch's have no common ancestor
        raise ModelError(
            f"{path} is no verifier that ttsolve trained over this generator, or a damaged one: "
            "use the verifier.onnx of `ttsolve train prm`."
        ) from error
    return model.eval()


def _depths(proto: onnx.ModelProto) -> tuple[int, int]:
    """The layers of the trunk, and the judges: each has one softmax; surprise is between them."""
    operators = [node.op_type for node in proto.graph.node]
    surprise = operators.index("LogSoftmax")
    return operators[:surprise].count("Softmax"), operators[surprise:].count("Softmax")


def _weights(proto: onnx.ModelProto, model: RewardModel) -> dict[str, torch.Tensor]:
    """The weights by their names.

    The graph's constants have lost these: several matrices are one, some are transposed. So a graph
    is built of numbers in the place of weights: where a number stands there, its weight is here.
    """
    numbers, count = {}, 0
    for name, weight in model.state_dict().items():
        # Unsigned, as no other constant is.
        numbers[name] = np.arange(count, count + weight.numel(), dtype=np.uint64)
        numbers[name] = numbers[name].reshape(weight.shape)
        count += weight.numel()
    drawn = RewardGraph(numbers, model.shape)
    drawn.build()
    here = {c.name: numpy_helper.to_array(c) for c in proto.graph.initializer}
    flat = np.full(count, np.nan, np.float32)
    for constant in drawn.constants:
        places = numpy_helper.to_array(constant)
        if places.dtype == np.uint64:
            flat[places] = here[constant.name].reshape(places.shape)
    weights = {name: flat[places] for name, places in numbers.items()}
    notes = {note.key: note.value for note in proto.metadata_props}
    if notes["ttsolve.digest"] != weights_digest(weights):
        raise ValueError("The weights are not those that were written.")
    return {name: torch.from_numpy(weight) for name, weight in weights.items()}
