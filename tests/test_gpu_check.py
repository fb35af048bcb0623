"""`just gpu-check` runs from end to end without a GPU, on tiny models; its figures need a GPU."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the `dev` extra")

import gpu_check
import gpu_rates
from gpu_raw import Raw, sampling
from gpu_sampler import OwnSampler
from gpu_text import END, ahead, differences, parting, prompt_ids
from ttsolve.core import Problem
from ttsolve.engine import Sampling
from ttsolve.engines import cuda, llama_gpu
from ttsolve.engines.draw import Drawer, Settings, uniforms
from ttsolve.engines.llama import LlamaGenerator
from ttsolve.pair import Pair

FAKE_BENCH = """#!/usr/bin/env python3
import json, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert options["--output-format"] == "jsonl"
print("main: some words first")
for width in map(int, options["-npl"].split(",")):
    record = {"pp": int(options["-npp"]), "pl": width, "speed_pp": 1.0, "speed_tg": 100.0 * width}
    print(json.dumps(record))
"""


@pytest.fixture
def fake_bench(tmp_path: Path) -> Path:
    path = tmp_path / "llama-batched-bench"
    path.write_text(FAKE_BENCH.replace("/usr/bin/env python3", sys.executable))
    path.chmod(0o755)
    return path


def test_everything_is_measured_once(
    pocket: Pair, tmp_path: Path, fake_bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if cuda.gpu_found():
        pytest.skip("it is for machines without a GPU")
    code = gpu_check.main(["--tiny", "--folder", str(tmp_path), "--batched-bench", str(fake_bench)])
    out, err = capsys.readouterr()
    header, rule, *rows = out.splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert {len(row) for row in cells} == {header.count("|") - 1} == {rule.count("|") - 1}
    assert code == 0, out
    assert "failed" not in out
    for quant in "f16", "q8_0":
        (theirs,) = [
            row[1] for row in cells if row[0] == f"generator 1B {quant}, llama-batched-bench"
        ]
        assert theirs == "100 at 1, 400 at 4 tokens/s"
    wanted = [row[2] for row in cells if row[2]]
    assert wanted == [*["≥ 15", "≥ 0.85"] * 2, *["≤ 0.002"] * 2, "equal, or ≤ 0.1 apart"]
    assert err.split()[::3] == [f"{name}:" for name in gpu_check.SECTIONS]


def test_without_a_gpu_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cuda, "gpu_found", lambda: False)
    assert gpu_check.main([]) == 2
    assert capsys.readouterr() == (
        "",
        "There is no NVIDIA GPU here: --tiny tries this program without one.\n",
    )
    monkeypatch.setattr(cuda, "gpu_found", lambda: True)
    monkeypatch.setattr(llama_gpu, "offloads", lambda: False)
    assert "README.md says under GPU" in (gpu_check.unfit(["pair"]) or "")
    assert gpu_check.unfit(["card", "verifier"]) is None
    with pytest.raises(SystemExit) as stopped:
        gpu_check.main(["--only", "card,cart"])
    assert stopped.value.code == 2


def test_what_fails_is_a_row(tmp_path: Path, fake_bench: Path) -> None:
    fake_bench.write_text(f"#!{sys.executable}\nraise SystemExit('no such\\nmodel')\n")
    setting = gpu_check.Setting(tmp_path, True, None, str(fake_bench))
    *_, last = gpu_check.measured("generator", setting)
    assert last.met is False
    assert last.measured.endswith("failed: no such model")


def test_a_model_is_made_once(tmp_path: Path) -> None:
    setting = gpu_check.Setting(tmp_path, True, None, None)
    path = setting.generator("q8_0")
    made = path.stat().st_mtime_ns
    assert setting.generator("q8_0").stat().st_mtime_ns == made
    assert path != setting.generator("f16")


def test_the_separator_makes_steps_of_a_known_length() -> None:
    words = [f"w{i}".encode() + b"." * (i % 32 == 0) for i in range(3200)]
    assert gpu_rates.separator(words) == "."


# --- drawing on the device ------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_device_draws_what_is_drawn_here(pocket: Pair, temperature: float) -> None:
    """The twin: equal numbers, equal tokens; and no logits come back."""
    width, turns = 8, 12
    how = Settings.empty(width)
    how.temperature[:], how.seed[:] = temperature, range(width)
    with closing(Raw(pocket.generator_path, width, 32, gpu_layers=0)) as raw:
        drawer, lanes = Drawer(raw.size), range(width)
        tokens, here = [0] * width, []
        for turn in range(turns):
            raw.decode(tokens, [turn] * width, lanes, last_only=False)
            tokens = drawer.draw(raw.logits(width), how, np.full(width, turn, np.int32)).tolist()
            here.append(tokens)
        raw.clear()
        own = [OwnSampler(temperature) for _ in lanes]
        with sampling(raw, [sampler.chain for sampler in own]) as attached:
            assert attached
            tokens, there = [0] * width, []
            for turn in range(turns):
                for sampler, number in zip(own, uniforms(how.seed, np.int32(turn)), strict=True):
                    sampler.number = float(number)
                raw.decode(tokens, [turn] * width, lanes, last_only=False)
                draw = llama_cpp.llama_get_sampled_token_ith
                tokens = [draw(raw.context, i) for i in lanes]
                there.append(tokens)
            assert llama_cpp.llama_get_sampled_logits_count_ith(raw.context, 0) == 0
    texts, others = (list(zip(*rows, strict=True)) for rows in (here, there))
    # Rounding may part one of them; from there on it is another text.
    assert sum(a == b for a, b in zip(texts, others, strict=True)) >= width - 1
    assert len(set(texts)) > width / 2


# --- where texts part -----------------------------------------------------------------------------


def test_texts_part_at_the_first_difference() -> None:
    assert parting([1, 2, 3], [1, 2, 3]) is None
    assert parting([1, 2, 3], [1, 5, 3]) == 1
    assert parting([1, 2, END], [1, 2, 3, 4, END]) == 2
    assert parting([1, 2], [1, 2, 3]) == 2


def test_a_gap_is_that_of_the_logits(pocket: Pair) -> None:
    """Law: greedy text takes the token that is ahead of every other, its end included."""
    with LlamaGenerator(pocket.generator_path, pocket.prompt, width=1, threads=1) as generator:
        root = Problem("What is 55% of 200?").root
        [solution], _ = generator.sample([root], [Sampling(temperature=0)])
        assert solution.finish == "stop"
        prompt = prompt_ids(pocket, root.problem)
        assert prompt == generator._before(root).tolist()
        ids = [*solution.ids, END]
        for place in (3, len(ids) - 1):
            before = [*prompt, *ids[:place]]
            gap = ahead(pocket, before, ids[place], ids[0])
            assert gap > 0
            assert ahead(pocket, before, ids[0], ids[place]) == -gap


def test_every_difference_is_found(pocket: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of three texts ends otherwise: the place is told, and by how much it was no tie."""
    real = LlamaGenerator.sample

    def spoilt(self: LlamaGenerator, *given: object) -> object:
        out, usage = real(self, *given)  # type: ignore[arg-type]
        if self.kv == "unified":
            out[1] = out[1].problem.root.grow(*out[1].steps[:1], finish="stop")
        return out, usage

    monkeypatch.setattr(LlamaGenerator, "sample", spoilt)
    problems = [Problem(f"What is {n}% of 200?") for n in (10, 55, 40)]
    [found] = differences(pocket, problems, {"threads": 1}, {"threads": 1, "kv": "unified"})
    assert found.problem == problems[1]
    assert found.place > 1
    assert found.gap > gpu_check.NEAR


def test_the_command_stands_in_the_justfile() -> None:
    just = (gpu_check.ROOT / "justfile").read_text()
    assert "gpu-check *args:\n    python tests/gpu_check.py {{args}}\n" in just
    done = subprocess.run(
        [sys.executable, gpu_check.__file__, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "--tiny" in done.stdout
