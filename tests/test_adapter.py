"""A reviser that is a LoRA adapter: what it says is what the merged model says."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from gguf_maker import TINY, make_gguf
from ttsolve.core import Problem
from ttsolve.engine import Sampling
from ttsolve.engines.llama import LlamaGenerator
from ttsolve.errors import ModelError
from ttsolve.pair import GeneratorFile, Pair, ReviserFiles
from ttsolve.prompts import PromptFormat
from ttsolve.solve import open_reviser

RANK, ALPHA = 4, 8.0
HOW = Sampling(temperature=0.0, max_tokens=30)


def write_adapter(path: Path, base: Path, seed: int = 0, width: int | None = None) -> Path:
    """A random adapter over the query and down matrices of all layers, as llama.cpp reads it."""
    dice = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, ALPHA)
    for tensor in gguf.GGUFReader(base).tensors:
        if tensor.name.endswith(("attn_q.weight", "ffn_down.weight")):
            rows, columns = tensor.data.shape
            a = dice.normal(0, 0.3, (RANK, width or columns)).astype(np.float32)
            b = dice.normal(0, 0.3, (rows, RANK)).astype(np.float32)
            writer.add_tensor(f"{tensor.name}.lora_a", a)
            writer.add_tensor(f"{tensor.name}.lora_b", b)
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
    ):
        write()
    writer.close()
    return path


def merge(path: Path, base: Path, adapter: Path) -> Path:
    """The base with the adapter's matrices added."""
    path.write_bytes(base.read_bytes())
    parts = {tensor.name: tensor.data for tensor in gguf.GGUFReader(adapter).tensors}
    merged = gguf.GGUFReader(path, "r+")
    for tensor in merged.tensors:
        if f"{tensor.name}.lora_a" in parts:
            change = parts[f"{tensor.name}.lora_b"] @ parts[f"{tensor.name}.lora_a"]
            tensor.data[:] += ALPHA / RANK * change
    merged.data.flush()
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gguf(tmp_path_factory.mktemp("adapter") / "generator.gguf", TINY)


def says(generator: LlamaGenerator) -> str:
    with generator:
        [solution], _ = generator.sample([Problem("make it so").root], [HOW])
        return solution.text


def revising(base: Path, reviser: Path) -> Pair:
    files = ReviserFiles(reviser.name, "")
    return Pair(base.parent, "t", "A test.", GeneratorFile(base.name), reviser=files)


def test_an_adapter_says_what_the_merged_model_says(base: Path) -> None:
    adapter = write_adapter(base.parent / "reviser.gguf", base)
    merged = merge(base.parent / "merged.gguf", base, adapter)
    reviser, _ = open_reviser(revising(base, adapter))
    whole, _ = open_reviser(revising(base, merged))
    assert isinstance(reviser, LlamaGenerator)
    assert isinstance(whole, LlamaGenerator)
    names = {reviser.name, whole.name, LlamaGenerator(base, PromptFormat(), width=1).name}
    assert len(names) == 3
    text = says(reviser)
    assert text == says(whole)
    assert text != says(LlamaGenerator(base, PromptFormat()))


def test_an_adapter_over_another_generator_is_one_sentence(
    base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    adapter = write_adapter(base.parent / "other.gguf", base, width=96)
    with pytest.raises(ModelError, match=r"other\.gguf is no adapter over this generator \(.+\): "):
        open_reviser(revising(base, adapter))
    assert capfd.readouterr() == ("", "")
