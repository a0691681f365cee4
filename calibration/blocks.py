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

    def evaluation(self) -> NDArray[np.int64]:
        """First rows and columns ``[n, 2]``, in pixels of MS, of the blocks for evaluation."""
        rows, cols = (_whole(axis) for axis in (self.rows, self.cols))
        odd = np.add.outer(np.arange(len(rows)), np.arange(len(cols))) % 2 == 1
        i, j = np.nonzero(odd)
        return np.stack((rows[i], cols[j]), axis=1)

    def outside(self, rows: Axis, cols: Axis) -> NDArray[np.int64]:
        """Indices ``[n, 2]`` of the tiles of PAN that overlap none of the evaluation blocks.

        Args:
            rows: tiles along the rows of PAN.
            cols: likewise.
        """
        (even_row, odd_row), (even_col, odd_col) = map(
            _overlaps, (self.rows, self.cols), (rows, cols)
        )
        overlapping = np.outer(even_row, odd_col) | np.outer(odd_row, even_col)
        return np.argwhere(~overlapping)


def _whole(blocks: Axis) -> NDArray[np.int64]:
    """First pixels of the blocks that the scene does not cut."""
    firsts = np.array(blocks.starts)
    return firsts[firsts + blocks.tile <= blocks.size]


def _overlaps(blocks: Axis, tiles: Axis) -> NDArray[np.bool_]:
    """Whether each tile along an axis overlaps a whole block of an even and an odd number,
    ``[2, n]``."""
    starts, firsts = np.array(tiles.starts), _whole(blocks)
    low = np.searchsorted(starts, RATIO * firsts - tiles.tile + 1)
    high = np.searchsorted(starts, RATIO * (firsts + blocks.tile))
    edges = np.zeros((2, len(starts) + 1), int)
    number = np.arange(len(firsts)) % 2
    np.add.at(edges, (number, low), 1)
    np.add.at(edges, (number, high), -1)
    return edges.cumsum(axis=1)[:, :-1] > 0
