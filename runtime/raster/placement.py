"""Placement: how the pixels of MS lie on the grid of PAN."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.sources import MSAxis

RATIO_TOLERANCE = 0.02
ON_GRID = 0.1
"""Pixels of PAN by which MS may deviate from PAN's grid and still be used without warping."""
MAX_DRIFT = 0.006
"""Pixels of PAN by which an MS pixel may differ from 4 and MS still be used without warping, at a
position of its own for each tile."""

_HALF = 0.5 + 1e-6
_FARTHEST = 2.0**33
"""Pixels of PAN; no raster is as large."""
_DIGITS = 9
"""Decimals of a place on PAN that are not rounding errors of the georeferencing."""

AnyScalar = TypeVar("AnyScalar", bound=np.generic)
Coordinates = NDArray[np.float64]
Points = Callable[[Coordinates, Coordinates], Coordinates]
"""Maps rows and columns of MS to those of PAN, ``[2, n]``."""
Size = tuple[int, int]
"""Height and width in pixels."""
Axes = tuple[MSAxis, MSAxis]
"""Of rows and of columns."""


@dataclass(frozen=True)
class Orientation:
    """How an image is read so that its rows and columns run like those of PAN: transposed, then
    reversed."""

    transposed: bool = False
    reversed: tuple[bool, bool] = (False, False)
    """Whether the rows and the columns are, after the transposition."""

    def size(self, native: Size) -> Size:
        """Size of the image as it is read."""
        return (native[1], native[0]) if self.transposed else native

    def native(self, rows: range, cols: range, size: Size) -> tuple[range, range]:
        """Rows and columns in the file, of an image of that size as it is read."""
        rows, cols = (
            range(whole - part.stop, whole - part.start) if turned else part
            for part, whole, turned in zip((rows, cols), size, self.reversed, strict=True)
        )
        return (cols, rows) if self.transposed else (rows, cols)

    def places(self, row: Coordinates, col: Coordinates, size: Size) -> Coordinates:
        """Places ``[2, n]`` in the file, of an image of that size as it is read."""
        row, col = (
            whole - part if turned else part
            for part, whole, turned in zip((row, col), size, self.reversed, strict=True)
        )
        return np.stack([col, row] if self.transposed else [row, col])

    def apply(self, native: NDArray[AnyScalar]) -> NDArray[AnyScalar]:
        """Turn values ``[..., h, w]`` as they are in the file."""
        values = native.swapaxes(-1, -2) if self.transposed else native
        rows, cols = (slice(None, None, -1 if turned else None) for turned in self.reversed)
        return values[..., rows, cols]


def orient(ms: Size, to_pan: Points) -> Orientation:
    """The orientation in which an image lies most nearly like PAN, by its middle."""
    row, col = np.array(ms) / 2
    here, below, right = to_pan(np.array([row, row + 1, row]), np.array([col, col, col + 1])).T
    steps = np.stack([below - here, right - here])  # in PAN, along rows and columns of the file
    transposed = bool(abs(steps[0, 1]) + abs(steps[1, 0]) > abs(steps[0, 0]) + abs(steps[1, 1]))
    if transposed:
        steps = steps[::-1]
    return Orientation(transposed, (bool(steps[0, 0] < 0), bool(steps[1, 1] < 0)))


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
    axes: tuple[MSAxis, MSAxis]
    """Where rows and columns of MS, or of warped MS, lie on PAN."""
    resampled: bool
    """Whether MS has to be warped, because a shift alone does not bring it onto the grid."""

    def ms_parts(self, rows: range, cols: range) -> tuple[tuple[range, range], Axes]:
        """What to read for a rectangle of PAN: rows and columns of MS, and how they lie on it."""
        (row_axis, col_axis), (down, across) = (
            self.axes,
            (axis.with_halo(pan) for axis, pan in zip(self.axes, (rows, cols), strict=True)),
        )
        return (down, across), (
            row_axis.relative(rows.start, down.start),
            col_axis.relative(cols.start, across.start),
        )


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
        rows, cols = self.placement.axes
        return rows.position(self.rows), cols.position(self.cols)

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
    if not (np.abs(outline) < _FARTHEST).all():  # also where it is NaN
        raise InputError(
            f"The georeferencing of {names[1]} puts parts of its edge at no place on {names[0]}; "
            "correct it, or warp both to one CRS."
        )
    axes = [_fitted(on_pan, on_ms) for on_pan, on_ms in zip(outline, (row, col), strict=True)]
    resampled = None in axes

    covered, grids, moved = [], [], []
    for values, size, axis, move in zip(outline, pan, axes, shift, strict=True):
        # The output follows a move only as far as that exceeds a pixel of MS.
        far = move - min(max(move, -RATIO), RATIO)
        first, last = max(values.min() + far, 0), min(values.max() + far, size)
        if last - first < 1:
            (top, bottom), (left, right) = ((axis.min(), axis.max()) for axis in outline)
            by = " moved by {:g},{:g}".format(*shift) if any(shift) else ""
            raise InputError(
                f"{names[1]} and {names[0]} do not overlap: in pixels of PAN, MS covers rows "
                f"{top:.0f} to {bottom:.0f} and columns {left:.0f} to {right:.0f}{by}, PAN has "
                f"{pan[0]} x {pan[1]}; give images of the same place."
            )
        if axis is None or resampled:  # warped MS begins where MS does
            axis = MSAxis(round(float(values.min()), _DIGITS))
        far_axis, axis = (MSAxis(axis.begin + by, axis.scale) for by in (far, move))
        # Less than half a pixel of PAN does not count, as pixels of MS begin at its nearest edge.
        seen = _snapped(first + _HALF, last - _HALF, far_axis)
        covered.append(range(max(seen.start, 0), min(seen.stop, size)))
        moved.append(axis)
        grids.append(_snapped(covered[-1].start, covered[-1].stop, axis))
    if resampled:
        spans = [round(float(np.ptp(values)), _DIGITS) for values in outline]
        ms = math.ceil(spans[0] / RATIO), math.ceil(spans[1] / RATIO)
    inside = []
    for grid, axis, coarse, fine in zip(grids, moved, ms, pan, strict=True):
        first = max(grid.start, axis.edge(0), 0)
        last = min(grid.stop, axis.edge(coarse), fine)
        begin = first + (grid.start - first) % RATIO
        inside.append(range(begin, begin + max(last - begin, 0) // RATIO * RATIO))
    return Placement(
        rows=grids[0],
        cols=grids[1],
        output=(covered[0], covered[1]),
        whole=(inside[0], inside[1]),
        axes=(moved[0], moved[1]),
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
        found = (
            f"A pixel of {names[1]} is {wide:.3g} x {high:.3g} pixels of {names[0]}, expected 4 x 4"
        )
        if max(high, wide) < 1:
            raise InputError(f"{found}, so are the two swapped?")
        raise InputError(
            f"{found}, the only ratio that networks and methods here are for; give MS at its "
            "native resolution, or use a tool for other ratios, such as gdal_pansharpen."
        )


def _fitted(on_pan: NDArray[np.float64], on_ms: NDArray[np.float64]) -> MSAxis | None:
    """How MS lies along an axis of PAN, from its outline on both; None if that takes a warp."""
    apart = on_pan - RATIO * on_ms  # a constant if MS lies straight on PAN's grid
    if np.ptp(apart) / 2 <= ON_GRID:
        return MSAxis(round(float(apart.min() + apart.max()) / 2, _DIGITS))
    slope, begin = np.polynomial.Polynomial.fit(on_ms, apart, 1).convert().coef[::-1]
    if abs(slope) > MAX_DRIFT or np.abs(apart - begin - slope * on_ms).max() > ON_GRID:
        return None
    return MSAxis(round(float(begin), _DIGITS), RATIO + float(slope))


def _snapped(first: float, last: float, axis: MSAxis) -> range:
    """Whole pixels of MS, 4 of PAN each, that cover this part of an axis of PAN."""
    anchor = axis.edge(math.floor((first - axis.begin) / axis.scale))
    begin, end = math.floor((first - anchor) / RATIO), math.ceil((last - anchor) / RATIO)
    return range(anchor + RATIO * begin, anchor + RATIO * end)
