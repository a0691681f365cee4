"""Back-projection (Irani & Peleg, 1991): what MS says and an image does not is added to the image.

The image of a tile, blurred by the sensor's MTF and sampled where the pixels of MS lie, should be
MS; see :mod:`ssdiff_trt.runtime.consistency`. The difference is interpolated and added, once. It
holds the network's errors, which it corrects, but also noise and aliasing of MS, so a part of it
may be better than the whole.

A tile is corrected from its own pixels alone: its image does not depend on how the scene is read.
Near its edge the blur is that of the pixels inside it; there tiles are blended.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.consistency import seen_weights
from ssdiff_trt.runtime.interpolator import GROUND_POSITION, HALO, RATIO, interpolation_matrix
from ssdiff_trt.runtime.sources import MSAxis

Array = NDArray[np.float32]


@cache
def blur(tile: int, position: float, gains: tuple[float, ...]) -> Array:
    """Weight ``[C, tile / 4, tile]`` of each pixel of PAN in each of MS, along an axis of a tile.

    Args:
        tile: pixels of PAN.
        position: of PAN at the centre of the first pixel of MS, -0.5 to 3.5.
        gains: MTF of each band at the Nyquist frequency of MS, above 0 and below 1.
    """
    axis = MSAxis(position - GROUND_POSITION)
    return np.stack([seen_weights(axis, range(tile // RATIO), tile, gain) for gain in gains])


@cache
def spread(tile: int, position: float) -> Array:
    """The interpolator as a matrix ``[tile, tile / 4]``; the edge is repeated beyond the tile."""
    matrix = interpolation_matrix(tile // RATIO, position)
    inside = matrix[:, HALO:-HALO].astype(np.float32)
    inside[:, 0] += matrix[:, :HALO].sum(axis=1)
    inside[:, -1] += matrix[:, -HALO:].sum(axis=1)
    return inside


def back_project(
    image: Array, ms: Array, position: tuple[float, float], gains: tuple[float, ...], share: float
) -> Array:
    """Correct the image of a tile.

    Args:
        image: ``[C, tile, tile]`` in units of full scale.
        ms: ``[C, tile / 4, tile / 4]``, likewise.
        position: row and column of PAN at the centre of the first pixel of MS.
        gains: MTF of each band, see :func:`blur`.
        share: of the difference that is added, 0 to 1.

    Returns:
        The corrected image, in the range of values of ``image`` or 0 to 1, whichever is larger.
    """
    if not share:
        return image
    tile = image.shape[-1]
    rows, cols = (blur(tile, at, gains) for at in position)
    down, across = (spread(tile, at) for at in position)
    difference = ms - rows @ image @ cols.swapaxes(-2, -1)
    corrected = image + np.float32(share) * (down @ difference @ across.T)
    limits = min(float(image.min()), 0), max(float(image.max()), 1)
    clipped: Array = corrected.clip(*limits)
    return clipped
