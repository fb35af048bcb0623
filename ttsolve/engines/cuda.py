"""What there is of CUDA here, asked of NVIDIA's own libraries without a word on the terminal."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU and its memory, in bytes."""

    name: str
    free: int
    total: int


@cache
def gpu_found() -> bool:
    """True when NVIDIA's driver is there and sees a GPU."""
    return _count(_driver()) > 0


def cards() -> list[Card]:
    """The GPUs that this process sees, with the memory that is free now."""
    driver = _driver()
    found = (_card(driver, place) for place in range(_count(driver)))
    return [card for card in found if card is not None]


def cuda_loads(version: str) -> bool:
    """True when the libraries of this CUDA ("13.0"), and cuDNN 9, load."""
    major = version.split(".", maxsplit=1)[0]
    names = {"cudart": major, "cublas": major, "cublasLt": major, "cudnn": "9"}
    if sys.platform == "win32":
        files = [f"{name}64_{number}.dll" for name, number in names.items()]
    else:
        files = [f"lib{name}.so.{number}" for name, number in {**names, "curand": "10"}.items()]
    return all(_load(file) for file in files)


def _driver() -> Any:
    """NVIDIA's driver, ready to be asked; None: it is not here or does not work."""
    driver = _load("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    return driver if driver is not None and driver.cuInit(0) == 0 else None


def _count(driver: Any) -> int:
    count = ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _card(driver: Any, place: int) -> Card | None:
    """The GPU at `place`; None when it does not answer."""
    device, context = ctypes.c_int(0), ctypes.c_void_p(0)
    free, total = ctypes.c_size_t(0), ctypes.c_size_t(0)
    name = ctypes.create_string_buffer(256)
    # The memory is told inside a context only. This one is not given back: it is the one that both
    # runtimes use later.
    failed = (
        driver.cuDeviceGet(ctypes.byref(device), place)
        or driver.cuDeviceGetName(name, len(name), device)
        or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
        or driver.cuCtxPushCurrent_v2(context)
    )
    if failed:
        return None
    failed = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    driver.cuCtxPopCurrent_v2(ctypes.byref(context))
    return None if failed else Card(name.value.decode(), free.value, total.value)


def _load(file: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(file)
    except OSError:
        return None
