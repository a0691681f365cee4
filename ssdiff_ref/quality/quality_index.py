"""The universal image quality index (UQI, Q) and its hypercomplex extension Q2n, over blocks.

UQI (Wang & Bovik, 2002) is the product of correlation, luminance similarity and contrast similarity
of two bands. Q2n (Alparone et al., 2004; Garzelli & Nencini, 2009) extends it to images of several
bands by treating each pixel as one hypercomplex number. Both are 1 for equal images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ssdiff_ref.quality.checks import Image, Mask, as_pair
from ssdiff_trt.runtime.errors import InputError

BLOCK = 32
"""Pixels on a side of a block."""
_PIXELS = BLOCK * BLOCK
_EPS = float(np.finfo(np.float64).eps)
_ROUNDING = 1e-12
"""Variance over squared mean below which a block is flat.

The interpolator's ripple and float64 rounding give a constant block about this much."""

_COUNTS = 16
"""Digital numbers that are not whole, such as interpolated ones, have a 99th percentile above this;
reflectance has not."""


def _blocks(strip: NDArray[Any]) -> NDArray[Any]:
    """``[..., 32, W]`` as ``[blocks, ..., 1024]``, without columns beyond the last whole block."""
    count = strip.shape[-1] // BLOCK
    blocks = strip[..., : count * BLOCK].reshape(*strip.shape[:-1], count, BLOCK)
    return np.moveaxis(blocks, -2, 0).reshape(count, *strip.shape[:-2], _PIXELS)


def _centred(blocks: Image) -> tuple[Image, Image]:
    """Block means ``[..., 1]`` and the blocks minus their means."""
    mean = blocks.mean(axis=-1, keepdims=True)
    return mean, blocks - mean


def _variance(centred: Image) -> Image:
    """Variance ``[...]`` of centred blocks, normalised by N - 1 as in MATLAB."""
    variance: Image = np.einsum("...p,...p->...", centred, centred) / (_PIXELS - 1)
    return variance


def _mean_where(whole: Mask, index: Image) -> Image:
    """Mean of an index ``[*grid, ...]`` over the blocks that ``whole`` ``[*grid]`` selects."""
    if not whole.any():
        raise InputError(
            f"No block of {BLOCK} x {BLOCK} pixels is entirely valid, expected at least one; "
            "choose an area with less nodata."
        )
    mean: Image = index[whole].mean(axis=0)
    return mean


def _mean_over_blocks(
    index: Callable[[Image, Image], Image], x: Image, y: Image, valid: Mask
) -> Image:
    """Mean of ``index(x_blocks, y_blocks)`` ``[blocks, ...]`` over all entirely valid blocks.

    Computed one row of blocks at a time, to keep temporaries small.
    """
    indices, whole = [], []
    for top in range(0, valid.shape[0] - BLOCK + 1, BLOCK):
        strip = np.s_[..., top : top + BLOCK, :]
        indices.append(index(_blocks(x[strip]), _blocks(y[strip])))
        whole.append(_blocks(valid[strip]).all(axis=-1))
    return _mean_where(np.concatenate(whole), np.concatenate(indices))


def check_block(image: Image) -> None:
    """Raise an SSDiffError unless at least one block fits into ``[..., H, W]``."""
    height, width = image.shape[-2:]
    if min(height, width) < BLOCK:
        raise InputError(
            f"The image is {height} x {width} pixels, expected {BLOCK} x {BLOCK} or more; "
            "choose a larger area."
        )


def _uqi(mean_x: Image, mean_y: Image, var_x: Image, var_y: Image, cov: Image) -> Image:
    """UQI from moments; as in the authors' code, a factor that is 0/0 counts as 1.

    The score of a flat or saturated block thus depends on its mean alone. The toolbox's ``uqi.m``
    returns NaN there.
    """
    spread, level = var_x + var_y, mean_x**2 + mean_y**2
    flat, black = spread <= _ROUNDING * level, level == 0
    contrast = np.where(flat, 1.0, 2 * cov / np.where(flat, 1.0, spread))
    luminance = np.where(black, 1.0, 2 * mean_x * mean_y / np.where(black, 1.0, level))
    return np.where(black, 1.0, contrast * luminance)


def _uqi_of_blocks(x: Image, y: Image) -> Image:
    """UQI ``[blocks, A, B]`` of ``[blocks, A, 1024]`` with ``[blocks, B, 1024]``."""
    (mean_x, x_0), (mean_y, y_0) = _centred(x), _centred(y)
    covariance = x_0 @ y_0.swapaxes(-1, -2) / (_PIXELS - 1)
    variances = _variance(x_0)[:, :, None], _variance(y_0)[:, None, :]
    return _uqi(mean_x, mean_y.swapaxes(-1, -2), *variances, covariance)


def uqi(x: Image, y: Image, valid: Mask) -> Image:
    """UQI of every band of one image with every band of another, averaged over distinct blocks.

    ``uqi.m`` of the DLPan-Toolbox (Wang & Bovik, 2002). Incomplete blocks at the right and bottom
    do not count, nor do blocks with invalid pixels.

    Args:
        x: ``[A, H, W]``.
        y: ``[B, H, W]``, in the same unit.
        valid: ``[H, W]``, true where a pixel is valid.

    Returns:
        ``[A, B]``, -1..1.

    Raises:
        SSDiffError: if the images are smaller than a block or no block is valid.
    """
    check_block(x)
    return _mean_over_blocks(_uqi_of_blocks, x, y, valid)


def _window_means(band: Image) -> Image:
    """Means of all 32 x 32 windows inside ``[H, W]``."""
    corner = np.pad(band, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    rows = corner[BLOCK:] - corner[:-BLOCK]
    means: Image = (rows[:, BLOCK:] - rows[:, :-BLOCK]) / _PIXELS
    return means


def q_average(fused: ArrayLike, reference: ArrayLike, valid: ArrayLike | None = None) -> float:
    """UQI over sliding windows, averaged over windows and bands (``Q.m``, ``img_qi.m``).

    Args:
        fused: ``[C, H, W]``, digital numbers.
        reference: ground truth, likewise.
        valid: ``[H, W]`` bool; a window counts if all its pixels are valid.

    Returns:
        -1..1, 1 is best.

    Raises:
        SSDiffError: on differing shapes, non-finite values, no valid window.
    """
    fused, reference, mask = as_pair(fused, reference, valid)
    check_block(reference)
    whole = _window_means(mask.astype(np.float64)) == 1
    bands = []
    for x, y in zip(fused, reference, strict=True):
        mean_x, mean_y = _window_means(x), _window_means(y)
        var_x, var_y = _window_means(x * x) - mean_x**2, _window_means(y * y) - mean_y**2
        covariance = _window_means(x * y) - mean_x * mean_y
        bands.append(_mean_where(whole, _uqi(mean_x, mean_y, var_x, var_y, covariance)))
    return float(np.mean(bands))


def _conjugate(x: Image) -> Image:
    return np.concatenate([x[..., :1], -x[..., 1:]], axis=-1)


def _product(x: Image, y: Image) -> Image:
    """Hypercomplex product over the last axis: the toolbox's variant of Cayley-Dickson."""
    half = x.shape[-1] // 2
    if not half:
        return x * y
    a, b, c, d = x[..., :half], x[..., half:], y[..., :half], y[..., half:]
    b_, d_ = _conjugate(b), _conjugate(d)
    real = _product(a, c) - _product(d_, b)
    imaginary = _product(_conjugate(a), d_) + _product(c, b_)
    return np.concatenate([real, imaginary], axis=-1)


@cache
def _product_with_conjugate(units: int) -> Image:
    """Table ``[units, units, units]``; ``[i, j]`` is unit i times the conjugate of unit j."""
    unit = np.eye(units)
    table = _product(unit[:, None, :], _conjugate(unit)[None, :, :])
    table.flags.writeable = False
    return table


def _as_uint16(image: Image) -> Image:
    """Round and clip like MATLAB's cast to uint16, but stay in float64."""
    return np.clip(np.floor(image + 0.5), 0, 65535)


def _are_digital_numbers(values: Image) -> bool:
    """Whether values have the unit of a sensor's counts, not reflectance or radiance."""
    whole = bool((values == np.floor(values)).all())
    return whole or float(np.percentile(values, 99)) >= _COUNTS


def _q2n_of_blocks(fused: Image, reference: Image) -> Image:
    """Q2n ``[blocks]`` of ``[blocks, C, 1024]`` (``onions_quality.m``, ``norm_blocco.m``)."""
    bands = reference.shape[-2]
    units = 1 << (bands - 1).bit_length()  # bands are padded to a power of two
    mean_r, r_0 = _centred(reference)
    scale = np.sqrt(_variance(r_0))[..., None]
    scale[scale == 0] = _EPS
    mean_f, f_0 = _centred(fused)
    # Each band is normalised so that the reference has mean 1 and variance 1. A padding band has
    # mean 1 and variance 0 in both images.
    mean_f, r_0, f_0 = (mean_f - mean_r) / scale + 1, r_0 / scale, f_0 / scale
    length_r = np.sqrt(float(units))
    length_f = np.sqrt((mean_f[..., 0] ** 2).sum(axis=-1) + units - bands)
    luminance = 2 * length_r * length_f / (length_r**2 + length_f**2)
    spread = (_variance(r_0) + _variance(f_0)).sum(axis=-1)
    covariance = r_0 @ f_0.swapaxes(-1, -2) / (_PIXELS - 1)
    # The product is bilinear, so the hypercomplex covariance is a sum of real covariances.
    table = _product_with_conjugate(units)[:bands, :bands]
    hypercomplex = np.linalg.norm(np.einsum("nij,ijk->nk", covariance, table), axis=-1)
    flat = spread == 0
    contrast = np.where(flat, 1.0, 2 * hypercomplex / np.where(flat, 1.0, spread))
    index: Image = luminance * contrast
    return index


def q2n(fused: ArrayLike, reference: ArrayLike, valid: ArrayLike | None = None) -> float:
    """Q2n over distinct 32 x 32 blocks: Q4 for 4 bands, Q8 for 8.

    ``q2n.m`` of the DLPan-Toolbox (Garzelli & Nencini, 2009): the image is mirrored to whole
    blocks, and digital numbers are rounded to unsigned 16 bit. Other units, such as reflectance,
    are not: the reference is in digital numbers if it consists of whole numbers, or if its 99th
    percentile is 16 or more.

    Args:
        fused: ``[C, H, W]``, any unit.
        reference: ground truth, in the same unit. The index is not symmetric in the two.
        valid: ``[H, W]`` bool; a block counts if all its pixels are valid.

    Returns:
        0..1, 1 is best.

    Raises:
        SSDiffError: on differing shapes, non-finite values, images smaller than a block, no valid
            block.
    """
    fused, reference, mask = as_pair(fused, reference, valid)
    check_block(reference)
    if _are_digital_numbers(reference[:, mask]):
        fused, reference = _as_uint16(fused), _as_uint16(reference)
    padding = [(0, -size % BLOCK) for size in mask.shape]
    fused, reference = (
        np.pad(image, [(0, 0), *padding], mode="symmetric") for image in (fused, reference)
    )
    mask = np.pad(mask, padding, mode="symmetric")
    return float(_mean_over_blocks(_q2n_of_blocks, fused, reference, mask))
