"""What was trained becomes a pair's folder."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="training needs the `train` extra")
pytest.importorskip("tokenizers", reason="training needs the `train` extra")
pytest.importorskip("regex", reason="training needs the `train` extra")

from train_maker import wild, wild_model, write_tokenizer
from ttsolve.core import Problem, Solution, Step
from ttsolve.engine import Sampling
from ttsolve.errors import UsageError
from ttsolve.pair import load_pair, write_pair
from ttsolve.train.compare import compare_verifiers
from ttsolve.train.export import export_gguf, export_onnx
from ttsolve.train.finish import export_pair
from ttsolve.train.model import RewardModel
from ttsolve.train.pool_file import line_of


@pytest.fixture
def work(tmp_path):
    """The folder of a training without a reviser."""
    folder = tmp_path / "work"
    folder.mkdir()
    tokenizer = write_tokenizer(folder)
    model = wild_model(tokenizer)
    export_gguf(model, tokenizer, folder / "generator.gguf")
    export_onnx(wild(RewardModel(model)), tokenizer, folder / "verifier.onnx")
    return folder


def test_a_pair_has_what_was_trained(work, tmp_path) -> None:
    export_pair(work, tmp_path / "mine", Sampling(temperature=0.7))
    pair = load_pair(tmp_path / "mine")
    assert (pair.name, pair.sampling.temperature, pair.reviser) == ("mine", 0.7, None)
    for name in ("generator.gguf", "verifier.onnx", "tokenizer.json"):
        assert (pair.folder / name).read_bytes() == (work / name).read_bytes()


@pytest.mark.parametrize("judged", [False, True])
def test_a_reviser_goes_with_it_and_its_verifier_if_there_is_one(work, tmp_path, judged) -> None:
    (work / "reviser.gguf").write_bytes((work / "generator.gguf").read_bytes())
    if judged:
        (work / "revision-verifier.onnx").write_bytes((work / "verifier.onnx").read_bytes())
    export_pair(work, tmp_path / "mine", Sampling())
    reviser = load_pair(tmp_path / "mine").reviser
    assert reviser
    assert reviser.file == "reviser.gguf"
    assert (reviser.verifier is not None) == judged


def test_what_was_measured_stays_with_the_models_it_was_measured_of(work, tmp_path) -> None:
    mine = tmp_path / "mine"
    export_pair(work, mine, Sampling())
    write_pair(replace(load_pair(mine), measured={"test": {"pass_at_1": 0.5}}))
    (work / "reviser.gguf").write_bytes((work / "generator.gguf").read_bytes())
    export_pair(work, mine, Sampling())
    assert load_pair(mine).measured == {"test": {"pass_at_1": 0.5}}
    tokenizer = work / "tokenizer.json"
    export_gguf(wild(wild_model(tokenizer), seed=3), tokenizer, work / "generator.gguf")
    export_pair(work, mine, Sampling())
    assert load_pair(mine).measured == {}


def test_what_was_not_trained_yet_is_named(work, tmp_path) -> None:
    (work / "verifier.onnx").unlink()
    with pytest.raises(UsageError, match=r"verifier\.onnx: run `ttsolve train prm "):
        export_pair(work, tmp_path / "mine", Sampling())


def test_verifiers_are_compared_on_the_same_samples(work, tmp_path) -> None:
    def row(subject: str) -> str:
        problem = Problem("What is 1 + 1?", "2", subject=subject, level=1)
        steps = [(Step(f"{n} = {n}\n", 4), Step(f"Answer: {n}\n", 3)) for n in (1, 2, 3, 2)]
        return line_of(problem, [(0, Solution(problem, some, "stop")) for some in steps])

    with pytest.raises(UsageError, match=r"pool-test\.jsonl: `ttsolve train measure` draws"):
        compare_verifiers(work, "test", [work / "verifier.onnx"], None, print)
    rows = row("coins") + row("coins") + row("rates")
    (work / "pool-test.jsonl").write_text(rows, encoding="utf-8")
    other = tmp_path / "other.onnx"
    model = wild_model(work / "tokenizer.json")
    export_onnx(wild(RewardModel(model), seed=5), work / "tokenizer.json", other)
    table = compare_verifiers(work, "test", [work / "verifier.onnx", other], 1, print)
    head, _, *body = (line.strip("| ").split(" | ") for line in table.splitlines())
    assert head == ["1 problems", str(work / "verifier.onnx"), str(other)]
    cells = {name: values for name, *values in body}
    assert all(value.endswith("n=1") for value in cells["AUC within problems"])
    assert "AUC within problems, choice subjects" not in cells  # there is no other kind
    assert len(set(cells["AUC of step 1"])) == 2  # they differ
    assert "AUC of step 3" not in cells  # all have two
    assert cells["weighted vote at 4"][0] in ("0.000 [0.000, 0.000]", "1.000 [1.000, 1.000]")
    assert "its lead over the first, best at 4" in cells
    both = compare_verifiers(work, "test", [other], None, print)
    for kind, count in (("choice", 2), ("local", 1)):
        (line,) = (one for one in both.splitlines() if f"AUC within problems, {kind}" in one)
        assert line.endswith(f"n={count} |")
