"""Training the generator: tokens, rows, the loss, interruptions, two processes, checkpoints."""

from __future__ import annotations

import itertools
import multiprocessing
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the `train` extra")
pytest.importorskip("tokenizers", reason="training needs the `train` extra")
pytest.importorskip("regex", reason="training needs the `train` extra")

import torch
import torch.nn.functional as F

from train_maker import (
    run_out_of_space,
    tiny_shape,
    train_without_tests,
    wild_model,
    write_tokenizer,
)
from ttsolve import subjects
from ttsolve.engines.bpe import ByteBpe
from ttsolve.errors import ModelError, StorageError, UsageError
from ttsolve.pocketmath import exercises
from ttsolve.train import checkpoint, generator, shards
from ttsolve.train.alone import alone
from ttsolve.train.export import export_gguf
from ttsolve.train.generator import Job, Recipe, greedy, row_loss, subject_weights
from ttsolve.train.import_gguf import read_gguf
from ttsolve.train.model import LanguageModel, attend, causal_mask
from ttsolve.train.muon import Muon, optimisers, orthogonalise
from ttsolve.train.rows import ROW, Rows, row_mask, square_mask
from ttsolve.train.run import make_generator
from ttsolve.train.tokenizer import BOS, EOS, load_tokenizer, special_ids

SOME = list(itertools.islice(exercises(1, "train"), 60))
STEPS = 6
RECIPE = Recipe(tokens=STEPS * 4 * ROW, rows=4, warmup=2, seed=5)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def tokenizer(path):
    return load_tokenizer(path)


@pytest.fixture(scope="module")
def model(path):
    return wild_model(path)


# --- the tokenizer ------------------------------------------------------------------------------


def test_every_digit_is_a_token_and_takes_the_space_before_it(tokenizer) -> None:
    assert tokenizer.encode("120 + 345, 6").tokens == [
        "1",
        "2",
        "0",
        "Ġ+",
        "Ġ3",
        "4",
        "5",
        ",",
        "Ġ6",
    ]


def test_special_tokens_come_last_and_are_never_read_from_text(tokenizer, path) -> None:
    size = tokenizer.get_vocab_size()
    assert special_ids(tokenizer) == (size - 2, size - 1)
    assert tokenizer.id_to_token(size - 2) == BOS
    assert size - 2 not in ByteBpe(path).encode(f"{BOS} 1 {EOS}")


@pytest.mark.parametrize("text", ["é 漢字 \U0001f600\n\t x  y", "don't  12,345.60%", ""])
def test_any_text_comes_back_and_the_engines_read_it_alike(tokenizer, path, text: str) -> None:
    bpe = ByteBpe(path)
    for whole in [text, *(e.problem.question + "\n" + e.solution for e in SOME)]:
        ids = tokenizer.encode(whole).ids
        assert tokenizer.decode(ids) == whole
        assert bpe.encode(whole) == ids


def test_steps_are_tokenised_alike_alone_and_together(tokenizer) -> None:
    for exercise in SOME:
        lines = exercise.solution.splitlines(keepends=True)
        alone = [i for line in lines for i in tokenizer.encode(line).ids]
        assert alone == tokenizer.encode(exercise.solution).ids


# --- rows ---------------------------------------------------------------------------------------


def rows(tokenizer) -> Rows:
    return Rows(tokenizer, subject_weights(), 5, 4)


def documents(batch):
    """(row, tokens as text, places, weights) of every document of a batch."""
    ids, places, numbers, weights = batch
    for row in range(len(ids)):
        for number in range(1, int(numbers[row].max()) + 1):
            own = numbers[row] == number
            yield row, ids[row][own].tolist(), places[row][own].tolist(), weights[row][own].tolist()


def test_rows_hold_whole_documents(tokenizer) -> None:
    bos, eos = special_ids(tokenizer)
    batch = rows(tokenizer).batch(3, 1)
    assert [t.shape for t in batch] == [(2, ROW)] * 4
    stream = exercises((5 * 1_000_003 + 3) * 2 + 1, "train", subject_weights())
    source = itertools.islice(stream, 60)
    known = {f"{e.problem.question}\n{e.solution}": e.problem.question for e in source}
    found = list(documents(batch))
    assert len(found) > 4
    for _, tokens, places, weights in found:
        assert (tokens[0], tokens[-1]) == (bos, eos)
        question = known.pop(tokenizer.decode(tokens[1:-1]))  # each of them once
        size = len(tokenizer.encode(question + "\n").ids)
        assert places == list(range(len(tokens)))
        expected = [0.0] + [0.1] * size + [1.0] * (len(tokens) - size - 1)
        assert weights == pytest.approx(expected)


def test_rows_are_full_to_the_last_document_and_padding_weighs_nothing(tokenizer) -> None:
    for step in range(5):
        _, _, numbers, weights = rows(tokenizer).batch(step, 0)
        assert (numbers > 0).float().mean() > 0.8
        assert not weights[numbers == 0].any()


def test_rows_depend_on_seed_step_and_shard_alone(tokenizer) -> None:
    def same(a, b):
        return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

    first = rows(tokenizer)
    first.batch(0, 0)
    assert same(first.batch(7, 1), rows(tokenizer).batch(7, 1))
    others = [(6, 1), (7, 0), (8, 1)]
    assert not any(same(first.batch(7, 1), rows(tokenizer).batch(*other)) for other in others)
    assert not same(first.batch(7, 1), Rows(tokenizer, subject_weights(), 6, 4).batch(7, 1))


@torch.no_grad()
def test_packed_loss_is_that_of_the_documents_one_by_one(model, tokenizer) -> None:
    batch = rows(tokenizer).batch(0, 0)
    total = weight = 0.0
    for _, tokens, places, weights in documents(batch):
        ids = torch.tensor([tokens])
        mask = causal_mask(torch.ones_like(ids), len(tokens))
        hidden, _ = model(ids, torch.tensor([places]), mask)
        losses = F.cross_entropy(model.logits(hidden[0, :-1]), ids[0, 1:], reduction="none")
        total += float((losses * torch.tensor(weights[1:])).sum())
        weight += sum(weights[1:])
    assert float(row_loss(model, *batch)) == pytest.approx(total / weight, rel=1e-5)


@pytest.mark.parametrize("length", [ROW, 1])
def test_documents_one_by_one_are_those_under_a_mask(tokenizer, length: int) -> None:
    numbers = rows(tokenizer).batch(0, 0)[2][:, :length]
    heads = torch.randn(3, *(len(numbers), 4, numbers.shape[1], 8), requires_grad=True)
    found = []
    for mask in (row_mask(numbers), square_mask(numbers)):
        attended = attend(*heads, mask)
        attended.square().sum().backward()
        found.append((attended, heads.grad.clone()))
        heads.grad = None
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


# --- greedy -------------------------------------------------------------------------------------


@torch.no_grad()
def plain(model, tokenizer, question: str, limit: int) -> str:
    bos, eos = special_ids(tokenizer)
    start = ids = [bos, *tokenizer.encode(question + "\n").ids]
    while len(ids) < len(start) + limit:
        row = torch.tensor([ids])
        mask = causal_mask(torch.ones_like(row), len(ids))
        hidden, _ = model(row, torch.arange(len(ids))[None], mask)
        token = int(model.logits(hidden[:, -1]).argmax())
        if token == eos:
            break
        ids = [*ids, token]
    return tokenizer.decode(ids[len(start) :])


def test_greedy_in_a_batch_is_greedy_alone_and_without_a_cache(model, tokenizer) -> None:
    questions = [e.problem.question for e in SOME[:8]]
    assert len({len(tokenizer.encode(q).ids) for q in questions}) > 3
    together = greedy(model, tokenizer, questions, 12)
    assert together == [plain(model, tokenizer, q, 12) for q in questions]
    assert len(set(together)) > 3


def test_progress_is_measured_on_problems_that_are_never_trained_on() -> None:
    tests = generator._tests()
    assert len(tests) == 100
    assert {subjects.split_of(e.key) for e in tests} == {"calibration"}
    assert not [e for e in tests if e.shared]


def test_greedy_accuracy_is_the_share_of_right_answers(monkeypatch, model, tokenizer) -> None:
    texts = [e.solution for e in SOME[:4]]
    monkeypatch.setattr(generator, "greedy", lambda *_: [texts[0], "Answer: -1\n", "3 +", texts[3]])
    assert generator.greedy_accuracy(model, tokenizer, SOME[:4]) == 0.5


# --- runs ---------------------------------------------------------------------------------------


@pytest.fixture
def unmeasured(monkeypatch):
    """Measuring is slow, and tested above."""
    monkeypatch.setattr(generator, "greedy_accuracy", lambda *_: 0.25)
    monkeypatch.setattr(generator, "_tests", list)


@pytest.fixture
def job(path, tmp_path, unmeasured):
    return Job(tmp_path / "run", tiny_shape(path), path, RECIPE, minutes_between_saves=0.0)


def weights_of(job: Job) -> dict[str, torch.Tensor]:
    return checkpoint.load_state(job.folder / "generator.pt")["model"]


@pytest.fixture(scope="module")
def whole(path, tmp_path_factory):
    """What an uninterrupted run in one process learns."""
    job = Job(tmp_path_factory.mktemp("whole"), tiny_shape(path), path, RECIPE)
    reports: list[generator.Progress] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "greedy_accuracy", lambda *_: 0.25)
        patch.setattr(generator, "_tests", list)
        patch.setattr(generator, "REPORT_EVERY", 1)
        generator._train(job, reports.append)
    return weights_of(job), reports


def test_a_run_reports_and_its_loss_falls(whole) -> None:
    _, reports = whole
    assert [p.step for p in reports] == list(range(1, STEPS + 1))
    assert {p.steps for p in reports} == {STEPS}
    assert [p.pass_at_1 for p in reports] == [None] * (STEPS - 1) + [0.25]
    assert reports[-1].loss < reports[0].loss


def test_an_interrupted_run_learns_what_an_uninterrupted_one_does(job, whole, monkeypatch) -> None:
    saves = 0

    def save_and_stop(path, state) -> None:
        nonlocal saves
        checkpoint.save_state(path, state)
        saves += 1
        if saves in (2, 3):
            raise KeyboardInterrupt

    monkeypatch.setattr(generator, "save_state", save_and_stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            generator._train(job, print)
    generator._train(job, print)
    assert saves == STEPS
    expected, _ = whole
    assert all(torch.equal(w, expected[name]) for name, w in weights_of(job).items())


def test_a_finished_run_has_nothing_left_to_do(job, monkeypatch) -> None:
    generator._train(job, print)
    before = weights_of(job)
    monkeypatch.setattr(generator, "learn", pytest.fail)
    generator._train(job, print)
    assert all(torch.equal(w, before[name]) for name, w in weights_of(job).items())


def test_two_processes_learn_what_one_does(job, whole) -> None:
    reports: list[generator.Progress] = []
    shards.run_sharded(train_without_tests, job, reports.append)
    expected, single = whole
    for name, weight in weights_of(job).items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)
    (last,) = reports
    assert last.step == STEPS
    assert last.loss == pytest.approx(sum(p.loss for p in single) / STEPS, abs=0.2)  # own shard


def test_what_a_process_raises_reaches_the_user_as_it_is() -> None:
    heard: list[object] = []
    with pytest.raises(StorageError, match=r"^There is no space: make some\.$"):
        shards.run_sharded(run_out_of_space, "a job", heard.append)
    assert set(heard) <= {"begun a job"}  # whichever process is quicker


def lives_on(line) -> None:
    threading.Thread(target=shards._end_with_parent, daemon=True).start()
    line.send("alive")
    time.sleep(60)


def has_a_worker(line) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=lives_on, args=(line,))
    worker.start()
    worker.join()


def test_no_process_goes_on_when_the_command_was_killed() -> None:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    command = spawn.Process(target=has_a_worker, args=(theirs,))
    command.start()
    theirs.close()
    assert ours.recv() == "alive"
    command.kill()
    assert ours.poll(30)
    with pytest.raises(EOFError):  # nobody is left who could write
        ours.recv()


def test_a_second_process_is_refused(job) -> None:
    with alone(job.folder / "generator.pt"), pytest.raises(UsageError, match="Another process"):
        generator.train_generator(job.folder, job.shape, job.tokenizer, job.recipe)


def test_another_shape_needs_another_folder(job) -> None:
    generator._train(job, print)
    other = replace(job, shape=replace(job.shape, layers=1))
    with pytest.raises(UsageError, match="another shape"):
        generator._train(other, print)


def test_a_run_goes_on_from_the_weights_of_a_gguf(job, path, tmp_path) -> None:
    """Its first loss is the model's own, not that of random weights."""
    model = wild_model(path)
    export_gguf(model, path, tmp_path / "generator.gguf", "f32")
    begun = replace(job, start=tmp_path / "generator.gguf", recipe=replace(RECIPE, rate=0.0))
    generator._train(begun, print)
    learned = weights_of(begun)
    assert all(torch.equal(w, learned[name]) for name, w in model.state_dict().items())


def test_who_goes_on_from_a_pair_takes_its_tokenizer(
    path, tmp_path, monkeypatch, unmeasured
) -> None:
    monkeypatch.setattr(generator, "run", lambda train, job, report: train(job, report))
    pair, work = tmp_path / "pair", tmp_path / "work"
    pair.mkdir()
    shutil.copyfile(path, pair / "tokenizer.json")
    export_gguf(wild_model(path), path, pair / "generator.gguf")
    make_generator(work, 1, 9, 64, 5.0, 0, lambda _: None, pair / "generator.gguf")
    assert (work / "tokenizer.json").read_bytes() == path.read_bytes()
    learned = read_gguf(work / "generator.gguf").shape
    assert (learned.layers, learned.width) == (tiny_shape(path).layers, tiny_shape(path).width)
    (pair / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match=r"tokenizer\.json"):
        make_generator(
            tmp_path / "other", 1, 9, 64, 5.0, 0, lambda _: None, pair / "generator.gguf"
        )


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    recipe = Recipe(tokens=1000 * Recipe().rows * ROW)
    rates = [recipe.rate_at(step) / recipe.rate for step in range(1000)]
    assert rates[:100] == pytest.approx([(i + 1) / 100 for i in range(100)])
    assert set(rates[100:600]) == {1.0}
    assert rates[600:] == pytest.approx([(1000 - i) / 400 for i in range(600, 1000)])


# --- checkpoints --------------------------------------------------------------------------------


def test_a_checkpoint_comes_back(tmp_path, path) -> None:
    one, other = (LanguageModel(tiny_shape(path)) for _ in range(2))
    tuning = optimisers(one, 0.1, 0.0)
    one(torch.tensor([[1, 2]]), torch.tensor([[0, 1]]), torch.ones(1, 1, 2, 2).bool())[
        0
    ].sum().backward()
    for optimiser in tuning:
        optimiser.step()
    state = {"model": one.state_dict(), "optimisers": [o.state_dict() for o in tuning], "step": 7}
    checkpoint.save_state(tmp_path / "new" / "x.pt", state)
    again = optimisers(other, 0.1, 0.0)
    assert checkpoint.resume(tmp_path / "new" / "x.pt", other, again)["step"] == 7
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert str([o.state_dict() for o in again]) == str(state["optimisers"])
    assert checkpoint.resume(tmp_path / "none.pt", other, again) == {"step": 0}


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"^Cannot write .*checkpoint\.$"):
        checkpoint.save_state(tmp_path / "file" / "x.pt", {})


@pytest.fixture
def full_disk():
    """No file may grow beyond 64 KiB."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


def kept_after_failure(folder: Path) -> None:
    file = folder / "x.pt"
    checkpoint.save_state(file, {"step": 1})
    with pytest.raises(StorageError) as failed:
        checkpoint.save_state(file, {"step": 2, "model": torch.zeros(100_000)})
    message = str(failed.value)
    assert message.startswith(f"Cannot write {file} (")
    assert message.endswith("checkpoint.")
    assert "\n" not in message
    assert ". " not in message
    assert checkpoint.load_state(file) == {"step": 1}
    assert [p.name for p in folder.iterdir()] == ["x.pt"]


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, full_disk) -> None:
    kept_after_failure(tmp_path)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("[enforce fail] . file write\n")]
)
def test_so_does_any_failure_to_write(tmp_path, monkeypatch, error: Exception) -> None:
    save = torch.save

    def fail(state, path) -> None:
        save(state, path) if state["step"] == 1 else path.write_bytes(b"half a checkpoint")
        if state["step"] == 2:
            raise error

    monkeypatch.setattr(torch, "save", fail)
    kept_after_failure(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_is_named(tmp_path, content: bytes | None) -> None:
    file = tmp_path / "x.pt"
    if content is None:
        checkpoint.save_state(file, {"model": torch.zeros(100)})
        content = file.read_bytes()[:300]
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.pt is no checkpoint, or a damaged one"):
        checkpoint.load_state(file)


# --- Muon ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16), (1, 24, 24)])
def test_orthogonalised_matrices_nearly_are(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape) * torch.logspace(-3, 3, shape[0])[:, None, None]
    result = orthogonalise(matrices)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.3
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    inner = (result * (u @ v)).sum((1, 2)) / (u @ v).square().sum((1, 2))
    assert inner.min() > 0.7  # along the nearest orthogonal matrix


def test_muon_finds_a_minimum_and_leaves_alone_what_has_no_gradient() -> None:
    torch.manual_seed(0)
    target = torch.randn(32, 48)
    weight, idle = torch.zeros(32, 48, requires_grad=True), torch.ones(32, 48, requires_grad=True)
    muon = Muon([weight, idle], lr=0.1, weight_decay=0.0)
    for step in range(200):
        muon.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        (weight - target).square().sum().backward()
        muon.step()
        muon.zero_grad()
    assert (weight - target).norm() < 0.1 * target.norm()
    assert torch.equal(idle, torch.ones(32, 48))


def test_muon_steps_along_the_orthogonalised_momentum() -> None:
    torch.manual_seed(0)
    weight = torch.randn(32, 48, requires_grad=True)
    before, gradients = weight.detach().clone(), torch.randn(2, 32, 48)
    muon, momentum = Muon([weight], lr=0.1, weight_decay=0.5), torch.zeros(32, 48)
    for gradient in gradients:
        weight.grad = gradient
        muon.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        step = orthogonalise((0.05 * gradient + 0.95 * momentum)[None])[0]
        before = before * (1 - 0.1 * 0.5) - 0.1 * 0.2 * 48**0.5 * step
        torch.testing.assert_close(weight.detach(), before)


def test_every_weight_has_one_optimiser_and_matrices_have_muon(path) -> None:
    model = LanguageModel(tiny_shape(path))
    muon, adam = optimisers(model, 0.1, 0.1)
    names = {id(weight): name for name, weight in model.named_parameters()}
    of_muon, of_adam = ([names[id(w)] for w in o.param_groups[0]["params"]] for o in (muon, adam))
    assert sorted(of_muon + of_adam) == sorted(names.values())
    assert len(of_muon) == 2 * 7
    assert set(of_adam) >= {"embedding.weight", "norm.weight"}
