"""What a reviser learns from, how it learns, and the labels of its own chains."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="training needs the `train` extra")
pytest.importorskip("rapidfuzz", reason="training needs the `train` extra")
pytest.importorskip("tokenizers", reason="training needs the `train` extra")
pytest.importorskip("regex", reason="training needs the `train` extra")

import torch
from rapidfuzz.distance import Levenshtein

from train_maker import drawn, tiny_shape, wild, wild_model, write_tokenizer
from ttsolve.core import Problem, Solution, Step, Usage
from ttsolve.engine import Sampling
from ttsolve.errors import UsageError
from ttsolve.pocketmath import exercises
from ttsolve.train import prm, reviser, revisions, run
from ttsolve.train.batches import read_labelled
from ttsolve.train.checkpoint import load_state, save_state
from ttsolve.train.data import label_weights, read_problems
from ttsolve.train.export import export_gguf, export_onnx
from ttsolve.train.generator import load_generator
from ttsolve.train.labels import MEMORY, draw
from ttsolve.train.model import LanguageModel, RewardModel, causal_mask
from ttsolve.train.pool_file import line_of, read_pool
from ttsolve.train.reviser import ROW, Document, Job, Recipe, document, taller, tensors
from ttsolve.train.revisions import Trajectory, context, trajectories
from ttsolve.train.sampling import sample
from ttsolve.train.tokenizer import load_tokenizer, special_ids


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def tokenizer(path):
    return load_tokenizer(path)


# --- trajectories -------------------------------------------------------------------------------

WRONG = [f"{n} - 1 = {n}|Answer: {n}" for n in range(2, 22)]


def pool(right: int = 40, wrong: int = 20, question: str = "What is 1?"):
    rights = ((f"{n} - {n - 1} = 1|Answer: 1", "1") for n in range(2, 2 + right))
    wrongs = ((text, text.rpartition(" ")[2]) for text in WRONG[:wrong])
    return drawn(question, *rights, *wrongs, ("no answer", None))


def test_the_context_has_0_to_4_wrong_attempts_all_alike_often() -> None:
    counts = Counter[int]()
    for n in range(100):
        made = trajectories(pool(question=f"What is {n}?"))
        counts.update(len(t.context) for t in made)
    assert sorted(counts) == [0, 1, 2, 3, 4]
    expected = counts.total() / 5
    chi_square = sum((seen - expected) ** 2 / expected for seen in counts.values())
    assert chi_square < 18.5  # one in a thousand, at 4 degrees of freedom


def test_no_context_has_a_right_attempt_and_no_target_a_wrong_one() -> None:
    for t in trajectories(pool()):
        assert all("Answer: 1\n" not in text for text in t.context)
        assert t.target.endswith("Answer: 1\n")
        assert all(text.endswith("\n") and "no answer" not in text for text in t.context)
        assert len(set(t.context)) == len(t.context)


def test_the_last_wrong_attempt_is_the_one_nearest_to_the_target() -> None:
    wrong = [text.replace("|", "\n") + "\n" for text in WRONG]
    some = [t for t in trajectories(pool()) if t.context]
    assert some
    for t in some:
        nearest = min(Levenshtein.distance(t.target, text) for text in wrong)
        assert Levenshtein.distance(t.target, t.context[-1]) == nearest


def test_where_there_are_fewer_wrong_attempts_the_context_has_those() -> None:
    some = [t for n in range(20) for t in trajectories(pool(wrong=2, question=f"What is {n}?"))]
    assert {len(t.context) for t in some} == {0, 1, 2}
    assert {len(t.context) for t in trajectories(pool(wrong=0))} == {0}
    assert trajectories(pool(right=0)) == []


def test_easy_questions_give_no_more_targets_than_others() -> None:
    assert len(trajectories(pool(right=40))) == revisions.PER_QUESTION
    assert len(trajectories(pool(right=3))) == 3
    assert len(trajectories(pool(right=40, wrong=2))) == 3
    assert len(trajectories(pool(right=40, wrong=0))) == 1


def test_the_nearest_wrong_attempt_is_taken_once() -> None:
    for seed in range(50):
        found = context("aab", ["aaa", "zzz", "zz"], random.Random(seed))
        assert not found or (found[-1] == "aaa" and Counter(found)["aaa"] == 1)


def test_a_share_shows_right_attempts_that_are_kept() -> None:
    made = [t for n in range(100) for t in trajectories(pool(question=f"What is {n}?"), keep=0.4)]
    keeping = [t for t in made if t.target in t.context]
    assert 0.3 < len(keeping) / len(made) < 0.5
    shapes = Counter((len(t.context), t.context.count(t.target)) for t in keeping)
    assert sorted(shapes) == [(n, k) for n in range(1, MEMORY + 1) for k in range(1, n + 1)]
    for t in keeping:
        wrong = t.context[: -t.context.count(t.target)]
        assert t.target not in wrong
        assert all("Answer: 1\n" not in text for text in wrong)


def test_what_was_said_several_times_is_as_often_wrong_beside_what_is_kept() -> None:
    some = [t for n in range(99) for t in trajectories(pool(question=f"What is {n}?"), keep=0.4)]
    corrected = Counter(
        (len(t.context), t.context.count(t.context[-1]))
        for t in some
        if t.context and t.context[-1] != t.target
    )
    assert sorted(corrected) == [(n, k) for n in range(1, MEMORY + 1) for k in range(1, n + 1)]
    twice = sum(count for (_, times), count in corrected.items() if times > 1)
    assert 0.35 < twice / corrected.total() < 0.6  # of those that are kept 0.48
    one_wrong = (t for n in range(99) for t in trajectories(pool(1, 1, f"What is {n}?"), keep=0.4))
    assert {t.context for t in one_wrong if t.target not in t.context} == {
        (WRONG[0].replace("|", "\n") + "\n",) * times for times in range(MEMORY + 1)
    }


def test_what_is_kept_of_a_question_without_wrong_attempts_is_all_there_is() -> None:
    made = [t for n in range(40) for t in trajectories(pool(wrong=0, question=f"{n}"), keep=1.0)]
    assert all(set(t.context) == {t.target} for t in made)


def test_a_reviser_never_sees_a_question_of_the_splits(pocket) -> None:
    source = exercises(-1_000_001, "train", label_weights())
    seen = {e.problem.question for e in itertools.islice(source, 3000)}
    for split in ("test", "calibration", "game24"):
        held_out = read_problems(pocket.folder / "data" / f"{split}.jsonl")
        assert not seen & {p.question for p in held_out}


# --- rows ---------------------------------------------------------------------------------------


def test_the_labelled_samples_give_trajectories_too(tmp_path, monkeypatch) -> None:
    class Nobody:
        def __init__(self, *_: object) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    def attempts(_, problems, samples, how, file, **__) -> None:
        file.write_text(line("What is 1?"), encoding="utf-8")

    def line(question: str) -> str:
        problem = Problem(question, "1")
        texts = ("2 - 1 = 1\nAnswer: 1\n", "2 - 1 = 3\nAnswer: 3\n")
        some = [Solution(problem, (Step(text, 9),), "stop") for text in texts]
        return line_of(problem, [(0, s) for s in some])

    monkeypatch.setattr(run, "LlamaGenerator", Nobody)
    monkeypatch.setattr(run, "draw", attempts)
    (tmp_path / "generator.gguf").touch()

    def make(labels: bool) -> dict[str, set[str]]:
        how = Sampling()
        run.make_revisions_data(tmp_path, 1, 2, how, 0.0, 7, lambda _: None, labels=labels)
        files = tmp_path.glob("revisions-*.jsonl")
        return {f.name: {t.question for t in revisions.read_trajectories([f])} for f in files}

    assert make(labels=False) == {"revisions-7.jsonl": {"What is 1?"}}
    with pytest.raises(UsageError, match="no labels"):
        make(labels=True)
    (tmp_path / "labels-3.jsonl").write_text(line("What is 2?"), encoding="utf-8")
    assert make(labels=True) == {
        "revisions-7.jsonl": {"What is 1?"},
        "revisions-labels-3-7.jsonl": {"What is 2?"},
    }


def test_a_trajectory_is_read_as_one_text(tokenizer) -> None:
    one = Trajectory("What is 1?", ("Answer: 2\n", "Answer: 3\n"), "2 - 1 = 1\nAnswer: 1\n")
    made = document(one, tokenizer)
    bos, eos = special_ids(tokenizer)
    assert made.tokens[0] == bos
    assert eos not in made.tokens  # behind an answer another attempt may follow
    text = tokenizer.decode(list(made.tokens[1:]))
    asked = "What is 1?\n"
    assert text == f"{asked}Answer: 2\n{asked}Answer: 3\n{asked}2 - 1 = 1\nAnswer: 1\n"
    assert tokenizer.decode(list(made.tokens[made.target :])) == one.target
    length = made.target - made.asked[-1]
    again = [tokenizer.decode(list(made.tokens[n : n + length])) for n in made.asked]
    assert again == [asked, asked]


def test_the_oldest_attempts_go_where_they_do_not_fit(tokenizer) -> None:
    long = tuple(f"{n} " * (ROW // 4) + "\n" for n in range(1, 5))
    made = document(Trajectory("What is 1?", long, "Answer: 1\n"), tokenizer)
    text = tokenizer.decode(list(made.tokens))
    assert len(made.tokens) <= ROW
    assert long[-1] in text
    assert long[0] not in text


def test_the_loss_is_on_the_target_and_on_questions_that_are_asked_again() -> None:
    chain = Document((1, 5, 6, 7, 8, 5, 6, 9, 5, 6, 4, 3), 10, "q", asked=(5, 8))
    for again, where in ((1.0, {5, 6, 8, 9, 10, 11}), (0.0, {10, 11})):
        weights = tensors([[chain]], again)[-1][0].tolist()
        assert {i for i, weight in enumerate(weights) if weight} == where


def test_the_loss_of_first_attempts_is_on_the_target_alone() -> None:
    one, two = Document((1, 5, 6, 7, 8, 2), 4, "q"), Document((1, 9, 2), 2, "r")
    ids, places, numbers, weights = (t[0].tolist() for t in tensors([[one, two]]))
    rest = [0] * (ROW - 9)
    assert ids == [*one.tokens, *two.tokens, *rest]
    assert places == [0, 1, 2, 3, 4, 5, 0, 1, 2, *rest]
    assert numbers == [1] * 6 + [2] * 3 + rest
    assert {i for i, weight in enumerate(weights) if weight} == {4, 5, 8}


# --- decoding -----------------------------------------------------------------------------------


def test_prompts_of_one_batch_are_continued_as_they_are_alone(path, tokenizer) -> None:
    model = wild_model(path)
    prompts = [[1, *range(5, 5 + size)] for size in (3, 9, 17)]
    together = sample(model, tokenizer, prompts, limit=12)
    assert together == [sample(model, tokenizer, [p], limit=12)[0] for p in prompts]
    assert len(set(map(tuple, together))) == 3


def test_a_row_ends_where_it_is_done_and_the_others_go_on(path, tokenizer) -> None:
    model = wild_model(path)
    prompts = [[1, *range(5, 5 + size)] for size in (3, 9, 17)]
    whole = sample(model, tokenizer, prompts, limit=12)
    cut = sample(model, tokenizer, prompts, done=lambda ids: ids == whole[1][:4], limit=12)
    assert cut == [whole[0], whole[1][:4], whole[2]]


def test_no_token_below_the_threshold_is_sampled(path, tokenizer) -> None:
    model = wild_model(path)
    prompts = [[1, 5, 6]] * 40

    def drawn_at(temperature: float, min_p: float) -> set[int]:
        dice = torch.Generator().manual_seed(1)
        rows = sample(model, tokenizer, prompts, temperature, min_p, dice, limit=1)
        return {row[0] for row in rows if row}

    greedy = sample(model, tokenizer, prompts[:1], limit=1)[0]
    assert drawn_at(5.0, 1.0) == set(greedy)  # the likeliest alone, however hot
    assert len(drawn_at(5.0, 0.0)) > 5


# --- runs ---------------------------------------------------------------------------------------

STEPS = 24
RECIPE = Recipe(tokens=STEPS * 2 * ROW, rows=2, rate=0.02, warmup=2, held_out=0.2)


@pytest.fixture(scope="module")
def setting(path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("setting")
    rows = [t for n in range(40) for t in trajectories(pool(right=4, question=f"What is {n}?"))]
    revisions.write_whole(
        folder / "revisions-0.jsonl",
        "".join(revisions.json.dumps(revisions.asdict(t)) + "\n" for t in rows),
    )
    torch.manual_seed(0)
    model = LanguageModel(tiny_shape(path))
    state = {"shape": model.shape.as_dict(), "model": model.state_dict(), "step": 1}
    save_state(folder / "generator.pt", state)
    return folder


@pytest.fixture
def job(setting, path, tmp_path):
    files = (setting / "revisions-0.jsonl",)
    return Job(tmp_path, files, setting / "generator.pt", path, RECIPE)


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(reviser, "REPORT_EVERY", 4)
    monkeypatch.setattr(reviser, "LOOK_EVERY", 8)
    monkeypatch.setattr(reviser, "pass_rates", lambda *_: (0.1, 0.2, 0.3))


def test_the_loss_falls(job) -> None:
    reports: list[reviser.Progress] = []
    reviser._train(job, reports.append)
    assert [p.step for p in reports] == [4, 8, 12, 16, 20, 24]
    assert [p.look is not None for p in reports] == [False, True] * 3
    assert reports[-1].loss < 0.8 * reports[0].loss
    assert reports[-1].look.loss < reports[1].look.loss


def test_the_checkpoint_that_revises_best_is_kept(job, monkeypatch) -> None:
    rates = iter([(0.5, 0.1, 0.2), (0.1, 0.3, 0.3), (0.9, 0.2, 0.3)])
    monkeypatch.setattr(reviser, "pass_rates", lambda *_: next(rates))
    reviser._train(job, print)
    assert load_state(job.best)["step"] == 16
    assert load_state(job.last)["step"] == 24


def test_of_checkpoints_that_are_about_as_good_the_last_is_kept(job, monkeypatch) -> None:
    """A third of 120 problems is known to 0.04."""
    rates = iter([(0.1, 0.2, 0.3), (0.1, 0.3, 0.3), (0.9, 0.25, 0.29)])
    monkeypatch.setattr(reviser, "pass_rates", lambda *_: next(rates))
    reviser._train(job, print)
    assert load_state(job.best)["step"] == 24


def test_further_layers_at_first_leave_what_the_model_says_as_it_was(path) -> None:
    torch.manual_seed(0)
    model = LanguageModel(tiny_shape(path)).eval()
    grown = taller(model, 2).eval()
    assert len(grown.blocks) == grown.shape.layers == model.shape.layers + 2
    ids = torch.arange(12)[None]
    mask = causal_mask(ids + 1, 12)
    one, other = (m.logits(m(ids, ids, mask)[0]) for m in (model, grown))
    assert torch.equal(one, other)


def test_a_run_with_further_layers_learns_and_goes_on(job) -> None:
    higher = replace(job, recipe=replace(RECIPE, layers=1))
    reports: list[reviser.Progress] = []

    def stop(progress) -> None:
        reports.append(progress)
        if progress.step == 12:  # 8 was saved
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reviser._train(higher, stop)
    reviser._train(higher, reports.append)
    assert [p.step for p in reports] == [4, 8, 12, 12, 16, 20, 24]
    assert reports[-1].loss < 0.8 * reports[0].loss
    trained = load_generator(higher.best)
    assert trained.shape.layers == load_generator(job.generator).shape.layers + 1
    with pytest.raises(UsageError, match="another shape"):
        reviser._train(job, print)


def test_the_layers_asked_for_are_trained(path, tmp_path, monkeypatch) -> None:
    export_gguf(wild_model(path), path, tmp_path / "generator.gguf")
    (tmp_path / "revisions-0.jsonl").touch()
    asked = []
    monkeypatch.setattr(reviser, "train_reviser", lambda job, _: asked.append(job.recipe))
    monkeypatch.setattr(run, "export_gguf", lambda *_: None)
    run.make_reviser(tmp_path, 5000, 2, 1e-3, Sampling(), 7, print)
    (recipe,) = asked
    assert (recipe.tokens, recipe.layers, recipe.rate, recipe.seed) == (5000, 2, 1e-3, 7)


def test_an_interrupted_run_learns_what_an_uninterrupted_one_does(job, tmp_path) -> None:
    broken = replace(job, folder=tmp_path / "broken")

    def stop(progress) -> None:
        if progress.step == 12:  # 8 was saved
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reviser._train(broken, stop)
    reviser._train(broken, print)
    reviser._train(job, print)
    one, other = (load_state(j.last) for j in (job, broken))
    assert all(torch.equal(w, other["model"][key]) for key, w in one["model"].items())


def test_too_few_questions_are_refused(job, tmp_path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UsageError, match="too few questions"):
        reviser._train(replace(job, files=(tmp_path / "empty.jsonl",)), print)


def test_pass_rates_count_along_the_chain(path, tokenizer, monkeypatch) -> None:
    monkeypatch.undo()
    said = iter(["Answer: 2\n", "Answer: 1\n", "Answer: 1\n", "Answer: 1\n"])
    prompts = []

    def says(model, tokenizer, given, *_):
        prompts.append(tokenizer.decode(given[0]))
        return [tokenizer.encode(next(said)).ids for _ in given]

    monkeypatch.setattr(reviser, "sample", says)
    problems = [Problem("What is 1?", "1"), Problem("What is 2?", "2")]
    rates = reviser.pass_rates(None, tokenizer, problems, 1.0, 0.0, length=2)
    assert rates == (0.0, 0.5)
    assert prompts[1].endswith("What is 1?\nAnswer: 2\nWhat is 1?\n")


# --- chains -------------------------------------------------------------------------------------


class Counts:
    """A generator whose n-th attempt says n, and keeps what it was shown."""

    name, params = "counts", 1

    def __init__(self) -> None:
        self.shown: list[list[str]] = []

    def sample(self, prefixes, how, watch=None, stop=None):
        out = []
        for prefix in prefixes:
            self.shown.append([a.text for a in prefix.attempts])
            last = prefix.attempts[-1].text if prefix.attempts else "Answer: 0\n"
            text = f"Answer: {int(last.split()[1]) + 1}\n"
            out.append(prefix.grow(Step(text, 3), finish="stop"))
        return out, Usage(generated_tokens=3 * len(prefixes))


def test_chains_show_the_latest_attempts_and_are_kept_one_after_the_other(tmp_path) -> None:
    generator, file = Counts(), tmp_path / "chains-0.jsonl"
    draw(generator, [Problem("What is 3?", "3")], 2, Sampling(), file, length=6)
    (kept,) = read_pool(file)
    assert kept.length == 6
    assert [s.answer for s in kept.samples] == ["1", "2", "3", "4", "5", "6"] * 2
    assert [s.right for s in kept.samples] == [False, False, True, False, False, False] * 2
    window = [f"Answer: {n}\n" for n in range(1, 6)][-MEMORY:]
    assert generator.shown[-1] == window
    assert max(map(len, generator.shown)) == MEMORY


def test_fewer_and_shorter_chains_are_the_beginning_of_more_and_longer_ones(tmp_path) -> None:
    class Seeds(Counts):
        def sample(self, prefixes, how, watch=None, stop=None):
            steps = [Step(f"Answer: {one.seed}\n", 3) for one in how]
            grown = zip(prefixes, steps, strict=True)
            return [p.grow(step, finish="stop") for p, step in grown], Usage()

    def chains(count: int, length: int) -> list[list[str | None]]:
        file = tmp_path / f"{count}x{length}.jsonl"
        draw(Seeds(), [Problem("What is 3?", "3")], count, Sampling(), file, length=length)
        (kept,) = read_pool(file)
        answers = [s.answer for s in kept.samples]
        return [answers[first : first + length] for first in range(0, count * length, length)]

    many = chains(3, 5)
    assert len({answer for chain in many for answer in chain}) == 15
    assert chains(2, 3) == [chain[:3] for chain in many[:2]]


def test_every_attempt_of_a_chain_is_labelled_where_it_ends(tmp_path, tokenizer) -> None:
    file = tmp_path / "chains-0.jsonl"
    draw(Counts(), [Problem("What is 3?", "3")], 1, Sampling(), file, length=6)
    (chain,) = read_labelled([file], tokenizer, "revision-verifier")
    assert chain.targets == (0.0, 0.0, 1.0, 0.0, 0.0)  # five: what a window holds
    ends = [tokenizer.decode(list(chain.tokens[1 : mark + 1])) for mark in chain.marks]
    assert ends[1] == "What is 3?\nAnswer: 1\nWhat is 3?\nAnswer: 2\n"
    assert not chain.right
    assert tokenizer.decode(list(chain.tokens[chain.start :])) == "Answer: 5\n"


def test_an_attempt_without_an_answer_stays_in_the_chain_unlabelled(tmp_path, tokenizer) -> None:
    class Silent(Counts):
        def sample(self, prefixes, how, watch=None, stop=None):
            out = [Solution(p.problem, (Step("hm\n", 1),), "stop", p.attempts) for p in prefixes]
            return out, Usage()

    file = tmp_path / "chains-0.jsonl"
    draw(Silent(), [Problem("What is 3?", "3")], 1, Sampling(), file, length=3)
    assert read_labelled([file], tokenizer, "revision-verifier") == []


@pytest.mark.parametrize(
    ("start", "layers"), [(None, (3, 2)), ("verifier", (2, 1)), ("revision-verifier", (3, 2))]
)
def test_a_revision_verifier_grows_from_the_reviser_or_goes_on_as_it_was_grown(
    tmp_path, path, monkeypatch, start, layers
) -> None:
    """A reviser may have more layers than the generator that a verifier was grown from."""
    model = wild_model(path)
    higher = taller(model, 1)
    higher.shape = replace(higher.shape, context=ROW)
    export_gguf(model, path, tmp_path / "generator.gguf")
    export_gguf(higher, path, tmp_path / "reviser.gguf")
    export_onnx(wild(RewardModel(model, 1)), path, tmp_path / "verifier.onnx")
    export_onnx(wild(RewardModel(higher, 2)), path, tmp_path / "revision-verifier.onnx")
    draw(Counts(), [Problem("What is 3?", "3")], 1, Sampling(), tmp_path / "chains-0.jsonl")
    (tmp_path / "tokenizer.json").write_bytes(path.read_bytes())
    monkeypatch.setattr(prm, "train_prm", lambda job, _: prm._untrained(job))
    exported = []
    monkeypatch.setattr(run, "export_onnx", lambda verifier, *_: exported.append(verifier))
    verifier = tmp_path / f"{start}.onnx" if start else None
    run.make_verifier(tmp_path, 1000, 2, 0, print, "revision-verifier", verifier)
    assert (len(exported[0].trunk.blocks), len(exported[0].judges)) == layers
    assert exported[0].shape.context == ROW
