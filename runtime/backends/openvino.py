"""OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType, SimpleNamespace
from typing import Any

from ssdiff_trt.runtime.backends.on_cpu import OnCpu
from ssdiff_trt.runtime.backends.onnxruntime import check_graph
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.cpus import choose_threads, computes_in_bf16
from ssdiff_trt.runtime.errors import BackendError, install
from ssdiff_trt.runtime.files import reason_of
from ssdiff_trt.runtime.options import Precision
from ssdiff_trt.runtime.tiles.batch import Array

_TILES = 8
"""Tiles that a thread computes at a time."""


def import_openvino() -> ModuleType:
    """Import the ``openvino`` package.

    Raises:
        BackendError: if it is not installed, or its installation is broken.
    """
    try:
        import openvino
    except ImportError as error:
        raise BackendError(
            f"OpenVINO cannot be imported ({error}); {install('openvino')}, or choose "
            "`backend=onnxruntime`."
        ) from error
    return openvino


@contextmanager
def refusals(graph: Path, doing: str) -> Iterator[None]:
    """Context manager that turns what OpenVINO raises into one sentence.

    Args:
        graph: file of the graph.
        doing: what the block does with the graph, such as "open".

    Raises:
        BackendError: if the block raises one of its errors.
    """
    try:
        yield
    except (MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise BackendError(
            f"OpenVINO cannot {doing} the graph {graph} ({reason_of(error)}); fetch the bundle "
            "again, or export it again."
        ) from error


class OpenVino(OnCpu):
    """Backend that runs the denoiser graph in OpenVINO and the sampling loop in numpy.

    In BF16 it is the graph in FP32 whose
    convolutions and matrix products OpenVINO computes in BF16.

    Args:
        bundle: bundle with the graph.
        threads: CPU threads; default: all cores.
        precision: fp32 or bf16, whatever OpenVINO would choose for the processor.

    Raises:
        SSDiffError: if OpenVINO or the graph cannot be used, or the processor has no BF16.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int | None = None, precision: Precision = "fp32"
    ) -> None:
        if precision not in ("fp32", "bf16"):
            raise BackendError(
                f"OpenVINO computes in fp32 and bf16 here, not in {precision}; choose one of them "
                "as `precision`, or another `backend`."
            )
        if precision == "bf16" and not computes_in_bf16():
            raise BackendError(
                "This processor has no instructions for bf16 (avx512_bf16 or amx_bf16); choose "
                "`precision=fp32`."
            )
        openvino = import_openvino()
        graph = bundle.graph("denoiser", "fp32", "portable")
        file, self._version = bundle.path / graph.file, openvino.__version__.split("-")[0]
        streams = choose_threads(threads)
        with refusals(file, "open"):
            core = openvino.Core()
            model = core.compile_model(
                core.read_model(file),
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
                    "INFERENCE_NUM_THREADS": streams,
                    "NUM_STREAMS": streams,
                },
            )
            self._idle: SimpleQueue[Any] = SimpleQueue()
            for _ in range(streams):
                self._idle.put(model.create_infer_request())
        ports = SimpleNamespace(
            get_inputs=lambda: [*map(_described, model.inputs)],
            get_outputs=lambda: [*map(_described, model.outputs)],
        )
        check_graph(ports, graph, file)
        super().__init__(precision, file, refusals, _TILES, streams)

    def evaluate(self, inputs: Mapping[str, Array]) -> Array:
        request = self._idle.get()
        try:
            residual: Array = request.infer(inputs)[0]
            return residual
        finally:
            self._idle.put(request)

    def describe(self) -> str:
        return f"OpenVINO {self._version} on the CPU, {self.precision}, portable graph"


def _described(port: Any) -> SimpleNamespace:
    """A port as ONNX Runtime describes inputs and outputs."""
    name = port.element_type.get_type_name()
    kind = "float" if name == "f32" else name
    sizes = [size.get_length() if size.is_static else None for size in port.partial_shape]
    return SimpleNamespace(name=port.any_name, type=f"tensor({kind})", shape=sizes)
