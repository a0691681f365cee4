"""Registration of MS to PAN: the shift between the two, estimated from their pixels.

Real pairs are offset by fractions of a PAN pixel to a few PAN pixels, as PAN and MS are acquired by
different detector lines a moment apart. PAN, blurred by the MTF of MS and sampled at the MS pixels,
should be a weighted sum of the bands plus a constant. Each block of the scene is therefore fitted
by least squares with

    P = sum_b w_b ms_b + c - e_row dP/drow - e_col dP/dcol

where ``P`` is PAN, blurred and sampled at the current estimate of the shift, and ``e`` the
correction of that estimate (Lucas & Kanade, 1981, with the band weights as further unknowns). The
estimate of the scene is the mean of the blocks, weighted by their information matrices, without
outliers such as blocks with moving objects or relief.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.interpolator import PROTOCOL_POSITION, RATIO
from ssdiff_trt.runtime.options import ShiftChoice
from ssdiff_trt.runtime.sources import MSAxis, Pixels, Source

MAX_SHIFT = 4.0
"""Largest shift along an axis that is corrected, PAN pixels."""
MIN_SHIFT = 0.1
"""Smallest shift that is corrected, PAN pixels."""
LEAST_SHARE = 0.5
"""Share of the variance of PAN that the MS bands must explain for a shift to be valid, 0..1."""
MIN_STANDARD_ERRORS = 3.0
"""Smallest significant ratio of a shift to its standard error."""

_MTF_GAIN = 0.3  # at the Nyquist frequency of MS; the DLPan-Toolbox's default for unlisted sensors
_SIGMA = RATIO * math.sqrt(2 * math.log(1 / _MTF_GAIN)) / math.pi
_MAX_SIDE, _MIN_SIDE = 64, 16  # side of a block, MS pixels
_MAX_BLOCKS = 32
_MARGIN = 3  # margin of a block for the blur at any shift, MS pixels
_MAX_SEARCH = 5.0  # largest shift that the iteration can reach, PAN pixels
_MIN_PIXELS = _MIN_SIDE**2 // 2
_ITERATIONS = 10
_DAMPING = 0.7  # factor on corrections, which are too large where MS is sharper than assumed
_OUTLIER = 1.0  # deviation from the median beyond which a block is ignored, PAN pixels
_RELIEF = 0.1  # standard deviation of the true shift between blocks, e.g. by relief, PAN pixels

Image = NDArray[np.float64]
Mask = NDArray[np.bool_]
Read = Callable[[range, range], Pixels]
"""Reads rows and columns of MS, without halo, and the PAN pixels that they cover."""


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
        return self.share > LEAST_SHARE and self.length > min_length

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
        return replace(pixels, ms=ms.inner, ms_valid=ms.inner_valid)

    return _measure(read, len(rows) // RATIO, len(cols) // RATIO, source.position)


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
        return Pixels(fine, valid[0], coarse, valid[1], (MSAxis(0.0), MSAxis(0.0)))

    height, width = ms.shape[1:]
    return _measure(read, height, width, position)


def _measure(read: Read, height: int, width: int, position: tuple[float, float]) -> Shift:
    extents = _block_extents(height - 2 * _MARGIN, width - 2 * _MARGIN)
    blocks = [block for extent in extents if (block := _block(read(*extent)))]
    shift, measured = np.zeros(2), UNMEASURED
    for _ in range(_ITERATIONS):
        fits = [fit for block in blocks if (fit := block.fit(position, shift))]
        if not fits:
            return UNMEASURED
        correction, error = _combined(fits)
        share = 1 - sum(fit.unexplained for fit in fits) / sum(fit.variation for fit in fits)
        shift = np.clip(shift + _DAMPING * correction, -_MAX_SEARCH, _MAX_SEARCH)
        measured = Shift(float(shift[0]), float(shift[1]), error, float(share))
    return measured


def _block_extents(height: int, width: int) -> Iterator[tuple[range, range]]:
    """MS rows and columns of the blocks with their margins, spread evenly over the scene."""
    if min(height, width) < _MIN_SIDE:
        return
    # A small scene is divided into several blocks too, so that outliers can be recognised.
    side = min(max(min(height, width) // 3, _MIN_SIDE), _MAX_SIDE)
    down, across = height // side, width // side
    if down * across > _MAX_BLOCKS:
        down = min(max(round(math.sqrt(_MAX_BLOCKS * height / width)), 1), down, _MAX_BLOCKS)
        across = min(_MAX_BLOCKS // down, across)
    for row in np.linspace(0, height - side, down).astype(int):
        for col in np.linspace(0, width - side, across).astype(int):
            yield (
                range(int(row), int(row) + side + 2 * _MARGIN),
                range(int(col), int(col) + side + 2 * _MARGIN),
            )


@dataclass(frozen=True)
class _Fit:
    """Least-squares fit of one block."""

    correction: Image
    """Correction ``[2]`` of the current shift, PAN pixels."""
    covariance: Image
    """Covariance ``[2, 2]`` of the correction."""
    unexplained: float
    """Residual sum of squares of blurred PAN after the fit of the bands."""
    variation: float
    """Sum of squares of blurred PAN about its mean."""


@dataclass(frozen=True)
class _Block:
    """A block of the scene for one fit."""

    pan: Image
    """PAN ``[4 (h + 2 margin), 4 (w + 2 margin)]``."""
    valid: Mask
    """Valid MS pixels ``[h, w]``."""
    bands: Image
    """Orthonormal basis ``[n, C + 1]`` of the bands and a constant in the n valid pixels."""

    def fit(self, position: tuple[float, float], shift: Image) -> _Fit | None:
        """Fit the block with PAN sampled at a shift; None if PAN has too little structure."""
        height, width = self.valid.shape
        rows, rows_slope = _sampling(height, position[0] + shift[0])
        cols, cols_slope = _sampling(width, position[1] + shift[1])
        blurred, blurred_slope = rows @ self.pan, rows_slope @ self.pan
        # Blurred and sampled PAN, and its derivatives along rows and columns.
        sampled = (blurred @ cols.T, blurred_slope @ cols.T, blurred @ cols_slope.T)
        columns = np.stack([image[self.valid] for image in sampled], axis=1)
        variation = float(((columns[:, 0] - columns[:, 0].mean()) ** 2).sum())
        columns -= self.bands @ (self.bands.T @ columns)  # projects the bands out
        residual, slopes = columns[:, 0], columns[:, 1:]
        gram = slopes.T @ slopes
        degrees_of_freedom = len(residual) - self.bands.shape[1] - 2
        if not variation > 1e-9 * float((self.pan**2).mean()) * len(residual):
            return None
        if not np.linalg.eigvalsh(gram)[0] > 1e-9 * variation:
            return None
        correction: Image = -np.asarray(np.linalg.solve(gram, slopes.T @ residual), np.float64)
        error = float(((residual + slopes @ correction) ** 2).sum()) + 1e-12 * variation
        covariance: Image = np.linalg.inv(gram) * (error / degrees_of_freedom)
        return _Fit(correction, covariance, float(residual @ residual), variation)


def _block(pixels: Pixels) -> _Block | None:
    """Prepare a block for fitting; None if it has too few valid pixels."""
    height, width = pixels.ms_valid.shape
    pan_valid = pixels.pan_valid.reshape(height, RATIO, width, RATIO).all(axis=(1, 3))
    span = 2 * _MARGIN + 1
    inner = np.s_[..., _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    around = np.lib.stride_tricks.sliding_window_view(pan_valid, (span, span)).all(axis=(-2, -1))
    valid = around & pixels.ms_valid[inner]
    if valid.sum() < _MIN_PIXELS:
        return None
    bands = pixels.ms[inner][:, valid].astype(np.float64)
    bands -= bands.mean(axis=1, keepdims=True)
    basis = np.linalg.qr(np.concatenate([np.ones((1, bands.shape[1])), bands]).T)[0]
    return _Block(np.where(pixels.pan_valid, pixels.pan, 0).astype(np.float64), valid, basis)


@cache
def _taps(size: int) -> Image:
    """Offset of each PAN pixel from the first one that each MS pixel covers.

    ``[size, 4 (size + 2 margin)]``.
    """
    fine: Image = np.arange(RATIO * (size + 2 * _MARGIN), dtype=np.float64)
    return fine - RATIO * (np.arange(size)[:, None] + _MARGIN)


@lru_cache(maxsize=2)  # the blocks of a scene are of one size
def _sampling(size: int, position: float) -> tuple[Image, Image]:
    """Matrix that samples PAN at MS pixels along an axis, and its derivative by ``position``.

    The kernel is a Gaussian with MTF 0.3 at the Nyquist frequency of MS. Rows sum to 1, those of
    the derivative to 0. Both matrices are ``[size, 4 (size + 2 margin)]``.
    """
    offsets = _taps(size) - position
    weights = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    weights /= weights.sum(axis=1, keepdims=True)
    slope = weights * offsets / _SIGMA**2
    return weights, slope - weights * slope.sum(axis=1, keepdims=True)


def _combined(fits: Sequence[_Fit]) -> tuple[Image, float]:
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
    """Why MS is not moved, where that is worth a warning."""
    if any(shift) or measured is None or math.isinf(measured.error):
        return []
    if measured.share <= LEAST_SHARE:
        return [
            f"the bands of MS explain {measured.share:.0%} of the variance of blurred PAN, where "
            f"more than {LEAST_SHARE:.0%} is usual; the two may show different places or dates, or "
            "be displaced by far (GCPs and RPCs do not place MS)"
        ]
    if measured.length <= 1:
        return []
    reason = "too far to be sure" if measured.seen else "too uncertain"
    return [
        f"MS seems to lie {offset(measured.rounded)} off its georeferencing "
        f"(±{measured.error:.2f}), {reason} to move it; where that is so, state it with `shift`, "
        "else expect coloured fringes"
    ]
