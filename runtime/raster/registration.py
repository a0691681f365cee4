"""Registration of MS to PAN: how far the two lie off each other, measured in their pixels.

Real pairs are displaced by fractions of a pixel to a few pixels of PAN, for the two are taken by
different rows of detectors a moment apart. PAN, blurred as the optics of MS would and sampled where
the pixels of MS are, should be a weighted sum of the bands plus a constant. So each block of the
scene is fitted by least squares with

    P = sum_b w_b ms_b + c - e_row dP/drow - e_col dP/dcol

where ``P`` is PAN, blurred and sampled at the shift found so far, and ``e`` what is missing from
it (Lucas & Kanade, 1981, with the radiometry of the bands as further unknowns). Blocks vote by
their information; those that disagree, with ships or relief in them, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.interpolator import HALO, PROTOCOL_POSITION, RATIO
from ssdiff_trt.runtime.options import ShiftChoice
from ssdiff_trt.runtime.sources import Pixels, Source

LARGEST = 4.0
"""Pixels of PAN beyond which a shift is no longer trusted."""
SMALLEST = 0.1
"""Pixels of PAN below which a shift does not matter."""
LEAST_SHARE = 0.5
"""Of the variance of PAN that the bands of MS must explain."""
CERTAIN = 3.0
"""Standard errors that a shift must be larger than."""

_MTF_GAIN = 0.3  # at the Nyquist frequency of MS; what DLPan takes for sensors it does not know
_SIGMA = RATIO * math.sqrt(2 * math.log(1 / _MTF_GAIN)) / math.pi
_SIDE, _LEAST_SIDE = 64, 16  # pixels of MS that a block compares, on a side
_BLOCKS = 32
_MARGIN = 3  # pixels of MS around them whose PAN is blurred into theirs, at any shift
_REACH = 5.0  # pixels of PAN; how far the search goes
_LEAST_PIXELS = _LEAST_SIDE**2 // 2
_ITERATIONS = 10
_STEP = 0.7  # of what the fits ask for: where MS is sharper than assumed they ask for too much
_OUTLIER = 1.0  # pixels of PAN that a block may be off the others
_RELIEF = 0.1  # pixels of PAN by which blocks differ, however well they are fitted

Image = NDArray[np.float64]
Mask = NDArray[np.bool_]
Read = Callable[[range, range], Pixels]
"""Reads these rows and columns of MS, without halo, and the pixels of PAN that they cover."""


@dataclass(frozen=True)
class Shift:
    """How far MS lies off PAN.

    What a pixel of MS shows is found in PAN ``rows`` further down and ``cols`` further right than
    where its georeferencing puts it. Moving MS by as much puts it right.
    """

    rows: float
    """Pixels of PAN."""
    cols: float
    error: float
    """Standard error of each, pixels of PAN; infinite if nothing could be measured."""
    share: float
    """Of the variance of blurred PAN that the bands of MS explain, 0..1 (R squared)."""

    @property
    def length(self) -> float:
        """Pixels of PAN."""
        return math.hypot(self.rows, self.cols)

    @property
    def rounded(self) -> tuple[float, float]:
        """Rows and columns as they are told and used: stating them gives the same."""
        return round(self.rows, 2), round(self.cols, 2)

    @property
    def seen(self) -> bool:
        """Whether PAN and MS show the same, and do so best when one is moved."""
        needed = max(SMALLEST, CERTAIN * self.error)
        return self.share > LEAST_SHARE and self.length > needed

    @property
    def reliable(self) -> bool:
        """Whether to move MS by it."""
        return self.seen and max(abs(self.rows), abs(self.cols)) <= LARGEST


def choose_shift(choice: ShiftChoice, source: Source) -> tuple[tuple[float, float], Shift | None]:
    """Rows and columns of PAN to move MS by, and the measured shift, if it was measured.

    Args:
        choice: ``auto`` to measure, and move MS where that is reliable; ``none``; or rows and
            columns.
        source: not moved yet.

    Raises:
        InputError: where a file is damaged.
    """
    if choice == "auto":
        found = measure_source(source)
        return (found.rounded if found.reliable else (0.0, 0.0)), found
    if choice == "none":
        return (0.0, 0.0), None
    rows, cols = choice
    return (float(rows), float(cols)), None


NOTHING = Shift(0.0, 0.0, math.inf, 0.0)


def measure_source(source: Source) -> Shift:
    """Measure how far MS lies off where the source has it.

    It looks at :data:`_BLOCKS` blocks at most, so memory and time do not grow with the scene.

    Raises:
        InputError: where a file is damaged.
    """
    rows, cols = source.whole

    def read(ms_rows: range, ms_cols: range) -> Pixels:
        fine = (
            range(whole.start + RATIO * part.start, whole.start + RATIO * part.stop)
            for whole, part in ((rows, ms_rows), (cols, ms_cols))
        )
        pixels = source.read(*fine)
        inner = np.s_[..., HALO:-HALO, HALO:-HALO]
        return replace(pixels, ms=pixels.ms[inner], ms_valid=pixels.ms_valid[inner])

    return _measure(read, len(rows) // RATIO, len(cols) // RATIO, source.position)


def measure_arrays(
    pan: NDArray[Any],
    ms: NDArray[Any],
    position: tuple[float, float] = (PROTOCOL_POSITION, PROTOCOL_POSITION),
) -> Shift:
    """Measure how far MS lies off PAN.

    Args:
        pan: ``[4 h, 4 w]``, finite, any unit.
        ms: ``[C, h, w]``, finite, any unit.
        position: row and column where the first pixel of MS is thought to lie on PAN.
    """

    def read(rows: range, cols: range) -> Pixels:
        top, bottom, left, right = rows.start, rows.stop, cols.start, cols.stop
        fine = pan[RATIO * top : RATIO * bottom, RATIO * left : RATIO * right]
        coarse = ms[:, top:bottom, left:right]
        return Pixels(fine, np.ones(fine.shape, bool), coarse, np.ones(coarse.shape[1:], bool))

    height, width = ms.shape[1:]
    return _measure(read, height, width, position)


def _measure(read: Read, height: int, width: int, position: tuple[float, float]) -> Shift:
    places = _places(height - 2 * _MARGIN, width - 2 * _MARGIN)
    blocks = [block for place in places if (block := _block(read(*place)))]
    shift, found = np.zeros(2), NOTHING
    for _ in range(_ITERATIONS):
        fits = [fit for block in blocks if (fit := block.fit(position, shift))]
        if not fits:
            return NOTHING
        missing, error = _agreed(fits)
        share = 1 - sum(fit.unexplained for fit in fits) / sum(fit.variation for fit in fits)
        shift = np.clip(shift + _STEP * missing, -_REACH, _REACH)
        found = Shift(float(shift[0]), float(shift[1]), error, float(share))
    return found


def _places(height: int, width: int) -> Iterator[tuple[range, range]]:
    """Rows and columns of MS of the blocks with their margins, spread over the scene."""
    if min(height, width) < _LEAST_SIDE:
        return
    # A small scene gives several blocks too, so that they can be compared.
    side = min(max(min(height, width) // 3, _LEAST_SIDE), _SIDE)
    down, across = height // side, width // side
    if down * across > _BLOCKS:
        down = min(max(round(math.sqrt(_BLOCKS * height / width)), 1), down, _BLOCKS)
        across = min(_BLOCKS // down, across)
    for row in np.linspace(0, height - side, down).astype(int):
        for col in np.linspace(0, width - side, across).astype(int):
            yield (
                range(int(row), int(row) + side + 2 * _MARGIN),
                range(int(col), int(col) + side + 2 * _MARGIN),
            )


@dataclass(frozen=True)
class _Fit:
    """What a block has to say."""

    missing: Image
    """``[2]``, by which its shift differs from that tried, pixels of PAN."""
    covariance: Image
    """``[2, 2]``, of that."""
    unexplained: float
    """Sum of squares of what the bands do not explain of blurred PAN."""
    variation: float
    """Sum of squares of blurred PAN about its mean."""


@dataclass(frozen=True)
class _Block:
    """A part of a pair that is fitted at once."""

    pan: Image
    """``[4 (h + 2 margin), 4 (w + 2 margin)]``."""
    valid: Mask
    """``[h, w]``."""
    bands: Image
    """``[n, C + 1]``: an orthonormal basis of the bands and a constant in the valid pixels."""

    def fit(self, position: tuple[float, float], shift: Image) -> _Fit | None:
        """Fit it with PAN at a shift; None if it has nothing to hold on to."""
        height, width = self.valid.shape
        rows, rows_slope = _sampling(height, position[0] + shift[0])
        cols, cols_slope = _sampling(width, position[1] + shift[1])
        straight, tilted = rows @ self.pan, rows_slope @ self.pan
        sampled = (straight @ cols.T, tilted @ cols.T, straight @ cols_slope.T)
        columns = np.stack([image[self.valid] for image in sampled], axis=1)
        variation = float(((columns[:, 0] - columns[:, 0].mean()) ** 2).sum())
        columns -= self.bands @ (self.bands.T @ columns)
        rest, slopes = columns[:, 0], columns[:, 1:]
        gram = slopes.T @ slopes
        freedom = len(rest) - self.bands.shape[1] - 2
        if not variation > 1e-9 * float((self.pan**2).mean()) * len(rest):
            return None
        if not np.linalg.eigvalsh(gram)[0] > 1e-9 * variation:
            return None
        missing: Image = -np.asarray(np.linalg.solve(gram, slopes.T @ rest), np.float64)
        left = float(((rest + slopes @ missing) ** 2).sum()) + 1e-12 * variation
        covariance: Image = np.linalg.inv(gram) * (left / freedom)
        return _Fit(missing, covariance, float(rest @ rest), variation)


def _block(pixels: Pixels) -> _Block | None:
    """A block of a pair; None where too little is valid."""
    height, width = pixels.ms_valid.shape
    whole = pixels.pan_valid.reshape(height, RATIO, width, RATIO).all(axis=(1, 3))
    span = 2 * _MARGIN + 1
    inner = np.s_[..., _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    around = np.lib.stride_tricks.sliding_window_view(whole, (span, span)).all(axis=(-2, -1))
    valid = around & pixels.ms_valid[inner]
    if valid.sum() < _LEAST_PIXELS:
        return None
    bands = pixels.ms[inner][:, valid].astype(np.float64)
    bands -= bands.mean(axis=1, keepdims=True)
    basis = np.linalg.qr(np.concatenate([np.ones((1, bands.shape[1])), bands]).T)[0]
    return _Block(np.where(pixels.pan_valid, pixels.pan, 0).astype(np.float64), valid, basis)


@cache
def _taps(size: int) -> Image:
    """Pixels of PAN less the first that each pixel of MS covers, ``[size, 4 (size + 2 margin)]``"""
    fine: Image = np.arange(RATIO * (size + 2 * _MARGIN), dtype=np.float64)
    return fine - RATIO * (np.arange(size)[:, None] + _MARGIN)


@lru_cache(maxsize=2)  # the blocks of a scene are of one size
def _sampling(size: int, position: float) -> tuple[Image, Image]:
    """PAN to MS along an axis, and the derivative of that with respect to ``position``.

    A Gaussian whose MTF is 0.3 at the Nyquist frequency of MS, around each pixel of MS; rows add
    up to 1 and 0. Both are ``[size, 4 (size + 2 margin)]``.
    """
    off = _taps(size) - position
    weights = np.exp(-(off**2) / (2 * _SIGMA**2))
    weights /= weights.sum(axis=1, keepdims=True)
    slope = weights * off / _SIGMA**2
    return weights, slope - weights * slope.sum(axis=1, keepdims=True)


def _agreed(fits: Sequence[_Fit]) -> tuple[Image, float]:
    """What most blocks say, ``[2]``, and its standard error."""
    found = np.stack([fit.missing for fit in fits])
    information = np.stack([np.linalg.inv(fit.covariance + _RELIEF**2 * np.eye(2)) for fit in fits])
    weights = np.stack([np.diag(matrix) for matrix in information])
    middle = _weighted_median(found, weights)
    off = np.abs(found - middle)
    agrees = (off <= _OUTLIER).all(axis=1)
    if not agrees.any():
        return middle, math.inf
    total = information[agrees].sum(axis=0)
    mean: Image = np.linalg.solve(total, np.einsum("kij,kj->i", information[agrees], found[agrees]))
    # From the scatter of all blocks, those that disagree among them, but not below what the fits
    # themselves leave open.
    scatter = 1.4826 * _weighted_median(off, weights)
    effective = weights.sum(axis=0) ** 2 / (weights**2).sum(axis=0)
    own = np.linalg.inv(sum(np.linalg.inv(fit.covariance) for fit in fits))
    inherent = np.sqrt(np.diag(own))
    return mean, float(np.maximum(scatter / np.sqrt(effective), inherent).max())


def _weighted_median(values: Image, weights: Image) -> Image:
    """Of each column of ``[n, 2]``."""
    order = np.argsort(values, axis=0, kind="stable")
    ranked = np.take_along_axis(values, order, axis=0)
    below = np.cumsum(np.take_along_axis(weights, order, axis=0), axis=0)
    index = (below < below[-1] / 2).sum(axis=0)
    return ranked[index, np.arange(values.shape[1])]


def offset(shift: tuple[float, float]) -> str:
    """A shift in words."""
    return f"{shift[0]:+.2f} rows and {shift[1]:+.2f} columns of PAN"
