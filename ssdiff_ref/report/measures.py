"""What a report measures: the scene at a coarse resolution, and quality in blocks of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ssdiff_ref.classical.fusion import pair_of
from ssdiff_ref.quality.checks import Image, inner_mask
from ssdiff_ref.quality.filters import REACH, mtf_filter
from ssdiff_ref.quality.full_resolution import d_rho
from ssdiff_ref.quality.quality_index import BLOCK, q2n
from ssdiff_ref.report.fused_scene import FusedScene, Part, Values
from ssdiff_trt.runtime.consistency import Consistency
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.sensors import Sensor

OVERVIEW = 1024
"""Most pixels on a side of the whole scene as it is shown."""
_STEP = 1024
"""Pixels on a side of what is read at a time, about."""
_LARGEST_BLOCK = 256
"""Pixels on a side of a block of a map, where the scene has room for as many of these."""
_BLOCKS_A_SIDE = 8
"""Most blocks of a map along an axis."""
MEASURES = ("D_lambda", "D_rho", "consistency")
"""Of :class:`QualityMaps`."""


@dataclass(frozen=True)
class Overview:
    """The whole scene, each pixel the mean of ``factor x factor`` valid ones; 0 where none is."""

    factor: int
    pan: Values
    """``[h, w]``."""
    lms: Values
    """MS, interpolated or, from a factor of 4 on, by its nearest pixels; ``[C, h, w]``."""
    fused: Values
    """``[C, h, w]``."""
    valid: NDArray[np.bool_]
    """``[h, w]``: where there is a valid pixel."""
    uncertainty: Values | None
    """``[h, w]``."""
    holes: float
    """Share of the pixels of the scene that have no value, 0..1."""


def overview_of(scene: FusedScene, progress: Progress) -> Overview:
    """Read all of a scene, part by part."""
    factor = min(-(-max(scene.size) // OVERVIEW), *scene.size)
    height, width = (size // factor for size in scene.size)
    shape = scene.bands, height, width
    lms, fused = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    pan, share = np.zeros(shape[1:], np.float32), np.zeros(shape[1:], np.float32)
    uncertainty = np.zeros(shape[1:], np.float32) if scene.has_uncertainty else None
    unit = math.lcm(RATIO, factor)
    parts = scene.parts(unit * max(1, _STEP // unit))
    progress.start("Reading", len(parts))
    for rows, cols in parts:
        part = scene.read(rows, cols)
        where = np.s_[
            ...,
            rows.start // factor : rows.stop // factor,
            cols.start // factor : cols.stop // factor,
        ]
        share[where] = weight = _means(part.valid, factor)

        def mean(image: Values, part: Part = part, weight: Values = weight) -> Values:
            sums = _means(np.where(part.valid, image, 0), factor)
            return np.divide(sums, weight, out=sums, where=weight > 0)

        pan[where] = mean(part.pixels.pan)
        lms[where] = mean(_at_pan(part, factor))
        fused[where] = mean(part.fused)
        if uncertainty is not None and part.uncertainty is not None:
            uncertainty[where] = mean(part.uncertainty)
        progress.advance(1)
    return Overview(factor, pan, lms, fused, share > 0, uncertainty, 1 - float(share.mean()))


def _means(image: NDArray[np.generic], factor: int) -> Values:
    """Means of squares of pixels of ``[..., h, w]``; what is left over at the end is dropped."""
    height, width = (size // factor for size in image.shape[-2:])
    cut = image[..., : height * factor, : width * factor]
    squares = cut.reshape(*image.shape[:-2], height, factor, width, factor)
    means: Values = squares.mean(axis=(-3, -1), dtype=np.float32)
    return means


def _at_pan(part: Part, factor: int) -> Values:
    """MS at each pixel of PAN; its nearest pixel where means of whole pixels of MS are shown."""
    pixels = part.pixels
    if factor < RATIO:
        return pixels.lms()
    rows, cols = (
        axis.of_each(range(size)) for axis, size in zip(pixels.axes, pixels.pan.shape, strict=True)
    )
    return pixels.ms[:, rows[:, None], cols]


@dataclass(frozen=True)
class QualityMaps:
    """Measures in blocks that are spread evenly over a scene."""

    rows: list[int]
    """First rows of the blocks."""
    cols: list[int]
    side: int
    """Pixels on a side of a block."""
    values: dict[str, Image]
    """``[rows, cols]`` of D_lambda, D_rho, consistency with MS (RMS, in digital numbers), detail
    (mean slope of PAN) and uncertainty, if there is one; NaN where a block has too few valid
    pixels."""
    covered: float
    """Share of the scene that lies in the blocks, 0..1."""

    def place(self, measure: str) -> tuple[int, int] | None:
        """Middle of the block with the largest value, as row and column; None if none has one."""
        values = self.values.get(measure)
        if values is None or not np.isfinite(values).any():
            return None
        row, col = np.unravel_index(int(np.nanargmax(values)), values.shape)
        return self.rows[int(row)] + self.side // 2, self.cols[int(col)] + self.side // 2


def quality_maps(scene: FusedScene, sensor: Sensor, progress: Progress) -> QualityMaps:
    """Measure at most 8 x 8 blocks of a scene.

    They have up to 256 x 256 pixels. Those of a scene of up to 2048 pixels cover most of it, but
    not its edges, which lack the surroundings that the MTF reaches to.
    """
    side = min(-(-min(scene.size) // (_BLOCKS_A_SIDE * BLOCK)) * BLOCK, _LARGEST_BLOCK)
    rows, cols = (_starts(size, side) for size in scene.size)
    names = [*MEASURES, "detail", *(["uncertainty"] if scene.has_uncertainty else [])]
    values = {name: np.full((len(rows), len(cols)), np.nan) for name in names}
    progress.start("Measuring", len(rows) * len(cols))
    for i, top in enumerate(rows):
        for j, left in enumerate(cols):
            around = (
                range(top - REACH, top + side + REACH),
                range(left - REACH, left + side + REACH),
            )
            for name, value in _measured(scene.read(*around), sensor).items():
                values[name][i, j] = value
            progress.advance(1)
    covered = len(rows) * len(cols) * side**2 / math.prod(scene.size)
    return QualityMaps(rows, cols, side, values, covered)


def _starts(size: int, side: int) -> list[int]:
    """Where blocks start along an axis; none if it has no room for one."""
    room = size - 2 * REACH
    count = min(room // side, _BLOCKS_A_SIDE)
    if count < 1:
        return []
    places = np.linspace(REACH, size - REACH - side, count) if count > 1 else [REACH]
    return [int(place) // RATIO * RATIO for place in places]


def _measured(part: Part, sensor: Sensor) -> dict[str, float]:
    """The measures of a block, which is read with the surroundings that the MTF reaches to."""
    inside = np.s_[..., REACH:-REACH, REACH:-REACH]
    valid, pixels = part.valid, part.pixels
    if not valid[inside].any():
        return {}
    pair, fused = pair_of(pixels, sensor), part.fused.astype(np.float64)
    consistency = Consistency()
    consistency.add(part.fused, valid, pixels.ms, pixels.ms_valid, pixels.axes, sensor.mtf_ms)

    def spectral() -> float:
        mask = inner_mask(valid, REACH)[inside]
        return 1 - q2n(mtf_filter(fused, sensor)[inside], pair.lms[inside], mask)

    slope = np.hypot(*(ndimage.sobel(pair.pan, axis) for axis in (0, 1)))
    uncertainty = part.uncertainty
    found = {
        "D_lambda": _or_nan(spectral),
        "D_rho": _or_nan(lambda: d_rho(fused[inside], pair.pan[inside], valid[inside])),
        "consistency": math.nan if consistency.rmse is None else consistency.rmse,
        "detail": float(np.where(valid, slope, 0)[inside].mean()),
    }
    if uncertainty is not None:
        found["uncertainty"] = float(uncertainty[inside][valid[inside]].mean())
    return found


def _or_nan(measure: Callable[[], float]) -> float:
    """A measure, or NaN where too few pixels are valid for it."""
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            return measure()
    except InputError:
        return math.nan
