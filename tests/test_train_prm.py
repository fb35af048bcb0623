"""Training the verifier: labelled rows, the loss, the judge, interruptions."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="training needs the `train` extra")
pytest.importorskip("tokenizers", reason="training needs the `train` extra")
pytest.importorskip("regex", reason="training needs the `train` extra")

import torch

from train_maker import drawn, solution, tiny_shape, wild, wild_model, write_tokenizer
from ttsolve.core import Problem
from ttsolve.errors import UsageError
from ttsolve.train import batches, pool_file, prm
from ttsolve.train.batches import Batches, Labelled, few, pack, read_labelled, split, tensors
from ttsolve.train.checkpoint import load_state, save_state
from ttsolve.train.export import export_gguf, export_onnx
from ttsolve.train.generator import load_generator
from ttsolve.train.model import LanguageModel, RewardModel, causal_mask
from ttsolve.train.prm import Job, Quality, Recipe
from ttsolve.train.rows import ROW
from ttsolve.train.tokenizer import load_tokenizer, special_ids


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def tokenizer(path):
    return load_tokenizer(path)


def made(question: str, size: int, right: bool = True, count: int = 1, seed: int = 0) -> Labelled:
    """A solution of `size` tokens with two steps, of which nothing is like another's."""
    torch.manual_seed(seed * 1000 + size)
    tokens = tuple(torch.randint(5, 200, (size,)).tolist())
    targets = (0.5, float(right))
    return Labelled(tokens, (size // 2, size - 1), targets, count, right, question, size // 3)


# --- labelled solutions -------------------------------------------------------------------------


def test_a_labelled_solution_marks_the_ends_of_its_steps(tokenizer) -> None:
    pool = drawn("What is 1?", ("2 - 1 = 1|Answer: 1", "1"), ("2 - 1 = 1|Answer: 1", "1"),
                 ("2 - 1 = 1|Answer: 2", "2"), ("1", None))  # fmt: skip
    right, wrong = batches._labelled(pool, tokenizer)
    bos, _ = special_ids(tokenizer)
    assert right.tokens[0] == bos
    assert tokenizer.decode(list(right.tokens[1:])) == "What is 1?\n2 - 1 = 1\nAnswer: 1\n"
    ends = [tokenizer.decode(list(right.tokens[1 : mark + 1])) for mark in right.marks]
    assert ends == ["What is 1?\n2 - 1 = 1\n", "What is 1?\n2 - 1 = 1\nAnswer: 1\n"]
    assert tokenizer.decode(list(right.tokens[right.start :])) == "2 - 1 = 1\nAnswer: 1\n"
    assert (right.targets, right.count, right.right) == ((2 / 3, 1.0), 2, True)
    assert (wrong.targets, wrong.count, wrong.right) == ((2 / 3, 0.0), 1, False)
    assert right.question == wrong.question == "What is 1?"


def test_what_is_longer_than_a_row_is_left_out(tokenizer) -> None:
    pool = drawn("What is 1?", ("1 " * ROW + "|Answer: 1", "1"), ("Answer: 2", "2"))
    assert [s.right for s in batches._labelled(pool, tokenizer)] == [False]


def test_a_question_is_learned_from_or_held_out_never_both() -> None:
    one = made("q", 9)
    solutions = [replace(one, question=f"q{n % 300}", count=n) for n in range(900)]
    learned, held = split(solutions, 0.1)
    assert len(learned) + len(held) == 900
    assert not {s.question for s in learned} & {s.question for s in held}
    assert 10 < len({s.question for s in held}) < 60
    again, _ = split(solutions[::-1], 0.1)
    assert {s.question for s in again} == {s.question for s in learned}


@pytest.mark.parametrize("questions", [0, 1])
def test_too_few_questions_are_refused(questions: int) -> None:
    with pytest.raises(UsageError, match="too few questions"):
        split([made("q", 9)] * questions, 0.1)


# --- rows ---------------------------------------------------------------------------------------

MANY = [made(f"q{n % 50}", 20 + 37 * n % 90, n % 2 == 0, 1 + n % 3, n) for n in range(160)]


def test_packing_loses_nothing_and_overflows_nowhere() -> None:
    rows = pack(MANY)
    assert sorted(s.tokens for row in rows for s in row) == sorted(s.tokens for s in MANY)
    used = [sum(len(s.tokens) for s in row) for row in rows]
    assert max(used) <= ROW
    assert sum(used) / (len(rows) * ROW) > 0.85


def test_a_solution_goes_into_the_fullest_row_it_fits() -> None:
    a, b, c, d = (made("q", size) for size in (100, 150, 40, 90))
    assert pack([a, b, c, d], 240) == [[a, d], [b, c]]


def test_tensors_put_labels_at_marks() -> None:
    one, two = made("q", 10, True, 3), made("r", 6, False)
    ids, places, numbers, targets, weights, said = (t[0].tolist() for t in tensors([[one, two]]))
    rest = [0] * (ROW - 16)
    assert ids == [*one.tokens, *two.tokens, *rest]
    assert places == [*range(10), *range(6), *rest]
    assert numbers == [1] * 10 + [2] * 6 + rest
    assert {i: w for i, w in enumerate(weights) if w} == {5: 3, 9: 3, 13: 1, 15: 1}
    assert {i: w for i, w in enumerate(targets) if w} == {5: 0.5, 9: 1, 13: 0.5}
    assert [i for i, w in enumerate(said) if w] == [*range(3, 10)]  # of the right one, its solution


def test_batches_are_the_same_whenever_a_run_was_stopped() -> None:
    def at(seed: int, *steps: int) -> list[torch.Tensor]:
        source = Batches(MANY, seed, 4)
        return [t for step in steps for shard in (0, 1) for t in source.tensors_at(step, shard)]

    steps = (0, 3, 11, 40)
    alone = [t for step in steps for t in at(0, step)]
    assert all(torch.equal(a, b) for a, b in zip(at(0, *steps), alone, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(at(0, *steps), at(1, *steps), strict=True))


def test_every_shard_gets_as_many_rows() -> None:
    with pytest.raises(ValueError, match="3 rows cannot be dealt to 2 shards"):
        Batches(MANY, 0, 3)


def test_an_epoch_takes_every_row_once_each_in_another_order() -> None:
    source = Batches(MANY, 0, 4)
    source.rows = source.rows[:24]
    epochs = []
    for epoch in range(3):
        steps = range(epoch * 6, epoch * 6 + 6)
        parts = [source.tensors_at(step, shard)[0] for step in steps for shard in (0, 1)]
        epochs.append([tuple(row) for part in parts for row in part.tolist()])
    assert len(set(epochs[0])) == 24
    assert set(epochs[0]) == set(epochs[1]) == set(epochs[2])
    assert len({tuple(epoch) for epoch in epochs}) == 3


@torch.no_grad()
def test_packed_logits_are_those_of_the_solutions_one_by_one(path) -> None:
    model = RewardModel(wild_model(path), judges=2)
    wild(model, seed=1)
    rows = pack(MANY[:12])
    assert max(map(len, rows)) > 2
    packed, heard = prm.row_outputs(model, *tensors(rows)[:3])
    for logits, said, row in zip(packed, heard, rows, strict=True):
        used = 0
        for one in row:
            size = len(one.tokens)
            ids, places = torch.tensor([one.tokens]), torch.arange(size)[None]
            alone, _ = model(ids, places, causal_mask(torch.ones_like(ids), size))
            torch.testing.assert_close(logits[used : used + size], alone[0], rtol=1e-4, atol=1e-4)
            hidden, _ = model.trunk(ids, places, causal_mask(torch.ones_like(ids), size))
            logs = model.trunk.logits(hidden).log_softmax(-1)
            own = logs[0, :-1].gather(-1, ids[0, 1:, None])[:, 0]
            torch.testing.assert_close(said[used + 1 : used + size], own, rtol=1e-4, atol=1e-4)
            used += size
    assert packed.std() > 0.1


@torch.no_grad()
def test_the_loss_is_the_mean_over_labelled_steps(monkeypatch) -> None:
    batch = tensors([[made("q", 10, True, 3), made("r", 6, False)]])
    logits = torch.linspace(-2, 2, ROW)[None]
    heard = torch.zeros(1, ROW)
    monkeypatch.setattr(prm, "row_outputs", lambda *_: (logits, heard))
    loss = float(prm.label_loss(None, *batch))
    p = torch.sigmoid(logits[0])
    steps = [(5, 0.5, 3), (9, 1.0, 3), (13, 0.5, 1), (15, 0.0, 1)]
    terms = [n * -(t * p[i].log() + (1 - t) * (1 - p[i]).log()) for i, t, n in steps]
    assert loss == pytest.approx(float(sum(terms)) / 8)
    heard[0] = -torch.arange(ROW)  # the right solution's tokens are at 3 to 9
    assert float(prm.label_loss(None, *batch)) == pytest.approx(loss + prm.SPOKEN * 6)


def test_whole_questions_are_judged_up_to_a_size() -> None:
    many = [made(f"q{i % 40}", 10, seed=i) for i in range(200)]
    some = few(many, 500)
    asked = {s.question for s in some}
    assert len(some) == 50
    assert len(asked) == 10
    assert sorted(map(id, some)) == sorted(id(s) for s in many if s.question in asked)
    assert few(many[::-1], 500)[0].question == some[0].question
    assert len(few(many, 10_000)) == 200


# --- the judge ----------------------------------------------------------------------------------


def test_the_judge_compares_within_questions_alone(monkeypatch) -> None:
    """Logits are read off a solution's last token, so that the expected area can be counted."""

    def scored(question: str, score: int, right: bool, count: int = 1) -> Labelled:
        return Labelled((1, 1, score), (1, 2), (0.5, float(right)), count, right, question, 1)

    monkeypatch.setattr(prm, "row_outputs", lambda model, ids, *_: (ids.float(), None))
    solutions = [
        scored("a", 9, True, 2), scored("a", 5, False, 1), scored("a", 10, False, 3),  # 2 of 8
        scored("b", 30, True), scored("b", 30, False),  # a tie: a half
        scored("c", 99, False), scored("c", 98, False, 5),  # no right one: not counted
        scored("d", 1, True, 4),
    ]  # fmt: skip
    model = torch.nn.Linear(1, 1)
    quality = prm.judge(model, solutions[::-1], at_once=1)
    assert quality.questions == 2
    assert quality.auc == pytest.approx((2 / 8 + 1 / 2) / 2)
    together = prm.judge(model, solutions)
    assert together.auc == quality.auc
    assert together.loss == pytest.approx(quality.loss)
    assert model.training


# --- runs ---------------------------------------------------------------------------------------

STEPS = 24
RECIPE = Recipe(tokens=STEPS * 2 * ROW, rows=2, rate=0.01, warmup=2, held_out=0.2)


@pytest.fixture(scope="module")
def setting(path, tmp_path_factory):
    """A pool in which a solution is right when its sum is, and a generator to start from."""
    folder = tmp_path_factory.mktemp("setting")
    lines = []
    for n in range(60):
        problem = Problem(f"What is {n}?", "1")
        steps = (("2 - 1 = 1", "Answer: 1"), ("3 - 1 = 2", "Answer: 2"), ("2 - 1 = 1", "Answer: 2"))
        found = [solution(problem, f"{a}\n{b}\n") for a, b in steps]
        lines.append(pool_file.line_of(problem, [(0, s) for s in found]))
    (folder / "labels-0.jsonl").write_text("".join(lines[:30]))
    (folder / "labels-1.jsonl").write_text("".join(lines[30:]))
    torch.manual_seed(0)
    model = LanguageModel(tiny_shape(path))
    state = {"shape": model.shape.as_dict(), "model": model.state_dict(), "step": 1}
    save_state(folder / "generator.pt", state)
    return folder


@pytest.fixture
def job(setting, path, tmp_path):
    pools = (setting / "labels-0.jsonl", setting / "labels-1.jsonl")
    return Job(tmp_path, pools, setting / "generator.pt", path, RECIPE)


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(prm, "REPORT_EVERY", 4)
    monkeypatch.setattr(prm, "JUDGE_EVERY", 8)


def test_pools_are_read_one_after_the_other(job, tokenizer) -> None:
    solutions = read_labelled(job.pools, tokenizer, "prm")
    assert [s.question for s in solutions[::3]] == [f"What is {n}?" for n in range(60)]
    assert [s.targets for s in solutions[:3]] == [(0.5, 1.0), (0.0, 0.0), (0.5, 0.0)]


def test_the_loss_falls_and_the_judge_sees_right_from_wrong(job) -> None:
    reports: list[prm.Progress] = []
    prm._train(job, reports.append)
    assert [p.step for p in reports] == [4, 8, 12, 16, 20, 24]
    assert [p.held_out is not None for p in reports] == [False, True] * 3
    assert reports[-1].loss < 0.8 * reports[0].loss
    last = reports[-1].held_out
    assert last
    assert last.questions > 5
    assert last.auc > 0.9
    model = prm.load_verifier(job.folder / "verifier.pt")
    _, held = split(read_labelled(job.pools, load_tokenizer(job.tokenizer), "prm"), 0.2)
    assert prm.judge(model, held).loss == pytest.approx(min(p.held_out.loss for p in reports[1::2]))


def test_the_best_verifier_is_kept(job, monkeypatch) -> None:
    losses = iter([0.5, 0.3, 0.4])
    monkeypatch.setattr(prm, "judge", lambda *_: Quality(next(losses), 0.5, 1))
    prm._train(job, print)
    assert load_state(job.folder / "verifier.pt")["step"] == 16
    last = load_state(job.folder / "verifier-last.pt")
    assert (last["step"], last["best"]) == (24, 0.3)


def test_an_outcome_verifier_learns_from_last_steps_and_keeps_its_own_files(job) -> None:
    outcome = replace(job, kind="orm")
    solutions = read_labelled(job.pools, load_tokenizer(job.tokenizer), "orm")
    assert all(s.marks == (len(s.tokens) - 1,) for s in solutions)
    assert [s.targets for s in solutions[:3]] == [(1.0,), (0.0,), (0.0,)]
    prm._train(outcome, print)
    assert {f.name for f in job.folder.glob("*.pt")} >= {"orm.pt", "orm-last.pt"}
    assert not (job.folder / "verifier.pt").exists()


def stop_at(step: int):
    def report(progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    return report


def test_the_best_is_kept_when_a_run_goes_on(job, monkeypatch) -> None:
    losses = iter([0.3, 0.5, 0.4])
    monkeypatch.setattr(prm, "judge", lambda *_: Quality(next(losses), 0.5, 1))
    with pytest.raises(KeyboardInterrupt):
        prm._train(job, stop_at(12))
    prm._train(job, print)
    assert load_state(job.folder / "verifier.pt")["step"] == 8


def test_an_interrupted_run_learns_what_an_uninterrupted_one_does(job, tmp_path) -> None:
    broken = replace(job, folder=tmp_path / "broken")
    for step in (12, 20):  # 8 and 16 were saved
        with pytest.raises(KeyboardInterrupt):
            prm._train(broken, stop_at(step))
    prm._train(broken, print)
    prm._train(job, print)
    for name in ("verifier.pt", "verifier-last.pt"):
        one, other = (load_state(j.folder / name) for j in (job, broken))
        assert one["step"] == other["step"]
        assert all(torch.equal(w, other["model"][key]) for key, w in one["model"].items())


def test_a_training_goes_on_from_a_verifier_that_was_written(job, path, tmp_path) -> None:
    prm._train(job, print)
    before = prm.load_verifier(job.best)
    export_onnx(before, path, tmp_path / "verifier.onnx")
    onward = replace(job, folder=tmp_path / "onward", start=tmp_path / "verifier.onnx")
    for name, weight in prm._untrained(onward).state_dict().items():
        assert torch.equal(weight, before.state_dict()[name]), name
    first: list[prm.Progress] = []
    prm._train(onward, first.append)
    anew: list[prm.Progress] = []
    prm._train(replace(job, folder=tmp_path / "anew"), anew.append)
    assert first[0].loss < anew[0].loss


def test_a_verifier_takes_over_a_part_of_what_its_generator_has_learnt(job, path, tmp_path) -> None:
    """Its trunk moves a part of the way; what its own training made of it stays."""
    prm._train(job, print)
    before = prm.load_verifier(job.best)
    export_onnx(before, path, tmp_path / "verifier.onnx")
    lm = load_generator(job.generator)
    export_gguf(lm, path, tmp_path / "former.gguf", "f32")
    moved = copy.deepcopy(lm)
    with torch.no_grad():
        for weight in moved.parameters():
            weight.add_(1.0)
    save_state(tmp_path / "moved.pt", {"shape": lm.shape.as_dict(), "model": moved.state_dict()})
    start = {"start": tmp_path / "verifier.onnx", "former": tmp_path / "former.gguf"}
    found = prm._untrained(replace(job, generator=tmp_path / "moved.pt", **start)).state_dict()
    for name, weight in before.state_dict().items():
        change = prm.CARRIED if name.startswith("trunk.") else 0.0
        assert torch.allclose(found[name], weight + change, atol=1e-6), name


def test_other_judges_need_another_folder(job) -> None:
    prm._train(job, print)
    with pytest.raises(UsageError, match="another shape"):
        prm._train(replace(job, recipe=replace(RECIPE, judges=1)), print)
