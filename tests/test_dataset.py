"""Reading problems: pictures of each format and data set, and laws for any bytes at all."""

from __future__ import annotations

import io
import json
import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttsolve.answers import extract, same
from ttsolve.dataset import LINE_LIMIT, Entry, read
from ttsolve.errors import UsageError
from ttsolve.fields import BadRecord, Fields, id_in, problem_in

PUBLISHED = Path(__file__).parent.parent.parent / "shared" / "data"
needs_published = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="the published data sets are not beside the checkout"
)


def entries(data: str | bytes, name: str = "stdin", **how: object) -> list[Entry]:
    data = data.encode() if isinstance(data, str) else data
    return list(read(io.BytesIO(data), name, **how))  # type: ignore[arg-type]


def seen(data: str | bytes, name: str = "stdin", **how: object) -> list[tuple[int, str]]:
    """(line, question or error) of each entry."""
    return [
        (entry.line, entry.problem.question if entry.problem else f"! {entry.error}")
        for entry in entries(data, name, **how)
    ]


# --- formats ----------------------------------------------------------------------------------

NOT_UTF8 = "! The line is not UTF-8 text: convert it."
NUL = "! The question has a NUL character: is the file a text?"
TOO_LONG = "! The line is longer than 1,048,576 bytes: shorten it."


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n \r\n\t\n", []),
        (b"one", [(1, "one")]),
        (b"one\ntwo\n", [(1, "one"), (2, "two")]),
        (b"\n one \r\n\r\ntwo\r\n", [(2, "one"), (4, "two")]),
        (b"one\rtwo\r\r three\r\nfour\n\rfive\r",
         [(1, "one"), (2, "two"), (4, "three"), (5, "four"), (7, "five")]),
        (b"\r" * 70_000 + b"one\r" + b"x" * 2_000_000 + b"\rtwo",
         [(70_001, "one"), (70_002, TOO_LONG), (70_003, "two")]),
        (b"\xef\xbb\xbfone\n\xef\xbb\xbftwo", [(1, "one"), (2, "two")]),
        (b"a\n\xff\xfe\nb", [(1, "a"), (2, NOT_UTF8), (3, "b")]),
        (b"a\0\nb", [(1, NUL), (2, "b")]),
        (b"a\n" + b"x" * 10_000_000 + b"\nb", [(1, "a"), (2, TOO_LONG), (3, "b")]),
        (b"x" * 10_000_000, [(1, TOO_LONG)]),
        ("ünï\u2028cødé".encode(), [(1, "ünï\u2028cødé")]),
        (b"Which of 1, 2, 3 is odd?\nquestion, answer", [(1, "Which of 1, 2, 3 is odd?"),
                                                         (2, "question, answer")]),
    ],
)  # fmt: skip
def test_text_has_a_question_a_line(data: bytes, expected: list[tuple[int, str]]) -> None:
    assert seen(data) == seen(data, "x.txt") == expected


MEND = "mend it, or tell `ttsolve batch` by --format what the file is"


def test_json_lines() -> None:
    lines = [
        '{"question": "a\\nb"}',
        "",
        '{"question": "cut off',
        "[1]",
        '{"other": 1, "third": 2}',
        '{"question": 7}',
        '{"question": " "}',
        '{"question": "\\u0000"}',
        '{"question": "\\ud800"}',
        '{"question": "raw \0 byte"}',
        "[" * 100_000,
        '{"id": %s, "question": "q"}' % ("9" * 5000),
        '{"id": "last", "question": "z"}',
    ]
    found = seen("\n".join(lines))
    assert seen("\r".join(lines)) == found
    assert [line for line, _ in found] == [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]
    assert found[0] == (1, "a\nb")
    assert found[-1] == (13, "z")
    starts = [
        *("The line is no JSON (Unterminated", "The line is no JSON object", "No field holds"),
        *("The question is not a text", "The question is empty", "The question has a NUL"),
        *("The question has half", "The line is no JSON (Invalid control", "The line is JSON bey"),
        "The line is JSON beyond all bounds",
    ]
    for (_, text), start in zip(found[1:-1], starts, strict=True):
        assert text.startswith(f"! {start}")
    assert "there are: other, third" in found[3][1]
    assert found[1][1].endswith(f"): {MEND}.")


def test_csv() -> None:
    data = (
        b'\xef\xbb\xbfID,Question,Answer\r\n1,"two\r\n\r\nlines",3\r\n\r\n2,short\r\n3,"x"y,1\r\n'
        b'4,\xff,2\r\n5,"say ""hi""",1\r\n6,"open,1\r\n'
    )
    assert seen(data) == seen(data, "x.csv") == [
        (2, "two\r\n\r\nlines"),
        (6, "! The record has 2 cells and the header 3: mend it."),
        (7, f"! This is no CSV (line 7: ',' expected after '\"'): {MEND}."),
        (8, "! The record is not UTF-8 text: convert it."),
        (9, 'say "hi"'),
        (10, f"! This is no CSV (line 10: unexpected end of data): {MEND}."),
    ]  # fmt: skip
    assert [entry.id for entry in entries(data)] == ["1", 6, 7, 8, "5", 10]
    assert seen(data.replace(b"\r\n", b"\n").replace(b"\n", b"\r"), "x.csv")[3:5] == [
        (8, "! The record is not UTF-8 text: convert it."),
        (9, 'say "hi"'),
    ]
    long = b"question,answer\n" + b"x" * 5_000_000 + b",1\nb,2\n"
    assert [line for line, _ in seen(long)] == [2, 3]
    assert seen(long)[1] == (3, "b")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_of_every_country(delimiter: str) -> None:
    data = "problem,answer\na,2\n".replace(",", delimiter)
    assert seen(data) == seen(data, "x.csv") == [(2, "a")]


@pytest.mark.parametrize(
    ("data", "name", "sentence"),
    [
        (b"\xff\xfeo\0n\0e\0", "x.txt", "x.txt is UTF-16 text: convert it"),
        (b"PAR1....", "x", "x is a Parquet file"),
        (b"\x1f\x8b\x08", "x.jsonl.gz", "is compressed"),
        (b'[\n{"question": "a"}\n]', "stdin", "one JSON array: make a line of each record"),
        (b'[{"question": "a"}]', "x.json", "one JSON array"),
        (b"a,b\n1,2\n", "x.csv", "No column of x.csv holds the question (there are: a, b)"),
        (b'"a\n', "x.csv", "does not begin with a CSV header"),
    ],
)
def test_a_file_that_is_of_no_use(data: bytes, name: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        entries(data, name)
    assert sentence in str(caught.value)


def test_the_format_may_be_named() -> None:
    line = '{"question": "a"}\n'
    assert seen(line, kind="text") == [(1, line.strip())]
    assert seen("bad\n" + line, "x.jsonl")[1] == (2, "a")
    assert seen("problem,n\na,2\n", kind="text") == [(1, "problem,n"), (2, "a,2")]


# --- fields -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "question", "reference"),
    [
        ({"question": "Q", "answer": "It is 40 + 2.\n#### 42"}, "Q", "42"),  # GSM8K
        ({"problem": "Q", "solution": r"\boxed{1}", "answer": r"\frac12"}, "Q", r"\frac12"),
        (
            {"problem": "Q", "level": "Level 2", "solution": r"so $\boxed{\pi}$"},
            "Q",
            r"\pi",
        ),  # MATH
        ({"problem": "Q", "solution": "it follows"}, "Q", None),
        ({"Body": "B.", "Question": "Q?", "Answer": 145.0, "Equation": "( 1 )"}, "B. Q?", "145.0"),
        ({"body": "B.", "question": "Q?", "answer": "9 (apples)"}, "B. Q?", "9"),  # ASDiv
        ({"question": "Q", "answer": "3 (mod 7)"}, "Q", "3 (mod 7)"),
        ({"sQuestion": "Q", "lSolutions": [12.0]}, "Q", "12.0"),  # MAWPS
        ({"question": "Q", "final_ans": "5"}, "Q", "5"),  # MultiArith
        ({"input": "Q", "code": "…", "target": 7}, "Q", "7"),  # GSM-Hard
        ({"Problem": "Q", "Answer": 204}, "Q", "204"),  # AIME
        ({"question": "Q", "answer": None, "answer_number": 18}, "Q", "18"),  # MGSM
        ({"question": "Q", "final_answer": ["2"]}, "Q", "2"),  # OlympiadBench
        ({"question": "Q", "answer": {"a": 1}}, "Q", None),
        ({"question": "Q", "answer": ""}, "Q", None),
        ({"question": "Q", "answer": math.nan}, "Q", None),
        ({"question": "Q", "answer": 10**400}, "Q", str(10**400)),
        ({"question": "Q"}, "Q", None),
    ],
)
def test_the_fields_of_known_data_sets(
    record: dict[str, object], question: str, reference: str | None
) -> None:
    problem = problem_in(record)
    assert (problem.question, problem.reference, problem.check) == (question, reference, None)


def test_our_own_data_names_its_checker() -> None:
    hand = {"problem": "Make 24 from 1, 1, 1, 8.", "reference": "24: 1 1 1 8", "check": "countdown"}
    problem = problem_in(hand)
    assert (problem.reference, problem.check) == ("24: 1 1 1 8", "countdown")
    assert problem_in({"question": "Q", "check": "yes", "answer": 1}).check is None
    for wrong in ({"check": "guess"}, {"reference": "24 from 1 1 1 8"}):
        with pytest.raises(BadRecord):
            problem_in({**hand, **wrong})


def test_named_fields() -> None:
    record = {"question": "no", "Text": "Q", "answer": 1, "key": "#### 2"}
    problem = problem_in(record, Fields("Text", "key"))
    assert (problem.question, problem.reference) == ("Q", "2")
    for named in (Fields("text"), Fields(None, "nosuch")):
        with pytest.raises(BadRecord, match="there are: question, Text, answer, key"):
            problem_in(record, named)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"id": "a"}, "a"),
        ({"ID": 7}, 7),
        ({"unique_id": "test/1"}, "test/1"),
        ({"id": None, "idx": 0}, 0),
        ({"id": True}, None),
        ({"id": [1]}, None),
        ({}, None),
    ],
)
def test_a_record_has_its_own_id(record: dict[str, object], expected: str | int | None) -> None:
    assert id_in(record) == expected
    (entry,) = entries(json.dumps({**record, "question": "Q"}))
    assert entry.id == (1 if expected is None else expected)


# --- laws -------------------------------------------------------------------------------------


class Slow(io.BytesIO):
    """Gives a few bytes at a time, as a pipe may."""

    def __init__(self, data: bytes, size: int):
        super().__init__(data)
        self.size = size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self.size)


PIECES = st.sampled_from(
    [b"{", b"}", b'"', b"question", b":", b",", b"\n", b"\r\n", b"\r", b"\\", b"\xff", b"\0", b"7",
     b"[", b'{"question": "a"}\n', b"question,answer\n", b"\xef\xbb\xbf", "é".encode(), b" "]
)  # fmt: skip


@given(
    st.lists(PIECES, max_size=30).map(b"".join) | st.binary(max_size=60),
    st.sampled_from(["stdin", "x.jsonl", "x.csv"]),
    st.integers(1, 7),
)
def test_any_bytes_give_entries_in_order_however_they_arrive(
    data: bytes, name: str, size: int
) -> None:
    try:
        whole = list(read(io.BytesIO(data), name))
    except UsageError:
        return
    assert list(read(Slow(data, size), name)) == whole
    lines = [entry.line for entry in whole]
    assert lines == sorted(set(lines))
    assert all((entry.problem is None) != (entry.error is None) for entry in whole)


class Endless:
    """One line without an end, then nothing."""

    def __init__(self, chunks: int):
        self.left = chunks

    def read(self, size: int, /) -> bytes:
        self.left -= 1
        return b"x" * size if self.left >= 0 else b""


def test_memory_does_not_grow_with_a_line() -> None:
    tracemalloc.start()
    try:
        (entry,) = read(Endless(chunks=1600), "stdin")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert entry.error
    assert peak < 4 * LINE_LIMIT


def test_nothing_is_read_before_it_is_needed() -> None:
    source = Slow(b"one\ntwo\n" + b"more\n" * 1000, 4)
    found = read(source, "stdin")
    assert next(found).problem
    assert source.tell() <= 8


# --- published data ---------------------------------------------------------------------------


def published(name: str) -> Iterator[Entry]:
    with (PUBLISHED / name).open("rb", buffering=0) as file:
        yield from read(file, name)


@needs_published
@pytest.mark.parametrize(("name", "count"), [("gsm8k_test.jsonl", 1319), ("math500.jsonl", 500)])
def test_published_files_are_read_whole(name: str, count: int) -> None:
    found = list(published(name))
    assert len(found) == count
    assert all(entry.problem and entry.problem.reference for entry in found)
    if name.startswith("gsm8k"):
        assert all(float(str(e.problem and e.problem.reference).replace(",", "")) for e in found)


@needs_published
def test_published_solutions_are_graded_as_their_authors_graded_them() -> None:
    """Four model solutions for each problem of GSM8K. Where we differ, it is to be told here why:

    we do not differ.
    """
    differ, total = [], 0
    for line in (PUBLISHED / "gsm8k_model_solutions.jsonl").read_text("utf-8").splitlines():
        record = json.loads(line)
        reference = extract(record["ground_truth"], "A:")
        for written in (value for value in record.values() if isinstance(value, dict)):
            answer = extract(written["solution"], "A:")
            right = None not in (reference, answer) and same(str(reference), str(answer))
            total += 1
            if right != written["is_correct"]:
                differ.append((reference, answer, written["is_correct"]))
    assert total == 5276
    assert differ == []
