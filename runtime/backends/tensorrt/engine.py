"""Building TensorRT engines from a bundle's step graph.

Two flavours have the same interface: TensorRT, and TensorRT-RTX, which can build for GPUs that are
not in this machine. The graph determines the precision, and networks are strongly typed.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from ssdiff_trt.runtime.backends.tensorrt.audit import audit_network
from ssdiff_trt.runtime.backends.tensorrt.cuda import Device
from ssdiff_trt.runtime.bundle.manifest import Form, Graph
from ssdiff_trt.runtime.bundle.measured import Strict
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import BackendError, install
from ssdiff_trt.runtime.files import atomic_write
from ssdiff_trt.runtime.options import Precision
from ssdiff_trt.runtime.progress import Progress

Flavour = Literal["tensorrt", "tensorrt-rtx"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)
_MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_ATTENTION_SINCE = (10, 14)
"""First version of TensorRT whose ONNX parser has the Attention operator."""
_BF16_SINCE = (10, 6)
"""First version of TensorRT whose ONNX parser has opset 22, the first with convolutions in BF16."""
_FLAGS = ("STRICT_NANS", "REQUIRE_USER_ALLOCATION")
"""Builder flags that are set where the package has them: NaN times 0 stays NaN (TensorRT 10.7), and
no memory is allocated during a run, which a CUDA graph could not capture (TensorRT-RTX)."""
_SMALL_GPU = 8 * 10**9
"""GPUs with less memory, bytes, have half the default batch."""
_RESERVE = 512 << 20
"""Free GPU memory that an engine build must leave unused, bytes."""


def default_batch(precision: Precision, memory: int | None = None) -> int:
    """Default batch size, tiles.

    In FP32 there is no fused attention kernel, and the memory of an engine grows with its batch by
    0.3 GB a tile of 64 pixels.

    Args:
        precision: of the engine.
        memory: of the GPU, bytes; None for a GPU that is not in this machine.
    """
    batch = 8 if precision == "fp32" else 32
    return batch if memory is None or memory >= _SMALL_GPU else batch // 2


def engine_batch(batch: int) -> int:
    """Batch size of the engine for batches of up to ``batch`` tiles: the next power of two."""
    return 1 << (batch - 1).bit_length()


def installed(flavour: Flavour) -> bool:
    """Whether the package is installed; does not import it."""
    return find_spec(_MODULES[flavour]) is not None


def import_tensorrt(flavour: Flavour) -> ModuleType:
    """Import the TensorRT package.

    Raises:
        SSDiffError: if it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(_MODULES[flavour])
    except ImportError as error:
        raise BackendError(
            f"{flavour} is not installed here ({error}); {install(flavour)}, or "
            "choose another `backend`."
        ) from error


def version_of(trt: ModuleType) -> tuple[int, ...]:
    """Version of the package as numbers: major, minor, ..."""
    return tuple(int(part) for part in trt.__version__.split(".") if part.isdigit())


def form_for(flavour: Flavour, trt: ModuleType) -> Form:
    """Form of the graph to build from: fused if the parser supports the Attention operator."""
    supported = flavour == "tensorrt-rtx" or version_of(trt) >= _ATTENTION_SINCE
    return "fused" if supported else "portable"


class EngineKey(Strict):
    """Everything an engine depends on; an engine with another key cannot be reused."""

    graph: str
    """sha256 of the ONNX file and its constants."""
    flavour: Flavour
    version: str
    gpu: str
    """Name and compute capability of the GPU; for TensorRT-RTX the compute capability alone."""
    precision: Precision
    form: Form
    batch: int
    """Batch size, tiles; the engine takes no other."""
    options: tuple[str, ...]
    """Builder options that affect the results."""
    platform: str
    """Operating system and processor architecture."""

    @property
    def digest(self) -> str:
        """Short hash of the key, the file name of the engine in the cache."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    def differences(self, other: EngineKey) -> list[str]:
        """Fields in which the key of an existing engine differs from this one, a clause each."""
        return [
            f"{name} was {getattr(other, name)} and is now {getattr(self, name)}"
            for name in type(self).model_fields
            if getattr(self, name) != getattr(other, name)
        ]


def graph_digest(bundle: Bundle, graph: Graph) -> str:
    """sha256 of a graph and its constants."""
    files = bundle.manifest.files
    return hashlib.sha256(f"{files[graph.file]} {files[graph.weights]}".encode()).hexdigest()


def check_target(flavour: Flavour, target: Device | str | None) -> None:
    """Check that an engine can be built for a GPU.

    Args:
        flavour: of TensorRT.
        target: the GPU of this machine, a compute capability such as sm86, or None.

    Raises:
        SSDiffError: if it cannot.
    """
    if flavour == "tensorrt-rtx":
        _capability(import_tensorrt(flavour), target)
    elif not isinstance(target, Device):
        raise BackendError(
            "TensorRT builds engines on the GPU that runs them, and this machine has none; use "
            "`engine=none` and let the first run on the GPU build it, or `engine=tensorrt-rtx`."
        )


def why_unsupported(flavour: Flavour, gpu: Device) -> str | None:
    """Why a flavour has no engines for a GPU, as a clause; None if it has."""
    if flavour == "tensorrt" or gpu.sm in (supported := _supported(import_tensorrt(flavour))):
        return None
    return f"it has no engines for {gpu.sm} ({gpu.name}), only for {', '.join(supported)}"


def _supported(trt: ModuleType) -> list[str]:
    """Compute capabilities that TensorRT-RTX builds for, such as sm86.

    SM75 is in its enumeration, but the build ends with "FP32 GEMM is not supported".
    """
    members = trt.ComputeCapability.__members__
    return [name.lower() for name in members if name.startswith("SM") and name != "SM75"]


def _capability(trt: ModuleType, target: Device | str | None) -> Any:
    """Member of TensorRT-RTX's enumeration of compute capabilities for a GPU."""
    if isinstance(target, Device):
        if reason := why_unsupported("tensorrt-rtx", target):
            raise BackendError(
                f"TensorRT-RTX cannot be used on this GPU: {reason}; choose another `backend`."
            )
        target = target.sm
    supported = _supported(trt)
    if target is None or target not in supported:
        problem = (
            "This machine has no GPU and `gpu` is not given"
            if target is None
            else f"`gpu` is {target!r}"
        )
        raise BackendError(
            f"{problem}, expected a GPU that TensorRT-RTX builds for; choose `gpu` from "
            f"{', '.join(supported)}."
        )
    return trt.ComputeCapability.__members__[target.upper()]


@dataclass(frozen=True)
class Plan:
    """Specification of an engine to build.

    Args:
        bundle: bundle with the graph.
        flavour: TensorRT or TensorRT-RTX.
        precision: precision of the graph.
        target: the GPU of this machine, or for TensorRT-RTX a compute capability such as sm86.
        batch: batch size, tiles.
    """

    bundle: Bundle
    flavour: Flavour
    precision: Precision
    target: Device | str | None
    batch: int
    trt: ModuleType = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "trt", import_tensorrt(self.flavour))
        check_target(self.flavour, self.target)
        if (self.flavour, self.precision) == ("tensorrt", "bf16") and (
            version_of(self.trt) < _BF16_SINCE
        ):
            raise BackendError(
                f"BF16 needs TensorRT 10.6 or newer, and this is {self.trt.__version__}; choose "
                "`precision=fp16`."
            )

    @property
    def form(self) -> Form:
        """Form of the graph."""
        return form_for(self.flavour, self.trt)

    @property
    def graph(self) -> Graph:
        """Graph to build from."""
        return self.bundle.graph("step", self.precision, self.form)

    @property
    def key(self) -> EngineKey:
        """Key of the engine in the cache."""
        gpu = self.target
        if isinstance(gpu, Device):
            gpu = gpu.sm if self.flavour == "tensorrt-rtx" else f"{gpu.name}, {gpu.sm}"
        return EngineKey(
            graph=graph_digest(self.bundle, self.graph),
            flavour=self.flavour,
            version=self.trt.__version__,
            gpu=str(gpu),
            precision=self.precision,
            form=self.form,
            batch=self.batch,
            options=("no TF32", *self._flags),
            platform=f"{sys.platform}-{platform.machine()}",
        )

    @property
    def _flags(self) -> tuple[str, ...]:
        """Builder flags to set."""
        return tuple(name for name in _FLAGS if hasattr(self.trt.BuilderFlag, name))

    def build(
        self, progress: Progress, workspace: int | None = None, timing: Path | None = None
    ) -> tuple[bytes, dict[str, int]]:
        """Build the engine.

        Args:
            progress: receives progress updates.
            workspace: free GPU memory in bytes, to limit the workspace; default: TensorRT's limit.
            timing: file of TensorRT's timing cache, to read and update; TensorRT-RTX has none.

        Returns:
            The serialised engine, and the number of layers of the network by kind and type.

        Raises:
            SSDiffError: if the graph cannot be parsed or built, or is not in the precision.
        """
        trt = self.trt
        logger = _logger(trt, progress)
        builder = trt.Builder(logger)
        network = builder.create_network(_strongly_typed(trt))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse_from_file(str(self.bundle.path / self.graph.file)):
            reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
            raise BackendError(
                f"{self.flavour} {trt.__version__} cannot parse {self.graph.file}: {reasons}"
            )
        layers = audit_network(network, self.precision)
        for tensor in (network.get_input(i) for i in range(network.num_inputs)):
            tensor.shape = [self.batch if size == -1 else size for size in tensor.shape]
        plan = None
        for decomposable in (False, True):
            # Where no fused kernel exists, attention must be decomposed. FP32 never has one.
            if self.precision == "fp32" and not decomposable:
                continue
            if decomposable and self.form == "fused":
                _allow_decomposition(trt, network)
                if self.precision != "fp32":
                    progress.warn("No fused attention kernel is available; attention is decomposed")
            config = self._config(builder, progress, workspace, timing)
            with progress:
                plan = builder.build_serialized_network(network, config)
            if plan is not None or self.form == "portable":
                break
        if plan is None:
            raise BackendError(
                f"{self.flavour} {trt.__version__} could not build {self.graph.file}: "
                f"{logger.last or 'no reason was given'}; the usual cause is too little GPU "
                "memory, so free some or lower `batch`."
            )
        if self.flavour == "tensorrt" and timing and (cache := config.get_timing_cache()):
            with atomic_write(timing) as unfinished:
                unfinished.write_bytes(cache.serialize())
        return bytes(plan), layers

    def _config(
        self, builder: Any, progress: Progress, workspace: int | None, timing: Path | None
    ) -> Any:
        trt, config = self.trt, builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)  # TF32 would exceed the limits of FP32 parity
        for name in self._flags:
            config.set_flag(getattr(trt.BuilderFlag, name))
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for audit_engine
        config.progress_monitor = _monitor(trt, progress)
        if workspace is not None:
            limit = max(workspace - _RESERVE, workspace // 2)
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
        if self.flavour == "tensorrt-rtx":
            config.num_compute_capabilities = 1
            if not config.set_compute_capability(_capability(trt, self.target), 0):
                raise BackendError(
                    f"TensorRT-RTX {trt.__version__} refused to build for {self.key.gpu}; choose "
                    "another `gpu`, or another `backend`."
                )
        elif timing is not None:
            _set_timing_cache(config, timing.read_bytes() if timing.is_file() else b"")
        return config


def _strongly_typed(trt: ModuleType) -> int:
    flag = getattr(getattr(trt, "NetworkDefinitionCreationFlag", None), "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _set_timing_cache(config: Any, content: bytes) -> None:
    """Use a timing cache, or a new one if it is damaged or of another GPU or version."""
    for serialised in (content, b""):
        cache = config.create_timing_cache(serialised)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return


def _allow_decomposition(trt: ModuleType, network: Any) -> None:
    for layer in (network.get_layer(i) for i in range(network.num_layers)):
        if layer.type == trt.LayerType.ATTENTION_INPUT:
            layer.__class__ = trt.IAttentionInputLayer
            layer.attention.decomposable = True


def _logger(trt: ModuleType, progress: Progress) -> Any:
    class Logger(trt.ILogger):  # type: ignore[name-defined, misc]
        """Forwards TensorRT's warnings to the progress, and records its last error."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.last = message.splitlines()[0][:300]
            elif severity <= trt.ILogger.Severity.WARNING:
                progress.detail(f"TensorRT: {message}")

    return Logger()


def _monitor(trt: ModuleType, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined, misc]
        """Reports the outermost build phase that has steps as progress."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phase: str | None = None
            self._total, self._done = 0, 0

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if self._phase is None and steps > 0:
                self._phase, self._total, self._done = name, steps, 0
                progress.start(f"Engine: {name}", steps)

        def step_complete(self, name: str, step: int) -> bool:
            if name == self._phase and self._done < self._total:
                self._done += 1
                progress.advance(1)
            return True

        def phase_finish(self, name: str) -> None:
            if name == self._phase:
                if self._done < self._total:
                    progress.advance(self._total - self._done)
                self._phase = None

    return Monitor()
