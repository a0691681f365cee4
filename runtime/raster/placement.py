"""Placement: how the pixels of MS lie on the grid of PAN."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.interpolator import GROUND_POSITION, HALO, RATIO

RATIO_TOLERANCE = 0.02
ON_GRID = 0.1
"""Pixels of PAN by which MS may deviate from PAN's grid and still be used without warping."""

Points = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""Maps rows and columns of MS to those of PAN, ``[2, n]``."""
Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class Placement:
    """The grid that a pair has in common; see :mod:`ssdiff_trt.runtime.sources`."""

    rows: range
    """Rows of PAN in the grid, possibly a little beyond PAN."""
    cols: range
    output: tuple[range, range]
    """Rows and columns of PAN that the result has: the grid without what lies beyond PAN."""
    whole: tuple[range, range]
    """Rows and columns of PAN that are whole pixels of MS, inside both images."""
    position: tuple[float, float]
    """Row and column of an MS pixel's centre among its 4 x 4 pixels of PAN, 1 to 2."""
    ms_origin: tuple[int, int]
    """Row and column of PAN where the first pixel of MS, or of warped MS, begins."""
    resampled: bool
    """Whether MS has to be warped, because a shift alone does not bring it onto the grid."""

    @property
    def warped_size(self) -> Size:
        """Height and width of MS when it is warped, with its halo."""
        return len(self.rows) // RATIO + 2 * HALO, len(self.cols) // RATIO + 2 * HALO

    def ms_part(self, rows: range, cols: range) -> tuple[range, range]:
        """Rows and columns of MS, with halo, under a rectangle of PAN."""
        first, second = (
            range((r.start - o) // RATIO - HALO, (r.stop - o) // RATIO + HALO)
            for r, o in zip((rows, cols), self.ms_origin, strict=True)
        )
        return first, second


class Placed:
    """Gives a source the grid of its placement."""

    placement: Placement

    @property
    def rows(self) -> range:
        return self.placement.rows

    @property
    def cols(self) -> range:
        return self.placement.cols

    @property
    def output(self) -> tuple[range, range]:
        return self.placement.output

    @property
    def whole(self) -> tuple[range, range]:
        return self.placement.whole

    @property
    def position(self) -> tuple[float, float]:
        return self.placement.position

    @property
    def resampled(self) -> bool:
        return self.placement.resampled


def place(
    pan: Size,
    ms: Size,
    to_pan: Points,
    shift: tuple[float, float],
    names: tuple[str, str],
) -> Placement:
    """Find how MS lies on PAN.

    Args:
        pan: size of PAN.
        ms: size of MS.
        to_pan: maps places in MS to places in PAN.
        shift: rows and columns of PAN by which MS is moved beyond that.
        names: of PAN and MS, for messages.

    Raises:
        InputError: when a pixel of MS is not 4 pixels of PAN, or the two do not overlap.
    """
    _check_ratio(ms, to_pan, names)
    # The outline of MS, in pixels of MS and of PAN. Other projections bend it: sample it well.
    along, start, end = np.linspace(0, 1, 21), np.zeros(21), np.ones(21)
    row = np.concatenate([start, end, along, along]) * ms[0]
    col = np.concatenate([along, along, start, end]) * ms[1]
    outline = to_pan(row, col)
    strains, origins = [], []
    for on_pan, on_ms in zip(outline, (row, col), strict=True):
        apart = on_pan - RATIO * on_ms  # a constant if MS lies straight on PAN's grid
        strains.append(np.ptp(apart) / 2)
        origins.append(float(apart.min() + apart.max()) / 2)
    resampled = bool(max(strains) > ON_GRID)

    def anchor(origin: float) -> int:
        """A row or column of PAN where a pixel of MS begins, if MS begins at ``origin``."""
        return 0 if resampled else math.ceil(origin - 0.5 - 1e-6)

    covered, grids, anchors = [], [], []
    for values, size, origin, move in zip(outline, pan, origins, shift, strict=True):
        # The output follows a move only as far as that exceeds a pixel of MS.
        far = move - min(max(move, -RATIO), RATIO)
        first, last = max(values.min() + far, 0), min(values.max() + far, size)
        if last - first < 1:
            (top, bottom), (left, right) = ((axis.min(), axis.max()) for axis in outline)
            moved = " moved by {:g},{:g}".format(*shift) if any(shift) else ""
            raise InputError(
                f"{names[1]} and {names[0]} do not overlap: in pixels of PAN, MS covers rows "
                f"{top:.0f} to {bottom:.0f} and columns {left:.0f} to {right:.0f}{moved}, PAN has "
                f"{pan[0]} x {pan[1]}; give images of the same place."
            )
        # Slivers of a pixel that come from rounding do not count.
        seen = _snapped(first + ON_GRID, last - ON_GRID, anchor(origin + far))
        covered.append(range(max(seen.start, 0), min(seen.stop, size)))
        anchors.append(anchor(origin + move))
        grids.append(_snapped(covered[-1].start, covered[-1].stop, anchors[-1]))
    down, across = GROUND_POSITION, GROUND_POSITION
    if resampled:
        anchors = [grid.start - RATIO * HALO for grid in grids]
        ms = len(grids[0]) // RATIO + 2 * HALO, len(grids[1]) // RATIO + 2 * HALO
    else:
        down, across = (
            _on_64ths(GROUND_POSITION + (origin + move - first))
            for origin, move, first in zip(origins, shift, anchors, strict=True)
        )
    inside = []
    for grid, begin, coarse, fine in zip(grids, anchors, ms, pan, strict=True):
        first, last = max(grid.start, begin, 0), min(grid.stop, begin + RATIO * coarse, fine)
        begin = first + (grid.start - first) % RATIO
        inside.append(range(begin, begin + max(last - begin, 0) // RATIO * RATIO))
    return Placement(
        rows=grids[0],
        cols=grids[1],
        output=(covered[0], covered[1]),
        whole=(inside[0], inside[1]),
        position=(down, across),
        ms_origin=(anchors[0], anchors[1]),
        resampled=resampled,
    )


def from_corners(pan: Size, ms: Size) -> Points:
    """Places of MS on PAN where their upper left corners coincide.

    A difference of less than one MS pixel at the far end is usual in products and does not count.
    """
    scales = [
        RATIO if abs(large - RATIO * small) < RATIO else large / small
        for large, small in zip(pan, ms, strict=True)
    ]
    return lambda row, col: np.stack([row * scales[0], col * scales[1]])


def _check_ratio(ms: Size, to_pan: Points, names: tuple[str, str]) -> None:
    row, col = ms[0] / 2, ms[1] / 2
    here, below, right = to_pan(np.array([row, row + 1, row]), np.array([col, col, col + 1])).T
    high, wide = math.dist(here, below), math.dist(here, right)
    if not all(abs(ratio / RATIO - 1) <= RATIO_TOLERANCE for ratio in (high, wide)):
        raise InputError(
            f"A pixel of {names[1]} is {wide:.3g} x {high:.3g} pixels of {names[0]}, expected 4 x "
            "4, the only ratio that networks and methods here are for; give MS at its native "
            "resolution, or use a tool for other ratios, such as gdal_pansharpen."
        )


def _snapped(first: float, last: float, anchor: int) -> range:
    """Whole pixels of MS that cover this part of an axis of PAN."""
    begin, end = math.floor((first - anchor) / RATIO), math.ceil((last - anchor) / RATIO)
    return range(anchor + RATIO * begin, anchor + RATIO * end)


def _on_64ths(position: float) -> float:
    return round(position * 64) / 64
