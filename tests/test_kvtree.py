"""The bookkeeping of prefixes over sequences, as drawn tables."""

from __future__ import annotations

import numpy as np
import pytest

from ttsolve.engines.kvtree import KVTree, Place

CONTEXT = 12


def ids(text: str) -> np.ndarray:
    return np.array([ord(letter) for letter in text], np.int32)


def tree_of(*texts: str, cells: int | None = None) -> KVTree:
    tree = KVTree(len(texts), CONTEXT, cells)
    for sequence, text in enumerate(texts):
        write(tree, sequence, text)
    return tree


def write(tree: KVTree, sequence: int, text: str) -> None:
    start = tree.length[sequence]
    at = np.arange(start, start + len(text), dtype=np.int32)
    tree.extend(np.full(len(text), sequence, np.int32), ids(text), at)


def picture(tree: KVTree) -> list[str]:
    return ["".join(map(chr, row[:n])) for row, n in zip(tree.tokens, tree.length, strict=True)]


FREE = np.array([True, True, True])


@pytest.mark.parametrize(
    ("held", "free", "prefix", "place"),
    [
        # held by each sequence   free       wanted   goes to, copied from, tokens reused
        (("", "", ""), "111", "abc", Place(0, None, 0)),  # nothing to share
        (("ab", "", ""), "111", "abc", Place(0, None, 2)),  # grown in place
        (("abx", "q", ""), "111", "abc", Place(0, None, 2)),  # oldest, and it shares most
        (("q", "abx", ""), "111", "abc", Place(0, 1, 2)),  # the oldest gives way to a copy
        (("q", "abx", "ab"), "111", "abc", Place(2, None, 2)),  # nothing copied, nothing lost
        (("abc", "q", "r"), "011", "abc", Place(1, 0, 3)),  # a running sequence is a source too
        (("abc", "q", "r"), "001", "ab", Place(2, 0, 2)),  # a part of it
        (("abcd", "ab", "r"), "110", "abcdef", Place(0, None, 4)),  # the longest counts
        (("ab", "ab", "ab"), "010", "ab", Place(1, None, 2)),
    ],
)
def test_where_a_prefix_goes(held: tuple[str, ...], free: str, prefix: str, place: Place) -> None:
    tree = tree_of(*held)
    assert tree.place(ids(prefix), np.array([flag == "1" for flag in free])) == place


def test_stale_tokens_behind_the_end_are_not_shared() -> None:
    tree = tree_of("abcd", "")
    tree.trim(0, 2)
    assert tree.common(ids("abcd")).tolist() == [2, 0]


def test_take_forks_and_the_source_stays() -> None:
    tree = tree_of("abx", "qqq", "r")
    tree.take(Place(1, 0, 2))
    write(tree, 1, "cd")
    assert picture(tree) == ["abx", "abcd", "r"]


def test_the_least_recently_used_gives_way() -> None:
    tree = tree_of("a", "b", "c")
    tree.touch(0)
    tree.touch(1)
    assert tree.place(ids("z"), FREE).sequence == 2
    tree.touch(2)
    assert tree.place(ids("z"), FREE).sequence == 0


def test_shared_cells_count_once_and_come_back_with_their_last_owner() -> None:
    tree = tree_of("abcd", "", "", cells=10)
    assert tree.spare == 6
    tree.take(Place(1, 0, 4))
    tree.take(Place(2, 0, 3))
    assert tree.spare == 6
    write(tree, 1, "e")
    assert tree.spare == 5
    tree.trim(0, 0)
    assert tree.spare == 5  # the forks hold all of it
    tree.trim(1, 0)
    assert tree.spare == 7  # "d" and "e"
    tree.trim(2, 0)
    assert tree.spare == 10


def test_an_empty_prefix_shares_nothing() -> None:
    assert tree_of("ab", "").common(ids("")).tolist() == [0, 0]
