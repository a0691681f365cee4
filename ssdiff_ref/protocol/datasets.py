"""Imagery to judge methods on; here from rasters.

A dataset is one scene or several of one size, read one at a time. Its scenes are either pairs as
the sensor took them, or simulated ones that come with their truth (``gt``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssdiff_ref.protocol.pair import Pair
from ssdiff_ref.protocol.rectangle import largest_rectangle
from ssdiff_ref.protocol.simulation import bring_onto_ms, degrade
from ssdiff_ref.quality.checks import Image, Mask, fit_sensor
from ssdiff_ref.quality.quality_index import BLOCK
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.interpolator import GROUND_POSITION, HALO, PROTOCOL_POSITION, RATIO
from ssdiff_trt.runtime.options import PairOptions
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.raster.placement import ON_GRID
from ssdiff_trt.runtime.raster.radiometry import Scale, choose_scales
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.sensors import Sensor

_MS_MULTIPLE = BLOCK // RATIO
"""Sides of a pair's MS: PAN is then whole blocks, as the toolbox wants it at full resolution, and
MS can be decimated by 4 for the reduced one."""


@dataclass(frozen=True)
class Sample:
    """A scene, in digital numbers, float64. The bands and PAN are in the same unit."""

    pan: Image
    """``[H, W]``."""
    ms: Image
    """``[C, H/4, W/4]``."""
    lms: Image | None = None
    """``[C, H, W]``, if the file has it."""
    truth: Image | None = None
    """``[C, H, W]`` of a simulated scene."""
    position: tuple[float, float] = (GROUND_POSITION, GROUND_POSITION)
    """Where the first pixel of MS lies on PAN, as far as anyone knows."""
    aligned: bool = False
    """Whether PAN is to be brought to where the protocol has MS at full resolution too, since
    ``position`` was measured or stated."""

    def as_given(self, sensor: Sensor) -> Pair:
        """The pair itself; ``lms`` is the file's own, for that is what published scores used."""
        pan = self.pan
        if self.aligned:
            row, col = self.position
            pan = bring_onto_ms(pan, (row - PROTOCOL_POSITION, col - PROTOCOL_POSITION))
        if self.lms is None:
            return Pair.of(pan, self.ms, sensor)
        return Pair(pan, self.ms, self.lms, sensor)

    def reduced(self, sensor: Sensor) -> tuple[Pair, Image]:
        """A pair whose truth is known, and that truth."""
        if self.truth is not None:
            return replace(self.as_given(sensor), has_truth=True), self.truth
        ms, pan = degrade(self.ms, self.pan, sensor, self.position)
        return replace(Pair.of(pan, ms, sensor), has_truth=True), self.ms


@dataclass(frozen=True)
class Dataset:
    """Scenes of one kind and size."""

    name: str
    count: int
    sensor: Sensor
    scale: Scale
    """Full scale of all bands and of PAN."""
    rows: range
    """Of PAN, that are judged."""
    cols: range
    simulated: bool
    """Whether the truth comes along."""
    read: Callable[[int], Sample]
    """Scene by index from 0."""

    @property
    def truth_size(self) -> tuple[int, int]:
        """Height and width of what results at reduced resolution are compared with."""
        ratio = 1 if self.simulated else RATIO
        return len(self.rows) // ratio, len(self.cols) // ratio


@dataclass(frozen=True)
class WholePair:
    """The part of two rasters that is whole pixels of MS in both, all of it in memory."""

    pan: NDArray[np.float32]
    """``[H, W]``."""
    pan_valid: Mask
    ms: NDArray[np.float32]
    """``[C, H/4, W/4]``."""
    ms_valid: Mask
    rows: range
    """Of PAN's file."""
    cols: range

    @property
    def valid(self) -> Mask:
        """``[H/4, W/4]``: where MS is valid and so are all 16 pixels of PAN."""
        blocks = self.pan_valid.reshape(len(self.rows) // RATIO, RATIO, -1, RATIO)
        return self.ms_valid & blocks.all(axis=(1, 3))


def read_whole(scene: Scene) -> WholePair:
    """Read all of a scene that lies inside both rasters."""
    rows, cols = scene.whole
    if not (rows and cols):
        raise SSDiffError(
            f"{scene.pan.name} and {scene.ms.name} share no whole pixel of MS, expected an image; "
            "give a larger pair."
        )
    pixels = scene.read(rows, cols)
    inner = np.s_[..., HALO:-HALO, HALO:-HALO]
    return WholePair(
        pixels.pan, pixels.pan_valid, pixels.ms[inner], pixels.ms_valid[inner], rows, cols
    )


def sensor_scale(sensor: Sensor) -> Scale:
    """Full scale where neither the user nor the data tell."""
    return Scale(sensor.full_scale, f"that of the sensor, {sensor.name}")


def open_pair(
    pan: str | Path,
    ms: str | Path,
    sensor: str,
    options: PairOptions,
    *,
    smallest: int = 1,
    progress: Progress,
) -> Dataset:
    """Two rasters as a dataset of one scene: their largest rectangle without nodata.

    Classical methods take no masks, and what they would make of nodata says nothing about them.
    PAN is brought to the unit of MS where their full scales differ, for D_s compares the two.

    ``smallest`` is the least that the sides of MS should be, if there is such a rectangle; the
    other parameters are those of :func:`ssdiff_ref.evaluation.evaluate.evaluate`.

    Raises:
        SSDiffError: when the two do not make a pair, or nothing in them is valid.
    """
    with Scene(pan, ms, options) as scene:
        optics = fit_sensor(sensor, len(scene.bands))
        pan_scale, scale = choose_scales(
            scene.pan_values,
            scene.ms_values,
            sensor_scale(optics),
            full_scale=options.full_scale,
            pan_full_scale=options.pan_full_scale,
        )
        whole = read_whole(scene)
        position, resampled = scene.position, scene.resampled
        bands_used = ",".join(map(str, scene.bands))
    height, width = whole.ms_valid.shape
    rows, cols = largest_rectangle(whole.valid, _MS_MULTIPLE, smallest)
    if not rows:
        rows, cols = largest_rectangle(whole.valid, _MS_MULTIPLE)
    if not rows:
        raise SSDiffError(
            f"No {_MS_MULTIPLE} x {_MS_MULTIPLE} pixels of MS are valid in both {ms} and {pan}, "
            "expected imagery; check --nodata, or give another part."
        )
    fine_rows = whole.rows[RATIO * rows.start : RATIO * rows.stop]
    fine_cols = whole.cols[RATIO * cols.start : RATIO * cols.stop]
    progress.note(f"{Path(ms).name}: bands {bands_used}; {width} x {height} pixels on PAN")
    if (len(rows), len(cols)) != (height, width):
        why = "" if whole.valid.all() else "the largest part without nodata, "
        progress.note(
            f"Judged on rows {fine_rows[0]} to {fine_rows[-1]} and columns {fine_cols[0]} to "
            f"{fine_cols[-1]} of PAN: {why}cut to multiples of {BLOCK} pixels"
        )
    if resampled:
        progress.warn(
            "MS has to be warped onto PAN's grid (cubic), and that is what is judged; for scores "
            "to be compared with others, give a pair whose grids fit"
        )
    off = [p - GROUND_POSITION for p in position]
    if max(map(abs, off)) > ON_GRID:
        progress.note(
            f"MS lies {off[0]:+.2f} rows and {off[1]:+.2f} columns of PAN off its grid: at reduced "
            "resolution PAN is shrunk onto it, at full resolution the protocol does not ask"
        )
    pan_values, ms_values = whole.pan.astype(np.float64), whole.ms.astype(np.float64)
    if pan_scale.value != scale.value:
        pan_values *= scale.value / pan_scale.value
        progress.note(f"PAN, of full scale {pan_scale}, is brought to that of MS")
    fine = np.s_[RATIO * rows.start : RATIO * rows.stop, RATIO * cols.start : RATIO * cols.stop]
    coarse = np.s_[:, rows.start : rows.stop, cols.start : cols.stop]
    sample = Sample(pan_values[fine], ms_values[coarse], position=position)
    return Dataset(
        name=f"{Path(pan).name} and {Path(ms).name}",
        count=1,
        sensor=optics,
        scale=scale,
        rows=fine_rows,
        cols=fine_cols,
        simulated=False,
        read=lambda _: sample,
    )
