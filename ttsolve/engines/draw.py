"""Tokens from logits: vectorised over the batch, and without state.

A draw depends on its logits, its settings and one number in [0, 1) hashed from (seed, position), so
what else is in the batch, or a resumed run, cannot change it. Draws from one distribution, which
differ in their seeds alone, compute it once. NumPy over blocks of rows that fit a
core's cache is faster here than one native sampler chain a sequence, for 600 tokens as for 150,000.
Rows of a large vocabulary are shared out among the cores: beside a GPU they would hold it up.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttsolve.engine import Sampling
from ttsolve.engines.threads import cores

BLOCK = 2**16  # logits handled at once: 256 kB, so that every pass over them stays in cache

FEW = 2  # rows of a block: for more, another thread would take longer to wake than to draw
BELOW_ONE = 1 - 2.0**-32  # a product with it cannot round up to the other factor

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Settings:
    """One row a draw; the meaning of each is that of `ttsolve.engine.Sampling`."""

    seed: NDArray[np.uint64]  # [n]
    temperature: Floats  # [n]
    top_k: Ints  # [n]
    top_p: Floats  # [n]
    min_p: Floats  # [n]

    @classmethod
    def empty(cls, n: int) -> Settings:
        """Room for `n` draws."""
        return cls(
            np.zeros(n, np.uint64),
            np.zeros(n, np.float32),
            np.zeros(n, np.int32),
            np.ones(n, np.float32),
            np.zeros(n, np.float32),
        )

    def put(self, row: int, how: Sampling) -> None:
        """Set one row."""
        self.seed[row] = how.seed
        self.temperature[row] = how.temperature
        self.top_k[row] = how.top_k
        self.top_p[row] = how.top_p
        self.min_p[row] = how.min_p

    def __getitem__(self, rows: object) -> Settings:
        return Settings(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def uniforms(seed: NDArray[np.uint64], position: Ints) -> Doubles:
    """One number in [0, 1) for each (32-bit seed, position): the splitmix64 hash of the two."""
    x = (seed << np.uint64(32)) ^ position.astype(np.uint64)
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    # 32 bits only, so that the largest is BELOW_ONE.
    return (x >> np.uint64(32)).astype(np.float64) * 2.0**-32


class Drawer:
    """Draws from one vocabulary. Not thread-safe: its scratch memory is used again and again.

    threads: for a vocabulary of which a block has few rows (None: all cores).
    """

    def __init__(self, vocabulary: int, threads: int | None = None) -> None:
        self._vocabulary = vocabulary
        self._rows = max(1, BLOCK // vocabulary)
        chunk = 32 if vocabulary < 4096 else 256
        threads = (threads or cores()) if self._rows <= FEW else 1
        # Zero behind the vocabulary, and never written there. One for each thread.
        size = (threads, self._rows, -(-vocabulary // chunk), chunk)
        self._scratch = np.zeros(size, np.float32)
        self._pool = ThreadPoolExecutor(threads, "ttsolve-draw") if threads > 1 else None

    def draw(
        self,
        logits: Floats,
        how: Settings,
        position: Ints,
        each: Ints | None = None,
        seed: NDArray[np.uint64] | None = None,
    ) -> Ints:
        """Tokens from rows of `logits` [n, vocabulary]: inverses of the cumulative distributions.

        Top-k, top-p and min-p cut the distribution at temperature 1, in that order, as llama.cpp
        does; the temperature comes last. Tokens as likely as the last one kept are kept too.

        how, position: of each row, [n]. each: how many draws there are from each row, one after
        the other [n], and `seed` [m] of each draw; None: one from each row.
        """
        n = len(logits)
        if each is None or seed is None:
            each, seed = np.ones(n, np.int32), how.seed
        row = np.repeat(np.arange(n), each)
        u = uniforms(seed, position[row])
        if n <= self._rows:
            return self._draw(logits, how, u, row, self._scratch[0]).astype(np.int32)
        out = np.empty(len(u), np.int32)
        parts = [slice(i, i + self._rows) for i in range(0, n, self._rows)]
        bounds = [0, *each.cumsum()[self._rows - 1 :: self._rows].tolist(), len(u)]

        def draw(scratch: Floats, worker: int) -> None:
            """The parts of one thread."""
            for i in range(worker, len(parts), len(self._scratch)):
                part, draws = parts[i], slice(bounds[i], bounds[i + 1])
                rows = row[draws] - part.start
                out[draws] = self._draw(logits[part], how[part], u[draws], rows, scratch)

        if self._pool:
            list(self._pool.map(draw, self._scratch, range(len(self._scratch))))
        else:
            draw(self._scratch[0], 0)
        return out

    def _draw(
        self, logits: Floats, how: Settings, u: Doubles, row: NDArray[np.intp], scratch: Floats
    ) -> NDArray[np.intp]:
        """One token for each of `u` [m], from that `row` [m] of `logits` [n, vocabulary]."""
        best: NDArray[np.intp] = logits.argmax(axis=1)
        sampled = how.temperature > 0
        if not sampled.any():
            return best[row]
        n = len(best)
        chunks = scratch[:n]
        x = chunks.reshape(n, -1)[:, : self._vocabulary]
        np.subtract(logits, logits[np.arange(n), best][:, None], out=x)  # the likeliest is at 0
        _cut(x, how)
        temperature = np.where(sampled, how.temperature, np.float32(1))
        if (temperature != 1).any():
            x /= temperature[:, None]
        np.exp(x, out=x)
        # First over sums of chunks, then inside one: a running sum over every weight would take
        # longer than all the rest.
        mass = chunks.sum(axis=2)
        total = mass.cumsum(axis=1, dtype=np.float64)[row]
        target = u * total[:, -1]
        chunk = _first_above(total, target)
        above = total[np.arange(len(row)), chunk] - target
        share = 1 - above / mass[row, chunk]  # of the chunk, to the target
        total = chunks[row, chunk].cumsum(axis=1, dtype=np.float64)
        token = _first_above(total, np.minimum(np.maximum(share, 0), BELOW_ONE) * total[:, -1])
        return np.where(sampled[row], chunk * chunks.shape[2] + token, best[row])


def _first_above(total: Doubles, target: Doubles) -> NDArray[np.intp]:
    """Where each row of `total` [n, k] first exceeds its `target` [n]."""
    which: NDArray[np.intp] = (total > target[:, None]).argmax(axis=1)
    return which


def _cut(x: Floats, how: Settings) -> None:
    """Set what top-k, top-p and min-p exclude to minus infinity; the largest of each row is 0."""
    vocabulary = x.shape[1]
    for i in np.flatnonzero((how.top_k > 0) | (how.top_p < 1)).tolist():
        row, k, p = x[i], how.top_k[i], how.top_p[i]
        if 0 < k < vocabulary:
            row[row < np.partition(row, vocabulary - k)[vocabulary - k]] = -np.inf
        if p < 1:
            weight = np.exp(row)
            total = float(weight.sum(dtype=np.float64))
            # All tokens at or below this weight together weigh less than 1 - p: none is needed.
            few = np.sort(weight[weight > (1 - p) * total / vocabulary])[::-1]
            enough = np.searchsorted(np.cumsum(few, dtype=np.float64), p * total)
            row[weight < few[min(int(enough), len(few) - 1)]] = -np.inf
    if how.min_p.any():
        with np.errstate(divide="ignore"):  # min_p 0: everything above minus infinity stays
            x[x < np.log(how.min_p)[:, None]] = -np.inf
