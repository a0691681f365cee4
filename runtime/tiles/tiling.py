"""Layout of tiles over the scene, their blending weights, and windows of neighbouring tiles.

Along an axis, tile ``i`` starts at ``starts[i]``. Its weight is zero before ``begins[i]``, rises
over ``overlap`` pixels while that of its predecessor falls, and falls over the ``overlap`` pixels
before its end. So each pixel is a sum of one or two tiles along an axis, with weights that sum to
one.

The network errs at the edges of its tiles, so the first and last tile reach beyond the scene by a
margin, where the scene is mirrored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.errors import InputError


@dataclass(frozen=True)
class Axis:
    """Positions and weights of tiles along one axis of the scene.

    Args:
        size: size of the scene in pixels, a multiple of 4.
        tile: size of a tile in pixels.
        overlap: pixels over which neighbours are blended, a multiple of 4, at most half a tile.
        margin: pixels by which tiles reach beyond the scene, a multiple of 4, at most half the
            overlap.

    Raises:
        InputError: if the overlap is not possible.
    """

    size: int
    tile: int
    overlap: int
    margin: int = 0

    def __post_init__(self) -> None:
        if self.overlap % 4 or not 0 <= self.overlap <= self.tile // 2:
            raise InputError(
                f"A tile overlap of {self.overlap} pixels does not work; set `tile_overlap` to a "
                f"multiple of 4 from 0 to {self.tile // 2}."
            )

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First pixel of each tile. The last tile ends with the margin, unless the scene is smaller
        than a tile."""
        first, last = -self.margin, max(self.size + self.margin - self.tile, -self.margin)
        return (*range(first, last, self.tile - self.overlap), last)

    @cached_property
    def begins(self) -> tuple[int, ...]:
        """First pixel where each tile has weight; a last element is the size of the scene."""
        blended = (start + self.tile - self.overlap for start in self.starts[:-1])
        return (0, *blended, self.size)

    def end(self, i: int) -> int:
        """One past the last pixel where tile ``i`` has weight."""
        return min(self.starts[i] + self.tile, self.size)

    def weights(self, i: int) -> NDArray[np.float64]:
        """Weights of tile ``i`` from ``begins[i]`` to ``end(i)``, 0..1."""
        weights = np.ones(self.starts[i] + self.tile - self.begins[i])
        rising = (np.arange(self.overlap) + 0.5) / max(self.overlap, 1)
        if i > 0:
            weights[: self.overlap] = rising
        if i < len(self.starts) - 1:
            weights[len(weights) - self.overlap :] = 1 - rising
        return weights[: self.end(i) - self.begins[i]]

    def inside(self, i: int) -> range:
        """Pixels of the scene that tile ``i`` is made from; beyond a scene smaller than a tile."""
        start = max(min(self.starts[i], self.size - self.tile), 0)
        return range(start, start + self.tile)

    def mirrored(self, i: int) -> NDArray[np.intp]:
        """The pixel of :meth:`inside` that each pixel of tile ``i`` shows."""
        places = np.arange(self.starts[i], self.starts[i] + self.tile) % (2 * self.size)
        return np.minimum(places, 2 * self.size - 1 - places) - self.inside(i).start

    def groups(self, pixels: int) -> Iterator[range]:
        """Split the tiles into groups of about ``pixels`` pixels, each a range of indices."""
        count = max(1, pixels // (self.tile - self.overlap))
        for first in range(0, len(self.starts), count):
            yield range(first, min(first + count, len(self.starts)))

    def covered(self, tiles: range) -> range:
        """Pixels that a group of tiles is made from; beyond a scene smaller than a tile."""
        return range(self.inside(tiles[0]).start, self.inside(tiles[-1]).stop)

    def finished(self, tiles: range) -> range:
        """Pixels that are complete once a group of tiles and those before it are added."""
        return range(self.begins[tiles[0]], self.begins[tiles[-1] + 1])


@dataclass(frozen=True)
class Window:
    """A block of neighbouring tiles that are read and written together."""

    rows: Axis
    cols: Axis
    tile_rows: range
    tile_cols: range

    @property
    def read(self) -> tuple[range, range]:
        """Rows and columns that its tiles are made from; beyond a scene smaller than a tile."""
        return self.rows.covered(self.tile_rows), self.cols.covered(self.tile_cols)

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
