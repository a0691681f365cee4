"""Tiles, their feathered overlap, and the canvas that adds them up.

Along an axis, tile ``i`` starts at ``starts[i]``. It counts from ``begins[i]``, where it fades in
while its predecessor fades out over ``overlap`` pixels, to its own end. Beyond that its weight is
zero, so every pixel takes from one tile, or from two along an axis, with weights that add up to
one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from runtime.errors import SSDiffError

_ONE = 1 << 28  # 1.0 in the fixed point of the canvas: four tiles of value 1 still fit in 32 bits


@dataclass(frozen=True)
class Axis:
    """Where the tiles lie along one axis of the scene.

    Args:
        size: pixels of the scene, a multiple of 4.
        tile: pixels of a tile.
        overlap: pixels shared by neighbours, a multiple of 4, at most half a tile.
    """

    size: int
    tile: int
    overlap: int

    def __post_init__(self) -> None:
        if self.overlap % 4 or not 0 <= self.overlap <= self.tile // 2:
            raise SSDiffError(
                f"A tile overlap of {self.overlap} pixels does not work; "
                f"give a multiple of 4 from 0 to {self.tile // 2}."
            )

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First pixel of each tile. The last tile ends with the scene if the scene is that big."""
        last = max(self.size - self.tile, 0)
        return (*range(0, last, self.tile - self.overlap), last)

    @cached_property
    def begins(self) -> tuple[int, ...]:
        """First pixel where each tile counts, and last the size of the scene."""
        fading = (start + self.tile - self.overlap for start in self.starts[:-1])
        return (0, *fading, self.size)

    def end(self, i: int) -> int:
        """One past the last pixel where tile ``i`` counts."""
        return min(self.starts[i] + self.tile, self.size)

    def weights(self, i: int) -> NDArray[np.float64]:
        """Weights of tile ``i`` over the pixels where it counts."""
        weights = np.ones(self.end(i) - self.begins[i])
        rising = (np.arange(self.overlap) + 0.5) / max(self.overlap, 1)
        if i > 0:
            weights[: self.overlap] = rising
        if i < len(self.starts) - 1:
            weights[len(weights) - self.overlap :] = 1 - rising
        return weights

    def groups(self, pixels: int) -> Iterator[range]:
        """Tiles in groups that cover about so many pixels, each group a range of indices."""
        count = max(1, pixels // (self.tile - self.overlap))
        for first in range(0, len(self.starts), count):
            yield range(first, min(first + count, len(self.starts)))

    def seen(self, tiles: range) -> range:
        """Pixels of the scene that a group of tiles sees."""
        return range(self.starts[tiles[0]], self.starts[tiles[-1]] + self.tile)

    def finished(self, tiles: range) -> range:
        """Pixels of the scene that are complete once a group of tiles is added."""
        return range(self.begins[tiles[0]], self.begins[tiles[-1] + 1])


@dataclass(frozen=True)
class Window:
    """A group of neighbouring tiles that are read and written together."""

    rows: Axis
    cols: Axis
    tile_rows: range
    tile_cols: range

    @property
    def read(self) -> tuple[range, range]:
        """Rows and columns that its tiles see; beyond the scene if that is under a tile."""
        return self.rows.seen(self.tile_rows), self.cols.seen(self.tile_cols)

    @property
    def write(self) -> tuple[range, range]:
        """Rows and columns of the scene that are complete once its tiles are added."""
        return self.rows.finished(self.tile_rows), self.cols.finished(self.tile_cols)

    @property
    def tiles(self) -> list[tuple[int, int]]:
        """Indices of its tiles, row by row."""
        return [(i, j) for i in self.tile_rows for j in self.tile_cols]


def windows(rows: Axis, cols: Axis, pixels: int) -> Iterator[Window]:
    """All windows of a scene, row by row, each about ``pixels`` on a side."""
    for tile_rows in rows.groups(pixels):
        for tile_cols in cols.groups(pixels):
            yield Window(rows, cols, tile_rows, tile_cols)


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
