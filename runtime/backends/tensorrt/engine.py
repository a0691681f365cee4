"""TensorRT engines: built from a bundle's graph of whole steps, and audited.

Two flavours have the same interface: TensorRT, and TensorRT-RTX, which builds for GPUs that are not
there. Precision is in the graph, and every network is strongly typed; what is checked after parsing
is that the graph is what was asked for, and after building that the engine still is.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict

from ssdiff_trt.runtime.backends.tensorrt.cuda import Device
from ssdiff_trt.runtime.bundle.manifest import Form, Graph, Precision
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.progress import Progress

Flavour = Literal["tensorrt", "tensorrt-rtx"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)
_MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_ATTENTION_SINCE = (10, 14)
"""The first TensorRT with the Attention operator."""
BATCH = 32
"""Tiles at a time, unless told otherwise."""
_RESERVE = 512 << 20
"""Bytes of the GPU's free memory that building leaves alone."""
_TYPES: dict[Precision, str] = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16", "int8": "HALF"}
"""Of the layers of a graph. Those that INT8 is for stand between Q/DQ pairs, in FP16."""
_HEAVY = ("CONVOLUTION", "ATTENTION_INPUT", "SOFTMAX")
"""Kinds of layers that never stay in FP32 where a lower precision was asked for."""


def installed(flavour: Flavour) -> bool:
    """Whether the package is there, without importing it."""
    return find_spec(_MODULES[flavour]) is not None


def import_tensorrt(flavour: Flavour) -> ModuleType:
    """The package.

    Raises:
        SSDiffError: if it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(_MODULES[flavour])
    except ImportError as error:
        raise SSDiffError(
            f"{flavour} is not installed here ({error}); pip install 'ssdiff-trt[{flavour}]', or "
            "choose another backend."
        ) from error


def version_of(trt: ModuleType) -> tuple[int, ...]:
    """Major, minor, ..."""
    return tuple(int(part) for part in trt.__version__.split(".") if part.isdigit())


def form_for(flavour: Flavour, trt: ModuleType) -> Form:
    """Of the graph: fused where the parser knows attention."""
    known = flavour == "tensorrt-rtx" or version_of(trt) >= _ATTENTION_SINCE
    return "fused" if known else "portable"


class EngineKey(BaseModel):
    """All that an engine depends on. Another engine is built where any of it differs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    graph: str
    """sha256 of the ONNX file and its constants."""
    flavour: Flavour
    version: str
    gpu: str
    """Name and compute capability; for TensorRT-RTX the latter alone."""
    precision: Precision
    form: Form
    batch: tuple[int, int, int]
    """Least, usual and most tiles at a time."""
    options: tuple[str, ...]
    platform: str

    @property
    def digest(self) -> str:
        """Short name of the engine."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    def differences(self, other: EngineKey) -> list[str]:
        """What differs, a phrase each; self is what is wanted."""
        return [
            f"{name} was {getattr(other, name)} and is now {getattr(self, name)}"
            for name in type(self).model_fields
            if getattr(self, name) != getattr(other, name)
        ]


def graph_digest(bundle: Bundle, graph: Graph) -> str:
    """Of a graph and its constants."""
    files = bundle.manifest.files
    return hashlib.sha256(f"{files[graph.file]} {files[graph.weights]}".encode()).hexdigest()


def check_target(flavour: Flavour, target: Device | str | None) -> None:
    """That an engine can be built for a GPU.

    Raises:
        SSDiffError: if not.
    """
    if flavour == "tensorrt-rtx":
        _capability(import_tensorrt(flavour), target)
    elif not isinstance(target, Device):
        raise SSDiffError(
            "TensorRT builds engines on the GPU that runs them, and there is none here; use "
            "--engine none and let the first run build it there, or --engine tensorrt-rtx."
        )


def _capability(trt: ModuleType, target: Device | str | None) -> Any:
    """What TensorRT-RTX calls a GPU."""
    known = trt.ComputeCapability.__members__
    if isinstance(target, Device):
        return known.get(target.sm.upper(), known["CURRENT"])
    offers = [name.lower() for name in known if name.startswith("SM")]
    if target is None or target not in offers:
        said = "No GPU is here and none was named" if target is None else f"{target!r} was named"
        raise SSDiffError(
            f"{said}, expected one that TensorRT-RTX builds for; choose --gpu from "
            f"{', '.join(offers)}."
        )
    return known[target.upper()]


@dataclass(frozen=True)
class Plan:
    """An engine to build.

    Args:
        bundle: with the graph.
        flavour: of TensorRT.
        precision: of the graph.
        target: the GPU, or, for TensorRT-RTX, the compute capability of one, such as sm86.
        most: tiles at a time.
    """

    bundle: Bundle
    flavour: Flavour
    precision: Precision
    target: Device | str | None
    most: int = BATCH
    trt: ModuleType = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "trt", import_tensorrt(self.flavour))
        check_target(self.flavour, self.target)

    @property
    def form(self) -> Form:
        """Of the graph."""
        return form_for(self.flavour, self.trt)

    @property
    def graph(self) -> Graph:
        """To build from."""
        return self.bundle.graph("step", self.precision, self.form)

    @property
    def key(self) -> EngineKey:
        """What identifies the engine."""
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
            batch=(1, min(8, self.most), self.most),
            options=("no TF32",),
            platform=f"{sys.platform}-{platform.machine()}",
        )

    def build(
        self, progress: Progress, workspace: int | None = None, timing: Path | None = None
    ) -> tuple[bytes, dict[str, int]]:
        """Build the engine.

        Args:
            progress: told how it goes.
            workspace: bytes of the GPU that are free now; without it, TensorRT's own limit.
            timing: file of measured kernels, read and written, where the flavour has one.

        Returns:
            The serialised engine, and how many layers of the network have which type.

        Raises:
            SSDiffError: if the graph cannot be parsed or built, or is not in the precision.
        """
        trt, key = self.trt, self.key
        logger = _logger(trt, progress)
        builder = trt.Builder(logger)
        network = builder.create_network(_strongly_typed(trt))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse_from_file(str(self.bundle.path / self.graph.file)):
            reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
            raise SSDiffError(
                f"{self.flavour} {trt.__version__} does not take {self.graph.file}: {reasons}"
            )
        layers = audit_network(network, self.precision)
        plan = None
        for decomposable in (False, True):
            # Without a fused kernel, of which FP32 has none, attention may be taken apart.
            if self.precision == "fp32" and not decomposable:
                continue
            if decomposable and self.form == "fused":
                _allow_decomposition(trt, network)
                if self.precision != "fp32":
                    progress.warn("No fused attention kernel fits; building attention in parts")
            config = self._config(builder, network, key, progress, workspace, timing)
            with progress:
                plan = builder.build_serialized_network(network, config)
            if plan is not None or self.form == "portable":
                break
        if plan is None:
            raise SSDiffError(
                f"{self.flavour} {trt.__version__} could not build {self.graph.file}: "
                f"{logger.last or 'it gave no reason'}. Very often that means memory: free some of "
                "the GPU's, or lower --batch."
            )
        if timing is not None and (cache := _timing_cache(config)) is not None:
            timing.write_bytes(cache.serialize())
        return bytes(plan), layers

    def _config(
        self,
        builder: Any,
        network: Any,
        key: EngineKey,
        progress: Progress,
        workspace: int | None,
        timing: Path | None,
    ) -> Any:
        trt, config = self.trt, builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)  # FP32 means it
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the audit
        config.progress_monitor = _monitor(trt, progress)
        if workspace is not None:
            limit = max(workspace - _RESERVE, workspace // 2)
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
        if self.flavour == "tensorrt-rtx":
            config.num_compute_capabilities = 1
            config.set_compute_capability(_capability(trt, self.target), 0)
        elif timing is not None:
            known = timing.read_bytes() if timing.is_file() else b""
            config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=True)
        profile = builder.create_optimization_profile()
        for tensor in (network.get_input(i) for i in range(network.num_inputs)):
            shape = tuple(tensor.shape)
            if -1 in shape:
                profile.set_shape(tensor.name, *((size, *shape[1:]) for size in key.batch))
        config.add_optimization_profile(profile)
        return config


def audit_network(network: Any, precision: Precision) -> dict[str, int]:
    """Count the layers of a parsed network by kind and type, and check them.

    Raises:
        SSDiffError: if a heavy layer is not in the precision, or an input or output not in FP32.
    """
    wanted = _TYPES[precision]
    layers: Counter[str] = Counter()
    for layer in (network.get_layer(i) for i in range(network.num_layers)):
        kind = layer.type.name
        if not layer.num_outputs:
            continue
        dtype = layer.get_output(0).dtype.name
        layers[f"{kind} {dtype}"] += 1
        if kind in _HEAVY and dtype != wanted:
            raise SSDiffError(
                f"The layer {layer.name} ({kind}) is in {dtype}, expected {wanted} in a graph of "
                f"{precision}; export the bundle again."
            )
    if precision == "int8" and not layers["QUANTIZE INT8"]:
        raise SSDiffError(
            "The graph of int8 has no layer that quantises, expected Q/DQ pairs; export the bundle "
            "again."
        )
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    for tensor in tensors:
        if tensor.dtype.name != "FLOAT":
            raise SSDiffError(
                f"{tensor.name} is in {tensor.dtype.name}, expected FLOAT; export the bundle again."
            )
    return dict(layers)


def audit_engine(report: str, precision: Precision) -> dict[str, int]:
    """What an engine says of its layers: by the type of their outputs, and fused attention.

    Args:
        report: JSON of the engine inspector.
        precision: that was asked for.

    Raises:
        SSDiffError: if no layer computes in the precision.
    """
    words = {
        "FLOAT": ("Float", "FP32"),
        "HALF": ("Half", "FP16"),
        "BF16": ("BF16", "BFloat16"),
        "INT8": ("Int8",),
    }
    wanted = "INT8" if precision == "int8" else _TYPES[precision]
    found: Counter[str] = Counter()
    for layer in json.loads(report).get("Layers", []):
        found["fused attention"] += "mha" in str(layer).lower()
        outputs = layer.get("Outputs", []) if isinstance(layer, Mapping) else []
        for output in outputs:
            text = str(output.get("Format/Datatype", output.get("Datatype", "")))
            for name, spellings in words.items():
                if any(spelling.lower() in text.lower() for spelling in spellings):
                    found[name] += 1
                    break
    typed = sorted(name for name in found if name in words)
    if typed and wanted not in typed:
        raise SSDiffError(
            f"The engine has no layer in {precision}, only in {', '.join(typed)}; build it again, "
            "or choose another precision."
        )
    return dict(found)


def _strongly_typed(trt: ModuleType) -> int:
    flag = getattr(getattr(trt, "NetworkDefinitionCreationFlag", None), "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _timing_cache(config: Any) -> Any:
    return config.get_timing_cache() if hasattr(config, "get_timing_cache") else None


def _allow_decomposition(trt: ModuleType, network: Any) -> None:
    for layer in (network.get_layer(i) for i in range(network.num_layers)):
        if layer.type == trt.LayerType.ATTENTION_INPUT:
            layer.__class__ = trt.IAttentionInputLayer
            layer.attention.decomposable = True


def _logger(trt: ModuleType, progress: Progress) -> Any:
    class Logger(trt.ILogger):  # type: ignore[name-defined, misc]
        """TensorRT's words, errors kept for the sentence that ends in one."""

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
        """The outermost phase that has steps, as a bar."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._shown: str | None = None
            self._total, self._done = 0, 0

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if self._shown is None and steps > 0:
                self._shown, self._total, self._done = name, steps, 0
                progress.start(f"Engine: {name}", steps)

        def step_complete(self, name: str, step: int) -> bool:
            if name == self._shown and self._done < self._total:
                self._done += 1
                progress.advance(1)
            return True

        def phase_finish(self, name: str) -> None:
            if name == self._shown:
                if self._done < self._total:
                    progress.advance(self._total - self._done)
                self._shown = None

    return Monitor()
