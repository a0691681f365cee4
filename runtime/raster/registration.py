"""Registration of MS to PAN: the shift between the two, estimated from their pixels.

Real pairs are offset by fractions of a PAN pixel to a few PAN pixels, as PAN and MS are acquired by
different detector lines a moment apart. PAN, blurred by the MTF of MS and sampled at the MS pixels,
should be a weighted sum of the bands plus a constant. A search by whole MS pixels finds where the
bands explain PAN best. From there, and from no shift, each block of the scene is fitted by weighted
least squares with

    P = sum_b w_b ms_b + c - e_row dP/drow - e_col dP/dcol

where ``P`` is PAN, blurred and sampled at the current estimate of the shift, and ``e`` the
correction of that estimate (Lucas & Kanade, 1981, with the band weights as further unknowns).
Pixels that do not fit, such as those of clouds, which PAN and MS see in different places, lose
their weight from one iteration to the next. The estimate of the scene is the mean of the blocks,
weighted by their information matrices, without outliers such as blocks with moving objects or
relief. Of the two, the one counts that explains more of PAN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.interpolator import PROTOCOL_POSITION, RATIO
from ssdiff_trt.runtime.options import ShiftChoice
from ssdiff_trt.runtime.raster.block_fit import (
    MARGIN,
    MIN_SIDE,
    SEARCH,
    Fit,
    Image,
    Pixels,
    block_of,
    misfits_of,
)
from ssdiff_trt.runtime.sources import Source

MAX_SHIFT = 16.0
"""Largest shift along an axis that is corrected, PAN pixels."""
MIN_SHIFT = 0.1
"""Smallest shift that is corrected, PAN pixels."""
LEAST_SHARE = 0.5
"""Share of the variance of PAN that the MS bands must explain for a shift to be valid, 0..1."""
MIN_STANDARD_ERRORS = 3.0
"""Smallest significant ratio of a shift to its standard error."""
MAX_ERROR = 0.25
"""Largest standard error of a shift that is corrected, PAN pixels."""

_MAX_SIDE = 64  # side of a block, MS pixels
_MAX_BLOCKS = 32
_MAX_STEP = 5.0  # farthest that the iteration can go from there, PAN pixels
_ITERATIONS = 10
_DAMPING = 0.7  # factor on corrections, which are too large where MS is sharper than assumed
_OUTLIER = 1.0  # deviation from the median beyond which a block is ignored, PAN pixels
_COMMON = 0.2  # error that all blocks may share, e.g. by clouds, in ranges of local shifts
_LEAST_ERROR = 0.02  # of a shift, by what the model leaves out, PAN pixels
_RELIEF = 0.1  # standard deviation of the true shift between blocks, e.g. by relief, PAN pixels


Read = Callable[[range, range], Pixels]
"""Reads rows and columns of MS, and the PAN pixels that they cover."""


@dataclass(frozen=True)
class LocalShift:
    """Shift of a part of the scene, as in :class:`Shift`."""

    place: tuple[float, float]
    """Row and column of its middle, in pixels of PAN from the first that are compared
    (``Source.whole``)."""
    rows: float
    cols: float
    error: float
    """Larger standard error of the two."""


@dataclass(frozen=True)
class Shift:
    """Measured shift of MS relative to its georeferencing.

    The content of an MS pixel is found in PAN ``rows`` further down and ``cols`` further right than
    the georeferencing of MS says. Moving MS by as much registers it to PAN.
    """

    rows: float
    """Shift along rows (down), PAN pixels."""
    cols: float
    """Shift along columns (right), PAN pixels."""
    error: float
    """Standard error of both, PAN pixels; infinite if nothing could be measured."""
    share: float
    """Share of the variance of blurred PAN that the MS bands explain (R squared), 0..1."""
    spread: float = 0.0
    """Range that holds 90 % of the shifts of parts of the scene, along the axis where it is larger,
    PAN pixels."""
    parts: tuple[LocalShift, ...] = ()
    """Shifts of the parts of the scene in which it can be measured."""

    @property
    def length(self) -> float:
        """Length of the shift, PAN pixels."""
        return math.hypot(self.rows, self.cols)

    @property
    def rounded(self) -> tuple[float, float]:
        """Rows and columns as printed and applied, so that passing them reproduces a run."""
        return round(self.rows, 2), round(self.cols, 2)

    @property
    def seen(self) -> bool:
        """Whether PAN and MS correlate, and the shift is significant and large enough to matter."""
        min_length = max(MIN_SHIFT, MIN_STANDARD_ERRORS * self.error)
        certain = self.share > LEAST_SHARE and self.error <= MAX_ERROR
        return certain and self.length > min_length

    @property
    def reliable(self) -> bool:
        """Whether the shift should be corrected."""
        return self.seen and max(abs(self.rows), abs(self.cols)) <= MAX_SHIFT


def choose_shift(choice: ShiftChoice, source: Source) -> tuple[tuple[float, float], Shift | None]:
    """Choose the shift to correct, and measure it if asked to.

    Args:
        choice: ``auto`` to measure the shift and correct it if it is reliable, ``none`` for no
            correction, or rows and columns in PAN pixels.
        source: source whose shift has not been corrected yet.

    Returns:
        Rows and columns by which to move MS, in PAN pixels, and the measurement, if there was one.

    Raises:
        InputError: if a file is damaged.
    """
    if choice == "auto":
        measured = measure_source(source)
        return (measured.rounded if measured.reliable else (0.0, 0.0)), measured
    if choice == "none":
        return (0.0, 0.0), None
    rows, cols = choice
    return (float(rows), float(cols)), None


UNMEASURED = Shift(0.0, 0.0, math.inf, 0.0)
"""Result if no block could be fitted."""


def measure_source(source: Source) -> Shift:
    """Measure the shift of MS relative to its position in the source.

    At most :data:`_MAX_BLOCKS` blocks are read, so memory and time do not grow with the scene.

    Raises:
        InputError: if a file is damaged.
    """
    rows, cols = source.whole

    def read(ms_rows: range, ms_cols: range) -> Pixels:
        fine = (
            range(pan_axis.start + RATIO * ms.start, pan_axis.start + RATIO * ms.stop)
            for pan_axis, ms in ((rows, ms_rows), (cols, ms_cols))
        )
        pixels = source.read(*fine)
        ms = pixels.ms_under()
        return Pixels(pixels.pan, pixels.pan_valid, ms.inner, ms.inner_valid, ms.position)

    return _measure(read, len(rows) // RATIO, len(cols) // RATIO)


def measure_arrays(
    pan: NDArray[Any],
    ms: NDArray[Any],
    position: tuple[float, float] = (PROTOCOL_POSITION, PROTOCOL_POSITION),
) -> Shift:
    """Measure the shift of MS relative to its assumed position on PAN.

    Args:
        pan: ``[4 h, 4 w]``, finite, any unit.
        ms: ``[C, h, w]``, finite, any unit.
        position: assumed row and column of the first MS pixel on the grid of PAN.
    """

    def read(rows: range, cols: range) -> Pixels:
        top, bottom, left, right = rows.start, rows.stop, cols.start, cols.stop
        fine = pan[RATIO * top : RATIO * bottom, RATIO * left : RATIO * right]
        coarse = ms[:, top:bottom, left:right]
        valid = np.ones(fine.shape, bool), np.ones(coarse.shape[1:], bool)
        return Pixels(fine, valid[0], coarse, valid[1], position)

    height, width = ms.shape[1:]
    return _measure(read, height, width)


def _measure(read: Read, height: int, width: int) -> Shift:
    """Shift by the fit that explains PAN better, started at no shift or where the search ends."""
    starts = sorted({(0, 0), _search(read, height, width)})
    return max((_fit(read, height, width, start) for start in starts), key=lambda fit: fit.share)


def _fit(read: Read, height: int, width: int, whole: tuple[int, int]) -> Shift:
    """Shift by a fit of the blocks that is started at a shift by whole MS pixels."""
    down, across = whole
    extents = _block_extents(height - abs(down), width - abs(across), MARGIN)
    blocks = [
        (extent, block)
        for extent in extents
        if (block := block_of(_displaced(read, *extent, whole)))
    ]
    start = shift = RATIO * np.array(whole, np.float64)
    measured = UNMEASURED
    for _ in range(_ITERATIONS):
        found = [(extent, fit) for extent, block in blocks if (fit := block.fit(shift - start))]
        if not found:
            return UNMEASURED
        fits = [fit for _, fit in found]
        parts = tuple(_local(shift, *one) for one in found if _is_certain(one[1]))
        correction, error = _combined(fits)
        share = 1 - sum(fit.unexplained for fit in fits) / sum(fit.variation for fit in fits)
        shift = np.clip(shift + _DAMPING * correction, start - _MAX_STEP, start + _MAX_STEP)
        spread = _spread(fits)
        error = math.hypot(
            max(error, np.abs(correction).max()),  # of what did not converge
            _COMMON * spread,
            _LEAST_ERROR,
        )
        measured = Shift(float(shift[0]), float(shift[1]), error, float(share), spread, parts)
    return measured


def _local(shift: Image, extent: tuple[range, range], fit: Fit) -> LocalShift:
    """Shift of a block, given as rows and columns of MS, that was fitted at a shift."""
    row, col = (RATIO * (axis.start + axis.stop) / 2 for axis in extent)
    rows, cols = (float(part) for part in shift + fit.correction)
    return LocalShift((row, col), rows, cols, math.sqrt(np.diag(fit.covariance).max()))


def _search(read: Read, height: int, width: int) -> tuple[int, int]:
    """Rows and columns, in whole MS pixels, at which the bands explain PAN best.

    Each block counts by its likelihood, so that a few with strong contrast, such as those with
    clouds, do not outvote the others. Scenes too small for the search are taken as they lie.
    """
    steps = 2 * SEARCH + 1
    cost = np.zeros((steps, steps))
    for extent in _block_extents(height, width, MARGIN + SEARCH):
        if (misfits := misfits_of(read(*extent))) is not None:
            cost += misfits
    row, col = np.unravel_index(np.argmin(cost), cost.shape) if cost.any() else (SEARCH, SEARCH)
    return int(row) - SEARCH, int(col) - SEARCH


def _displaced(read: Read, rows: range, cols: range, whole: tuple[int, int]) -> Pixels:
    """Read MS, and PAN a number of whole MS pixels further; rows and columns start at 0."""
    (ms_rows, pan_rows), (ms_cols, pan_cols) = (
        (slice(max(-by, 0), max(-by, 0) + len(axis)), slice(max(by, 0), max(by, 0) + len(axis)))
        for axis, by in zip((rows, cols), whole, strict=True)
    )
    down, across = map(abs, whole)
    pixels = read(range(rows.start, rows.stop + down), range(cols.start, cols.stop + across))
    fine = tuple(slice(RATIO * axis.start, RATIO * axis.stop) for axis in (pan_rows, pan_cols))
    return Pixels(
        pixels.pan[fine],
        pixels.pan_valid[fine],
        pixels.ms[:, ms_rows, ms_cols],
        pixels.ms_valid[ms_rows, ms_cols],
        pixels.position,
    )


def _block_extents(height: int, width: int, margin: int) -> Iterator[tuple[range, range]]:
    """MS rows and columns of the blocks with their margins, spread evenly over the scene."""
    height, width = height - 2 * margin, width - 2 * margin
    if min(height, width) < MIN_SIDE:
        return
    # A small scene is divided into several blocks too, so that outliers can be recognised.
    side = min(max(min(height, width) // 3, MIN_SIDE), _MAX_SIDE)
    down, across = height // side, width // side
    if down * across > _MAX_BLOCKS:
        down = min(max(round(math.sqrt(_MAX_BLOCKS * height / width)), 1), down, _MAX_BLOCKS)
        across = min(_MAX_BLOCKS // down, across)
    for row in np.linspace(0, height - side, down).astype(int):
        for col in np.linspace(0, width - side, across).astype(int):
            yield (
                range(int(row), int(row) + side + 2 * margin),
                range(int(col), int(col) + side + 2 * margin),
            )


def _combined(fits: Sequence[Fit]) -> tuple[Image, float]:
    """Mean correction ``[2]`` of the blocks without outliers, and its standard error."""
    corrections = np.stack([fit.correction for fit in fits])
    information = np.stack([np.linalg.inv(fit.covariance + _RELIEF**2 * np.eye(2)) for fit in fits])
    weights = np.stack([np.diag(matrix) for matrix in information])
    median = _weighted_median(corrections, weights)
    deviations = np.abs(corrections - median)
    inliers = (deviations <= _OUTLIER).all(axis=1)
    if not inliers.any():
        return median, math.inf
    total = information[inliers].sum(axis=0)
    weighted = np.einsum("kij,kj->i", information[inliers], corrections[inliers])
    mean: Image = np.linalg.solve(total, weighted)
    # The standard error follows from the scatter of all blocks, outliers included, by the scaled
    # median absolute deviation; it is at least that of the fits.
    scatter = 1.4826 * _weighted_median(deviations, weights)
    effective_count = weights.sum(axis=0) ** 2 / (weights**2).sum(axis=0)
    fit_covariance = np.linalg.inv(sum(np.linalg.inv(fit.covariance) for fit in fits))
    fit_error = np.sqrt(np.diag(fit_covariance))
    return mean, float(np.maximum(scatter / np.sqrt(effective_count), fit_error).max())


def _spread(fits: Sequence[Fit]) -> float:
    """Range of 90 % of the corrections of blocks whose own error is small, the larger axis."""
    certain = [fit.correction for fit in fits if _is_certain(fit)]
    if not certain:
        return 0.0
    low, high = np.quantile(certain, [0.05, 0.95], axis=0)
    return float((high - low).max())


def _is_certain(fit: Fit) -> bool:
    """Whether the shift of a block alone is worth stating."""
    small_error = np.diag(fit.covariance).max() <= MAX_ERROR**2
    return bool(small_error) and fit.unexplained < (1 - LEAST_SHARE) * fit.variation


def _weighted_median(values: Image, weights: Image) -> Image:
    """Weighted median of each column of ``[n, 2]``."""
    order = np.argsort(values, axis=0, kind="stable")
    ranked = np.take_along_axis(values, order, axis=0)
    below = np.cumsum(np.take_along_axis(weights, order, axis=0), axis=0)
    index = (below < below[-1] / 2).sum(axis=0)
    return ranked[index, np.arange(values.shape[1])]


def offset(shift: tuple[float, float]) -> str:
    """A shift as text, such as "+0.40 rows and -1.30 columns of PAN"."""
    return f"{shift[0]:+.2f} rows and {shift[1]:+.2f} columns of PAN"


def moved_by(shift: tuple[float, float], measured: Shift | None) -> str:
    """That MS is moved, and why so far."""
    how = f"measured, ±{measured.error:.2f}" if measured else "as stated"
    return f"MS is moved by {offset(shift)} ({how})"


def shift_warnings(shift: tuple[float, float], measured: Shift | None) -> list[str]:
    """What is not corrected, and why, where that is worth a warning."""
    if measured is None or math.isinf(measured.error):
        return []
    if measured.error <= MAX_ERROR and measured.spread > 1:
        return [
            f"the shifts of parts of the scene differ by {measured.spread:.1f} pixels of PAN, and "
            "all of MS is moved alike: expect coloured fringes, or orthorectify both images first"
        ]
    if any(shift):
        return []
    if measured.share <= LEAST_SHARE:
        return [
            f"the bands of MS explain {measured.share:.0%} of the variance of blurred PAN, where "
            f"more than {LEAST_SHARE:.0%} is usual; the two may show different places or dates, or "
            "be displaced by far"
        ]
    if measured.length <= 1:
        return []
    reason = "too far to be sure" if measured.seen else "too uncertain"
    return [
        f"MS seems to lie {offset(measured.rounded)} off its georeferencing "
        f"(±{measured.error:.2f}), {reason} to move it; if there are coloured fringes along "
        f"edges, state `shift={measured.rounded[0]:.2f},{measured.rounded[1]:.2f}`"
    ]
