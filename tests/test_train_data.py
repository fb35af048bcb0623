"""The shipped splits as files."""

from __future__ import annotations

import itertools
import json

import pytest

from ttsolve.errors import StorageError, UsageError
from ttsolve.grade import grade
from ttsolve.pocketmath import LEVELS, SUBJECTS, exercises, hands_of_24
from ttsolve.train import data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "new"
    assert [(file.name, count) for file, count in data.write_data(folder, 60, 40)] == [
        ("test.jsonl", 60),
        ("calibration.jsonl", 40),
        ("game24.jsonl", 1362),
    ]
    return folder


def test_written_twice_they_are_equal(folder, tmp_path) -> None:
    list(data.write_data(tmp_path, 60, 40))
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / file.name).read_bytes()
    assert len(list(folder.iterdir())) == 3


def test_problems_come_back(folder) -> None:
    drawn = [e.problem for e in data.draw_split("test", 60)]
    assert data.read_problems(folder / "test.jsonl") == drawn
    assert data.read_problems(folder / "game24.jsonl") == list(hands_of_24())


def test_a_smaller_split_is_the_beginning_of_a_larger_one() -> None:
    larger = list(data.draw_split("calibration", 40))
    assert list(data.draw_split("calibration", 15)) == larger[:15]


def test_a_split_may_be_of_some_subjects_and_levels_alone(tmp_path) -> None:
    list(data.write_data(tmp_path, 20, 10, ["worksheets", "coins"], [4, 5]))
    for split in ("test", "calibration"):
        cells = {(p.subject, p.level) for p in data.read_problems(tmp_path / f"{split}.jsonl")}
        assert cells <= {(s, level) for s in ("worksheets", "coins") for level in (4, 5)}
        assert {subject for subject, _ in cells} == {"worksheets", "coins"}
    with pytest.raises(UsageError, match=r"no subject 'sheets': use one of .*worksheets"):
        list(data.draw_split("test", 1, ["sheets"]))


def test_more_problems_than_there_are_end_in_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"^Only \d+ such problems of the test split were found"):
        list(data.draw_split("test", 100_000, ["countdown"], [1]))


def test_a_row_has_the_fields_of_math_500(folder) -> None:
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    problems = data.read_problems(folder / "test.jsonl")
    for row, problem in zip(rows, problems, strict=True):
        assert {"problem", "solution", "answer", "level", "subject"} <= row.keys()
        assert row["solution"].endswith(f"Answer: {row['answer']}\n")
        assert grade(problem, row["answer"])
    hand = json.loads((folder / "game24.jsonl").read_text().splitlines()[0])
    assert "solution" not in hand


def test_no_problem_of_a_file_is_trained_on(folder) -> None:
    trained = {e.problem.question for e in itertools.islice(exercises(0, "train"), 3000)}
    for name in ("test", "calibration", "game24"):
        problems = data.read_problems(folder / f"{name}.jsonl")
        assert not trained & {p.question for p in problems}


def test_weights_are_of_cells_that_exist() -> None:
    cells = {(s, level) for s in SUBJECTS for level in LEVELS}
    assert set(data.split_weights()) == set(data.label_weights()) == cells
    assert {*data.SHARES, *data.LABEL_SHARES} <= set(SUBJECTS)


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"^Cannot write .*: make room there or choose another"):
        list(data.write_data(tmp_path / "file", 1, 1))


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    list(data.write_data(tmp_path, 5, 5))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(part, text, **_) -> None:
        part.write_bytes(text[:10].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data.Path, "write_text", full)
    with pytest.raises(StorageError, match="No space left"):
        list(data.write_data(tmp_path, 6, 6))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_labels_may_be_of_some_subjects_alone() -> None:
    weights = data.label_weights(["countdown", "coins"])
    assert {subject for subject, _ in weights} == {"countdown", "coins"}
    assert weights.items() <= data.label_weights().items()
    with pytest.raises(UsageError, match=r"no subject 'cions': use one of .*coins"):
        data.label_weights(["coins", "cions"])
