"""Schema of the manifest of a bundle, a directory with everything a run needs.

::

    NAME.ssdiff/
        manifest.json                   model, sensor, sampler, provenance and parity of the graphs
        denoiser.fp32.portable.onnx     one call of the network, in basic ONNX operators
        denoiser.fp32.fused.onnx        the same with the ONNX Attention operator
        denoiser.fp32.contrib.onnx      the same with operators of ONNX Runtime, for the CPU
        step.fp32.portable.onnx         network and sampler update in one graph
        step.fp32.fused.onnx
        weights.fp32.safetensors        weights shared by all graphs, also usable as a checkpoint
        ...fp16..., ...bf16..., ...int8...  the same in lower precision, if exported
        engines/                        TensorRT engines, a cache
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssdiff_trt.runtime.errors import InputError, SSDiffError
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.schedule import Schedule, make_schedule

Precision = Literal["fp32", "fp16", "bf16", "int8"]
Form = Literal["portable", "fused", "contrib"]
"""How a graph expresses attention: matrix products, the ONNX operator, or ONNX Runtime's own."""
FORMS: tuple[Form, ...] = get_args(Form)
Role = Literal["denoiser", "step"]
"""What a graph computes: one call of the network, or a whole sampling step."""
ROLES: tuple[Role, ...] = get_args(Role)


def kinds(precision: Precision) -> tuple[tuple[Role, Form], ...]:
    """Roles and forms of the graphs that are exported in a precision.

    The form ``contrib`` is for the CPU, and only exported where it is faster there.
    """
    common = tuple((role, form) for role in ROLES for form in FORMS if form != "contrib")
    return (*common, ("denoiser", "contrib")) if precision in ("fp32", "int8") else common


Shape = tuple[Literal["batch"] | int, ...]


class _Strict(BaseModel):
    """Base of immutable models that reject unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(_Strict):
    """Architecture of the network."""

    network: Literal["SSNet"] = "SSNet"
    bands: int = Field(ge=1)
    dim: Literal[32] = 32
    """Channels of the network."""
    ratio: Literal[4] = 4
    """Ratio of the pixel sizes of MS and PAN."""
    tile: int = Field(ge=16, multiple_of=16)
    """Side of a tile, PAN pixels."""


class SensorScale(_Strict):
    """The imagery that the model was trained for."""

    name: str
    bands: tuple[str, ...]
    """Band names in the order that the network expects."""
    full_scale: float = Field(gt=0, allow_inf_nan=False)
    """Digital number that corresponds to 1; inputs of the network are divided by it."""


class SamplerDefaults(_Strict):
    """Default sampler and timesteps of the bundle."""

    name: Literal["consistent", "released"]
    timesteps: tuple[int, ...]

    @model_validator(mode="after")
    def _check_timesteps(self) -> SamplerDefaults:
        try:
            self.schedule()
        except SSDiffError as error:
            raise ValueError(str(error)) from error
        return self

    def schedule(self) -> Schedule:
        """The schedule over these timesteps."""
        return make_schedule(self.timesteps, self.name)


class TensorSpec(_Strict):
    """An input or output of a graph; the batch dimension is dynamic."""

    name: str
    shape: Shape
    dtype: Literal["float32"] = "float32"


class Graph(_Strict):
    """One ONNX file."""

    file: str
    weights: str
    """File beside it with its external data."""
    role: Role
    precision: Precision
    form: Form
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Limits(_Strict):
    """Allowed deviation of a precision from the reference, as a fraction of full scale."""

    max: float | None = None
    """Largest difference, at any step."""
    rmse: float | None = None
    """Root mean square difference, at any step."""
    psnr: float | None = None
    """Minimum PSNR of the final image for a peak value of 1, dB."""


class Deviation(_Strict):
    """Deviation of one computation from the reference, as a fraction of full scale."""

    max: float
    """Largest difference."""
    rmse: float
    """Root mean square difference."""
    psnr: float
    """PSNR for a peak value of 1, dB."""


class StepParity(_Strict):
    """Deviations of the image of one sampling step, where each computation runs its own loop."""

    t: int
    """Training timestep."""
    deviations: dict[str, Deviation]
    """Deviations by name of the computation."""


class Trajectory(_Strict):
    """Parity of a sampling loop on one set of tiles."""

    inputs: Literal["random", "real"]
    steps: tuple[StepParity, ...]


class Parity(_Strict):
    """Result of the parity check of the graphs of one precision."""

    precision: Precision
    limits: Limits
    reference: str
    """Description of the reference computation."""
    trajectories: tuple[Trajectory, ...]


class Lowering(_Strict):
    """How the graphs of a lower floating-point precision were derived."""

    precision: Precision
    kept: tuple[str, ...]
    """Operations kept in FP32, each with the reason."""
    largest: float
    """Largest magnitude in the lowered operations on real tiles; FP16 overflows above 65504."""
    where: str
    """Module and operation with that magnitude."""


class Budget(_Strict):
    """Allowed loss of quality through INT8."""

    loss: float = Field(gt=0, lt=1)
    """Allowed relative increase of ERGAS and of SAM over FP32."""
    psnr: float = 45
    """Minimum PSNR against the FP32 images for a peak value of 1, dB."""

    @classmethod
    def allowing(cls, loss: float) -> Budget:
        """A budget with an allowed relative increase of ERGAS and of SAM.

        Raises:
            SSDiffError: if it is not between 0 and 1.
        """
        if not 0 < loss < 1:
            raise InputError(
                f"A loss of {loss:.0%} does not work; give one above 0 % and below 100 %.",
                parameter="max_ergas_loss",
            )
        return cls(loss=loss)

    def faults(self, verdict: Verdict) -> Iterator[str]:
        """Measures of a verdict that are over budget, a clause each."""
        for name, now, before in (
            ("ERGAS", verdict.ergas, verdict.ergas_fp32),
            ("SAM", verdict.sam, verdict.sam_fp32),
        ):
            if not now <= before * (1 + self.loss):
                yield f"{name} is {now:.4f} and {before:.4f} in FP32, {self.loss:.2%} is allowed"
        if not verdict.psnr >= self.psnr:
            yield f"PSNR to FP32 is {verdict.psnr:.1f} dB, {self.psnr:g} dB are needed"


class Verdict(_Strict):
    """Quality of INT8 and FP32 graphs on tiles with a reference image."""

    tiles: int
    """Number of tiles."""
    ergas_fp32: float
    ergas: float
    sam_fp32: float
    """SAM in degrees."""
    sam: float
    """SAM in degrees."""
    psnr: float
    """PSNR of the INT8 images against the FP32 images for a peak value of 1, dB."""

    @property
    def ergas_loss(self) -> float:
        """Relative increase of ERGAS over FP32; negative if INT8 is better."""
        return self.ergas / self.ergas_fp32 - 1

    @property
    def sam_loss(self) -> float:
        """Relative increase of SAM over FP32; negative if INT8 is better."""
        return self.sam / self.sam_fp32 - 1

    def __str__(self) -> str:
        return (
            f"ERGAS {self.ergas:.4f} ({self.ergas_loss:+.2%}), SAM {self.sam:.4f} "
            f"({self.sam_loss:+.2%}), {self.psnr:.1f} dB to FP32"
        )


class Quantisation(_Strict):
    """How the INT8 graphs were calibrated, and the quality they reach."""

    samples: str
    """sha256 of the file of calibration samples."""
    sources: tuple[str, ...]
    """Imagery that the samples are from."""
    timesteps: tuple[int, ...]
    """Timesteps of the calibration."""
    tiles: int
    """Number of calibration tiles, each used at every timestep."""
    method: str
    """Method that derives ranges from the samples."""
    groups: tuple[str, ...]
    """Layer groups in INT8."""
    excluded: tuple[str, ...]
    """Layer groups that could be in INT8 but would exceed the budget."""
    budget: Budget
    verdict: Verdict
    """Quality on held-out tiles."""

    @model_validator(mode="after")
    def _within_budget(self) -> Quantisation:
        for fault in self.budget.faults(self.verdict):
            raise ValueError(f"its INT8 graphs are over budget: {fault}")
        return self


class Provenance(_Strict):
    """Origin of the weights."""

    weights: str
    weights_sha256: str
    created: str
    exporter: str
    training_data: str = "not stated"
    licence: str = "not stated"
    attribution: str = ""
    """Credits that licences of the training data ask for."""
    metrics: dict[str, Any] = {}
    extends: str | None = None
    """sha256 of the manifest of the shipped bundle that this one has more graphs than."""


class Manifest(_Strict):
    """The content of ``manifest.json``."""

    format: Literal[2] = 2
    name: str
    model: Model
    sensor: SensorScale
    sampler: SamplerDefaults
    graphs: tuple[Graph, ...]
    files: dict[str, str]
    """sha256 of every file of the bundle except the manifest, by file name."""
    provenance: Provenance
    parity: tuple[Parity, ...] = ()
    lowering: tuple[Lowering, ...] = ()
    quantisation: Quantisation | None = None
    """Quantisation of the INT8 graphs; required if there are any."""

    @model_validator(mode="after")
    def _check_consistency(self) -> Manifest:
        if len(self.sensor.bands) != self.model.bands:
            raise ValueError(
                f"the sensor names {len(self.sensor.bands)} bands, the model has {self.model.bands}"
            )
        if self.quantisation is None and any(g.precision == "int8" for g in self.graphs):
            raise ValueError("it has graphs in INT8 and no verdict on them")
        for graph in self.graphs:
            for name in (graph.file, graph.weights):
                if name not in self.files:
                    raise ValueError(f"{name}, used by a graph, is not in the list of files")
            if (graph.inputs, graph.outputs) != graph_io(graph.role, self.model):
                raise ValueError(
                    f"the inputs or outputs of the graph {graph.file} are not those of a "
                    f"{graph.role} with {self.model.bands} bands and tiles of {self.model.tile} "
                    "pixels"
                )
        if outside := [name for name in self.files if Path(name).name != name]:
            raise ValueError(f"the file {outside[0]!r} is outside the bundle directory")
        return self


def graph_io(role: Role, model: Model) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a graph. The output is ``x0`` of a denoiser or ``x_next`` of a step."""
    tile, bands = model.tile, model.bands
    fine: Shape = ("batch", bands, tile, tile)
    inputs: dict[str, Shape] = {
        "x_t": fine,
        "pan": ("batch", 1, tile, tile),
        "lms": fine,
        "ms": ("batch", bands, tile // RATIO, tile // RATIO),
        "t": ("batch",),
    }
    if role == "step":
        inputs["coefficients"] = (3,)
    specs = tuple(TensorSpec(name=name, shape=shape) for name, shape in inputs.items())
    return specs, (TensorSpec(name="x0" if role == "denoiser" else "x_next", shape=fine),)


def _from_format_1(content: dict[str, Any]) -> dict[str, Any]:
    """Format 2 added ``provenance.extends``."""
    return content | {"format": 2}


_MIGRATIONS = {1: _from_format_1}
"""How content of a format becomes that of the next."""


def read_manifest(text: bytes) -> Manifest:
    """Read a ``manifest.json`` of this or an earlier format.

    Raises:
        ValueError: if it is not valid, or of a later format; the message says what is wrong.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    current = Manifest.model_fields["format"].default
    while (found := content.get("format")) != current:
        if found not in _MIGRATIONS:
            raise ValueError(f"format is {found}, this version reads 1 to {current}")
        content = _MIGRATIONS[found](content)
    return Manifest.model_validate(content)
