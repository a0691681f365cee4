"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ssdiff_trt.runtime.backends.protocol import CLAMPED_RESIDUAL, Device
from ssdiff_trt.runtime.bundle.manifest import Form, Precision, Role
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.schedule import Schedule, sample
from ssdiff_trt.runtime.tiles.batch import Array, Tiles

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


def forms_for(version: str) -> tuple[Form, ...]:
    """Of graphs that a version of ONNX Runtime takes, from the fastest."""
    known = tuple(map(int, version.split(".")[:2]))
    return ("fused", "portable") if known >= _ATTENTION_SINCE else ("portable",)


def open_session(
    graph: Path | bytes,
    providers: Sequence[Any] = CPU,
    threads: int = 0,
    integers: bool = True,
) -> Any:
    """A session for a graph: a file, or one that holds its constants.

    Without ``integers``, Q/DQ pairs are computed as they stand, and layers between them in floating
    point. ONNX Runtime 1.32 breaks pairs of opset 23 where it moves them.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if not integers:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(graph, options, providers=list(providers))


class OnnxRuntime:
    """The denoiser graph in ONNX Runtime, the loop around it in numpy.

    Args:
        bundle: what to run.
        threads: of the CPU; all cores by default.
        form: of the graph; by default the fastest that the bundle has and this ONNX Runtime takes.
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
        forms = (form,) if form else ("contrib", *forms_for(self._version))
        graph = bundle.graph(role, precision, *forms)
        self.precision: Precision = precision
        self._form, self._role = graph.form, role
        self._session = open_session(
            bundle.path / graph.file, threads=threads or 0, integers=graph.form == "contrib"
        )

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
