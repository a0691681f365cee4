"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ssdiff_trt.runtime.backends.on_cpu import OnCpu
from ssdiff_trt.runtime.backends.protocol import CLAMPED_RESIDUAL
from ssdiff_trt.runtime.bundle.manifest import Form, Graph, Role, TensorSpec
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.cpus import choose_threads
from ssdiff_trt.runtime.errors import BackendError, BundleError, install
from ssdiff_trt.runtime.files import reason_of
from ssdiff_trt.runtime.options import Precision
from ssdiff_trt.runtime.tiles.batch import Array

CPU = ("CPUExecutionProvider",)
_PART = 4 * 32**2
"""Pixels that a thread computes at a time. More gain little, and take memory."""
_ATTENTION_SINCE = (1, 23)
"""First version of ONNX Runtime whose CPU provider has the Attention operator."""


def import_onnxruntime() -> ModuleType:
    """Import the ``onnxruntime`` package.

    Raises:
        BackendError: if it is not installed, or its installation is broken.
    """
    try:
        import onnxruntime
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime":
            raise BackendError(
                f"ONNX Runtime is not installed; {install('cpu')}, or with an NVIDIA GPU "
                f"{install('gpu')}."
            ) from None
        raise BackendError(
            f"ONNX Runtime is installed but cannot be imported ({error}); reinstall one of its "
            f"packages: pip uninstall --yes onnxruntime onnxruntime-gpu, then {install('cpu')}, or "
            f"with an NVIDIA GPU {install('gpu')}."
        ) from error
    return onnxruntime


def supported_forms(
    version: str, attention_since: tuple[int, int] = _ATTENTION_SINCE
) -> tuple[Form, ...]:
    """Forms of the graph that a version of ONNX Runtime supports, fastest first.

    Args:
        version: of ONNX Runtime.
        attention_since: first version whose provider has the Attention operator; default: that of
            the CPU provider.
    """
    major_minor = tuple(map(int, version.split(".")[:2]))
    return ("fused", "portable") if major_minor >= attention_since else ("portable",)


@contextmanager
def refusals(graph: Path | None, doing: str) -> Iterator[None]:
    """Context manager that turns what ONNX Runtime raises into one sentence.

    Its own errors have no base in common but ``Exception``.

    Args:
        graph: file of the graph; None if it was made in this process.
        doing: what the block does with the graph, such as "open".

    Raises:
        BackendError: if the block raises one of them.
    """
    state = import_onnxruntime().capi.onnxruntime_pybind11_state
    kinds = (kind for kind in vars(state).values() if isinstance(kind, type))
    own = (kind for kind in kinds if issubclass(kind, Exception))
    errors: tuple[type[Exception], ...] = (
        *own,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    )
    try:
        yield
    except errors as error:
        raise BackendError(
            f"ONNX Runtime cannot {doing} the graph{f' {graph}' if graph else ''} "
            f"({reason_of(error)}); fetch the bundle again, or export it again."
        ) from error


def check_graph(session: Any, graph: Graph, file: Path) -> None:
    """Check that inputs and outputs of a session are those that the manifest states.

    Raises:
        BundleError: if not.
    """
    for kind, stated, found in (
        ("inputs", graph.inputs, session.get_inputs()),
        ("outputs", graph.outputs, session.get_outputs()),
    ):
        if len(stated) != len(found) or not all(map(_fits, stated, found)):
            names = ", ".join(f"{one.name} {one.type} {one.shape}" for one in found)
            raise BundleError(
                f"The graph {file} has the {kind} {names or 'none'}, not those that the manifest "
                "states; fetch the bundle again, or export it again."
            )


def _fits(stated: TensorSpec, found: Any) -> bool:
    """Whether a tensor of a graph is one of a manifest; a dimension may be left open."""
    if (stated.name, "tensor(float)", len(stated.shape)) != (
        found.name,
        found.type,
        len(found.shape),
    ):
        return False
    sizes = zip(stated.shape, found.shape, strict=True)
    return all(one == other or not isinstance(other, int) for one, other in sizes)


def open_session(
    graph: Path | bytes,
    providers: Sequence[Any] = CPU,
    threads: int | None = None,
    integers: bool = True,
) -> Any:
    """Open an ``InferenceSession``.

    Args:
        graph: ONNX file, or a serialised model with its constants inside.
        providers: execution providers, preferred first.
        threads: CPU threads; see :func:`ssdiff_trt.runtime.cpus.choose_threads`.
        integers: whether to fuse layers between Q/DQ pairs into integer kernels. Without, the pairs
            are executed as they are and the layers between them in floating point. ONNX Runtime
            1.32 breaks Q/DQ pairs of opset 23 when its optimiser moves them.

    Raises:
        BackendError: if ONNX Runtime cannot open it.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    # Stated, as otherwise it takes every CPU of the host, whatever a container may use.
    options.intra_op_num_threads = choose_threads(threads)
    options.log_severity_level = 3
    if not integers:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    with refusals(graph if isinstance(graph, Path) else None, "open"):
        return onnxruntime.InferenceSession(graph, options, providers=list(providers))


class OnnxRuntime(OnCpu):
    """Backend that runs the denoiser graph in ONNX Runtime and the sampling loop in numpy.

    Args:
        bundle: bundle with the graph.
        threads: CPU threads; default: all cores.
        form: form of the graph; default: the fastest that the bundle has and this version of ONNX
            Runtime supports.
        precision: precision of the graph. Most CPUs emulate FP16: slow, but useful for checks.
        role: role of the graph; ``step`` to check the step graph.
    """

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
            raise BackendError(
                "ONNX Runtime has no bf16 on the CPU; choose `precision=fp32`, or, for processors "
                f"that compute in bf16, {install('openvino')}."
            )
        self._version = import_onnxruntime().__version__
        forms = (form,) if form else ("contrib", *supported_forms(self._version))
        graph = bundle.graph(role, precision, *forms)
        self._form, self._role = graph.form, role
        file = bundle.path / graph.file
        self._session = open_session(file, threads=1, integers=graph.form == "contrib")
        check_graph(self._session, graph, file)
        part = max(1, _PART // bundle.manifest.model.tile**2)
        super().__init__(precision, file, refusals, part, choose_threads(threads))

    def evaluate(self, inputs: Mapping[str, Array]) -> Array:
        more = {"coefficients": CLAMPED_RESIDUAL} if self._role == "step" else {}
        residual: Array
        (residual,) = self._session.run(None, {**inputs, **more})
        return residual

    def describe(self) -> str:
        return f"ONNX Runtime {self._version} on the CPU, {self.precision}, {self._form} graph"
