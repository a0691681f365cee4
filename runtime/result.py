"""The plan of a run, and its result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.assumptions import Assumptions, assume
from ssdiff_trt.runtime.bundle.manifest import Precision
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import InputError, counted
from ssdiff_trt.runtime.options import PairOptions, SamplingOptions
from ssdiff_trt.runtime.schedule import Schedule, make_schedule, spaced_timesteps
from ssdiff_trt.runtime.sources import Sink, Source
from ssdiff_trt.runtime.tiles.inputs import WindowInputs
from ssdiff_trt.runtime.tiles.tiling import Axis, Window, windows


@dataclass(frozen=True)
class Plan:
    """All that a run depends on but the backend. Everything that can be refused was refused."""

    assumptions: Assumptions[Source]
    schedule: Schedule
    seed: int
    rows: Axis
    """Tiles along the rows of the grid."""
    cols: Axis
    sink: Sink
    output: Path | None
    """File of the result; None for arrays."""
    window: int
    """Pixels on a side that are read and written at a time."""
    precision: Precision | None
    """Precision of the network, where it was asked for."""

    @property
    def source(self) -> Source:
        """The pair."""
        return self.assumptions.source

    @property
    def bundle(self) -> Bundle:
        """The network."""
        return self.assumptions.bundle

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result in pixels."""
        rows, cols = self.source.output
        return len(rows), len(cols)

    @property
    def tiles(self) -> int:
        """Number of tiles, empty ones included."""
        return len(self.rows.starts) * len(self.cols.starts)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence each."""
        return (*_uncalibrated(self), *self.assumptions.warnings)

    def windows(self) -> Iterator[Window]:
        """Parts of the scene, in the order in which they are read."""
        return windows(self.rows, self.cols, self.window)

    def tags(self, backend: str) -> dict[str, str]:
        """Provenance of the pixels, for the metadata of a file."""
        manifest, taken = self.bundle.manifest, self.assumptions
        software = f"ssdiff-trt {version('ssdiff-trt')}"
        moved = {"SSDIFF_SHIFT": "{:g},{:g}".format(*taken.shift)} if any(taken.shift) else {}
        return {
            "TIFFTAG_SOFTWARE": software,
            "SSDIFF_VERSION": software,
            "SSDIFF_MODEL": f"{manifest.model.network} {manifest.name}",
            "SSDIFF_BUNDLE_SHA256": self.bundle.sha256,
            "SSDIFF_WEIGHTS_SHA256": manifest.provenance.weights_sha256,
            "SSDIFF_BACKEND": backend,
            "SSDIFF_SAMPLER": self.schedule.sampler,
            "SSDIFF_STEPS": str(len(self.schedule.steps)),
            "SSDIFF_TIMESTEPS": ",".join(map(str, self.schedule.timesteps)),
            "SSDIFF_SEED": str(self.seed),
            "SSDIFF_FULL_SCALE": f"{taken.ms_scale.value:g}",
            "SSDIFF_PAN_FULL_SCALE": f"{taken.pan_scale.value:g}",
            "SSDIFF_BANDS": ",".join(map(str, self.source.bands)),
            "SSDIFF_TILE_OVERLAP": str(self.rows.overlap),
            **moved,
        }


def make_plan(
    source: Source,
    bundle: str | Path | Bundle | None,
    pair: PairOptions,
    sampling: SamplingOptions,
    *,
    sink: Sink,
    output: Path | None = None,
    window: int = 768,
    precision: Precision | None = None,
) -> Plan:
    """Decide how a pair is pansharpened, and refuse what cannot be.

    Raises:
        SSDiffError: when pair, bundle and options do not fit.
    """
    assumptions = assume(source, bundle, pair)
    model = assumptions.bundle.manifest.model
    rows, cols = (
        Axis(len(axis), model.tile, sampling.tile_overlap)
        for axis in (assumptions.source.rows, assumptions.source.cols)
    )
    return Plan(
        assumptions=assumptions,
        schedule=choose_schedule(assumptions.bundle, sampling),
        seed=sampling.seed,
        rows=rows,
        cols=cols,
        sink=sink,
        output=output,
        window=window,
        precision=precision,
    )


def choose_schedule(bundle: Bundle, sampling: SamplingOptions) -> Schedule:
    """The bundle's own schedule, or the one asked for."""
    default = bundle.manifest.sampler
    timesteps: Sequence[int] = default.timesteps
    if sampling.steps is not None:
        timesteps = spaced_timesteps(sampling.steps)
    elif sampling.timesteps is not None:
        timesteps = sampling.timesteps
    return make_schedule(timesteps, sampling.sampler or default.name)


def _uncalibrated(plan: Plan) -> Iterator[str]:
    """A warning where INT8 is not calibrated for a timestep of the schedule."""
    quantisation = plan.bundle.manifest.quantisation
    if plan.precision != "int8" or quantisation is None:
        return
    if not set(plan.schedule.timesteps) <= set(quantisation.timesteps):
        calibrated = ", ".join(map(str, quantisation.timesteps))
        yield (
            f"int8 is calibrated for t = {calibrated} and this run visits others; collect samples "
            "with other `timesteps`, or choose another `precision`"
        )


@dataclass
class Counts:
    """What a run counts."""

    tiles: int = 0
    """Tiles that were sampled."""
    empty_tiles: int = 0
    """Tiles without a valid pixel, which were not."""
    invalid_pixels: int = 0
    """Pixels of the result without a value."""
    beyond_pan: int = 0
    """Valid PAN pixels below 0 or above full scale."""
    beyond_ms: int = 0
    """Valid MS pixels likewise; the result is within 0 and full scale."""
    clipped: int = 0
    """Values of valid pixels that the output type could not hold."""
    redone: int = 0
    """Tiles with non-finite values in low precision, computed again in FP32."""

    def add(self, inputs: WindowInputs) -> None:
        """Count a window."""
        self.tiles += len(inputs.places)
        self.empty_tiles += len(inputs.window.tiles) - len(inputs.places)
        self.beyond_pan += inputs.beyond_pan
        self.beyond_ms += inputs.beyond_ms


@dataclass(frozen=True)
class Result:
    """What a run did."""

    plan: Plan
    counts: Counts
    backend: str
    """Description of the backend."""
    precision: Precision
    """Precision of the network."""
    seconds: float
    image: NDArray[np.generic] | None = field(default=None, repr=False)
    """The fused image ``[C, H, W]`` of a run on arrays; a masked array where there are holes."""
    quicklook: Path | None = None
    """Picture of the run, if one was drawn."""

    @property
    def output(self) -> Path | None:
        """File of the result; None for arrays."""
        return self.plan.output

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result in pixels."""
        return self.plan.size

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of the plan, and of values that did not fit; one sentence each."""
        return (*self.plan.warnings, *self.run_warnings())

    def run_warnings(self) -> Iterator[str]:
        """Warnings that only the run could give."""
        counts, taken = self.counts, self.plan.assumptions
        for role, beyond, scale in (
            ("PAN", counts.beyond_pan, taken.pan_scale),
            ("MS", counts.beyond_ms, taken.ms_scale),
        ):
            if beyond:
                yield (
                    f"{counted(beyond, 'valid pixel')} of {role} below 0 or above full scale "
                    f"{scale.value:g}; the result is limited to that range; if the data has a "
                    "larger one, pass `full_scale`"
                )
        if counts.clipped:
            yield (
                f"{counted(counts.clipped, 'value')} did not fit into the data type of the result "
                "and were set to its limits; choose another `dtype`"
            )
        if counts.redone:
            yield (
                f"{counted(counts.redone, 'tile')} had non-finite values in {self.precision} and "
                "were computed again in fp32; if these are many, choose `precision=fp32`"
            )
        if counts.invalid_pixels == self.size[0] * self.size[1]:
            yield "no pixel is valid in both PAN and MS, so the result is empty"

    def __repr__(self) -> str:
        height, width = self.size
        place = f"{self.output}" if self.output else "array"
        tiles = counted(self.counts.tiles, "tile")
        return f"<Result {place}: {width} x {height}, {tiles}, {self.seconds:.1f} s>"


def changed_source(plan: Plan) -> InputError:
    """The error for a source that changed while it was read."""
    return InputError(
        f"PAN or MS ({plan.source.name}) changed while it was read, so the result would mix two "
        "states and was not written; run again."
    )
