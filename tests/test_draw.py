"""Drawing tokens: the shares of the distribution, and independence of the batch."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from ttsolve.engine import Sampling
from ttsolve.engines.draw import Drawer, Settings, uniforms

LOGITS = np.log(np.array([0.4, 0.05, 0.3, 0.2, 0.05], np.float32))


def settings(*how: Sampling) -> Settings:
    out = Settings.empty(len(how))
    for row, sampling in enumerate(how):
        out.put(row, sampling)
    return out


def shares(how: Sampling, n: int = 5_000) -> np.ndarray:
    """How often each token of LOGITS is drawn, over `n` positions."""
    rows = np.tile(LOGITS, (n, 1))
    drawn = Drawer(len(LOGITS)).draw(rows, settings(*[how] * n), np.arange(n, dtype=np.int32))
    return np.bincount(drawn, minlength=len(LOGITS)) / n


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        # token:                              0     1     2     3     4
        (Sampling(), [0.4, 0.05, 0.3, 0.2, 0.05]),
        (Sampling(temperature=0), [1, 0, 0, 0, 0]),
        (Sampling(temperature=0.5), [0.542, 0.008, 0.305, 0.136, 0.008]),
        (Sampling(top_k=2), [0.571, 0, 0.429, 0, 0]),
        (Sampling(top_p=0.65), [0.571, 0, 0.429, 0, 0]),
        (Sampling(top_p=0.75), [0.444, 0, 0.333, 0.222, 0]),
        (Sampling(min_p=0.6), [0.571, 0, 0.429, 0, 0]),
        (Sampling(top_k=3, top_p=0.7), [0.571, 0, 0.429, 0, 0]),  # top-p of what top-k left
        (Sampling(min_p=0.6, temperature=0.5), [0.64, 0, 0.36, 0, 0]),  # the temperature last
        (Sampling(top_p=1e-9), [1, 0, 0, 0, 0]),
        (Sampling(top_k=1), [1, 0, 0, 0, 0]),
    ],
)
def test_shares_of_tokens(how: Sampling, expected: list[float]) -> None:
    # 0.03 is four standard deviations of a share over 5,000 draws; the seed is fixed.
    assert shares(how) == pytest.approx(expected, abs=0.03)


def test_a_draw_does_not_depend_on_its_batch() -> None:
    random = np.random.default_rng(1)
    for vocabulary in (7, 600, 100_000):  # below, at and above the block of rows
        logits = random.standard_normal((9, vocabulary)).astype(np.float32) * 3
        how = [
            Sampling(seed=i, temperature=i % 3 / 2, top_p=1 - i % 2 / 10, top_k=i % 4 * 5)
            for i in range(9)
        ]
        at = np.arange(9, dtype=np.int32) * 7
        together = Drawer(vocabulary).draw(logits, settings(*how), at)
        alone = [
            int(Drawer(vocabulary).draw(logits[i : i + 1], settings(how[i]), at[i : i + 1])[0])
            for i in range(9)
        ]
        assert together.tolist() == alone


@pytest.mark.parametrize("vocabulary", [7, 600, 100_000])
def test_draws_from_one_row_are_those_of_as_many_equal_rows(vocabulary: int) -> None:
    random = np.random.default_rng(3)
    logits = random.standard_normal((6, vocabulary)).astype(np.float32) * 3
    each = np.array([1, 5, 1, 40, 2, 3], np.int32)
    row = np.repeat(np.arange(6), each)
    seed = np.arange(len(row), dtype=np.uint64)
    kinds = [Sampling(temperature=i % 3 / 2, top_p=1 - i % 2 / 10, min_p=i / 50) for i in range(6)]
    how = settings(*(replace(kinds[r], seed=i) for i, r in enumerate(row)))
    at = np.arange(6, dtype=np.int32) * 7
    expected = Drawer(vocabulary).draw(logits[row], how, at[row]).tolist()
    for threads in 1, 3:
        drawer = Drawer(vocabulary, threads=threads)
        assert drawer.draw(logits, settings(*kinds), at, each, seed).tolist() == expected
    assert len(set(expected)) > 4


@pytest.mark.parametrize("rows", [1, 2, 3, 16])
def test_a_draw_does_not_depend_on_its_thread(rows: int) -> None:
    random = np.random.default_rng(2)
    logits = random.standard_normal((rows, 100_000)).astype(np.float32) * 3
    how = settings(*(Sampling(seed=i, temperature=0.5 + i % 2) for i in range(rows)))
    at = np.arange(rows, dtype=np.int32)
    alone = Drawer(100_000, threads=1).draw(logits, how, at).tolist()
    for threads in 2, 3, 5:
        drawer = Drawer(100_000, threads=threads)
        assert all(drawer.draw(logits, how, at).tolist() == alone for _ in range(2))


def test_no_more_threads_than_cores_that_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 3, 4, 7, 8}, raising=False)
    assert len(Drawer(100_000)._scratch) == 5


def test_uniforms_are_uniform_and_differ_by_seed_and_position() -> None:
    at = np.arange(4000, dtype=np.int32)
    some = uniforms(np.full(4000, 5, np.uint64), at)
    other = uniforms(np.full(4000, 6, np.uint64), at)
    assert some.min() >= 0
    assert some.max() < 1
    assert np.histogram(some, 10, (0, 1))[0].min() > 330
    assert abs(np.corrcoef(some, other)[0, 1]) < 0.06
    assert len(set(some) | set(other)) > 7990


def test_an_impossible_token_is_never_drawn() -> None:
    logits = np.full((1, 4), -np.inf, np.float32)
    logits[0, 2] = -40
    for seed in range(50):
        assert Drawer(4).draw(logits, settings(Sampling(seed=seed)), np.zeros(1, np.int32))[0] == 2
