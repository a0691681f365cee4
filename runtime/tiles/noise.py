"""Noise as a function of seed and pixel position, independent of the order of processing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CELL = 64
"""Side of the cells that have a random generator each, pixels."""


def noise(seed: int, bands: int, rows: range, cols: range) -> NDArray[np.float32]:
    """Unit normal noise over a rectangle of the scene.

    Rectangles that overlap have the same noise in their intersection.

    Args:
        seed: 0 to 2**64 - 1.
        bands: number of bands, C. The noise of each band depends on it.
        rows: pixel rows of the scene, step 1; may be negative.
        cols: pixel columns of the scene, step 1; may be negative.

    Returns:
        float32 ``[C, len(rows), len(cols)]``.
    """
    out = np.empty((bands, len(rows), len(cols)), np.float32)
    for i in range(rows.start // _CELL, -(-rows.stop // _CELL)):
        for j in range(cols.start // _CELL, -(-cols.stop // _CELL)):
            counter = np.array([0, 0, i, j], np.int64).view(np.uint64)
            generator = np.random.Generator(np.random.Philox(counter=counter, key=seed))
            cell = generator.standard_normal((bands, _CELL, _CELL), np.float32)
            top, left = i * _CELL, j * _CELL
            r = range(max(rows.start, top), min(rows.stop, top + _CELL))
            c = range(max(cols.start, left), min(cols.stop, left + _CELL))
            out[
                :,
                r.start - rows.start : r.stop - rows.start,
                c.start - cols.start : c.stop - cols.start,
            ] = cell[:, r.start - top : r.stop - top, c.start - left : c.stop - left]
    return out
