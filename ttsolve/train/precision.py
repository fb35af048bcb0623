"""How exactly a training computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch


@cache
def fast_bf16() -> bool:
    """Whether this machine multiplies matrices faster in bfloat16 than in float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def mixed() -> torch.autocast:
    """A block whose matrix products run in bfloat16, where that is faster; weights stay float32."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(device, torch.bfloat16, enabled=fast_bf16())


@contextmanager
def flushed() -> Iterator[None]:
    """A block in which numbers too small to be normal count as 0: CPUs are slow at computing them.

    Not after it: in this thread Python's own floats, too, would go on losing them.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
