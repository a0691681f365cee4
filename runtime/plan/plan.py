"""The plan of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.memory import check_memory
from ssdiff_trt.runtime.options import PairOptions, Precision, SamplingOptions
from ssdiff_trt.runtime.plan.assumptions import Assumptions, assume
from ssdiff_trt.runtime.schedule import AUTHORS_TIMESTEPS, Schedule, make_schedule, spaced_timesteps
from ssdiff_trt.runtime.sensors import Sensor, optics_of
from ssdiff_trt.runtime.sources import Sink, Source
from ssdiff_trt.runtime.tiles.tiling import Axis, Window, windows

DEFAULT_OVERLAP = 16
"""Pixels over which neighbouring tiles are blended, where tiles are large enough."""
_PLACE = 80
"""Bytes of the places where a tile starts and has weight, along one axis."""
_BLOCK = 150 / 256**2
"""Bytes, for each pixel, of the place of a block in a set."""


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
    quicklook: Path | None
    """Picture to draw of the result, if any."""
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
    def optics(self) -> Sensor:
        """The sensor whose MTF the consistency with MS assumes."""
        return optics_of(self.bundle.manifest.sensor.name, len(self.source.bands))

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
        known = self.bundle.manifest.warnings()
        return (*known, *_uncalibrated(self), *self.assumptions.warnings, *self.sink.warnings)

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
    quicklook: Path | None = None,
    window: int = 768,
    precision: Precision | None = None,
) -> Plan:
    """Decide how a pair is pansharpened, and refuse what cannot be.

    Raises:
        SSDiffError: when pair, bundle and options do not fit.
    """
    assumptions = assume(source, bundle, pair)
    model = assumptions.bundle.manifest.model
    overlap = sampling.tile_overlap
    if overlap is None:
        overlap = min(DEFAULT_OVERLAP, model.tile // 2)
    rows, cols = (
        Axis(len(axis), model.tile, overlap, margin=overlap // 2 // RATIO * RATIO)
        for axis in (assumptions.source.rows, assumptions.source.cols)
    )
    check_memory(
        memory_of(rows, cols, len(source.bands)),
        f"Pansharpening {source.name} to {cols.size} x {rows.size} pixels",
        "cut out a smaller area of PAN and MS with gdal_translate -projwin",
    )
    return Plan(
        assumptions=assumptions,
        schedule=choose_schedule(assumptions.bundle, sampling),
        seed=sampling.seed,
        rows=rows,
        cols=cols,
        sink=sink,
        output=output,
        quicklook=quicklook,
        window=window,
        precision=precision,
    )


def memory_of(rows: Axis, cols: Axis, bands: int) -> float:
    """Bytes of what grows with the scene: sums for the windows below, tiles' places, and the blocks
    of the output that are filled."""
    step = cols.tile - cols.overlap
    sums = 4 * bands * cols.overlap * cols.size
    places = _PLACE * (rows.size + cols.size) / step
    return sums + places + _BLOCK * rows.size * cols.size


def choose_schedule(bundle: Bundle, sampling: SamplingOptions) -> Schedule:
    """The bundle's own schedule, or the one asked for.

    ``released`` alone means the authors' sampler at the authors' timesteps, since it tells the
    network the index of a timestep in their list.
    """
    default = bundle.manifest.sampler
    timesteps: Sequence[int] = default.timesteps
    if sampling.steps is not None:
        timesteps = spaced_timesteps(sampling.steps)
    elif sampling.timesteps is not None:
        timesteps = sampling.timesteps
    elif sampling.sampler == "released" != default.name:
        timesteps = AUTHORS_TIMESTEPS
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
