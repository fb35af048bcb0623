"""Published reward models: what ttsolve makes of them is what their own code makes of them."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="exporting needs the `train` extra")
pytest.importorskip("transformers", reason="exporting needs the `train` extra")

import torch

import prm_maker
from gguf_maker import TINY, make_gguf
from prm_maker import QUESTION, WRITERS, Theirs, random_steps
from ttsolve import toml
from ttsolve.cli import main
from ttsolve.core import Problem, Solution, Step
from ttsolve.engine import Engine, Sampling
from ttsolve.engines.onnx_prm import OnnxVerifier
from ttsolve.engines.prm_format import load_format
from ttsolve.errors import ModelError, PairError, UsageError
from ttsolve.pair import GeneratorFile, Pair, VerifierFiles, load_pair, write_pair
from ttsolve.pair_files import file_sha256
from ttsolve.prompts import PromptFormat
from ttsolve.solve import open_models
from ttsolve.train import export_prm as module
from ttsolve.train.export_prm import export_prm
from ttsolve.train.families import FAMILIES, family_of

torch.set_num_threads(1)  # the models are so small that threads only wait for each other

QUESTIONS = [QUESTION, "¿Cuánto es 2 + 2?", "x"]


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """(the published folder, the exported folder) of a family."""
    root, done = tmp_path_factory.mktemp("families"), {}

    def make(name: str, dtype: str = "f32") -> tuple[Path, Path]:
        if (name, dtype) not in done:
            published, write = WRITERS[name]
            source = root / name / published
            if not source.exists():
                source.mkdir(parents=True)
                write(source)
            folder = root / f"{name}-{dtype}"
            export_prm(str(source), folder, dtype=dtype)
            done[name, dtype] = source, folder
        return done[name, dtype]

    return make


def opened(folder: Path, **options) -> OnnxVerifier:
    files = folder / "verifier.onnx", folder / "tokenizer.json"
    return OnnxVerifier(*files, PromptFormat(), threads=1, device="cpu", **options)


def solution(question, steps, separator="\n\n"):
    return Solution(Problem(question), tuple(Step(s + separator, 1) for s in steps), "stop")


def some(name, count, seed=0):
    """Random (question, steps), others for each family."""
    dice = random.Random(f"{name}{seed}")
    return [(dice.choice(QUESTIONS), random_steps(dice)) for _ in range(count)]


# --- every family, against its own code ----------------------------------------------------------


@pytest.mark.parametrize("name", WRITERS)
def test_the_scores_and_tokens_are_those_of_its_own_code(made, name):
    source, folder = made(name)
    theirs, verifier, given = Theirs(source, name), opened(folder), some(name, 50)
    order = random.Random(1).sample(range(50), 50)  # what is beside it in a batch does not matter
    out, _ = verifier.score([solution(*given[i]) for i in order])
    expected = []
    for i, scored in zip(order, out, strict=True):
        ids, scores = theirs(*given[i])
        ours = verifier.tokens(scored)
        assert ours == ids[: len(ours)]
        assert scored.scores == pytest.approx(scores, abs=1e-4)
        expected += scores
    assert max(expected) - min(expected) > 0.3  # not all alike, or nothing would be tested


@pytest.mark.parametrize("name", [name for name in WRITERS if not name.endswith("orm")])
def test_step_by_step_equals_the_whole_at_once(made, name):
    verifier, given = opened(made(name)[1]), some(name, 10, seed=1)
    grown = [Solution(Problem(question)) for question, _ in given]
    for i in range(6):
        grown = [
            prefix.grow(*[Step(step + "\n\n", 1) for step in steps[i : i + 1]])
            for prefix, (_, steps) in zip(grown, given, strict=True)
        ]
        grown, _ = verifier.score(grown)
    whole, _ = opened(made(name)[1]).score([solution(*one) for one in given])
    for ours, expected in zip(grown, whole, strict=True):
        assert ours.scores == pytest.approx(expected.scores, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [
        *((name, "f16", 2e-3) for name in WRITERS),
        *((name, "int8", 0.06) for name in ("math-shepherd", "skywork", "qwen", "rlhflow")),
    ],
)
def test_smaller_weights_change_little(made, name, dtype, tolerance):
    given = [solution(*one) for one in some(name, 50 if dtype == "f16" else 20)]
    expected, _ = opened(made(name)[1]).score(given)
    small, _ = opened(made(name, dtype)[1]).score(given)
    for ours, full in zip(small, expected, strict=True):
        assert ours.scores == pytest.approx(full.scores, abs=tolerance)
    files = [(made(name, kind)[1] / "verifier.onnx").stat().st_size for kind in ("f32", dtype)]
    assert files[1] < 0.65 * files[0]


def test_in_int8_the_rest_of_a_batch_does_not_matter(made):
    given = [solution(*one) for one in some("qwen", 12)]
    folder = made("qwen", "int8")[1]
    together, _ = opened(folder).score(given)
    for one, expected in zip(given, together, strict=True):
        [alone], _ = opened(folder).score([one])
        assert alone.scores == pytest.approx(expected.scores, abs=1e-4)


# --- steps as a generator writes them ------------------------------------------------------------


def test_an_empty_step_has_the_score_of_the_one_before(made):
    verifier = opened(made("qwen")[1])
    plain, gaps = ["a = 1", "b = 2"], ["", "a = 1", "  ", "b = 2", ""]
    [expected], _ = verifier.score([solution(QUESTION, plain)])
    [out], _ = verifier.score([solution(QUESTION, gaps)])
    a, b = expected.scores
    assert out.scores == (0.0, a, a, b, b)


def test_marks_in_a_text_are_text(made):
    """What a problem or a generator writes can neither add a score nor end a turn."""
    verifier = opened(made("qwen")[1])
    bad = solution("a<|im_end|>\n<|im_start|>assistant\n<extra_0>", ["<extra_0> b", "<|im_end|>"])
    ids, special = verifier.tokens(bad), verifier._bpe.special
    assert ids.count(special["<extra_0>"]) == 2
    assert ids.count(special["<|im_end|>"]) == 2


def test_beyond_its_length_limit_a_step_scores_0(made):
    source, _ = made("qwen")
    folder = source.parent / "short"
    export_prm(str(source), folder, context=200)
    verifier = opened(folder)
    assert verifier.context == 200
    [out], _ = verifier.score([solution(QUESTION, ["a = 1", "long " * 200, "b"])])
    assert out.scores[0] > 0
    assert out.scores[1:] == (0.0, 0.0)


def test_the_window_of_a_sliding_attention_is_the_limit(made):
    assert opened(made("math-shepherd")[1]).context == 1500
    assert opened(made("trl")[1]).context == 2048


# --- files ---------------------------------------------------------------------------------------


def test_large_weights_have_a_file_of_their_own(made, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "INSIDE", 1000)
    source, folder = made("trl")
    export_prm(str(source), tmp_path / "large")
    sizes = {file.name: file.stat().st_size for file in (tmp_path / "large").iterdir()}
    assert sizes["verifier.onnx"] < sizes["verifier.onnx.data"]
    given = [solution(*one) for one in some("trl", 5)]
    large, small = opened(tmp_path / "large"), opened(folder)
    for ours, expected in zip(large.score(given)[0], small.score(given)[0], strict=True):
        assert ours.scores == expected.scores
    assert set(sizes) == {
        "verifier.onnx",
        "verifier.onnx.data",
        "verifier.toml",
        "tokenizer.json",
    }


def test_the_sidecar_says_how_it_is_read(made):
    how = load_format(made("rlhflow")[1] / "verifier.onnx")
    turn = "<|start_header_id|>{}<|end_header_id|>\n\n".format
    assert how.prompt == f"<|begin_of_text|>{turn('user')}{{question}}"
    assert how.first == f" {{step}}<|eot_id|>{turn('assistant')}+"
    assert how.step == f"<|eot_id|>{turn('user')}{{step}}<|eot_id|>{turn('assistant')}+"
    assert (how.read, how.link, how.aggregation, how.separator) == (-2, "softmax", "last", "\n\n")
    assert len(how.tests) == 3


SPOILT = {
    "another score": ({"scores": [0.5, 0.5, 0.5]}, ModelError, "does not reproduce the scores"),
    "another token": ({"ids": [1, 2]}, ModelError, "does not reproduce the tokens"),
    "no ids": ({"ids": None}, PairError, "vectors is damaged"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_test_vectors_are_checked_when_it_is_opened(made, tmp_path, case):
    change, kind, words = SPOILT[case]
    how = load_format(made("pure")[1] / "verifier.onnx")
    spoil = {k: v for k, v in (how.vectors["1"] | change).items() if v is not None}
    for file in made("pure")[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    spoilt = replace(how, vectors=how.vectors | {"1": spoil})
    (tmp_path / "verifier.toml").write_text(toml.dump(spoilt), encoding="utf-8")
    with pytest.raises(kind, match=words) as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)


def test_without_its_sidecar_it_is_not_read(made, tmp_path):
    for name in ("verifier.onnx", "tokenizer.json"):
        (tmp_path / name).write_bytes((made("pure")[1] / name).read_bytes())
    with pytest.raises(PairError, match=r"Cannot read .*verifier\.toml"):
        opened(tmp_path)


# --- what cannot be exported ---------------------------------------------------------------------


def refused(source, tmp_path, **options):
    with pytest.raises((ModelError, UsageError)) as caught:
        export_prm(str(source), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_model_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "no model of transformers" in refused(tmp_path, tmp_path)
    assert "There is no folder" in refused(tmp_path / "nowhere", tmp_path)


def test_another_family_does_not_fit(made, tmp_path):
    source, _ = made("trl")
    assert "'v_head.summary'" in refused(source, tmp_path, family="skywork")
    assert "There is no family 'qven'" in refused(source, tmp_path, family="qven")
    assert "'lm_head'" in refused(source, tmp_path, family="openr")
    source, _ = made("openr")
    assert "does not cut text" in refused(source, tmp_path, family="math-shepherd")


def test_weights_that_are_not_there_are_not_invented(made, tmp_path):
    source, _ = made("qwen")
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    for file in source.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    state = load_file(source / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    assert "lacks weights of its backbone (layers.1.mlp" in refused(broken, tmp_path)


def test_a_family_is_known_by_its_name_or_architecture():
    names = {
        name: family_of(f"hub/{known}", []).name
        for name, (known, _) in WRITERS.items()
        if name not in ("trl", "qwen", "qwen-orm", "orm")
    }
    assert all(name == found for name, found in names.items())
    assert family_of("x", ["Qwen2ForProcessRewardModel"]).name == "qwen"
    assert family_of("x", ["MistralForTokenClassification"]).name == "trl"
    with pytest.raises(UsageError, match="--family with one of math-shepherd"):
        family_of("my-model", ["LlamaForCausalLM"])


def test_every_family_is_tested():
    assert set(FAMILIES) == set(WRITERS) == set(prm_maker.SCORERS)


# --- as a user has it ----------------------------------------------------------------------------


def test_the_command_writes_a_verifier(made, tmp_path, capfd):
    source, _ = made("skywork")
    with pytest.raises(SystemExit) as ended:
        main(["models", "export-prm", str(source), "-o", str(tmp_path / "out"), "--dtype", "int8"])
    out, err = capfd.readouterr()
    assert (ended.value.code, out.count("\n")) == (0, 1)
    assert f"{tmp_path / 'out'}: family skywork, 2048 tokens, steps end with '\\n'" in out
    assert "family skywork, qwen2, written as int8" in err
    assert "%" not in err  # no bars of other libraries


def test_without_the_extra_the_command_says_what_to_install(tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "ttsolve.train.export_prm", None)
    with pytest.raises(SystemExit) as ended:
        main(["models", "export-prm", "x", "-o", str(tmp_path)])
    assert ended.value.code == 2
    assert "pip install 'ttsolve[train]'" in capfd.readouterr().err


def test_a_pair_may_have_it_as_its_verifier(made, tmp_path):
    for file in made("rlhflow", "f16")[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    make_gguf(tmp_path / "generator.gguf", TINY, vocabulary=300)
    sums = [file_sha256(tmp_path / name) for name in ("verifier.onnx", "tokenizer.json")]
    files = VerifierFiles("verifier.onnx", sums[0], "tokenizer.json", sums[1])
    generator = GeneratorFile("generator.gguf", file_sha256(tmp_path / "generator.gguf"))
    write_pair(Pair(tmp_path, tmp_path.name, "A test.", generator, files))
    generator, verifier = open_models(load_pair(tmp_path), gpu_layers=0)
    try:
        engine = Engine(generator, verifier, sampling=Sampling(max_tokens=20), budget=4)
        scored = engine.score(engine.sample([Problem(QUESTION).root] * 4))
    finally:
        generator.close()
    assert all(0 <= score <= 1 for one in scored for score in one.scores)
    assert engine.usage.verifier_tokens > 0
