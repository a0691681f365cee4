"""ONNX Runtime on the CPU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.backends import Batch
from runtime.bundle import Bundle, Form
from runtime.errors import SSDiffError
from runtime.schedule import Schedule, sample

_ATTENTION_SINCE = (1, 23)
"""The first ONNX Runtime whose CPU provider has the Attention operator."""


class OnnxRuntime:
    """The denoiser graph in ONNX Runtime, the loop around it in numpy.

    Args:
        bundle: what to run.
        threads: of the CPU; all cores by default.
        form: of the graph; the fused one by default where this ONNX Runtime has its operator.
    """

    batch = 1  # more goes no faster and takes 0.27 GB a tile

    def __init__(self, bundle: Bundle, threads: int | None = None, form: Form | None = None):
        try:
            import onnxruntime
        except ImportError as error:
            raise SSDiffError(
                "ONNX Runtime is not installed; pip install onnxruntime (or onnxruntime-gpu)."
            ) from error
        self._version = onnxruntime.__version__
        if form is None:
            known = tuple(map(int, self._version.split(".")[:2]))
            form = "fused" if known >= _ATTENTION_SINCE else "portable"
        graph = bundle.graph("denoiser", "fp32", form)
        if graph is None:
            raise SSDiffError(
                f"The bundle {bundle.path} has no {form} denoiser in fp32; export it again."
            )
        self._form = graph.form
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            bundle.path / graph.file, options, providers=["CPUExecutionProvider"]
        )

    def denoise(self, x_t: Batch, pan: Batch, lms: Batch, ms: Batch, t: Batch) -> Batch:
        """One call of the denoiser graph: the residual ``[N, C, tile, tile]``."""
        inputs = {"x_t": x_t, "pan": pan, "lms": lms, "ms": ms, "t": t}
        (x0,) = self._session.run(["x0"], inputs)
        return x0

    def sample(
        self, noise: Batch, pan: Batch, lms: Batch, ms: Batch, schedule: Schedule
    ) -> NDArray[np.float32]:
        def denoise(x: Batch, t: float) -> Batch:
            return self.denoise(x, pan, lms, ms, np.full(len(x), t, np.float32))

        return sample(denoise, lms, noise, schedule)

    def describe(self) -> str:
        return f"ONNX Runtime {self._version} on the CPU, fp32, {self._form} graph"
