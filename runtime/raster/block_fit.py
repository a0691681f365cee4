"""One block of a scene: how far PAN is from being a weighted sum of the bands, and the shift that
brings it nearest. :mod:`ssdiff_trt.runtime.raster.registration` has the model and the scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.sensors import mtf_sigma

_MTF_GAIN = 0.3  # at the Nyquist frequency of MS; the DLPan-Toolbox's default for unlisted sensors
_SIGMA = mtf_sigma(_MTF_GAIN, RATIO)
MARGIN = 3  # margin of a block for the blur at any shift, MS pixels
SEARCH = 5  # largest shift that the search by whole MS pixels can find, MS pixels
MIN_SIDE = 16  # smallest side of a block, MS pixels
_MIN_PIXELS = MIN_SIDE**2 // 2
_NOISE = 4.0  # residuals beyond which weights fall, multiples of the 60 % quantile of residuals
_LOCAL = 2.0  # displacement that a pixel may have by relief without losing weight, PAN pixels
_START_ITERATIONS = 4  # iterations of the weights before the first fit

Image = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Pixels:
    """Pixels of MS, and the 4 x 4 pixels of PAN of each."""

    pan: NDArray[Any]
    """``[4 h, 4 w]``."""
    pan_valid: Mask
    ms: NDArray[Any]
    """``[C, h, w]``."""
    ms_valid: Mask
    position: tuple[float, float]
    """Row and column of PAN at the centre of the first MS pixel, without any shift."""


@dataclass(frozen=True)
class Fit:
    """Least-squares fit of one block."""

    correction: Image
    """Correction ``[2]`` of the current shift, PAN pixels."""
    covariance: Image
    """Covariance ``[2, 2]`` of the correction."""
    unexplained: float
    """Residual sum of squares of blurred PAN after the fit of the bands."""
    variation: float
    """Sum of squares of blurred PAN about its mean."""


@dataclass
class Block:
    """A block of the scene for one fit."""

    pan: Image
    """PAN ``[4 (h + 2 margin), 4 (w + 2 margin)]``."""
    valid: Mask
    """Valid MS pixels ``[h, w]``."""
    bands: Image
    """Orthonormal basis ``[n, C + 1]`` of the bands and a constant in the n valid pixels."""
    weights: Image
    """Weights ``[n]`` of these pixels, 0..1, from the last fit."""
    position: tuple[float, float]
    """Row and column of PAN at the centre of the first MS pixel, without any shift."""

    def sampled(self, shift: Image) -> Image:
        """Blurred and sampled PAN ``[n, 3]``, and its derivatives along rows and columns."""
        height, width = self.valid.shape
        rows, rows_slope = _sampling(height, self.position[0] + shift[0])
        cols, cols_slope = _sampling(width, self.position[1] + shift[1])
        blurred, blurred_slope = rows @ self.pan, rows_slope @ self.pan
        images = (blurred @ cols.T, blurred_slope @ cols.T, blurred @ cols_slope.T)
        return np.stack([image[self.valid] for image in images], axis=1)

    def fit(self, shift: Image) -> Fit | None:
        """Fit the block with PAN sampled at a shift; None if PAN has too little structure."""
        columns = self.sampled(shift)
        all_slopes = columns[:, 1:]
        pan, count = columns[:, 0], self.weights.sum()
        variation = float(self.weights @ (pan - self.weights @ pan / count) ** 2)
        if not variation > 1e-9 * float((self.pan**2).mean()) * count:
            return None
        columns = _residual(columns, self.bands, self.weights)  # projects the bands out
        residual, slopes = columns[:, 0], columns[:, 1:]
        weighted_slopes = slopes * self.weights[:, None]
        information = slopes.T @ weighted_slopes
        if not np.linalg.eigvalsh(information)[0] > 1e-9 * variation:
            return None
        inverse = np.linalg.inv(information)
        correction: Image = -(inverse @ (weighted_slopes.T @ residual))
        unexplained = float(self.weights @ residual**2)
        residual = residual + slopes @ correction
        covariance: Image = inverse * (
            (float(self.weights @ residual**2) + 1e-12 * variation)
            / (count - self.bands.shape[1] - 2)
        )
        self.weights = _robust_weights(residual, all_slopes)
        return Fit(correction, covariance, unexplained, variation)


def _robust_weights(residual: Image, slopes: Image) -> Image:
    """Weights ``[n]`` of pixels by their residuals, 0..1.

    A residual counts relative to the noise and to what relief would explain, except at the
    strongest slopes, which are often the rims of clouds.
    """
    noise = _NOISE * np.quantile(np.abs(residual), 0.6)
    scale = noise**2 + (_LOCAL * _moderate(np.hypot(*slopes.T))) ** 2
    weights: Image = 1 / (1 + residual**2 / np.maximum(scale, 1e-60)) ** 2
    return weights


def misfits_of(pixels: Pixels) -> Image | None:
    """Negative log likelihood of each shift by whole MS pixels, ``[2 s + 1, 2 s + 1]``.

    Only detail is compared, because clouds have little of it. None if there are too few valid
    pixels.
    """
    margin = MARGIN + SEARCH
    inner = np.s_[..., margin:-margin, margin:-margin]
    near = slice(margin - 1, 1 - margin)
    valid = _valid(pixels, margin) & _around(pixels.ms_valid[near, near], 1)
    if valid.sum() < _MIN_PIXELS:
        return None
    height, width = pixels.ms_valid.shape
    rows = _sampling(height - 2 * MARGIN, pixels.position[0])[0]
    cols = _sampling(width - 2 * MARGIN, pixels.position[1])[0]
    pan = np.where(pixels.pan_valid, pixels.pan, 0).astype(np.float64)
    pan = _detail(rows @ pan @ cols.T)
    pan = _moderate(pan.reshape(-1)).reshape(pan.shape)
    bands = _moderate(_detail(pixels.ms.astype(np.float64))[inner][:, valid])
    targets = np.lib.stride_tricks.sliding_window_view(pan, valid.shape)[..., valid]
    targets = targets - targets.mean(axis=-1, keepdims=True)
    variation = (targets**2).sum(axis=-1)
    explained = ((targets @ _basis(bands)) ** 2).sum(axis=-1)
    share = explained / np.where(variation > 0, variation, 1)
    misfits: Image = len(bands.T) / 2 * np.log1p(1e-9 - np.minimum(share, 1))
    return misfits


def block_of(pixels: Pixels) -> Block | None:
    """Prepare a block for fitting; None if it has too few valid pixels."""
    valid = _valid(pixels, MARGIN)
    if valid.sum() < _MIN_PIXELS:
        return None
    bands = pixels.ms[..., MARGIN:-MARGIN, MARGIN:-MARGIN][:, valid].astype(np.float64)
    pan = np.where(pixels.pan_valid, pixels.pan, 0).astype(np.float64)
    block = Block(pan, valid, _basis(bands), np.ones(bands.shape[1]), pixels.position)
    columns = block.sampled(np.zeros(2))
    target, basis = _moderate(columns[:, 0]), _basis(_moderate(bands))
    for _ in range(_START_ITERATIONS):
        residual = _residual(target, basis, block.weights)
        block.weights = _robust_weights(residual, np.zeros_like(columns[:, 1:]))
    return block


def _residual(values: Image, basis: Image, weights: Image) -> Image:
    """What remains of values ``[n]`` or ``[n, k]`` after the weighted fit of a basis ``[n, m]``."""
    weighted = basis * weights[:, None]
    gram = np.linalg.pinv(basis.T @ weighted, rcond=1e-10, hermitian=True)
    residual: Image = values - basis @ (gram @ (weighted.T @ values))
    return residual


def _valid(pixels: Pixels, margin: int) -> Mask:
    """MS pixels, without margin, that are valid and have valid PAN within the margin.

    Pixels of MS that are 0 in all bands are taken for holes, and so is PAN where it is 0 over a
    whole pixel of MS: files do not always declare them.
    """
    height, width = pixels.ms_valid.shape
    fine = pixels.pan.reshape(height, RATIO, width, RATIO)
    pan_valid = np.asarray(
        pixels.pan_valid.reshape(fine.shape).all(axis=(1, 3)) & fine.any(axis=(1, 3))
    )
    ms_valid = pixels.ms_valid & pixels.ms.any(axis=0)
    return _around(pan_valid, margin) & ms_valid[margin:-margin, margin:-margin]


def _around(mask: Mask, margin: int) -> Mask:
    """Where a mask is true within a margin, ``[h - 2 margin, w - 2 margin]``."""
    span = 2 * margin + 1
    windows = np.lib.stride_tricks.sliding_window_view(mask, (span, span))
    return np.asarray(windows.all(axis=(-2, -1)))


def _basis(bands: Image) -> Image:
    """Orthonormal basis ``[n, C + 1]`` of bands ``[C, n]`` and a constant."""
    centred = bands - bands.mean(axis=1, keepdims=True)
    return np.linalg.qr(np.concatenate([np.ones((1, bands.shape[1])), centred]).T)[0]


def _detail(image: Image) -> Image:
    """Difference of each pixel of ``[..., h, w]`` from its four neighbours, 0 at the edges."""
    detail = np.zeros_like(image)
    inner = image[..., 1:-1, 1:-1]
    beside = image[..., 1:-1, :-2] + image[..., 1:-1, 2:]
    detail[..., 1:-1, 1:-1] = inner - (beside + image[..., :-2, 1:-1] + image[..., 2:, 1:-1]) / 4
    return detail


def _moderate(values: Image) -> Image:
    """Values ``[..., n]`` limited to Tukey's fences, so that clouds do not outweigh the ground."""
    low, high = np.quantile(values, [0.25, 0.75], axis=-1, keepdims=True)
    reach = 1.5 * (high - low)
    return np.clip(values, low - reach, high + reach)


@cache
def _taps(size: int) -> Image:
    """Offset of each PAN pixel from the first one that each MS pixel covers.

    ``[size, 4 (size + 2 margin)]``.
    """
    fine: Image = np.arange(RATIO * (size + 2 * MARGIN), dtype=np.float64)
    return fine - RATIO * (np.arange(size)[:, None] + MARGIN)


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
