"""Where calibration tiles and evaluation tiles of a scene come from: areas that share no pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.tiles.tiling import Axis


@dataclass(frozen=True)
class Blocks:
    """Checkerboard of blocks of MS: every second one is reserved for an evaluation tile."""

    rows: Axis
    cols: Axis

    @classmethod
    def of_scene(cls, scene: Scene, tile: int) -> Blocks:
        """Blocks of ``tile`` x ``tile`` pixels of MS, each the reference image of one tile."""
        return cls(*(Axis(len(grid) // RATIO, tile, 0) for grid in (scene.rows, scene.cols)))

    def evaluation(self) -> list[tuple[int, int]]:
        """First row and column, in pixels of MS, of the blocks reserved for evaluation."""
        return [
            (row, col)
            for i, row in enumerate(self.rows.starts)
            for j, col in enumerate(self.cols.starts)
            if (i + j) % 2
            and row + self.rows.tile <= self.rows.size
            and col + self.cols.tile <= self.cols.size
        ]

    def outside(self, rows: Axis, cols: Axis) -> list[tuple[int, int]]:
        """Indices of the tiles of PAN that overlap none of the evaluation blocks.

        Args:
            rows: tiles along the rows of PAN.
            cols: likewise.
        """
        (even_row, odd_row), (even_col, odd_col) = map(
            _overlaps, (self.rows, self.cols), (rows, cols)
        )
        overlapping = np.outer(even_row, odd_col) | np.outer(odd_row, even_col)
        return [(int(i), int(j)) for i, j in np.argwhere(~overlapping)]


def _overlaps(blocks: Axis, tiles: Axis) -> NDArray[np.bool_]:
    """Whether each tile along an axis overlaps a whole block of an even and an odd number,
    ``[2, n]``."""
    found = np.zeros((2, len(tiles.starts)), bool)
    starts = np.array(tiles.starts)
    for number, first in enumerate(blocks.starts):
        if first + blocks.tile <= blocks.size:
            begin, end = RATIO * first, RATIO * (first + blocks.tile)
            low, high = np.searchsorted(starts, (begin - tiles.tile + 1, end))
            found[number % 2, low:high] = True
    return found
