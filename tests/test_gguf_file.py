"""What a GGUF file says of itself, read without llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest

from gguf_maker import TINY, make_gguf
from ttsolve.errors import ModelError
from ttsolve.gguf_file import GgufFile, read_gguf


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", TINY, chat_template="{{ 1 }}")


def of(architecture: str, **shape: Any) -> GgufFile:
    """A file of that shape."""
    keys = {"block_count": "layers", "embedding_length": "width", "context_length": "context"}
    names = {"attention.head_count": "heads", "attention.head_count_kv": "kv_heads"}
    metadata = {
        f"{architecture}.{key}": shape[name]
        for key, name in (keys | names | {"attention.key_length": "size"}).items()
        if name in shape
    }
    return GgufFile(Path(), {"general.architecture": architecture, **metadata}, 0, 0, "", "")


def test_what_it_says_is_what_the_gguf_package_reads(path: Path) -> None:
    file, reader = read_gguf(path), gguf.GGUFReader(path)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or field.types[0] == gguf.GGUFValueType.ARRAY:
            continue
        assert file.metadata[key] == pytest.approx(field.contents())
    assert file.params == sum(int(tensor.n_elements) for tensor in reader.tensors)
    assert (file.bos, file.eos, file.chat_template) == ("<s>", "</s>", "{{ 1 }}")
    assert (file.context, file.bytes) == (TINY.context, path.stat().st_size)
    assert len(file.metadata["tokenizer.ggml.tokens"]) == 600


LLAMA_1B = of("llama", layers=16, width=2048, heads=32, kv_heads=8, context=131072)
QWEN_15B = of("qwen2", layers=28, width=1536, heads=12, kv_heads=2, context=4096)


@pytest.mark.parametrize(
    ("file", "cell", "width"), [(LLAMA_1B, 32_768, 16), (QWEN_15B, 28_672, 18)]
)
def test_the_caches_that_readme_computes(file: GgufFile, cell: int, width: int) -> None:
    assert file.cell_bytes == cell
    assert file.width(4096) == width
    assert file.cache(width, 4096, split=True) == (4096, width * 4096)
    assert file.cache(64, None, split=True)[0] == file.cells // 64


def test_heads_of_another_size_and_layers_that_differ() -> None:
    assert of("qwen3", layers=2, width=64, heads=4, kv_heads=2, size=32).cell_bytes == 384
    assert of("openelm", layers=2, width=64, heads=[4, 4], kv_heads=[1, 3]).cell_bytes == 256


@pytest.mark.parametrize("cut", [4, 20, 100, 5000, -5000, -1])
def test_a_cut_file_is_one_sentence(path: Path, tmp_path: Path, cut: int) -> None:
    (tmp_path / "cut.gguf").write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError, match="damaged GGUF file, or of a version unknown here"):
        read_gguf(tmp_path / "cut.gguf")


def test_what_is_no_gguf(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no file"):
        read_gguf(tmp_path / "none.gguf")
    (tmp_path / "zip.gguf").write_bytes(b"PK\3\4")
    with pytest.raises(ModelError, match="is not a GGUF file"):
        read_gguf(tmp_path / "zip.gguf")
    (tmp_path / "future.gguf").write_bytes(b"GGUF" + b"\x09\0\0\0" + bytes(40))
    with pytest.raises(ModelError, match="version unknown"):
        read_gguf(tmp_path / "future.gguf")
