"""The plan of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from math import isfinite, prod
from pathlib import Path
from typing import Any

from ssdiff_trt.runtime.arguments import changed
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.memory import check_memory, in_words
from ssdiff_trt.runtime.options import PairOptions, Precision, SamplingOptions
from ssdiff_trt.runtime.plan.assumptions import Assumptions, assume
from ssdiff_trt.runtime.schedule import AUTHORS_TIMESTEPS, Schedule, make_schedule, spaced_timesteps
from ssdiff_trt.runtime.sensors import Sensor, optics_of
from ssdiff_trt.runtime.sources import Disk, Rectangle, Sink, Source
from ssdiff_trt.runtime.tiles.tiling import Axis, Block, Window, blocks
from ssdiff_trt.runtime.uploads import Upload

DEFAULT_OVERLAP = 16
"""Pixels over which neighbouring tiles are blended, where tiles are large enough."""
BLOCK = 2016
"""Pixels on a side of a block: with tiles of its neighbours at its border, 2.4 % more for tiles of
32 pixels, 4.8 % for 64."""
WINDOW = 768
"""Pixels on a side of the windows in which a block is read and its tiles are prepared."""
_LONGEST = 10_000_000
"""Most rows and columns of a result; beyond, a header is wrong, or was made to do harm."""
_VALUE = 4
"""Least bytes of a pixel of the result: four bands of one byte."""
_PLACE = 80
"""Bytes of the places where a tile starts and has weight, along one axis."""
_FILLED = 150 / 256**2
"""Bytes, for each pixel, of the place of a block of the file in a set."""


@dataclass(frozen=True)
class Plan:
    """All that a run depends on but the backend. Everything that can be refused was refused."""

    assumptions: Assumptions[Source]
    schedule: Schedule
    seeds: tuple[int, ...]
    """Seeds of the noise: that of the result, then those that only its uncertainty depends on."""
    pair: PairOptions
    extent: Rectangle
    """Rows and columns of PAN that the result has."""
    rows: Axis
    """Tiles along the rows of the grid."""
    cols: Axis
    sink: Sink
    output: Path | None
    """File of the result; None for arrays."""
    quicklook: Path | None
    """Picture to draw of the result, if any."""
    block: int
    """Most pixels on a side of a block."""
    back_projection: float
    """Share of the difference from MS that is corrected after sampling, 0 to 1."""
    precision: Precision | None
    """Precision of the network, where it was asked for."""
    uncertainty: Path | None = None
    """File of the uncertainty of the result, if any."""
    upload: Upload | None = None
    """Where the result goes when it is complete, if not on a disk."""

    @property
    def destination(self) -> str | None:
        """File or URL of the result; None for arrays."""
        if self.upload:
            return self.upload.url
        return str(self.output) if self.output else None

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
        """The sensor whose MTF is assumed for MS."""
        return optics_of(self.bundle.manifest.sensor.name, len(self.source.bands))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result in pixels."""
        rows, cols = self.extent
        return len(rows), len(cols)

    @cached_property
    def blocks(self) -> list[Block]:
        """Parts of the result that are finished one by one, row by row."""
        rows, cols = (
            range(part.start - grid.start, part.stop - grid.start)
            for part, grid in zip(self.extent, (self.source.rows, self.source.cols), strict=True)
        )
        return blocks(self.rows, self.cols, (rows, cols), self.block)

    def place(self, part: Block | Window) -> Rectangle:
        """Rows and columns of PAN of a block, or of a window of one."""
        (rows, cols), grid = part.write, (self.source.rows, self.source.cols)
        top, left = (axis.start for axis in grid)
        return range(top + rows.start, top + rows.stop), range(left + cols.start, left + cols.stop)

    @property
    def tiles(self) -> int:
        """Number of tiles, empty ones included; those at borders of blocks count for each."""
        return sum(block.tiles for block in self.blocks)

    @property
    def disk(self) -> Disk:
        """Space that the result takes."""
        return self.sink.disk([self.place(block) for block in self.blocks])

    @property
    def memory(self) -> float:
        """Bytes of what the run holds beside the network: the sums of a block and of the one before
        it, which is being written, tiles of a window and of the next, and what grows with the
        scene."""
        bands, tile = len(self.source.bands), self.rows.tile
        sums = 4 * bands * (1 + self.sink.with_uncertainty)
        block = sums * max(prod(map(len, block.write)) for block in self.blocks)
        window = min(WINDOW, max(self.size)) / (tile - self.rows.overlap) + 2
        tiles = 4 * (2 * bands + 1 + bands / RATIO**2) * (window * tile) ** 2
        return 2 * block + 2 * tiles + memory_of(self.rows, self.cols)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence each."""
        known = self.bundle.manifest.warnings()
        assumed, sink = self.assumptions.warnings, self.sink.warnings
        return (*known, *_uncalibrated(self), *assumed, *sink, *self.disk.warnings)

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
            "SSDIFF_SEED": str(self.seeds[0]),
            "SSDIFF_FULL_SCALE": f"{taken.ms_scale.value:g}",
            "SSDIFF_PAN_FULL_SCALE": f"{taken.pan_scale.value:g}",
            "SSDIFF_BANDS": ",".join(map(str, self.source.bands)),
            "SSDIFF_TILE_OVERLAP": str(self.rows.overlap),
            "SSDIFF_BACK_PROJECTION": f"{self.back_projection:g}",
            **moved,
        }

    def summary(self, backend: str) -> dict[str, Any]:
        """What is assumed and done, as JSON can hold it."""
        taken, (height, width) = self.assumptions, self.size
        measured = taken.measured_shift
        return {
            "output": self.destination,
            "size": {"height": height, "width": width},
            "bands": list(self.source.bands),
            "full_scale": {"pan": taken.pan_scale.value, "ms": taken.ms_scale.value},
            "shift": list(taken.shift),
            "measured_shift": None
            if measured is None or not isfinite(measured.error)
            else {"rows": measured.rows, "cols": measured.cols, "error": measured.error},
            "warped": self.source.resampled,
            "tags": self.tags(backend),
            "quicklook": str(self.quicklook) if self.quicklook else None,
            "uncertainty": str(self.uncertainty) if self.uncertainty else None,
            "warnings": list(self.warnings),
        }

    def work(self, backend: str) -> dict[str, str] | None:
        """All that the pixels depend on, by name; None if the pair cannot be recognised later."""
        if (inputs := self.source.fingerprint()) is None:
            return None
        software = {key: value for key, value in self.tags(backend).items() if "SSDIFF_" in key}
        named = {key.removeprefix("SSDIFF_").lower(): value for key, value in software.items()}
        stated = {name: str(value) for name, value in changed(self.pair).items()}
        stated.pop("shift", None)  # like bands and full scale, named as they were understood
        rows, cols = self.extent
        where = f"rows {rows.start} to {rows.stop}, columns {cols.start} to {cols.stop} of PAN"
        return {"inputs": inputs, **stated, **named, "area": where, "block": str(self.block)}


@dataclass(frozen=True)
class OpenPair:
    """A pair that is open, and where its result goes."""

    source: Source
    sink: Sink
    output: Path | None = None
    """File of the result; None for arrays."""
    uncertainty: Path | None = None
    """File of its uncertainty, if any."""
    quicklook: Path | None = None
    """Picture to draw of it, if any."""
    extent: Rectangle | None = None
    """Rows and columns of PAN that it has; None for all that the pair gives."""
    upload: Upload | None = None
    """Where it goes when it is complete, if not on a disk."""


def make_plan(
    pair: OpenPair,
    bundle: str | Path | Bundle | None,
    reading: PairOptions,
    sampling: SamplingOptions,
    *,
    block: int | None = None,
    precision: Precision | None = None,
    seeds: int = 1,
) -> Plan:
    """Decide how a pair is pansharpened, and refuse what cannot be.

    Args:
        pair: the pair.
        bundle: see :class:`ssdiff_trt.runtime.pansharpener.Pansharpener`.
        reading: how it is understood.
        sampling: how the network samples.
        block: most pixels on a side of a block; by default 2016.
        precision: of the network, where it was asked for.
        seeds: number of seeds whose spread counts in the uncertainty, from that of ``sampling`` on.

    Raises:
        SSDiffError: when pair, bundle and options do not fit.
    """
    assumptions = assume(pair.source, bundle, reading)
    model = assumptions.bundle.manifest.model
    overlap = sampling.tile_overlap
    if overlap is None:
        overlap = min(DEFAULT_OVERLAP, model.tile // 4)
    rows, cols = (
        Axis(len(axis), model.tile, overlap, margin=overlap // 2 // RATIO * RATIO)
        for axis in (assumptions.source.rows, assumptions.source.cols)
    )
    what = f"Pansharpening {pair.source.name} to {cols.size} x {rows.size} pixels"
    remedy = "cut out a smaller area of PAN and MS with gdal_translate -projwin"
    if max(rows.size, cols.size) > _LONGEST:
        tiles = prod(axis.size // (axis.tile - axis.overlap) + 1 for axis in (rows, cols))
        raise InputError(
            f"{what} takes {tiles:,} tiles, and {in_words(_VALUE * prod((rows.size, cols.size)))} "
            f"of disk or more; at most {_LONGEST:,} rows and columns are supported; {remedy}."
        )
    check_memory(memory_of(rows, cols), what, remedy)
    return Plan(
        assumptions=assumptions,
        schedule=choose_schedule(assumptions.bundle, sampling),
        seeds=tuple((sampling.seed + number) % 2**64 for number in range(seeds)),
        pair=reading,
        extent=_within(pair.extent, assumptions.source.output),
        rows=rows,
        cols=cols,
        sink=pair.sink,
        output=pair.output,
        quicklook=pair.quicklook,
        block=block or BLOCK,
        back_projection=_back_projection(assumptions.bundle, sampling),
        precision=precision,
        uncertainty=pair.uncertainty,
        upload=pair.upload,
    )


def _within(extent: Rectangle | None, most: Rectangle) -> Rectangle:
    """The part of an extent that the result has once MS is moved."""
    if extent is None:
        return most
    rows, cols = (
        range(max(part.start, whole.start), min(part.stop, whole.stop))
        for part, whole in zip(extent, most, strict=True)
    )
    if not (rows and cols):
        raise InputError(
            "MS, moved by the shift between the two, does not cover the area; give another.",
            parameter="area",
        )
    return rows, cols


def memory_of(rows: Axis, cols: Axis) -> float:
    """Bytes of what grows with the scene: the places of tiles, and of the blocks of the file that
    are filled."""
    step = cols.tile - cols.overlap
    return _PLACE * (rows.size + cols.size) / step + _FILLED * rows.size * cols.size


def choose_schedule(bundle: Bundle, sampling: SamplingOptions) -> Schedule:
    """The bundle's own schedule, or the one asked for.

    ``released`` alone means the authors' sampler at the authors' timesteps, since its time input
    is the index of a timestep in their list.
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


def _back_projection(bundle: Bundle, sampling: SamplingOptions) -> float:
    """The share asked for, or the bundle's with its own sampler."""
    if sampling.back_projection is not None:
        return sampling.back_projection
    default = bundle.manifest.sampler
    return default.back_projection if sampling.sampler in (None, default.name) else 0.0


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
