"""Evaluation datasets, and how to open a pair of rasters as one.

A dataset is one or more scenes of one size, read one at a time. Its scenes are either pairs as the
sensor acquired them, or simulated pairs with their ground truth (``gt``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssdiff_ref.protocol.pair import Pair
from ssdiff_ref.protocol.rectangle import largest_rectangle
from ssdiff_ref.protocol.simulation import align_pan_to_ms, degrade
from ssdiff_ref.quality.checks import Image, Mask, fit_sensor
from ssdiff_ref.quality.quality_index import BLOCK
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.interpolator import GROUND_POSITION, PROTOCOL_POSITION, RATIO
from ssdiff_trt.runtime.memory import check_memory
from ssdiff_trt.runtime.options import PairOptions
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.raster.checks import check_band_order, check_holes
from ssdiff_trt.runtime.raster.placement import ON_GRID
from ssdiff_trt.runtime.raster.radiometry import Scale, choose_scales
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.sensors import Sensor

_MS_MULTIPLE = BLOCK // RATIO
"""Sides of a pair's MS are multiples of this many pixels.

PAN then consists of whole blocks, which the toolbox requires at full resolution, and MS can be
decimated by 4 for reduced resolution."""
_VALUE = 4 + 8
"""Bytes of a value as it is read and as it is computed with."""


@dataclass(frozen=True)
class Sample:
    """One scene in digital numbers, float64; MS and PAN are in the same unit."""

    pan: Image
    """``[H, W]``."""
    ms: Image
    """``[C, H/4, W/4]``."""
    lms: Image | None = None
    """``[C, H, W]``, interpolated MS if the file contains it."""
    truth: Image | None = None
    """``[C, H, W]``, ground truth of a simulated scene."""
    position: tuple[float, float] = (GROUND_POSITION, GROUND_POSITION)
    """Row and column of PAN at the centre of the first MS pixel, as georeferenced or measured."""
    aligned: bool = False
    """Whether ``position`` was measured or stated; PAN is then aligned at full resolution too."""

    def full(self, sensor: Sensor) -> Pair:
        """The pair at full resolution, with the file's ``lms`` if any, as in published scores."""
        pan = self.pan
        if self.aligned:
            row, col = self.position
            pan = align_pan_to_ms(pan, (row - PROTOCOL_POSITION, col - PROTOCOL_POSITION))
        if self.lms is None:
            return Pair.of(pan, self.ms, sensor)
        return Pair(pan, self.ms, self.lms, sensor, toolbox=True)

    def reduced(self, sensor: Sensor) -> tuple[Pair, Image]:
        """The pair at reduced resolution, and its ground truth."""
        if self.truth is not None:
            return replace(self.full(sensor), has_truth=True), self.truth
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
    """Rows of PAN that are evaluated."""
    cols: range
    """Columns of PAN that are evaluated."""
    simulated: bool
    """Whether scenes contain their ground truth."""
    read: Callable[[int], Sample]
    """Returns the scene of an index, counted from 0."""

    @property
    def truth_size(self) -> tuple[int, int]:
        """Height and width of the ground truth at reduced resolution, in pixels."""
        ratio = 1 if self.simulated else RATIO
        return len(self.rows) // ratio, len(self.cols) // ratio


@dataclass(frozen=True)
class WholePair:
    """The whole MS pixels that two rasters share, held in memory."""

    pan: NDArray[np.float32]
    """``[H, W]``."""
    pan_valid: Mask
    ms: NDArray[np.float32]
    """``[C, H/4, W/4]``."""
    ms_valid: Mask
    position: tuple[float, float]
    """Row and column of PAN at the centre of the first MS pixel."""
    rows: range
    """Rows of PAN's file."""
    cols: range
    """Columns of PAN's file."""

    @property
    def valid(self) -> Mask:
        """``[H/4, W/4]``, true where MS and all 16 pixels of PAN are valid."""
        blocks = self.pan_valid.reshape(len(self.rows) // RATIO, RATIO, -1, RATIO)
        return self.ms_valid & blocks.all(axis=(1, 3))


def read_whole(scene: Scene) -> WholePair:
    """Read the area of a scene that lies inside both rasters.

    Raises:
        InputError: if there is none, or memory does not hold it.
    """
    rows, cols = scene.whole
    if not (rows and cols):
        raise InputError(
            f"{scene.pan.name} and {scene.ms.name} share no whole pixel of MS, expected at least "
            "one; give a larger pair."
        )
    values = len(rows) * len(cols) * (1 + len(scene.bands) / RATIO**2)
    check_memory(
        _VALUE * values,
        f"The whole of {scene.pan.name} and {scene.ms.name}, {len(cols)} x {len(rows)} pixels,",
        "cut out a smaller area of both with gdal_translate -projwin",
    )
    pixels = scene.read(rows, cols)
    ms = pixels.ms_under()
    return WholePair(
        pixels.pan, pixels.pan_valid, ms.inner, ms.inner_valid, ms.position, rows, cols
    )


def sensor_scale(sensor: Sensor) -> Scale:
    """Full scale of the sensor, for when neither the user nor the data state one."""
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
    """Open two rasters as a dataset of one scene: their largest rectangle without nodata.

    Classical methods take no masks, so scores on nodata would be meaningless. PAN is rescaled to
    the full scale of MS where they differ, because D_s compares the two.

    ``smallest`` is the preferred minimum side of MS in pixels; a smaller rectangle is used if there
    is none of that size. The other parameters are those of
    :func:`ssdiff_ref.evaluation.evaluate.evaluate`.

    Raises:
        SSDiffError: if the two do not form a pair, or share no valid area.
    """
    with Scene(pan, ms, options) as scene:
        optics = fit_sensor(sensor, len(scene.bands))
        pan_scale, scale = choose_scales(scene, options, sensor_scale(optics))
        whole = read_whole(scene)
        resampled = scene.resampled
        order = check_band_order(scene, optics.bands)
        for warning in (*scene.warnings, *order, *check_holes(scene)):
            progress.warn(warning)
        bands_used = ",".join(map(str, scene.bands))
    position = whole.position
    height, width = whole.ms_valid.shape
    rows, cols = largest_rectangle(whole.valid, _MS_MULTIPLE, smallest)
    if not rows:
        rows, cols = largest_rectangle(whole.valid, _MS_MULTIPLE)
    if not rows:
        raise InputError(
            f"No {_MS_MULTIPLE} x {_MS_MULTIPLE} pixels of MS are valid in both {ms} and {pan}, "
            "expected at least one such area; check `nodata`, or give another area."
        )
    fine_rows = whole.rows[RATIO * rows.start : RATIO * rows.stop]
    fine_cols = whole.cols[RATIO * cols.start : RATIO * cols.stop]
    progress.note(f"{Path(ms).name}: bands {bands_used}; {width} x {height} pixels on PAN")
    if (len(rows), len(cols)) != (height, width):
        reason = "" if whole.valid.all() else "the largest area without nodata, "
        progress.note(
            f"Evaluated on rows {fine_rows[0]} to {fine_rows[-1]} and columns {fine_cols[0]} to "
            f"{fine_cols[-1]} of PAN: {reason}cut to multiples of {BLOCK} pixels"
        )
    if resampled:
        progress.warn(
            "MS has to be warped to PAN's grid (Lanczos), and the warped MS is evaluated; for "
            "scores comparable with others, give a pair on aligned grids"
        )
    down, right = (p - GROUND_POSITION for p in position)
    if max(abs(down), abs(right)) > ON_GRID:
        progress.note(
            f"The grid of MS is offset by {down:+.2f} rows and {right:+.2f} columns of PAN: at "
            "reduced resolution PAN is resampled accordingly, at full resolution the protocol "
            "ignores the offset"
        )
    pan_values, ms_values = whole.pan.astype(np.float64), whole.ms.astype(np.float64)
    if pan_scale.value != scale.value:
        pan_values *= scale.value / pan_scale.value
        progress.note(f"PAN, of full scale {pan_scale}, is rescaled to that of MS")
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
