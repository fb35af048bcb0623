"""Models of published shapes with random weights, as large as a GPU needs to show its speed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from onnx import helper

from gguf_maker import Shape, make_gguf
from onnx_maker import write_tokenizer
from ttsolve import toml
from ttsolve.core import Problem, Solution, Step
from ttsolve.engines.prm_format import PrmFormat
from ttsolve.engines.prm_reader import PUBLISHED, PrmReader
from ttsolve.engines.scoretree import ScoreTree
from ttsolve.engines.tokens import open_tokenizer
from ttsolve.train.decoder import Data, Decoder, Dtype, Head, decoder_graph

F16, Q8_0 = gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.Q8_0
LLAMA_1B = Shape("llama", 16, 2048, 32, 8, 8192, 4096, F16, 0.02)  # Llama-3.2-1B
LLAMA_TINY = Shape("llama", 1, 32, 2, 1, 64, 256, F16, 0.02)
QUANTS = {"f16": F16, "q8_0": Q8_0}


@dataclass(frozen=True, slots=True)
class PrmShape:
    """A Qwen2 reward model's sizes."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    hidden: int  # of the feed-forward part
    vocabulary: int
    context: int


QWEN_1_5B = PrmShape(28, 1536, 12, 2, 8960, 151_936, 4096)  # Qwen2.5-Math-1.5B
QWEN_TINY = PrmShape(2, 32, 2, 1, 48, 512, 1024)


def generator_file(
    folder: Path, shape: Shape, quant: str, tokenizer: Path | None, vocabulary: int
) -> Path:
    """A GGUF of that shape in `folder`, made if it is not there yet."""
    path = folder / f"{shape.layers}x{shape.width}-{quant}.gguf"
    if not path.exists():
        part = path.with_suffix(".part")
        sizes = {name: getattr(shape, name) for name in shape.__slots__}
        made = Shape(**(sizes | {"quant": QUANTS[quant]}))
        make_gguf(part, made, vocabulary=vocabulary, tokenizer=tokenizer)
        part.rename(path)
    return path


def prm_files(folder: Path, shape: PrmShape, dtype: Dtype) -> tuple[Path, Path]:
    """A process reward model of that shape and its tokenizer, made if it is not there yet."""
    folder = folder / f"prm-{shape.layers}x{shape.width}-{dtype}"
    graph, tokenizer = folder / "verifier.onnx", folder / "tokenizer.json"
    if not graph.exists():
        folder.mkdir(exist_ok=True)
        write_tokenizer(tokenizer)
        _write_prm(graph, tokenizer, shape, dtype)
    return graph, tokenizer


class _Weights(Mapping[str, np.ndarray]):
    """Random weights, drawn when they are asked for: together they would take 6 GB."""

    def __init__(self, shape: PrmShape):
        width, kv = shape.width, shape.width // shape.heads * shape.kv_heads
        self.shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (shape.vocabulary, width)}
        for i in range(shape.layers):
            layer = f"layers.{i}."
            for name, rows in ("q", width), ("k", kv), ("v", kv):
                self.shapes[f"{layer}self_attn.{name}_proj.weight"] = (rows, width)
                self.shapes[f"{layer}self_attn.{name}_proj.bias"] = (rows,)
            self.shapes[f"{layer}self_attn.o_proj.weight"] = (width, width)
            self.shapes[f"{layer}mlp.gate_proj.weight"] = (shape.hidden, width)
            self.shapes[f"{layer}mlp.up_proj.weight"] = (shape.hidden, width)
            self.shapes[f"{layer}mlp.down_proj.weight"] = (width, shape.hidden)
            for name in "input_layernorm", "post_attention_layernorm":
                self.shapes[f"{layer}{name}.weight"] = (width,)
        self.shapes["norm.weight"] = (width,)
        self.places = {name: place for place, name in enumerate(self.shapes)}

    def __getitem__(self, name: str) -> np.ndarray:
        sizes = self.shapes[name]
        if name.endswith("norm.weight"):
            return np.ones(sizes, np.float32)
        drawn = np.random.default_rng(self.places[name]).standard_normal(sizes, np.float32)
        return drawn * np.float32(sizes[-1] ** -0.5 if len(sizes) > 1 else 0.1)

    def __contains__(self, name: object) -> bool:
        return name in self.shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def _write_prm(graph: Path, tokenizer: Path, shape: PrmShape, dtype: Dtype) -> None:
    size = shape.width // shape.heads
    speeds = 1e6 ** (-np.arange(0, size, 2, dtype=np.float32) / np.float32(size))
    decoder = Decoder(shape.layers, shape.width, shape.heads, shape.kv_heads, size, 1e-6, speeds, 1)
    head = Head(np.random.default_rng(1).standard_normal(shape.width).astype(np.float32) * 0.05)
    how = PrmFormat("random", "{question}\n", "{step}\n", shape.context, 1.0, apart=True)
    reads = open_tokenizer(tokenizer)
    # The weights are random: a test vector holds the tokens only.
    question, steps = "1 + 2 = ?", ["1 + 2 = 3", "Answer: 3"]
    solution = Solution(Problem(question), tuple(Step(step, 0) for step in steps))
    reader = PrmReader(how, reads)
    nodes = ScoreTree(limit=0).path(reader.texts(solution)[0], reader.encode)
    ids = [token for node in nodes for token in node.ids]
    how.vectors["1"] = {"question": question, "steps": steps, "ids": ids, "scores": [0.5, 0.5]}
    graph.with_suffix(".toml").write_text(toml.dump(how), encoding="utf-8")
    weights = _Weights(shape)
    with ExitStack() as stack:
        data = Data(stack.enter_context(Path(f"{graph}.data").open("wb")), f"{graph.name}.data")
        model = decoder_graph(weights, decoder, head, dtype, data)
    notes = {
        "format": PUBLISHED,
        "digest": data.digest.hexdigest(),
        "tokenizer": reads.sha256,
        "vocabulary": str(reads.vocabulary),
        "params": str(sum(int(np.prod(sizes)) for sizes in weights.shapes.values())),
        "family": how.family,
        "dtype": dtype,
    }
    helper.set_model_props(model, {f"ttsolve.{key}": note for key, note in notes.items()})
    graph.write_bytes(model.SerializeToString())
