"""Pairs of the user's own models: what their files say becomes a pair.toml that works."""

from __future__ import annotations

import os
from pathlib import Path
from shutil import copyfile, copytree

import pytest

from gguf_maker import TINY, make_gguf
from test_chat import CHATML, EXAMPLES
from ttsolve import cli, own_pair, paths
from ttsolve.engine import Sampling
from ttsolve.engines.misfit import Misfits, fits
from ttsolve.engines.prm_format import PrmFormat
from ttsolve.errors import ModelError, PairError, StorageError, UsageError
from ttsolve.files import link
from ttsolve.own_pair import add_pair, own_generator
from ttsolve.pair import default_pair, load_pair, set_default_pair
from ttsolve.pair_files import file_sha256
from ttsolve.prompts import BOXED, PromptFormat


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model of random weights."""
    return make_gguf(tmp_path_factory.mktemp("gguf") / "chat.gguf", TINY, chat_template=CHATML)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model of random weights."""
    return make_gguf(tmp_path_factory.mktemp("gguf") / "base.gguf", TINY)


@pytest.fixture(scope="module")
def skywork(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model of random weights as `models export-prm` writes it."""
    pytest.importorskip("torch")
    maker = pytest.importorskip("prm_maker")
    from ttsolve.train.export_prm import export_prm

    name, write = maker.WRITERS["skywork"]
    source = tmp_path_factory.mktemp("hub") / name
    source.mkdir(parents=True)
    write(source)
    folder = tmp_path_factory.mktemp("skywork")
    export_prm(str(source), folder)
    return folder


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    file = tmp_path / "examples.txt"
    file.write_text(EXAMPLES + "\n")
    return file


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


# --- a generator alone ------------------------------------------------------------------------


def test_a_chat_model_is_asked_in_chats(chat: Path) -> None:
    pair = own_generator(chat)
    assert (pair.prompt.chat, pair.prompt.separator, pair.prompt.answer) == (True, "\n\n", BOXED)
    assert (pair.sampling.temperature, pair.generator.context) == (0.8, TINY.context)


def test_a_base_model_is_asked_with_examples_or_plainly(base: Path, examples: Path) -> None:
    assert own_generator(base).prompt == PromptFormat()
    assert own_generator(base).sampling == Sampling()
    prompt = own_generator(base, examples).prompt
    assert (prompt.template, prompt.answer, prompt.stop) == (EXAMPLES, "####", ("Problem:",))


def test_its_file_may_recommend_how_to_sample(tmp_path: Path, chat: Path) -> None:
    file = own_pair.read_gguf(chat)
    file.metadata.update({"general.sampling.temp": 0.6000000238, "general.sampling.top_k": 20})
    assert own_pair.sampling_for(file, PromptFormat(chat=True)) == Sampling(
        temperature=0.6, top_k=20, max_tokens=2048
    )


def test_what_no_sampling_can_be_is_refused_before_anything_is_written(
    tmp_path: Path, chat: Path
) -> None:
    file = own_pair.read_gguf(chat)
    file.metadata.update({"general.sampling.top_k": -1, "general.sampling.temp": "warm"})  # -1: off
    assert own_pair.sampling_for(file, PromptFormat()) == Sampling()
    file.metadata.update({"general.sampling.top_k": 2**63, "general.sampling.temp": float("inf")})
    assert own_pair.sampling_for(file, PromptFormat()) == Sampling(top_k=1 << 24)
    file.metadata["general.sampling.top_k"] = float("nan")
    assert own_pair.sampling_for(file, PromptFormat()) == Sampling()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_pair, "sampling_for", lambda *_: Sampling(temperature=float("nan")))
        with pytest.raises(PairError, match="impossible value"):
            add_pair(tmp_path / "mine", str(chat))
    assert not (tmp_path / "mine").exists()


def test_a_model_that_thinks_gets_room(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "r1.gguf", TINY, chat_template=CHATML + "{# </think> #}")
    pair = own_generator(path)
    assert pair.sampling.max_tokens > 10_000
    file = own_pair.read_gguf(path)
    file.metadata["llama.context_length"] = 131072
    assert own_pair.context_for(file) == 16384


def test_examples_without_a_place_for_the_problem(base: Path, tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("1 + 1 = 2")
    with pytest.raises(UsageError, match=r"no single \{question\}"):
        own_generator(base, tmp_path / "none.txt")
    with pytest.raises(UsageError, match=r"Cannot read .*: give a text file"):
        own_generator(base, tmp_path / "missing.txt")


def test_a_part_of_a_model_is_no_generator(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="join all with llama-gguf-split"):
        own_generator(tmp_path / "a-00001-of-00002.gguf")


def test_what_is_cut_or_no_gguf_becomes_no_pair(
    base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, data in {"cut": base.read_bytes()[:-1000], "text": b"hello" * 1000}.items():
        (tmp_path / name).write_bytes(data)
        assert run("models", "add", str(tmp_path / name), "--name", name) == 2
    cut, text = capfd.readouterr().err.splitlines()
    assert "cut is a damaged GGUF file" in cut
    assert "text is not a GGUF file" in text
    assert not (paths.user_pairs() / "cut").exists()


# --- models add -------------------------------------------------------------------------------


def test_add_writes_what_the_files_say(chat: Path, skywork: Path, tmp_path: Path) -> None:
    add_pair(tmp_path / "mine", str(chat), skywork)
    data = {name: file_sha256(skywork / name) for name in ("verifier.onnx", "tokenizer.json")}
    text = (tmp_path / "mine" / "pair.toml").read_text()
    system = own_pair.system_prompt("\n").replace("\\", "\\\\")
    assert (
        text
        == f'''\
name = "mine"
about = "chat with a verifier of the family skywork."

[generator]
file = "chat.gguf"
sha256 = "{file_sha256(chat)}"
context = 256

[verifier]
file = "verifier/verifier.onnx"
sha256 = "{data["verifier.onnx"]}"
tokenizer = "verifier/tokenizer.json"
tokenizer_sha256 = "{data["tokenizer.json"]}"
aggregation = "last"

[prompt]
template = "{{question}}"
separator = "\\n"
answer = "\\\\boxed"
full_stop = false
chat = true
system = "{system}"
stop = []

[sampling]
temperature = 0.8
top_k = 0
top_p = 1.0
min_p = 0.0
max_tokens = 2048
'''
    )


def test_add_links_and_copies_nothing(chat: Path, skywork: Path, tmp_path: Path) -> None:
    add_pair(tmp_path / "mine", str(chat), skywork)
    pair = load_pair(tmp_path / "mine")
    assert pair.generator_path.samefile(chat)
    assert (tmp_path / "mine" / "verifier").resolve() == skywork.resolve()
    with pytest.raises(PairError, match=r"There is a pair in .* already"):
        add_pair(tmp_path / "mine", str(chat))


def test_models_that_are_in_the_folder_already_stay(
    chat: Path, skywork: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    copytree(skywork, folder / "verifier")
    own = copyfile(chat, folder / "own.gguf")
    add_pair(folder, str(own), folder / "verifier")
    assert file_sha256(own) == file_sha256(chat)
    assert not any(path.is_symlink() for path in folder.iterdir())
    other = tmp_path / "other"
    other.mkdir()
    (other / chat.name).write_text("the only copy of another model")
    with pytest.raises(StorageError, match="File exists"):
        add_pair(other, str(chat))
    assert (other / chat.name).read_text() == "the only copy of another model"


def test_where_symbolic_links_are_not_allowed(
    skywork: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("not allowed")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    link(tmp_path / "hard", skywork)
    assert (tmp_path / "hard" / "tokenizer.json").samefile(skywork / "tokenizer.json")
    monkeypatch.setattr(os, "link", refuse)
    link(tmp_path / "copied.json", skywork / "tokenizer.json")
    assert file_sha256(tmp_path / "copied.json") == file_sha256(skywork / "tokenizer.json")


def test_weights_that_stand_apart_have_a_checksum(
    chat: Path, skywork: Path, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.mkdir()
    for file in skywork.iterdir():
        (large / file.name).write_bytes(file.read_bytes())
    (large / "verifier.onnx.data").write_bytes(b"weights")
    folder = tmp_path / "mine"
    verifier = add_pair(folder, str(chat), large).verifier
    assert verifier is not None
    assert verifier.data_sha256 == file_sha256(large / "verifier.onnx.data")
    (large / "verifier.onnx.data").write_bytes(b"others")
    with pytest.raises(PairError, match=r"verifier\.data names 'verifier\.onnx\.data', whose sha"):
        load_pair(folder)


def test_a_folder_without_a_verifier(chat: Path, tmp_path: Path) -> None:
    for name in ("verifier.onnx", "tokenizer.json", "verifier.toml"):
        with pytest.raises(PairError, match=f"There is no {name} in .*: write one with `models e"):
            add_pair(tmp_path / "mine", str(chat), tmp_path)
        (tmp_path / name).touch()
    assert not (tmp_path / "mine").exists()


# --- the commands -----------------------------------------------------------------------------


def test_from_two_files_to_an_answer(
    chat: Path, skywork: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """add, check, default, and the bare command: on models of random weights, which fit badly."""
    assert run("models", "add", str(chat), "--verifier", str(skywork), "--name", "mine") == 0
    assert "mine: chat with a verifier" in capfd.readouterr().out
    assert run("models", "check", "mine") == 1  # it marks no answers
    out, err = capfd.readouterr()
    found = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert found["files"].endswith("as their checksums say")
    assert found["verifier"] == "CPU, reads 2,048 tokens; its test vectors come out"
    assert "of 12 solutions mark one" in found["answers"]
    assert "no answer with '\\\\boxed'" in out
    assert err.startswith("hashing") or err == ""
    assert run("models", "default", "mine") == 0
    assert capfd.readouterr().out == "mine\n"
    assert run("1 + 1?", "--budget", "2", "--json") in (0, 1)
    assert '"pair": "mine"' in capfd.readouterr().out


def test_check_finds_a_file_that_changed(
    chat: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(chat.read_bytes())
    add_pair(tmp_path / "mine", str(copy))
    data = bytearray(copy.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    assert run("models", "check", str(tmp_path / "mine")) == 2
    assert "whose sha256 is another" in capfd.readouterr().err


def test_the_default_pair(chat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_pair() == "pocket"
    with pytest.raises(PairError, match="There is no pair 'mine'"):
        set_default_pair("mine")
    add_pair(Path(os.environ["TTSOLVE_HOME"]) / "models" / "mine", str(chat))
    set_default_pair("mine")
    assert default_pair() == "mine"
    monkeypatch.setenv("TTSOLVE_PAIR", "pocket")
    assert default_pair() == "pocket"


@pytest.mark.parametrize("command", [("What?",), ("models", "check"), ("bench",)])
def test_who_names_a_default_pair_that_is_none_is_told(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    home = Path(os.environ["TTSOLVE_HOME"]) / "models"
    home.mkdir(parents=True)
    (home / "default").write_text("gone\n")
    for name, who in [
        ("gone", "choose another with `ttsolve models default NAME`"),
        ("nonsense", "change the variable TTSOLVE_PAIR, which names it"),
    ]:
        assert run(*command) == 2
        assert capfd.readouterr() == (
            "",
            f"Error: There is no pair {name!r}: use 'pocket', or put it into {home / name}, "
            f"or {who}.\n",
        )
        monkeypatch.setenv("TTSOLVE_PAIR", "nonsense")
    monkeypatch.setenv("TTSOLVE_PAIR", "sim")
    assert run("What?", "--json") == 0
    assert '"pair": "sim"' in capfd.readouterr().out


def test_a_folder_may_be_the_default_pair(
    chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_pair(tmp_path / "mine", str(chat))
    monkeypatch.chdir(tmp_path)
    assert run("models", "default", "./mine") == 0
    monkeypatch.chdir("/")
    assert load_pair(default_pair()).name == "mine"


def test_no_pair_stands_in_the_way_of_another(
    chat: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("models", "add", str(chat), "--name", "pocket") == 2
    assert "There is a pair in" in capfd.readouterr().err
    assert run("models", "add", str(chat), "--name", "mine", "--model", "x") == 2
    assert "--model belongs to an endpoint" in capfd.readouterr().err


def test_options_of_a_generator_alone(
    chat: Path, examples: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for wrong, says in [
        (["--few-shot", str(examples)], "--few-shot belongs to a --generator"),
        (["--generator", str(chat), "--model", "x"], "--model belongs to an endpoint"),
        (["--generator", str(chat), "--pair", "mine"], "leave --pair or --generator out"),
    ]:
        assert run("1 + 1?", *wrong) == 2
        assert says in capfd.readouterr().err
    code = run("1 + 1?", "--generator", str(chat), "--few-shot", str(examples), "--budget", "1")
    assert code in (0, 1)


# --- what does not fit ------------------------------------------------------------------------


def prm(**fields: object) -> PrmFormat:
    given = {"family": "x", "prompt": "{question}", "step": "{step}", "context": 4096, **fields}
    return PrmFormat(tolerance=0.1, **given)  # type: ignore[arg-type]


def test_a_misfit_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    misfits = Misfits(context=4096, whole=False)
    misfits.separator("\n", prm(separator="\n\n"))
    for _ in range(3):
        misfits.solution(tokens=9000, longest=600)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert not any("\n" in line for line in said)
    assert "end with '\\n', and the verifier learnt from steps that end with '\\n\\n'" in said[0]
    assert "9,000 tokens, and the verifier reads 4,096: steps beyond them score 0" in said[1]
    assert "A step has 600 tokens" in said[2]


def test_what_fits_is_not_spoken_of(caplog: pytest.LogCaptureFixture) -> None:
    Misfits(4096, whole=False).solution(tokens=4096, longest=500)
    Misfits(4096, whole=True).solution(tokens=4096, longest=4000)
    assert fits("\n\n", prm(lines=True, separator="\n"))
    assert fits("\n", prm(whole=True))
    assert fits("\n\n", prm())
    assert not fits("\n", prm())
    assert caplog.records == []
