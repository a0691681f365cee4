"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from runtime.backends import CLAMPED_RESIDUAL, Array, Device, Tiles
from runtime.bundle import Bundle, Form, Precision, Role
from runtime.errors import SSDiffError
from runtime.schedule import Schedule, sample

CPU = ("CPUExecutionProvider",)
_ATTENTION_SINCE = (1, 23)
"""The first ONNX Runtime whose CPU provider has the Attention operator."""


def import_onnxruntime() -> ModuleType:
    """The package.

    Raises:
        SSDiffError: if it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise SSDiffError(
            "ONNX Runtime is not installed; pip install onnxruntime (or onnxruntime-gpu)."
        ) from error
    return onnxruntime


def default_form(version: str) -> Form:
    """Of the graphs, for a version of ONNX Runtime."""
    known = tuple(map(int, version.split(".")[:2]))
    return "fused" if known >= _ATTENTION_SINCE else "portable"


def open_session(
    graph: Path | bytes, precision: Precision, providers: Sequence[Any] = CPU, threads: int = 0
) -> Any:
    """A session for a graph: a file, or one that holds its constants."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if precision == "int8":
        # Q/DQ as it stands: ONNX Runtime 1.32 moves pairs through opset 23 and breaks them.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(graph, options, providers=list(providers))


class OnnxRuntime:
    """The denoiser graph in ONNX Runtime, the loop around it in numpy.

    Args:
        bundle: what to run.
        threads: of the CPU; all cores by default.
        form: of the graph; the fused one by default where this ONNX Runtime has its operator.
        precision: of the graph. FP16 is emulated on most processors: slow, and good for checks.
        role: ``step`` to check the graph of whole steps.
    """

    device: Device = "cpu"
    batch = 1  # more goes no faster and takes 0.27 GB a tile

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        form: Form | None = None,
        precision: Precision = "fp32",
        role: Role = "denoiser",
    ) -> None:
        if precision == "bf16":
            raise SSDiffError(
                "ONNX Runtime has no bf16 convolutions on the CPU; choose --precision fp32."
            )
        self._version = import_onnxruntime().__version__
        graph = bundle.graph(role, precision, form or default_form(self._version))
        self.precision: Precision = precision
        self._form, self._role = graph.form, role
        self._session = open_session(bundle.path / graph.file, precision, threads=threads or 0)

    def denoise(self, tiles: Tiles, x: Array, t: float) -> Array:
        told = np.full(len(x), t, np.float32)
        inputs = {"x_t": x, "pan": tiles.pan, "lms": tiles.lms, "ms": tiles.ms, "t": told}
        if self._role == "step":
            inputs["coefficients"] = CLAMPED_RESIDUAL
        (residual,) = self._session.run(None, inputs)
        if self.precision != "fp32":
            residual[~np.isfinite(residual)] = np.nan  # infinity would pass the clamp as 1
        return residual

    def sample(self, batches: Iterable[Tiles], schedule: Schedule) -> Iterator[Array]:
        for tiles in batches:

            def denoise(x: Array, t: float, tiles: Tiles = tiles) -> Array:
                return self.denoise(tiles, x, t)

            yield sample(denoise, tiles.lms, tiles.noise, schedule)

    def describe(self) -> str:
        return f"ONNX Runtime {self._version} on the CPU, {self.precision}, {self._form} graph"
