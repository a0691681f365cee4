"""ONNX Runtime on an NVIDIA GPU: the step graph, with its tensors bound to device memory."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from types import ModuleType
from typing import Any

import numpy as np

from ssdiff_trt.runtime.backends.onnxruntime import (
    check_graph,
    import_onnxruntime,
    open_session,
    refusals,
    supported_forms,
)
from ssdiff_trt.runtime.backends.protocol import CLAMPED_RESIDUAL, Device
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import BackendError, SSDiffError
from ssdiff_trt.runtime.options import Precision
from ssdiff_trt.runtime.schedule import Schedule
from ssdiff_trt.runtime.tiles.batch import Array, Tiles

BATCH = 8
"""Default batch size, tiles."""
_ATTENTION_SINCE = (1, 25)
"""First version of ONNX Runtime whose CUDA provider has the Attention operator."""
_PROVIDER = "CUDAExecutionProvider"
_OPTIONS = {"use_tf32": "0"}
_DEVICE = "cuda"


def unavailable_reason() -> str | None:
    """Why this backend cannot be used, as a clause; None if it can."""
    try:
        available = import_onnxruntime().get_available_providers()
    except SSDiffError as error:
        return str(error).rstrip(".")
    return None if _PROVIDER in available else "this ONNX Runtime has no CUDA (onnxruntime-gpu has)"


def _load_cuda(onnxruntime: ModuleType) -> None:
    """Load CUDA and cuDNN from the packages that the extra ``gpu`` installs, if they are there."""
    if hasattr(onnxruntime, "preload_dlls"):  # from 1.21 on
        with redirect_stdout(sys.stderr):  # where it prints what it could not load
            onnxruntime.preload_dlls()


class OnnxRuntimeCuda:
    """Backend that runs all steps of a batch on the GPU; the state stays in device memory.

    Args:
        bundle: bundle with the graph.
        precision: precision of the graph.
        batch: batch size, tiles; default: :data:`BATCH`.
        index: GPU, counted from 0.

    Raises:
        SSDiffError: if ONNX Runtime cannot use CUDA, or the bundle has no such graph.
    """

    device: Device = "gpu"

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: Precision,
        batch: int | None = None,
        index: int = 0,
    ) -> None:
        if reason := unavailable_reason():
            raise BackendError(
                f"The backend onnxruntime-cuda is not available: {reason}; choose another "
                "`backend`."
            )
        self._onnxruntime, self._index = import_onnxruntime(), index
        _load_cuda(self._onnxruntime)
        forms = supported_forms(self._onnxruntime.__version__, _ATTENTION_SINCE)
        graph = bundle.graph("step", precision, *forms)
        self.precision: Precision = precision
        self.batch, self._form = batch or BATCH, graph.form
        self._file = bundle.path / graph.file
        self._session = open_session(
            self._file, [(_PROVIDER, {**_OPTIONS, "device_id": str(index)})]
        )
        if _PROVIDER not in self._session.get_providers():
            raise BackendError(
                "ONNX Runtime could not initialise CUDA and fell back to the CPU; check that the "
                "CUDA and cuDNN it needs are installed, or choose `backend=onnxruntime`."
            )
        check_graph(self._session, graph, self._file)

    def _to_device(self, array: Array) -> Any:
        return self._onnxruntime.OrtValue.ortvalue_from_numpy(
            np.ascontiguousarray(array), _DEVICE, self._index
        )

    def _run(self, tiles: Tiles, steps: Iterable[tuple[float, Array]]) -> Array:
        """Run steps, each a timestep and its three coefficients, and return the last state."""
        binding = self._session.io_binding()
        state = self._to_device(tiles.noise)
        next_state = self._to_device(np.empty_like(tiles.noise))
        for name, array in (("pan", tiles.pan), ("lms", tiles.lms), ("ms", tiles.ms)):
            binding.bind_ortvalue_input(name, self._to_device(array))
        for t, coefficients in steps:
            binding.bind_ortvalue_input("x_t", state)
            binding.bind_ortvalue_input(
                "t", self._to_device(np.full(len(tiles.noise), t, np.float32))
            )
            binding.bind_ortvalue_input("coefficients", self._to_device(coefficients))
            binding.bind_ortvalue_output("x_next", next_state)
            with refusals(self._file, "run"):
                self._session.run_with_iobinding(binding)
            state, next_state = next_state, state
        result: Array = state.numpy()
        return result

    def sample(self, batches: Iterable[Tiles], schedule: Schedule) -> Iterator[Array]:
        for tiles in batches:
            steps = zip((step.t for step in schedule.steps), schedule.updates, strict=True)
            yield self._run(tiles, steps)

    def denoise(self, tiles: Tiles, x: Array, t: float) -> Array:
        return self._run(tiles._replace(noise=x), [(t, CLAMPED_RESIDUAL)])

    def describe(self) -> str:
        version = self._onnxruntime.__version__
        return f"ONNX Runtime {version} on CUDA, {self.precision}, {self._form} graph"
