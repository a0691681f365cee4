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
        engines/                        TensorRT engines, used only where they are trusted
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from ssdiff_trt.runtime.bundle.measured import Judgement, Lowering, Parity, Quantisation, Strict
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.files import json_of
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.options import Precision
from ssdiff_trt.runtime.schedule import Schedule, make_schedule

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


class Model(Strict):
    """Architecture of the network."""

    network: Literal["SSNet"] = "SSNet"
    bands: int = Field(ge=1)
    dim: Literal[32] = 32
    """Channels of the network."""
    ratio: Literal[4] = 4
    """Ratio of the pixel sizes of MS and PAN."""
    tile: int = Field(ge=16, multiple_of=16)
    """Side of a tile, PAN pixels."""


class SensorScale(Strict):
    """The imagery that the model was trained for."""

    name: str
    bands: tuple[str, ...]
    """Band names in the order that the network expects."""
    full_scale: float = Field(gt=0, allow_inf_nan=False)
    """Digital number that corresponds to 1; inputs of the network are divided by it."""


class SamplerDefaults(Strict):
    """Defaults of the bundle for how images are made."""

    name: Literal["consistent", "released"]
    timesteps: tuple[int, ...]
    back_projection: float = Field(default=0, ge=0, le=1)
    """Share of the difference from MS that is corrected after sampling."""

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


class TensorSpec(Strict):
    """An input or output of a graph; the batch dimension is dynamic."""

    name: str
    shape: Shape
    dtype: Literal["float32"] = "float32"


class Graph(Strict):
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


class Provenance(Strict):
    """Origin of the weights."""

    weights: str
    weights_sha256: str
    created: str
    exporter: str
    training_data: str = "not stated"
    licence: str = "not stated"
    attribution: str = ""
    """Credits that licences of the training data ask for."""
    metrics: dict[str, Any] = Field(default={})
    extends: str | None = None
    """sha256 of the manifest of the shipped bundle that this one has more graphs than."""


class Manifest(Strict):
    """The content of ``manifest.json``."""

    format: Literal[3] = 3
    name: str
    model: Model
    sensor: SensorScale
    sampler: SamplerDefaults
    graphs: tuple[Graph, ...]
    files: dict[str, str]
    """sha256 of every file of the bundle except the manifest and engines, by file name."""
    engines: dict[str, str] = Field(default={})
    """sha256 of every engine in the folder ``engines``, by file name."""
    provenance: Provenance
    parity: tuple[Parity, ...] = ()
    judged: Judgement | None = None
    """What the export saw the weights do; older bundles do not say."""
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
            if not graph.file.endswith(".onnx"):  # another suffix may mean another format
                raise ValueError(f"the graph {graph.file!r} is no .onnx file")
            if (graph.inputs, graph.outputs) != graph_io(graph.role, self.model):
                raise ValueError(
                    f"the inputs or outputs of the graph {graph.file} are not those of a "
                    f"{graph.role} with {self.model.bands} bands and tiles of {self.model.tile} "
                    "pixels"
                )
        for name in (*self.files, *self.engines):
            if Path(name).name != name:
                raise ValueError(f"the file {name!r} is outside the bundle directory")
        return self

    def warnings(self) -> Iterator[str]:
        """What whoever uses the bundle should know of its weights."""
        if self.judged and self.judged.worse:
            yield (
                f"the weights of {self.name} were worse than interpolation on real tiles "
                f"({self.judged}); check that they are trained, and of the configuration that "
                "ssdiff-export names"
            )


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


_MIGRATIONS: dict[int, dict[str, Any]] = {1: {"format": 2}, 2: {"format": 3}}
"""What to set in content of a format to make it that of the next, which may have more fields.

Format 2 added ``provenance.extends``, format 3 ``engines``, ``judged`` and ``rounding`` of parity.
"""


def read_manifest(text: bytes) -> Manifest:
    """Read a ``manifest.json`` of this or an earlier format.

    Raises:
        ValueError: if it is not valid, or of a later format; the message says what is wrong.
    """
    content = json_of(text)
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    current = Manifest.model_fields["format"].default
    while (found := content.get("format")) != current:
        if not isinstance(found, int) or found not in _MIGRATIONS:
            raise ValueError(f"format is {found!r}, this version reads 1 to {current}")
        content |= _MIGRATIONS[found]
    return Manifest.model_validate(content)
