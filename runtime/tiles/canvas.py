"""TODO."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.tiles.tiling import Axis, Window

_ONE = 1 << 28  # 1.0 in the fixed point of the canvas: four tiles of value 1 still fit in 32 bits


@dataclass
class Canvas:
    """Adds weighted tiles, window by window.

    What tiles leave beyond their window waits in two thin strips for the windows to the right and
    below. Sums are in fixed point: whole numbers add up to the same in any order, so the result
    does not know how the scene was cut into windows.

    Windows come row by row, as from :func:`windows`.
    """

    bands: int
    rows: Axis
    cols: Axis
    _below: NDArray[np.int32] = field(init=False)
    _right: NDArray[np.int32] = field(init=False)
    _sums: NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        self._below = np.zeros((self.bands, self.rows.overlap, self.cols.size), np.int32)

    def open(self, window: Window) -> None:
        """Start a window with what its neighbours left for it."""
        rows, cols = window.write
        height = self.rows.end(window.tile_rows[-1]) - rows.start
        width = self.cols.end(window.tile_cols[-1]) - cols.start
        self._sums = np.zeros((self.bands, height, width), np.int32)
        if window.tile_rows[0] > 0:
            self._sums[:, : self.rows.overlap, : len(cols)] = self._below[
                :, :, cols.start : cols.stop
            ]
        if window.tile_cols[0] > 0:
            self._sums[:, :, : self.cols.overlap] += self._right

    def add(self, window: Window, i: int, j: int, image: NDArray[np.float32]) -> None:
        """Add tile ``(i, j)``, ``[C, tile, tile]`` with values in 0..1."""
        rows = slice(self.rows.begins[i], self.rows.end(i))
        cols = slice(self.cols.begins[j], self.cols.end(j))
        weights = np.outer(self.rows.weights(i), self.cols.weights(j) * _ONE).astype(np.float32)
        top, left = self.rows.starts[i], self.cols.starts[j]
        part = image[:, rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
        origin_row, origin_col = (ranges.start for ranges in window.write)
        self._sums[
            :,
            rows.start - origin_row : rows.stop - origin_row,
            cols.start - origin_col : cols.stop - origin_col,
        ] += np.rint(part * weights).astype(np.int32)

    def close(self, window: Window) -> NDArray[np.float32]:
        """Finish a window: its complete pixels ``[C, rows, cols]``, 0..1."""
        rows, cols = window.write
        self._right = self._sums[:, :, len(cols) :]
        self._below[:, :, cols.start : cols.stop] = 0
        left_over = self._sums[:, len(rows) :, : len(cols)]
        self._below[:, : left_over.shape[1], cols.start : cols.stop] = left_over
        complete = self._sums[:, : len(rows), : len(cols)]
        return np.multiply(complete, np.float32(1 / _ONE), dtype=np.float32)
