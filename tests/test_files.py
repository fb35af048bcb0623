"""Whole files or none."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from ttsolve.errors import StorageError
from ttsolve.files import LinesFile, replacing, write_whole


def test_a_file_and_its_folders_are_made(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b.txt", "é\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "é\n".encode()
    assert [f.name for f in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_until_the_end_the_old_file_stands(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with replacing(file) as part:
        part.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"


def broken(file: Path, error: type[BaseException]) -> None:
    with replacing(file, "pray") as part:
        part.write_text("half")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_whatever_goes_wrong_leaves_the_old_file_alone(tmp_path: Path, error) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(StorageError if error is OSError else error):
        broken(file, error)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_sentence_names_problem_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"^Cannot write .*x \(.+\): pray\.$"):
        broken(tmp_path / "file" / "x", ValueError)


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
@pytest.mark.parametrize("there", [True, False])
def test_of_a_link_what_it_leads_to_is_replaced(tmp_path: Path, there: bool) -> None:
    (tmp_path / "far").mkdir()
    file, link = tmp_path / "far" / "a.txt", tmp_path / "link"
    link.symlink_to(file)
    if there:
        file.write_text("old")
    write_whole(link, "new")
    assert (link.is_symlink(), file.read_text()) == (True, "new")
    with replacing(link, follow=False) as part:
        part.write_text("mine")
    assert (link.is_symlink(), link.read_text(), file.read_text()) == (False, "mine", "new")
    assert sorted(f.name for f in tmp_path.rglob("*")) == ["a.txt", "far", "link"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_into_a_pipe_it_is_written_and_the_pipe_stays(tmp_path: Path) -> None:
    pipe, heard = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()), daemon=True)
    reader.start()
    write_whole(pipe, "new")
    reader.join(10)
    assert (heard, pipe.is_fifo(), list(tmp_path.iterdir())) == (["new"], True, [pipe])


class FullDisk:
    """A file on a disk that takes so many bytes and no more."""

    def __init__(self, file, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: memoryview) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self.file.write(data[: self.room])
        self.room -= written
        return written

    def __getattr__(self, name: str):
        return getattr(self.file, name)


@pytest.mark.parametrize(
    ("room", "left"),
    [(0, ""), (2, ""), (3, "ab\n"), (4, "ab\n"), (6, "ab\nü\n"), (11, "ab\nü\ncde\n")],
)
def test_on_a_full_disk_whole_lines_are_left(tmp_path: Path, room: int, left: str) -> None:
    file = tmp_path / "a.txt"
    file.write_text("what was there\n")

    def write(out: LinesFile) -> None:
        for line in ("ab\n", "ü\n", "cde\n", "f\n"):
            out.write(line)

    with LinesFile(file, "pray") as out:
        assert file.read_text() == "what was there\n"
        out._file = FullDisk(out._file, room)
        with pytest.raises(StorageError, match=r"^Cannot write .*txt \(No space .+\): pray\.$"):
            write(out)
    assert file.read_text() == left
