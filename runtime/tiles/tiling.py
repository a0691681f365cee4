"""Layout of tiles over the scene, their blending weights, and blocks of neighbouring tiles.

Along an axis, tile ``i`` starts at ``starts[i]``. Its weight is zero before ``begins[i]``, rises
over ``overlap`` pixels while that of its predecessor falls, and falls over the ``overlap`` pixels
before its end. So each pixel is a sum of one or two tiles along an axis, with weights that sum to
one.

The network errs at the edges of its tiles, so the first and last tile reach beyond the scene by a
margin, where the scene is mirrored.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.sources import Rectangle


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

    def touching(self, pixels: range) -> range:
        """Tiles that have weight somewhere in a range of pixels."""
        first = max(bisect_right(self.begins, pixels.start) - 1, 0)
        last = min(bisect_left(self.begins, pixels.stop), len(self.starts))
        return range(first - (first > 0 and self.end(first - 1) > pixels.start), last)

    def split(self, pixels: range, most: int) -> list[range]:
        """Split a range of pixels where tiles begin, evenly and into as few parts as possible.

        Args:
            pixels: not empty.
            most: pixels of the longest part, but each has at least one tile.
        """
        tiles = self.touching(pixels)
        edges = [edge for edge in self.begins[tiles[0] : tiles[-1] + 2] if edge in pixels[1:]]
        whole = max(1, most // (self.tile - self.overlap))
        parts = -(-(len(edges) + 1) // whole)
        cuts = [edges[round(part * (len(edges) + 1) / parts) - 1] for part in range(1, parts)]
        bounds = [pixels.start, *cuts, pixels.stop]
        return [range(*bounds[part : part + 2]) for part in range(parts)]

    def covered(self, tiles: range) -> range:
        """Pixels that a group of tiles is made from; beyond a scene smaller than a tile."""
        return range(self.inside(tiles[0]).start, self.inside(tiles[-1]).stop)


@dataclass(frozen=True)
class Block:
    """A rectangle of the scene, and all tiles that have weight in it.

    Blocks are independent: tiles at the border between two are computed for each of them.
    """

    rows: Axis
    """Tiles along the rows of the scene."""
    cols: Axis
    """Tiles along its columns."""
    write: Rectangle
    """Rows and columns of the scene."""

    @property
    def tiles(self) -> int:
        """Number of them."""
        rows, cols = self.write
        return len(self.rows.touching(rows)) * len(self.cols.touching(cols))

    def windows(self, pixels: int) -> Iterator[Window]:
        """Its tiles, each once, in windows of about ``pixels`` on a side, row by row."""
        down = list(_with_tiles(self.rows, self.write[0], pixels))
        across = list(_with_tiles(self.cols, self.write[1], pixels))
        for rows, tile_rows in down:
            for cols, tile_cols in across:
                last = (rows, cols) == (down[-1][0], across[-1][0])
                yield Window(self, tile_rows, tile_cols, (rows, cols), last)


@dataclass(frozen=True)
class Window:
    """Neighbouring tiles of a block that are read and prepared together."""

    block: Block
    tile_rows: range
    tile_cols: range
    write: Rectangle
    """Rows and columns of the scene that belong to the window and to no other."""
    last: bool
    """Whether it is the last of its block."""

    @property
    def read(self) -> Rectangle:
        """Rows and columns that its tiles are made from; beyond a scene smaller than a tile."""
        block = self.block
        return block.rows.covered(self.tile_rows), block.cols.covered(self.tile_cols)

    @property
    def tiles(self) -> list[tuple[int, int]]:
        """Indices of its tiles, row by row."""
        return [(i, j) for i in self.tile_rows for j in self.tile_cols]


def _with_tiles(axis: Axis, pixels: range, most: int) -> Iterator[tuple[range, range]]:
    """Parts of a block along an axis, and the tiles that belong to each.

    A tile with weight in several parts belongs to the first of them.
    """
    last = axis.touching(pixels).start
    for part in axis.split(pixels, most):
        tiles = axis.touching(part)
        yield part, range(last, tiles.stop)
        last = tiles.stop


def blocks(rows: Axis, cols: Axis, area: Rectangle, pixels: int) -> list[Block]:
    """The blocks of an area of the scene, row by row, each of up to ``pixels`` on a side."""
    across = cols.split(area[1], pixels)
    return [
        Block(rows, cols, (down, part)) for down in rows.split(area[0], pixels) for part in across
    ]
