"""Bundles: a directory with a manifest and graphs, all that a run needs.

::

    NAME.ssdiff/
        manifest.json                   what the model is, was made from, and how well it agrees
        denoiser.fp32.portable.onnx     one call of the denoiser, for any engine
        denoiser.fp32.fused.onnx        the same with the ONNX Attention operator
        denoiser.fp32.contrib.onnx      the same with ONNX Runtime's own, for the CPU
        step.fp32.portable.onnx         the denoiser and the sampler's update in one
        step.fp32.fused.onnx
        weights.fp32.safetensors        the weights, once, for all four, and a checkpoint
        ...fp16..., ...bf16..., ...int8...  the same in lower precision, if it was asked for
        engines/                        TensorRT's, a cache
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.schedule import Schedule, make_schedule

Precision = Literal["fp32", "fp16", "bf16", "int8"]
Form = Literal["portable", "fused", "contrib"]
"""How attention is written: as products of matrices, as ONNX's operator, as ONNX Runtime's own."""
FORMS: tuple[Form, ...] = get_args(Form)
Role = Literal["denoiser", "step"]
ROLES: tuple[Role, ...] = get_args(Role)


def kinds(precision: Precision) -> tuple[tuple[Role, Form], ...]:
    """The graphs that a bundle has in a precision; those for the CPU where that gains by it."""
    common = tuple((role, form) for role in ROLES for form in FORMS if form != "contrib")
    return (*common, ("denoiser", "contrib")) if precision in ("fp32", "int8") else common


Shape = tuple[Literal["batch"] | int, ...]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(_Strict):
    """The network."""

    network: Literal["SSNet"] = "SSNet"
    bands: int = Field(ge=1)
    dim: Literal[32] = 32
    ratio: Literal[4] = 4
    tile: int = Field(ge=16, multiple_of=16)


class SensorScale(_Strict):
    """The imagery that it is for. Inputs are digital numbers divided by ``full_scale``."""

    name: str
    bands: tuple[str, ...]
    full_scale: float = Field(gt=0)


class SamplerDefaults(_Strict):
    """How to sample unless told otherwise."""

    name: Literal["consistent", "released"]
    timesteps: tuple[int, ...]

    @model_validator(mode="after")
    def _is_a_schedule(self) -> SamplerDefaults:
        try:
            self.schedule()
        except SSDiffError as error:
            raise ValueError(str(error)) from error
        return self

    def schedule(self) -> Schedule:
        return make_schedule(self.timesteps, self.name)


class TensorSpec(_Strict):
    """An input or output of a graph; the batch is dynamic."""

    name: str
    shape: Shape
    dtype: Literal["float32"] = "float32"


class Graph(_Strict):
    """One ONNX file."""

    file: str
    weights: str
    """The file beside it with its constants."""
    role: Role
    precision: Precision
    form: Form
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Limits(_Strict):
    """What a precision may deviate from the reference, as a fraction of full scale."""

    max: float | None = None
    """Largest difference at any step and in the image."""
    rmse: float | None = None
    """Root mean square difference at any step."""
    psnr: float | None = None
    """Least PSNR of the image, in dB, for a peak of 1."""


class Deviation(_Strict):
    """How far one computation is from the reference, as a fraction of full scale."""

    max: float
    rmse: float
    psnr: float


class StepParity(_Strict):
    """The image of one step of a trajectory, against that of the reference's own trajectory."""

    t: int
    deviations: dict[str, Deviation]


class Trajectory(_Strict):
    """Parity on one set of tiles."""

    inputs: Literal["random", "real"]
    steps: tuple[StepParity, ...]


class Parity(_Strict):
    """What was compared when graphs of a precision were made."""

    precision: Precision
    limits: Limits
    reference: str
    trajectories: tuple[Trajectory, ...]


class Lowering(_Strict):
    """How graphs of lower precision came about."""

    precision: Precision
    kept: tuple[str, ...]
    """What stayed in FP32, and why."""
    largest: float
    """Magnitude that real trajectories reach in what is lowered; FP16 ends at 65504."""
    where: str
    """The module and operation that reaches it."""


class Budget(_Strict):
    """What INT8 may cost."""

    loss: float = Field(gt=0, lt=1)
    """Of ERGAS and of SAM, relative to FP32."""
    psnr: float = 45
    """Least PSNR against the image in FP32, in dB, for a peak of 1."""

    @classmethod
    def allowing(cls, loss: float) -> Budget:
        """A budget with a loss that a user states.

        Raises:
            SSDiffError: if it is none.
        """
        if not 0 < loss < 1:
            raise SSDiffError(
                f"A loss of {loss:.0%} does not work; give one above 0 % and below 100 %."
            )
        return cls(loss=loss)

    def faults(self, verdict: Verdict) -> Iterator[str]:
        """What a verdict is over budget by, a clause each."""
        for name, now, before in (
            ("ERGAS", verdict.ergas, verdict.ergas_fp32),
            ("SAM", verdict.sam, verdict.sam_fp32),
        ):
            if not now <= before * (1 + self.loss):
                yield f"{name} is {now:.4f} and {before:.4f} in FP32, {self.loss:.2%} is allowed"
        if not verdict.psnr >= self.psnr:
            yield f"PSNR to FP32 is {verdict.psnr:.1f} dB, {self.psnr:g} dB are needed"


class Verdict(_Strict):
    """How a graph in INT8 does on tiles whose truth is known, beside the one in FP32."""

    tiles: int
    ergas_fp32: float
    ergas: float
    sam_fp32: float
    """Degrees."""
    sam: float
    psnr: float
    """Of its images against those of FP32, in dB, for a peak of 1."""

    @property
    def ergas_loss(self) -> float:
        """Relative to FP32; negative where INT8 is better."""
        return self.ergas / self.ergas_fp32 - 1

    @property
    def sam_loss(self) -> float:
        """Likewise."""
        return self.sam / self.sam_fp32 - 1

    def __str__(self) -> str:
        return (
            f"ERGAS {self.ergas:.4f} ({self.ergas_loss:+.2%}), SAM {self.sam:.4f} "
            f"({self.sam_loss:+.2%}), {self.psnr:.1f} dB to FP32"
        )


class Quantisation(_Strict):
    """How graphs in INT8 came about, and the verdict that lets them be used."""

    samples: str
    """sha256 of the file of calibration samples."""
    sources: tuple[str, ...]
    timesteps: tuple[int, ...]
    """That it is calibrated for."""
    tiles: int
    """That it is calibrated by, each at every timestep."""
    method: str
    groups: tuple[str, ...]
    """Layers in INT8."""
    excluded: tuple[str, ...]
    """Layers that could be, and would cost too much."""
    budget: Budget
    verdict: Verdict
    """On tiles that were held out."""

    @model_validator(mode="after")
    def _within_budget(self) -> Quantisation:
        for fault in self.budget.faults(self.verdict):
            raise ValueError(f"its graphs in INT8 are over budget: {fault}")
        return self


class Provenance(_Strict):
    """Where the weights come from."""

    weights: str
    weights_sha256: str
    created: str
    exporter: str
    training_data: str = "not stated"
    licence: str = "not stated"
    metrics: dict[str, Any] = {}


class Manifest(_Strict):
    """The content of ``manifest.json``."""

    format: Literal[1] = 1
    name: str
    model: Model
    sensor: SensorScale
    sampler: SamplerDefaults
    graphs: tuple[Graph, ...]
    files: dict[str, str]
    """sha256 of every file of the bundle but the manifest."""
    provenance: Provenance
    parity: tuple[Parity, ...] = ()
    lowering: tuple[Lowering, ...] = ()
    quantisation: Quantisation | None = None
    """Of the graphs in INT8, which are not usable without."""

    @model_validator(mode="after")
    def _fits_together(self) -> Manifest:
        if len(self.sensor.bands) != self.model.bands:
            raise ValueError(
                f"the sensor names {len(self.sensor.bands)} bands, the model has {self.model.bands}"
            )
        if self.quantisation is None and any(g.precision == "int8" for g in self.graphs):
            raise ValueError("it has graphs in INT8 and no verdict on them")
        for graph in self.graphs:
            for name in (graph.file, graph.weights):
                if name not in self.files:
                    raise ValueError(f"{name} of a graph is not among the files")
            if (graph.inputs, graph.outputs) != graph_io(graph.role, self.model):
                raise ValueError(
                    f"the inputs or outputs of the graph {graph.file} are not those of a "
                    f"{graph.role} with {self.model.bands} bands and tiles of {self.model.tile} "
                    "pixels"
                )
        if odd := [name for name in self.files if Path(name).name != name]:
            raise ValueError(f"the file name {odd[0]!r} leads out of the bundle")
        return self


def graph_io(role: Role, model: Model) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a graph: ``x0`` of a denoiser, ``x_next`` of a step."""
    tile, bands = model.tile, model.bands
    wide: Shape = ("batch", bands, tile, tile)
    inputs: dict[str, Shape] = {
        "x_t": wide,
        "pan": ("batch", 1, tile, tile),
        "lms": wide,
        "ms": ("batch", bands, tile // RATIO, tile // RATIO),
        "t": ("batch",),
    }
    if role == "step":
        inputs["coefficients"] = (3,)
    specs = tuple(TensorSpec(name=name, shape=shape) for name, shape in inputs.items())
    return specs, (TensorSpec(name="x0" if role == "denoiser" else "x_next", shape=wide),)
