"""The universal image quality index (UQI, Q) and its hypercomplex extension Q2n, over blocks.

UQI (Wang & Bovik, 2002) is correlation times agreement of the means times agreement of the
variances of two bands. Q2n (Alparone et al., 2004; Garzelli & Nencini, 2009) is the same for
images of several bands, each pixel one hypercomplex number. Both are 1 for equal images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ssdiff_ref.quality.checks import Image, Mask, as_pair
from ssdiff_trt.runtime.errors import SSDiffError

BLOCK = 32
_PIXELS = BLOCK * BLOCK
_EPS = float(np.finfo(np.float64).eps)
_ROUNDING = 1e-12
"""Variance over squared mean that the interpolator's and float64's rounding gives a flat block."""


def _blocks(strip: NDArray[Any]) -> NDArray[Any]:
    """``[..., 32, W]`` as ``[blocks, ..., 1024]``; columns beyond the last whole block are left."""
    count = strip.shape[-1] // BLOCK
    cut = strip[..., : count * BLOCK].reshape(*strip.shape[:-1], count, BLOCK)
    return np.moveaxis(cut, -2, 0).reshape(count, *strip.shape[:-2], _PIXELS)


def _centred(blocks: Image) -> tuple[Image, Image]:
    """Means ``[..., 1]`` and what is left without them."""
    mean = blocks.mean(axis=-1, keepdims=True)
    return mean, blocks - mean


def _power(centred: Image) -> Image:
    """Variance ``[...]``, with N - 1 as in MATLAB."""
    variance: Image = np.einsum("...p,...p->...", centred, centred) / (_PIXELS - 1)
    return variance


def _mean_where(whole: Mask, index: Image) -> Image:
    """The mean of an index ``[*grid, ...]`` over the blocks ``[*grid]`` that are whole."""
    if not whole.any():
        raise SSDiffError(
            f"No block of {BLOCK} x {BLOCK} pixels is valid throughout, expected at least one; "
            "judge a part with less nodata."
        )
    mean: Image = index[whole].mean(axis=0)
    return mean


def _mean_over_blocks(
    index: Callable[[Image, Image], Image], x: Image, y: Image, valid: Mask
) -> Image:
    """The mean of ``index(x_blocks, y_blocks)`` ``[blocks, ...]`` over all blocks that are valid.

    One row of blocks at a time, so that temporaries stay small.
    """
    indices, whole = [], []
    for top in range(0, valid.shape[0] - BLOCK + 1, BLOCK):
        strip = np.s_[..., top : top + BLOCK, :]
        indices.append(index(_blocks(x[strip]), _blocks(y[strip])))
        whole.append(_blocks(valid[strip]).all(axis=-1))
    return _mean_where(np.concatenate(whole), np.concatenate(indices))


def check_block(image: Image) -> None:
    """That at least one block fits into ``[..., H, W]``."""
    height, width = image.shape[-2:]
    if min(height, width) < BLOCK:
        raise SSDiffError(
            f"The image is {height} x {width} pixels, expected {BLOCK} x {BLOCK} or more; "
            "judge a larger part."
        )


def _uqi(mean_x: Image, mean_y: Image, var_x: Image, var_y: Image, cov: Image) -> Image:
    """The index from moments; as its authors do, a factor that is 0/0 counts as 1.

    So a flat or saturated block is judged by its level alone. The toolbox's ``uqi.m`` is NaN there.
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
    variances = _power(x_0)[:, :, None], _power(y_0)[:, None, :]
    return _uqi(mean_x, mean_y.swapaxes(-1, -2), *variances, covariance)


def uqi(x: Image, y: Image, valid: Mask) -> Image:
    """UQI of every band of one image with every band of another, the mean over distinct blocks.

    ``uqi.m`` of the DLPan-Toolbox (Wang & Bovik, 2002). Blocks that are not whole, at the right
    and bottom, do not count, nor do those that are not valid throughout.

    Args:
        x: ``[A, H, W]``.
        y: ``[B, H, W]``, in the same unit.
        valid: ``[H, W]``.

    Returns:
        ``[A, B]``, -1..1.

    Raises:
        SSDiffError: if the images are smaller than a block or no block is valid.
    """
    check_block(x)
    return _mean_over_blocks(_uqi_of_blocks, x, y, valid)


def _window_means(band: Image) -> Image:
    """Means over all 32 x 32 windows inside ``[H, W]``."""
    corner = np.pad(band, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    rows = corner[BLOCK:] - corner[:-BLOCK]
    means: Image = (rows[:, BLOCK:] - rows[:, :-BLOCK]) / _PIXELS
    return means


def q_average(fused: ArrayLike, reference: ArrayLike, valid: ArrayLike | None = None) -> float:
    """UQI over sliding windows, the mean over windows and bands (``Q.m``, ``img_qi.m``).

    Args:
        fused: ``[C, H, W]``, digital numbers.
        reference: the same, the truth.
        valid: ``[H, W]`` bool; a window counts if it is valid throughout.

    Returns:
        -1..1, 1 is best.

    Raises:
        SSDiffError: on shapes that differ, values that are not finite, no valid window.
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
    """The hypercomplex product over the last axis, in the toolbox's variant of Cayley-Dickson."""
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
    """``T[i, j]`` is unit i times the conjugate of unit j, ``[units, units, units]``."""
    unit = np.eye(units)
    table = _product(unit[:, None, :], _conjugate(unit)[None, :, :])
    table.flags.writeable = False
    return table


def _as_uint16(image: Image) -> Image:
    """What MATLAB's cast to uint16 leaves, still in float64."""
    return np.clip(np.floor(image + 0.5), 0, 65535)


def _q2n_of_blocks(fused: Image, reference: Image) -> Image:
    """Q2n ``[blocks]`` of ``[blocks, C, 1024]`` (``onions_quality.m``, ``norm_blocco.m``)."""
    bands = reference.shape[-2]
    units = 1 << (bands - 1).bit_length()  # bands are filled up to a power of two
    mean_r, r_0 = _centred(reference)
    scale = np.sqrt(_power(r_0))[..., None]
    scale[scale == 0] = _EPS
    mean_f, f_0 = _centred(fused)
    # Each band is normalised so that the reference has mean 1 and variance 1. A band of the
    # filling has mean 1 and variance 0 in both images.
    mean_f, r_0, f_0 = (mean_f - mean_r) / scale + 1, r_0 / scale, f_0 / scale
    length_r = np.sqrt(float(units))
    length_f = np.sqrt((mean_f[..., 0] ** 2).sum(axis=-1) + units - bands)
    luminance = 2 * length_r * length_f / (length_r**2 + length_f**2)
    spread = (_power(r_0) + _power(f_0)).sum(axis=-1)
    covariance = r_0 @ f_0.swapaxes(-1, -2) / (_PIXELS - 1)
    # The product is bilinear, so the hypercomplex covariance is made of the real ones.
    table = _product_with_conjugate(units)[:bands, :bands]
    hypercomplex = np.linalg.norm(np.einsum("nij,ijk->nk", covariance, table), axis=-1)
    flat = spread == 0
    contrast = np.where(flat, 1.0, 2 * hypercomplex / np.where(flat, 1.0, spread))
    index: Image = luminance * contrast
    return index


def q2n(fused: ArrayLike, reference: ArrayLike, valid: ArrayLike | None = None) -> float:
    """Q2n over distinct 32 x 32 blocks: Q4 for 4 bands, Q8 for 8.

    ``q2n.m`` of the DLPan-Toolbox (Garzelli & Nencini, 2009): values are rounded to unsigned
    16 bit, and sizes filled up to whole blocks by mirroring.

    Args:
        fused: ``[C, H, W]``, digital numbers.
        reference: the same, the truth. The index is not symmetric in the two.
        valid: ``[H, W]`` bool; a block counts if it is valid throughout.

    Returns:
        0..1, 1 is best.

    Raises:
        SSDiffError: on shapes that differ, values that are not finite, images smaller than a
            block, no valid block, or a reference that is no digital numbers.
    """
    fused, reference, mask = as_pair(fused, reference, valid)
    check_block(reference)
    if reference.max() <= 1:
        raise SSDiffError(
            f"The reference peaks at {reference.max():g}, expected digital numbers, for Q2n rounds "
            "to whole numbers; multiply by the sensor's full scale."
        )
    fill = [(0, -size % BLOCK) for size in mask.shape]
    fused, reference = (
        np.pad(_as_uint16(image), [(0, 0), *fill], mode="symmetric") for image in (fused, reference)
    )
    mask = np.pad(mask, fill, mode="symmetric")
    return float(_mean_over_blocks(_q2n_of_blocks, fused, reference, mask))
