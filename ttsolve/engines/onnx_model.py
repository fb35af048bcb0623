"""ONNX Runtime as plain arrays: how a model is opened, and which threads and device run it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ttsolve.engines.cuda import cuda_loads, gpu_found
from ttsolve.engines.onnx_graph import stored_bytes
from ttsolve.engines.onnx_pool import KeyPool, Slot
from ttsolve.engines.threads import SMALL, cores
from ttsolve.errors import ModelError

Array = NDArray[Any]
Device = Literal["auto", "cpu", "cuda"]
# Scores are those of a CPU, so no shortened numbers; memory is taken as needed, not doubled.
CUDA = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxModel:
    """A model that may be run from several threads at once.

    threads: of the CPU (None: all cores). They share the work of one `run`; but of a small model
    each does a whole `run`, for there they would wait for each other. device: where to run ("auto":
    the GPU when its libraries load), and afterwards where it runs.

    Raises:
        ModelError: the file is missing or damaged, or the device "cuda" does not work here.
    """

    def __init__(self, path: Path, threads: int | None = None, device: Device = "auto") -> None:
        self.device = _choose(device)
        small = self.device == "cpu" and stored_bytes(path) < SMALL
        self._session = _open(path, 1 if small else threads, self.device)
        # Calls of a function that runs the model, in the order of its arguments: at once if small.
        self.map: Callable[..., Iterator[Any]] = (
            ThreadPoolExecutor(threads or cores(), "ttsolve-onnx").map if small else map
        )
        self._threads = threads
        self.inputs = {i.name for i in self._session.get_inputs()}
        # Of the keys and values that stand before: their shapes and types, by name.
        self.past = {
            i.name: (i.shape, TYPES[i.type])
            for i in self._session.get_inputs()
            if i.name.startswith("past.")
        }
        metadata = self._session.get_modelmeta().custom_metadata_map
        ours = (key for key in metadata if key.startswith("ttsolve."))
        self.notes = {key.removeprefix("ttsolve."): metadata[key] for key in ours}  # what we wrote

    def run(self, outputs: Sequence[str], feed: dict[str, Array]) -> list[Array]:
        """The outputs of these names."""
        out: list[Array] = self._session.run(outputs, feed)
        return out

    def pool(self, cells: int) -> KeyPool:
        """Room on the device for the keys and values of so many tokens.

        Raises:
            ModelError: it has none.
        """
        slots = [
            Slot(i.name, i.name.replace("past.", "present."), i.shape[1], i.shape[3], i.type[7:-1])
            for i in self._session.get_inputs()
            if i.name in self.past
        ]

        def opens(graph: bytes) -> Any:
            return _session(graph, self._threads, self.device)

        try:
            return KeyPool(self._session, slots, cells, opens, self.device)
        except Exception as error:  # as in `_open`
            raise ModelError(
                f"The keys and values of {cells:,} tokens of the verifier do not fit into the "
                "GPU's memory: use smaller models, or do without the GPU (--gpu-layers 0)."
            ) from error


def _choose(device: Device) -> Device:
    if device == "cpu" or cuda_works():
        return "cpu" if device == "cpu" else "cuda"
    if device == "cuda":
        raise ModelError(
            "The verifier cannot run on CUDA: its libraries or the GPU's driver do not load; "
            "install them or use device 'auto'."
        )
    return "cpu"


def cuda_works() -> bool:
    """Whether a model can run on a GPU here."""
    # Asked for a provider whose libraries are missing, ONNX Runtime prints errors and falls back.
    if "CUDAExecutionProvider" not in ort.get_available_providers() or not gpu_found():
        return False
    with contextlib.redirect_stdout(io.StringIO()):
        ort.preload_dlls()  # those of the nvidia-* wheels; what it misses, it prints
    return cuda_loads(ort.cuda_version)


def _open(path: Path, threads: int | None, device: Device) -> Any:
    if not path.is_file():
        raise ModelError(f"There is no verifier {path}: install the pair again.")
    try:
        return _session(path, threads, device)
    except Exception as error:  # ONNX Runtime's own errors share no base class
        raise ModelError(
            f"The verifier {path} is no ONNX model or is damaged; install the pair again."
        ) from error


def _session(model: Path | bytes, threads: int | None, device: Device) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, and told in our own words
    options.intra_op_num_threads = threads or 0
    # Threads that spin between calls take the cores from the generator.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = [("CUDAExecutionProvider", CUDA)] * (device == "cuda")
    return ort.InferenceSession(model, options, providers=[*providers, "CPUExecutionProvider"])
