"""Uncertainty of the image of a tile: the expected magnitude of its error, without a network run.

It is a floor, plus a share of the local detail of the image, which is what blur by the MTF of MS
and interpolation would remove, plus a share of the part of it that PAN does not explain in a local
linear fit, since the network had to guess that. The difference from MS at its resolution counts as
an independent error. The constants were fitted at reduced resolution, where the truth is known, on
half of the scenes of ``benchmarks/uncertainty.py``; docs/uncertainty.md has the results.

A tile is estimated from its own pixels alone, like its image, and blended likewise: so the estimate
does not depend on how the scene is split.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.tiles.backprojection import blur, spread
from ssdiff_trt.runtime.tiles.canvas import LIMIT

FLOOR = 0.00057
"""Error where there is no detail, in units of full scale."""
DETAIL = 0.21
"""Error in shares of the local detail."""
UNEXPLAINED = 1.22
"""Error in shares of the local detail that PAN does not explain."""
_NEAR, _WIDE = 0.7, 2.0
"""Standard deviations of the Gaussian windows, pixels of PAN: of local magnitudes, of the fit."""
_FLAT = 1e-8
"""Variance of PAN, in squared units of full scale, below which it explains nothing."""

Array = NDArray[np.float32]


def formula(seeds: int = 1) -> str:
    """Identifies the estimate."""
    spread = f", spread of {seeds} seeds" if seeds > 1 else ""
    return f"1: {FLOOR:g} + {DETAIL:g} detail + {UNEXPLAINED:g} unexplained, inconsistency{spread}"


@cache
def window(size: int, sigma: float) -> Array:
    """Weights ``[size, size]`` of a Gaussian window around each pixel; rows have the sum 1."""
    away = np.subtract.outer(np.arange(size), np.arange(size))
    weights = np.exp(-(away**2) / (2 * sigma**2))
    scaled: Array = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return scaled


class Parts(NamedTuple):
    """What the uncertainty is made of, each ``[C, h, w]`` in units of full scale, 0 or more."""

    detail: Array
    """Local magnitude of the detail of the image."""
    unexplained: Array
    """That of the detail that PAN does not explain."""
    inconsistency: Array
    """That of the difference between MS and the image as the sensor of MS sees it, interpolated."""


def parts(
    image: Array, pan: Array, ms: Array, position: tuple[float, float], gains: tuple[float, ...]
) -> Parts:
    """Measure what the uncertainty of an image is made of; see :func:`uncertainty`."""
    height, width = image.shape[-2:]
    rows, cols = blur(height, position[0], gains), blur(width, position[1], gains)
    down, across = spread(height, position[0]), spread(width, position[1])

    def seen(fine: Array) -> Array:
        coarse: Array = np.matmul(np.matmul(rows, fine), cols.swapaxes(-2, -1))
        return coarse

    def interpolated(coarse: Array) -> Array:
        fine: Array = np.matmul(np.matmul(down, coarse), across.T)
        return fine

    def local_mean(values: Array, sigma: float) -> Array:
        mean: Array = np.matmul(np.matmul(window(height, sigma), values), window(width, sigma).T)
        return mean

    detail, pan_detail = (fine - interpolated(seen(fine)) for fine in (image, pan))
    covariance = local_mean(detail * pan_detail, _WIDE)
    explained = covariance**2 / (local_mean(pan_detail**2, _WIDE) + np.float32(_FLAT))
    return Parts(
        np.sqrt(local_mean(detail**2, _NEAR)),
        np.sqrt(np.maximum(local_mean(detail**2, _WIDE) - explained, 0)),
        np.sqrt(local_mean(interpolated(ms - seen(image)) ** 2, _NEAR)),
    )


def combined(
    measured: Parts, floor: float = FLOOR, detail: float = DETAIL, unexplained: float = UNEXPLAINED
) -> Array:
    """The uncertainty, ``[C, h, w]``, of its parts and three constants."""
    error = floor + detail * measured.detail + unexplained * measured.unexplained
    estimate: Array = np.hypot(error, measured.inconsistency)
    return estimate


def uncertainty(
    image: Array,
    pan: Array,
    ms: Array,
    position: tuple[float, float],
    gains: tuple[float, ...],
    others: Sequence[Array] = (),
) -> Array:
    """Expected magnitude of the error of the image of a tile.

    Args:
        image: ``[C, h, w]`` in units of full scale, as it is blended.
        pan: ``[1, h, w]``, likewise.
        ms: ``[C, h / 4, w / 4]``, likewise.
        position: row and column of PAN at the centre of the first pixel of MS.
        gains: MTF of each band, see :func:`ssdiff_trt.runtime.tiles.backprojection.blur`.
        others: images like the first from other seeds of the noise; their standard deviation
            counts as an independent error.

    Returns:
        ``[C, h, w]`` in units of full scale, above 0, at most what can be blended.
    """
    estimate = combined(parts(image, pan, ms, position, gains))
    if others:
        estimate = np.hypot(estimate, np.std((image, *others), axis=0, ddof=1))
    return estimate.clip(None, LIMIT)
