"""ONNX Runtime on an NVIDIA GPU: the graph of whole steps, its tensors bound on the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ssdiff_trt.runtime.backends.onnxruntime import forms_for, import_onnxruntime, open_session
from ssdiff_trt.runtime.backends.protocol import CLAMPED_RESIDUAL, Device
from ssdiff_trt.runtime.bundle.manifest import Precision
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.schedule import Schedule
from ssdiff_trt.runtime.tiles.batch import Array, Tiles

BATCH = 8
_PROVIDER = "CUDAExecutionProvider"
_OPTIONS = {"use_tf32": "0"}
_DEVICE = "cuda"


def why_not() -> str | None:
    """Why this backend cannot be used; None if it can."""
    try:
        available = import_onnxruntime().get_available_providers()
    except SSDiffError as error:
        return str(error).rstrip(".")
    return None if _PROVIDER in available else "this ONNX Runtime has no CUDA (onnxruntime-gpu has)"


class OnnxRuntimeCuda:
    """All steps of a batch on the GPU; the state never leaves it between them.

    Args:
        bundle: what to run.
        precision: of the graph.
        batch: tiles at a time.
    """

    device: Device = "gpu"

    def __init__(self, bundle: Bundle, *, precision: Precision, batch: int | None = None) -> None:
        if lack := why_not():
            raise SSDiffError(f"--backend onnxruntime-cuda does not work here: {lack}.")
        self._onnxruntime = import_onnxruntime()
        graph = bundle.graph("step", precision, *forms_for(self._onnxruntime.__version__))
        self.precision: Precision = precision
        self.batch, self._form = batch or BATCH, graph.form
        self._session = open_session(bundle.path / graph.file, [(_PROVIDER, _OPTIONS)])
        if _PROVIDER not in self._session.get_providers():
            raise SSDiffError(
                "ONNX Runtime could not start CUDA and fell back to the CPU; check that its CUDA "
                "and cuDNN are installed, or choose --backend onnxruntime."
            )

    def _put(self, array: Array) -> Any:
        return self._onnxruntime.OrtValue.ortvalue_from_numpy(
            np.ascontiguousarray(array), _DEVICE, 0
        )

    def _run(self, tiles: Tiles, steps: Iterable[tuple[float, Array]]) -> Array:
        """The last state."""
        binding = self._session.io_binding()
        state, following = self._put(tiles.noise), self._put(np.empty_like(tiles.noise))
        for name, array in (("pan", tiles.pan), ("lms", tiles.lms), ("ms", tiles.ms)):
            binding.bind_ortvalue_input(name, self._put(array))
        for t, update in steps:
            binding.bind_ortvalue_input("x_t", state)
            binding.bind_ortvalue_input("t", self._put(np.full(len(tiles.noise), t, np.float32)))
            binding.bind_ortvalue_input("coefficients", self._put(update))
            binding.bind_ortvalue_output("x_next", following)
            self._session.run_with_iobinding(binding)
            state, following = following, state
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
