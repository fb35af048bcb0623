"""Whether CUDA would load, asked without a word on the terminal."""

from __future__ import annotations

import ctypes
import sys


def gpu_found() -> bool:
    """True when NVIDIA's driver is there and sees a GPU."""
    driver = _load("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    if driver is None or driver.cuInit(0) != 0:
        return False
    count = ctypes.c_int(0)
    return driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def cuda_loads(version: str) -> bool:
    """True when the libraries of this CUDA ("13.0"), and cuDNN 9, load."""
    major = version.split(".", maxsplit=1)[0]
    names = {"cudart": major, "cublas": major, "cublasLt": major, "cudnn": "9"}
    if sys.platform == "win32":
        files = [f"{name}64_{number}.dll" for name, number in names.items()]
    else:
        files = [f"lib{name}.so.{number}" for name, number in names.items()]
    return all(_load(file) for file in files)


def _load(file: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(file)
    except OSError:
        return None
