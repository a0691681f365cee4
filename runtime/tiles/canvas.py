"""Blending of overlapping tiles into an image, window by window."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.tiles.tiling import Axis, Window

LIMIT = 7.9
"""Largest magnitude of values that can be blended."""
_ONE = 1 << 28  # 1.0 in fixed point, so that values below 8 fit into int32


@dataclass
class Canvas:
    """Sums weighted tiles, window by window.

    Contributions of tiles to pixels outside their window are stored in two narrow strips until the
    windows to the right and below are processed. Sums are in fixed point, as integer addition does
    not depend on the order; so the result does not depend on how the scene is split into windows.

    Windows must be processed row by row, as from :func:`windows`.

    Args:
        bands: number of bands, C.
        rows: tiles along the rows of the scene.
        cols: tiles along the columns of the scene.
    """

    bands: int
    rows: Axis
    cols: Axis
    _below: NDArray[np.int32] = field(init=False)
    """Sums ``[C, overlap, width]`` for the windows below."""
    _right: NDArray[np.int32] = field(init=False)
    """Sums ``[C, height, overlap]`` for the window to the right."""
    _sums: NDArray[np.int32] = field(init=False)
    """Sums of the current window and its overlap with the next ones."""

    def __post_init__(self) -> None:
        self._below = np.zeros((self.bands, self.rows.overlap, self.cols.size), np.int32)

    def open(self, window: Window) -> None:
        """Start a window with the contributions of the windows above and to the left."""
        rows, cols = window.write
        height = self.rows.end(window.tile_rows[-1]) - rows.start
        width = self.cols.end(window.tile_cols[-1]) - cols.start
        self._sums = np.zeros((self.bands, height, width), np.int32)
        if window.tile_rows[0] > 0:
            above = self._below[:, :height, cols.start : cols.stop]
            self._sums[:, : above.shape[1], : len(cols)] = above
        if window.tile_cols[0] > 0:
            self._sums[:, :, : self._right.shape[2]] += self._right

    def add(self, window: Window, i: int, j: int, image: NDArray[np.float32]) -> None:
        """Add the image of tile ``(i, j)``, ``[C, tile, tile]`` with values up to ``LIMIT``."""
        rows = slice(self.rows.begins[i], self.rows.end(i))
        cols = slice(self.cols.begins[j], self.cols.end(j))
        weights = np.outer(self.rows.weights(i), self.cols.weights(j) * _ONE).astype(np.float32)
        top, left = self.rows.starts[i], self.cols.starts[j]
        values = image[:, rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
        origin_row, origin_col = (ranges.start for ranges in window.write)
        self._sums[
            :,
            rows.start - origin_row : rows.stop - origin_row,
            cols.start - origin_col : cols.stop - origin_col,
        ] += np.rint(values * weights).astype(np.int32)

    def close(self, window: Window) -> NDArray[np.float32]:
        """Finish a window and return its pixels ``[C, rows, cols]``."""
        rows, cols = window.write
        self._right = self._sums[:, :, len(cols) :]
        self._below[:, :, cols.start : cols.stop] = 0
        overhang = self._sums[:, len(rows) :, : len(cols)]
        self._below[:, : overhang.shape[1], cols.start : cols.stop] = overhang
        complete = self._sums[:, : len(rows), : len(cols)]
        return np.multiply(complete, np.float32(1 / _ONE), dtype=np.float32)
