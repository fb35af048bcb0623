"""The GPU is asked quietly, a pair that does not fit is refused with numbers, and a GPU that lies
idle is told of once. The GPUs are fakes: these tests run where there is none."""

from __future__ import annotations

import ctypes
import logging
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gguf_maker import TINY, make_gguf
from ttsolve import gpu
from ttsolve.engines import cuda, llama_gpu
from ttsolve.engines.cuda import Card
from ttsolve.errors import ModelError
from ttsolve.gguf_file import GgufFile, read_gguf

ROOT = Path(__file__).parent.parent
GB = 10**9
META = {"general.architecture": "llama", "llama.block_count": 16, "llama.context_length": 4096}
META |= {"llama.embedding_length": 2048, "llama.attention.head_count": 32}
META |= {"llama.attention.head_count_kv": 8}
ONE_B = GgufFile(Path("1b.gguf"), META, 1_236_000_000, 2_480_000_000, "", "")  # Llama-3.2-1B, f16


class Driver:
    """What of libcuda is asked, over some fake cards."""

    def __init__(self, *cards: Card, init: int = 0, memory: int = 0) -> None:
        self.cards, self.init, self.memory = cards, init, memory
        self.inside: list[int] = []  # contexts entered

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.init

    def cuDeviceGetCount(self, count: object) -> int:  # noqa: N802
        return put(count, len(self.cards))

    def cuDeviceGet(self, device: object, place: int) -> int:  # noqa: N802
        return put(device, place)

    def cuDeviceGetName(self, name: object, size: int, device: ctypes.c_int) -> int:  # noqa: N802
        name.value = self.cards[device.value].name.encode()  # type: ignore[attr-defined]
        return 0

    def cuDevicePrimaryCtxRetain(self, context: object, device: ctypes.c_int) -> int:  # noqa: N802
        return put(context, device.value + 1)

    def cuCtxPushCurrent_v2(self, context: ctypes.c_void_p) -> int:  # noqa: N802
        assert context.value
        self.inside.append(context.value - 1)
        return 0

    def cuCtxPopCurrent_v2(self, context: object) -> int:  # noqa: N802
        self.inside.pop()
        return 0

    def cuMemGetInfo_v2(self, free: object, total: object) -> int:  # noqa: N802
        card = self.cards[self.inside[-1]]
        put(free, card.free)
        put(total, card.total)
        return self.memory


def put(reference: object, value: int) -> int:
    reference._obj.value = value  # type: ignore[attr-defined]
    return 0


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    cuda.gpu_found.cache_clear()
    gpu._warn.cache_clear()


def drive(monkeypatch: pytest.MonkeyPatch, driver: Driver | None) -> None:
    monkeypatch.setattr(cuda, "_load", lambda file: driver)
    cuda.gpu_found.cache_clear()


def test_the_driver_is_asked_for_every_card(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [Card("NVIDIA A", 7 * GB, 8 * GB), Card("NVIDIA B", 3 * GB, 24 * GB)]
    driver = Driver(*there)
    drive(monkeypatch, driver)
    assert cuda.gpu_found()
    assert cuda.cards() == there
    assert driver.inside == []  # every context was left again


@pytest.mark.parametrize("driver", [None, Driver(), Driver(Card("A", 1, 1), init=100)])
def test_no_driver_or_no_card_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, driver: Driver | None
) -> None:
    drive(monkeypatch, driver)
    assert not cuda.gpu_found()
    if driver is None or driver.init:
        assert cuda.cards() == []


def test_a_card_that_tells_nothing_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    drive(monkeypatch, Driver(Card("A", 1, 1), memory=999))
    assert cuda.cards() == []


# --- does it fit? ---------------------------------------------------------------------------------


def test_the_parts_of_a_pair() -> None:
    """Llama-3.2-1B: the cache is cut to 2 GiB; the output counts as a 17th layer."""
    parts = gpu.generator_parts(ONE_B, None)
    assert parts == {
        "generator": 2_480_000_000,
        "its cache": 2 << 30,
        "room to compute": gpu.WORK,
    }
    fewer = gpu.generator_parts(ONE_B, None, 8)
    assert fewer["generator"] == pytest.approx(2_480_000_000 * 8 / 17)
    assert fewer["its cache"] == pytest.approx((2 << 30) * 8 / 17)
    assert gpu.generator_parts(ONE_B, None, 17) == parts == gpu.generator_parts(ONE_B, None, 99)


def test_what_does_not_fit_is_refused_with_its_numbers() -> None:
    parts = gpu.generator_parts(ONE_B, None)
    gpu.fit(parts, [Card("NVIDIA A", 6 * GB, 8 * GB)], ONE_B)
    gpu.fit(parts, [], ONE_B)  # nobody told how much there is
    with pytest.raises(ModelError) as caught:
        gpu.fit(parts, [Card("NVIDIA A", 3 * GB, 8 * GB)], ONE_B)
    assert str(caught.value) == (
        "The pair needs about 5.2 GB (2.5 generator + 2.1 its cache + 0.5 room to compute) on the "
        "GPU, and 3.0 of 8.0 GB are free (NVIDIA A): put 9 layers there (--gpu-layers 9), or lower "
        "generator.context in pair.toml."
    )


def test_as_many_layers_are_named_as_fit() -> None:
    """Law: that many fit, one more does not."""
    for free in range(GB, 6 * GB, GB // 2):
        there, parts = [Card("A", free, 8 * GB)], gpu.generator_parts(ONE_B, None)
        try:
            gpu.fit(parts, there, ONE_B)
        except ModelError as error:
            layers = int(re.findall(r"--gpu-layers (\d+)", str(error))[0])
            gpu.fit(gpu.generator_parts(ONE_B, None, layers), there)
            with pytest.raises(ModelError, match="do without the GPU"):
                gpu.fit(gpu.generator_parts(ONE_B, None, layers + 1), there)


def test_several_cards_count_together() -> None:
    parts = gpu.generator_parts(ONE_B, None)
    gpu.fit(parts, [Card("A", 3 * GB, 4 * GB)] * 2, ONE_B)


def test_a_verifier_counts_with_its_weights_beside_it(tmp_path: Path) -> None:
    graph = tmp_path / "verifier.onnx"
    graph.write_bytes(bytes(10))
    (tmp_path / "verifier.onnx.data").write_bytes(bytes(1000))
    parts = gpu.verifier_parts(graph)
    assert parts == {"verifier": 1010, "its cache at most": gpu.VERIFIER_CACHE}
    with pytest.raises(ModelError, match=r"or do without the GPU \(--gpu-layers 0\)"):
        gpu.fit(parts, [Card("A", 10**8, GB)])


# --- is it used? ----------------------------------------------------------------------------------


@pytest.fixture
def wanted(tmp_path: Path) -> gpu.Wanted:
    path = make_gguf(tmp_path / "tiny.gguf", TINY)
    return gpu.Wanted(path, None, None)


def test_an_idle_gpu_is_told_of_once(
    wanted: gpu.Wanted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    drive(monkeypatch, Driver(Card("A", GB, GB)))
    monkeypatch.setattr(llama_gpu, "offloads", lambda: False)
    monkeypatch.setattr(gpu, "_verifier_on_gpu", lambda: False)
    gpu.look(wanted)  # so small a generator would not gain
    monkeypatch.setattr(gpu, "SMALL", 1)
    gpu.look(wanted, gpu_layers=0)
    gpu.look(gpu.Wanted(None, None, None))  # an endpoint
    assert caplog.messages == []
    gpu.look(wanted)
    gpu.look(wanted)
    gpu.warn_if_unused(wanted.generator or Path())
    assert caplog.messages == [gpu.UNUSED]
    assert "\n## GPU\n" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("there", [True, False])
def test_all_is_quiet_without_a_gpu_and_with_one_in_use(
    wanted: gpu.Wanted,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    there: bool,
) -> None:
    caplog.set_level(logging.DEBUG)
    drive(monkeypatch, Driver(Card("A", 4 * GB, 4 * GB)) if there else None)
    monkeypatch.setattr(llama_gpu, "offloads", lambda: there)
    monkeypatch.setattr(gpu, "_verifier_on_gpu", lambda: False)
    gpu.look(wanted)
    assert caplog.messages == []


def test_a_pair_is_weighed_before_it_is_opened(
    wanted: gpu.Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive(monkeypatch, Driver(Card("A", 10**8, GB)))
    monkeypatch.setattr(llama_gpu, "offloads", lambda: True)
    monkeypatch.setattr(gpu, "_verifier_on_gpu", lambda: False)
    with pytest.raises(ModelError, match=r"needs about 0.5 GB .* 0.1 of 1.0 GB are free \(A\)"):
        gpu.look(wanted)
    assert read_gguf(wanted.generator or Path()).layers == TINY.layers


def test_both_models_are_weighed_together(
    wanted: gpu.Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a verifier alone, beside an endpoint."""
    drive(monkeypatch, Driver(Card("A", 10**8, GB)))
    monkeypatch.setattr(llama_gpu, "offloads", lambda: True)
    monkeypatch.setattr(gpu, "_verifier_on_gpu", lambda: True)
    path = wanted.generator
    with pytest.raises(ModelError, match=r"0.5 its cache at most \+ 0.5 room to compute\) on the"):
        gpu.look(gpu.Wanted(None, None, path))
    with pytest.raises(ModelError, match=r"1.6 GB \(.* its cache at most\) on the"):
        gpu.look(gpu.Wanted(path, None, path))


@pytest.mark.parametrize(("device", "words"), [("cpu", "CPU"), ("cuda", "CUDA (NVIDIA A)")])
def test_a_device_has_a_name(monkeypatch: pytest.MonkeyPatch, device: str, words: str) -> None:
    drive(monkeypatch, Driver(Card("NVIDIA A", GB, GB)))
    assert gpu.device_name(device) == words


def test_the_extra_is_for_the_platforms_of_the_gpu_build() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [extra] = project["optional-dependencies"]["cuda"]
    [build] = [line for line in project["dependencies"] if line.startswith("onnxruntime-gpu")]
    assert extra.startswith("onnxruntime-gpu[cuda,cudnn]>=")
    assert extra.partition(";")[2] == build.partition(";")[2] != ""
    assert "pip install '.[cuda]'" in (ROOT / "README.md").read_text(encoding="utf-8")
