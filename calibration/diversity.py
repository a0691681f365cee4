"""Selection of calibration tiles that differ from each other as much as possible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.tiles.batch import Array, Tiles

MIN_CORRELATION = 0.3
"""Least correlation of horizontally adjacent pixels in an image that is accepted as imagery."""


def tile_features(tiles: Tiles, valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Features that describe the content of tiles, ``[N, 5 + C]``.

    The columns are: mean and 99th percentile of PAN (low for water, high for bright roofs), log of
    its standard deviation and of its mean absolute difference between horizontally adjacent pixels,
    share of each band in the mean spectrum (which separates water, vegetation and soil), share of
    pixels without data.

    Args:
        tiles: 0..1 of full scale.
        valid: ``[N]``, share of pixels with data.
    """
    pan, lms = tiles.pan[:, 0].astype(np.float64), tiles.lms.astype(np.float64)
    spectrum = lms.mean(axis=(2, 3)).clip(1e-4)
    return np.column_stack(
        [
            pan.mean(axis=(1, 2)),
            np.percentile(pan, 99, axis=(1, 2)),
            np.log(pan.std(axis=(1, 2)) + 1e-4),
            np.log(np.abs(np.diff(pan, axis=2)).mean(axis=(1, 2)) + 1e-4),
            spectrum / spectrum.sum(axis=1, keepdims=True),
            1 - valid,
        ]
    )


def select_diverse(features: NDArray[np.float64], count: int) -> list[int]:
    """Indices of up to ``count`` rows that are far from each other in feature space.

    Greedy k-centre selection (Gonzalez, 1985): starting with the row closest to the mean, each next
    row is the one farthest from all rows chosen so far. Columns are divided by their standard
    deviation first.
    """
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-9)
    chosen = [int(np.argmin((scaled**2).sum(axis=1)))]
    distance = np.full(len(scaled), np.inf)
    while len(chosen) < min(count, len(scaled)):
        distance = np.minimum(distance, ((scaled - scaled[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(np.argmax(distance)))
    return chosen


def check_structure(images: Sequence[Array], name: str) -> None:
    """Check that images ``[..., H, W]`` are imagery, by the correlation of adjacent pixels.

    Raises:
        SSDiffError: if they are noise or constant.
    """
    centred = [image - image.mean(axis=(-2, -1), keepdims=True) for image in images]
    left, right = (
        np.concatenate([image[..., side].ravel() for image in centred]).astype(np.float64)
        for side in (slice(None, -1), slice(1, None))
    )
    energy = float(np.sqrt((left**2).sum() * (right**2).sum()))
    correlation = float((left * right).sum()) / energy if energy > 0 else 0.0
    if correlation < MIN_CORRELATION:
        raise InputError(
            f"The correlation of adjacent pixels in {name} is {correlation:.2f}, expected "
            f"{MIN_CORRELATION:g} or more; ranges measured on random or constant images are not "
            "valid for imagery, so give a real scene."
        )
