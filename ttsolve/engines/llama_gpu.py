"""What llama.cpp can do with a GPU."""

from __future__ import annotations

import llama_cpp


def offloads() -> bool:
    """True when llama-cpp-python was built for a GPU, and sees one."""
    return bool(llama_cpp.llama_supports_gpu_offload())
