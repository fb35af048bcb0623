"""pair.toml: read back what was written, and one sentence for whatever is wrong in it."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttsolve import paths
from ttsolve.engine import Sampling
from ttsolve.errors import ModelError, PairError, StorageError
from ttsolve.pair import (
    GeneratorFile,
    Pair,
    ReviserFiles,
    VerifierFiles,
    World,
    bare_pair,
    list_pairs,
    load_pair,
    write_pair,
)
from ttsolve.pair_files import file_sha256, verify_files
from ttsolve.prompts import PromptFormat

FILES = {"generator.gguf": b"GGUF", "verifier.onnx": b"ONNX", "tokenizer.json": b"{}"}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def a_pair(folder: Path, name: str = "tiny") -> Pair:
    """A whole pair on disk, with files of a few bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in FILES.items():
        (folder / file).write_bytes(data)
    verifier = VerifierFiles("verifier.onnx", sha(b"ONNX"), "tokenizer.json", sha(b"{}"), "min")
    pair = Pair(
        folder=folder,
        name=name,
        about="A pair for tests.",
        generator=GeneratorFile("generator.gguf", sha(b"GGUF")),
        verifier=verifier,
        world=World("Testland", "Nothing but tests."),
        sampling=Sampling(temperature=0.7, max_tokens=200),
        measured={"pass_at_1": 0.4, "by subject": {"games": [0.25, 0.5]}},
    )
    write_pair(pair)
    return pair


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    a_pair(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TTSOLVE_HOME with the pairs `tiny` and `small`, and no carried ones."""
    monkeypatch.setenv("TTSOLVE_HOME", str(tmp_path))
    monkeypatch.setattr(paths, "carried_pairs", lambda: tmp_path / "none")
    for name in ("tiny", "small"):
        a_pair(tmp_path / "models" / name, name)
    return tmp_path


def edit(folder: Path, old: str, new: str) -> None:
    file = folder / "pair.toml"
    text = file.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in\n{text}"
    file.write_text(text.replace(old, new))


# --- reading and writing ----------------------------------------------------------------------


def test_a_written_pair_as_text(folder: Path) -> None:
    assert (
        (folder / "pair.toml").read_text()
        == f'''\
name = "tiny"
about = "A pair for tests."

[generator]
file = "generator.gguf"
sha256 = "{sha(b"GGUF")}"

[verifier]
file = "verifier.onnx"
sha256 = "{sha(b"ONNX")}"
tokenizer = "tokenizer.json"
tokenizer_sha256 = "{sha(b"{}")}"
aggregation = "min"

[world]
name = "Testland"
about = "Nothing but tests."

[prompt]
template = "{{question}}\\n"
separator = "\\n"
answer = "Answer:"
full_stop = false
chat = false
system = ""
stop = []

[sampling]
temperature = 0.7
top_k = 0
top_p = 1.0
min_p = 0.0
max_tokens = 200

[measured]
pass_at_1 = 0.4

[measured."by subject"]
games = [0.25, 0.5]
'''
    )


texts = st.text(st.characters(exclude_categories=["Cs"]))
filled = texts.filter(bool)
plain = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts
dated = st.dates() | st.datetimes() | st.times()
values = st.recursive(
    plain | dated,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
prompts = st.builds(
    PromptFormat,
    st.builds("{}{{question}}{}".format, texts, texts),
    separator=filled,
    answer=filled,
)
samplings = st.builds(
    Sampling,
    temperature=st.floats(0, 99),
    top_k=st.integers(0, 100),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 0.99),
    max_tokens=st.integers(1, 4096),
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    about=texts,
    prompt=prompts,
    sampling=samplings,
    measured=st.dictionaries(texts, values, max_size=3),
    world=st.none() | st.builds(World, texts, texts),
    with_verifier=st.booleans(),
)
def test_what_is_written_is_read_back(
    folder: Path,
    about: str,
    prompt: PromptFormat,
    sampling: Sampling,
    measured: dict[str, object],
    world: World | None,
    with_verifier: bool,
) -> None:
    whole = a_pair(folder)
    pair = dataclasses.replace(
        whole if with_verifier else dataclasses.replace(whole, verifier=None),
        about=about,
        prompt=prompt,
        sampling=sampling,
        measured=measured,
        world=world,
    )
    write_pair(pair)
    assert load_pair(folder, verify=False) == pair


def test_keys_left_out_have_their_defaults(folder: Path) -> None:
    digest = sha(b"GGUF")
    (folder / "pair.toml").write_text(
        'name = "tiny"\nabout = "Least."\n'
        f'[generator]\nfile = "generator.gguf"\nsha256 = "{digest}"\n'
    )
    least = Pair(folder, "tiny", "Least.", GeneratorFile("generator.gguf", digest))
    assert load_pair(folder) == least
    assert (least.verifier_path, least.tokenizer_path, least.world) == (None, None, None)
    assert (least.prompt, least.sampling) == (PromptFormat(), Sampling())


def test_a_whole_number_is_a_number(folder: Path) -> None:
    edit(folder, "temperature = 0.7", "temperature = 1")
    assert load_pair(folder).sampling.temperature == 1.0


def test_a_pair_knows_where_its_files_are(folder: Path) -> None:
    pair = load_pair(folder)
    assert pair.generator_path == folder / "generator.gguf"
    assert pair.verifier_path == folder / "verifier.onnx"
    assert pair.tokenizer_path == folder / "tokenizer.json"


def test_a_pair_that_cannot_be_written_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "blocked" / "pair.toml").mkdir(parents=True)
    blocked = dataclasses.replace(load_pair(folder), folder=tmp_path / "blocked")
    with pytest.raises(StorageError, match=r"^Cannot write .*pair\.toml \(.+\): make room"):
        write_pair(blocked)
    assert list((tmp_path / "blocked").iterdir()) == [tmp_path / "blocked" / "pair.toml"]


# --- finding ----------------------------------------------------------------------------------


def test_pairs_are_found_by_name_and_by_folder(home: Path) -> None:
    assert load_pair("small") == load_pair(home / "models" / "small")
    assert load_pair(str(home / "models" / "small")) == load_pair("small")
    assert [pair.name for pair in list_pairs()] == ["small", "tiny"]


def test_a_broken_pair_is_told_and_the_others_are_listed(home: Path) -> None:
    (home / "models" / "small" / "pair.toml").write_text("name = 1\n")
    heard: list[PairError] = []
    assert [pair.name for pair in list_pairs(heard.append)] == ["tiny"]
    assert [str(error).partition(": ")[0] for error in heard] == [
        str(home / "models" / "small" / "pair.toml")
    ]
    with pytest.raises(PairError):
        list_pairs()


def test_the_users_pair_hides_the_carried_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "carried_pairs", lambda: home / "carried")
    a_pair(home / "carried" / "tiny", "tiny")
    a_pair(home / "carried" / "third", "third")
    assert [pair.folder.relative_to(home).as_posix() for pair in list_pairs()] == [
        "models/small",
        "carried/third",
        "models/tiny",
    ]


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("tinny", "use 'tiny', or put it into "), ("huge", "use 'small' or 'tiny', or put it into ")],
)
def test_an_unknown_name(home: Path, name: str, remedy: str) -> None:
    with pytest.raises(PairError) as caught:
        load_pair(name)
    place = home / "models" / name
    assert str(caught.value) == f"There is no pair {name!r}: {remedy}{place}."


def test_a_folder_of_that_name_is_no_pair_of_that_name(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_pair(tmp_path / "here" / "mine", "mine")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(PairError, match=r"^There is no pair 'mine', but .*: use \./mine\.$"):
        load_pair("mine")
    assert load_pair("./mine").name == "mine"


def test_no_pair_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTSOLVE_HOME", str(tmp_path))
    monkeypatch.setattr(paths, "carried_pairs", lambda: tmp_path / "none")
    assert list_pairs() == []
    with pytest.raises(PairError, match=r"^There is no pair 'tiny': put it into .*tiny\.$"):
        load_pair("tiny")


def test_a_folder_and_its_pair_have_one_name(home: Path) -> None:
    (home / "models" / "tiny").rename(home / "models" / "other")
    with pytest.raises(PairError, match=r"name is not 'other', the name of its folder: make them"):
        load_pair("other")
    assert load_pair(home / "models" / "other").name == "tiny"


def test_a_bare_generator(tmp_path: Path) -> None:
    gguf = tmp_path / "Qwen2.5-0.5B.q8_0.gguf"
    with pytest.raises(ModelError, match=r"There is no file .*gguf: give the path"):
        bare_pair(gguf)
    gguf.write_bytes(b"GGUF")
    pair = bare_pair(gguf)
    assert (pair.name, pair.verifier, pair.generator_path) == ("Qwen2.5-0.5B.q8_0", None, gguf)


# --- what is wrong ----------------------------------------------------------------------------

WRONG = [
    # in the file, instead, the sentence after "…/pair.toml: "
    ("[sampling]", "[samplings]", "samplings is not a known key: use 'sampling', or remove it."),
    ("top_p", "top_b", "sampling.top_b is not a known key: use 'top_p', or remove it."),
    ('[world]\nname = "Testland"', "[world]", "world.name is missing: add it."),
    ('about = "A pair for tests."\n', "", "about is missing: add it."),
    ('tokenizer = "tokenizer.json"\n', "", "verifier.tokenizer is missing: add it."),
    ('"A pair for tests."', "5", "about is 5: write a text in quotes."),
    ("0.7", '"warm"', "sampling.temperature is 'warm': write a number."),
    ("top_k = 0", "top_k = 0.5", "sampling.top_k is 0.5: write a whole number."),
    ("top_p = 1.0", "top_p = true", "sampling.top_p is True: write a number."),
    ('"min"', '"mean"', "verifier.aggregation is 'mean': write 'last' or 'min' or 'prod'."),
    ('"min"', "[]", "verifier.aggregation is []: write 'last' or 'min' or 'prod'."),
    ("[prompt]", "[[prompt]]", "prompt is [{…}]: write a table."),
    ('"verifier.onnx"', '"a.onnx"', "verifier.file names a file that is not there: put 'a.onnx' …"),
]
IMPOSSIBLE = [
    # in the file, instead, the key, what would be possible
    ('name = "tiny"', 'name = "../tiny"', "name", "letters, digits, - _ . only"),
    (sha(b"ONNX"), "abc", "verifier.sha256", "64 hexadecimal digits"),
    (sha(b"GGUF"), "é" * 64, "generator.sha256", "64 hexadecimal digits"),
    (sha(b"{}"), "", "verifier.tokenizer_sha256", "64 hexadecimal digits"),
    ("{question}", "{problem}", "prompt.template", "a text with {question} in it"),
    (r'separator = "\n"', 'separator = ""', "prompt.separator", "a text that ends a step"),
    ('"Answer:"', '""', "prompt.answer", "a text that marks the answer"),
    ("0.7", "-1", "sampling.temperature", "a number from 0 to 100"),
    ("0.7", "inf", "sampling.temperature", "a number from 0 to 100"),
    ("0.7", "nan", "sampling.temperature", "a number from 0 to 100"),
    ("top_k = 0", "top_k = -1", "sampling.top_k", "0 (off) to 16777216"),
    ("top_k = 0", f"top_k = {'9' * 20}", "sampling.top_k", "0 (off) to 16777216"),
    ("top_p = 1.0", "top_p = 0", "sampling.top_p", "a number above 0, at most 1 (off)"),
    ("min_p = 0.0", "min_p = 1.0", "sampling.min_p", "a number from 0 (off), below 1"),
    ("max_tokens = 200", "max_tokens = 0", "sampling.max_tokens", "1 to 16777216"),
    ("max_tokens = 200", f"max_tokens = {'9' * 20}", "sampling.max_tokens", "1 to 16777216"),
    ("[verifier]", "context = 0\n[verifier]", "generator.context", "1 to 16777216"),
    ("[verifier]", "context = 16777217\n[verifier]", "generator.context", "1 to 16777216"),
    ('"generator.gguf"', '"http://"', "generator.file", "http://HOST/v1, with a host"),
    ('"generator.gguf"', '"https:///v1"', "generator.file", "http://HOST/v1, with a host"),
    ("stop = []", 'stop = [""]', "prompt.stop", "texts that are not empty"),
    ("stop = []", 'stop = ["a", ""]', "prompt.stop", "texts that are not empty"),
    ('system = ""', 'system = "Be brief."', "prompt.system", 'chat = true with it, or ""'),
]


def complaint(folder: Path) -> str:
    """What `load_pair` says after the file's name."""
    with pytest.raises(PairError) as caught:
        load_pair(folder)
    return str(caught.value).removeprefix(f"{folder / 'pair.toml'}: ")


@pytest.mark.parametrize(("old", "new", "sentence"), WRONG)
def test_one_sentence_for_what_is_wrong(folder: Path, old: str, new: str, sentence: str) -> None:
    edit(folder, old, new)
    pattern = re.escape(sentence).replace("…", ".+")
    assert re.fullmatch(pattern, complaint(folder))


@pytest.mark.parametrize(("old", "new", "key", "possible"), IMPOSSIBLE)
def test_an_impossible_value(folder: Path, old: str, new: str, key: str, possible: str) -> None:
    edit(folder, old, new)
    assert complaint(folder) == f"{key} has an impossible value: give {possible}."


def test_a_run_s_own_settings_are_no_keys(folder: Path) -> None:
    edit(folder, "top_k = 0", "seed = 1")
    assert complaint(folder) == (
        "sampling.seed is not a known key: use 'temperature' or 'top_k' or 'top_p' or 'min_p'"
        " or 'max_tokens', or remove it."
    )


@pytest.mark.parametrize(
    "path",
    ["../generator.gguf", "/etc/passwd", "a/../../b", "", ".", "..\\\\b", "C:\\\\b", "\\\\b"],
)
def test_a_pairs_files_are_inside_its_folder(folder: Path, path: str) -> None:
    edit(folder, '"generator.gguf"', f'"{path}"')
    trouble = "generator.file has an impossible value: give a file inside the pair's folder."
    assert complaint(folder) == trouble


def test_a_file_in_a_subfolder(folder: Path) -> None:
    (folder / "q8").mkdir()
    (folder / "generator.gguf").rename(folder / "q8" / "generator.gguf")
    edit(folder, '"generator.gguf"', '"q8/generator.gguf"')
    assert load_pair(folder).generator_path.read_bytes() == b"GGUF"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("generator.file", "generator.gguf"),
        ("verifier.file", "verifier.onnx"),
        ("verifier.tokenizer", "tokenizer.json"),
    ],
)
def test_a_changed_file(folder: Path, key: str, name: str) -> None:
    (folder / name).write_bytes(b"other")
    assert complaint(folder) == (
        f"{key} names {name!r}, whose sha256 is another:"
        f" restore the file, or write {file_sha256(folder / name)} if you trust it."
    )
    assert load_pair(folder, verify=False).name == "tiny"


def test_large_files_are_hashed_when_asked_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "generator.gguf").write_bytes(b"other")
    monkeypatch.setattr("ttsolve.pair.WHOLE", 4)
    pair = load_pair(folder)
    with pytest.raises(PairError, match=r"generator\.file names 'generator\.gguf', whose sha256"):
        verify_files(pair)


def test_an_endpoint_needs_no_file(folder: Path) -> None:
    edit(folder, '"generator.gguf"', '"http://localhost:8000/v1"')
    edit(folder, f'sha256 = "{sha(b"GGUF")}"', 'model = "dice"')
    generator = load_pair(folder).generator
    assert (generator.endpoint, generator.model) == ("http://localhost:8000/v1", "dice")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [(b"name = ", r"is not TOML \(Invalid value"), (b'name = "\xff"', r"is not TOML \('utf-8'")],
)
def test_a_file_that_is_not_toml(folder: Path, data: bytes, sentence: str) -> None:
    (folder / "pair.toml").write_bytes(data)
    with pytest.raises(PairError, match=sentence):
        load_pair(folder)


def test_a_folder_without_a_pair(tmp_path: Path) -> None:
    with pytest.raises(PairError, match=r"^Cannot read .*pair\.toml \(No such file .*name the fol"):
        load_pair(tmp_path)


def test_written_toml_is_toml(folder: Path) -> None:
    assert tomllib.loads((folder / "pair.toml").read_text())["sampling"]["max_tokens"] == 200


# --- a reviser --------------------------------------------------------------------------------


@pytest.fixture
def revising(folder: Path) -> Pair:
    (folder / "reviser.gguf").write_bytes(b"GGUF, too")
    (folder / "revision-verifier.onnx").write_bytes(b"ONNX, too")
    pair = load_pair(folder)
    assert pair.verifier is not None
    verifier = dataclasses.replace(
        pair.verifier, file="revision-verifier.onnx", sha256=sha(b"ONNX, too")
    )
    pair = dataclasses.replace(
        pair, reviser=ReviserFiles("reviser.gguf", sha(b"GGUF, too"), verifier)
    )
    write_pair(pair)
    return pair


def test_a_pair_with_a_reviser(revising: Pair) -> None:
    assert load_pair(revising.folder) == revising
    assert revising.reviser_path == revising.folder / "reviser.gguf"
    bare = dataclasses.replace(revising, reviser=ReviserFiles("reviser.gguf", sha(b"GGUF, too")))
    write_pair(bare)
    assert load_pair(bare.folder) == bare


@pytest.mark.parametrize(
    ("name", "key"),
    [("reviser.gguf", "reviser.file"), ("revision-verifier.onnx", "reviser.verifier.file")],
)
def test_the_files_of_a_reviser_are_checked(revising: Pair, name: str, key: str) -> None:
    (revising.folder / name).write_bytes(b"other")
    assert complaint(revising.folder).startswith(f"{key} names {name!r}, whose sha256 is another:")
    (revising.folder / name).unlink()
    assert complaint(revising.folder).startswith(f"{key} names a file that is not there:")


def test_samples_and_revisions_are_compared_in_one_vote(revising: Pair) -> None:
    file = revising.folder / "pair.toml"
    before, _, after = file.read_text().rpartition('aggregation = "min"')
    file.write_text(f'{before}aggregation = "last"{after}')
    assert complaint(revising.folder) == (
        "reviser.verifier.aggregation has an impossible value: give 'min', as the verifier has."
    )
