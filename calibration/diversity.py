"""Which tiles to calibrate by: those that differ most from each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.tiles.batch import Array, Tiles

STRUCTURE = 0.3
"""Correlation of neighbouring pixels that imagery has, and random numbers do not."""


def traits(tiles: Tiles, valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What a tile is like: ``[N, 5 + C]``.

    Brightness and highlights of PAN (water and bright roofs are at the ends), its contrast and the
    share of it between neighbours, the share of each band in the spectrum (water, plants, soil),
    and the share of pixels without data.

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


def spread(features: NDArray[np.float64], count: int) -> list[int]:
    """Indices of so many rows that lie far from each other.

    Greedy k-centre (Gonzalez, 1985): from the row closest to the mean on, always the one that is
    farthest from all chosen so far. Each column counts by its standard deviation.
    """
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-9)
    chosen = [int(np.argmin((scaled**2).sum(axis=1)))]
    distance = np.full(len(scaled), np.inf)
    while len(chosen) < min(count, len(scaled)):
        distance = np.minimum(distance, ((scaled - scaled[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(np.argmax(distance)))
    return chosen


def check_structure(images: Sequence[Array], name: str) -> None:
    """That images ``[..., H, W]`` show something, by how alike neighbouring pixels are.

    Raises:
        SSDiffError: if they are random numbers, or flat.
    """
    centred = [image - image.mean(axis=(-2, -1), keepdims=True) for image in images]
    left, right = (
        np.concatenate([image[..., side].ravel() for image in centred]).astype(np.float64)
        for side in (slice(None, -1), slice(1, None))
    )
    energy = float(np.sqrt((left**2).sum() * (right**2).sum()))
    alike = float((left * right).sum()) / energy if energy > 0 else 0.0
    if alike < STRUCTURE:
        raise SSDiffError(
            f"Neighbouring pixels of {name} correlate by {alike:.2f}, expected {STRUCTURE:g} or "
            "more as in real imagery; ranges of random or flat images tell nothing, so give a real "
            "scene."
        )
