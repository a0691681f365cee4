"""Blending of overlapping tiles into the image of a block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.sources import Rectangle
from ssdiff_trt.runtime.tiles.tiling import Block

LIMIT = 7.9
"""Largest magnitude of values that can be blended."""
_ONE = 1 << 28  # 1.0 in fixed point, so that values below 8 fit into int32


class Canvas:
    """Sums the weighted tiles of a block.

    Sums are in fixed point, as integer addition does not depend on the order; so the result does
    not depend on how the scene is split into blocks.

    Args:
        bands: number of bands, C.
        block: what is summed; what tiles contribute to pixels outside it is left out.

    Attributes:
        block: as given.
    """

    def __init__(self, bands: int, block: Block) -> None:
        self.block = block
        self._sums = np.zeros((bands, *map(len, block.write)), np.int32)

    def add(self, i: int, j: int, image: NDArray[np.float32]) -> None:
        """Add the image of tile ``(i, j)``, ``[C, tile, tile]`` with values up to ``LIMIT``."""
        axes = self.block.rows, self.block.cols
        tile: list[slice] = []
        sums: list[slice] = []
        weights = []
        for axis, index, inside in zip(axes, (i, j), self.block.write, strict=True):
            first, last = max(axis.begins[index], inside.start), min(axis.end(index), inside.stop)
            tile.append(slice(first - axis.starts[index], last - axis.starts[index]))
            sums.append(slice(first - inside.start, last - inside.start))
            begin = axis.begins[index]
            weights.append(axis.weights(index)[first - begin : last - begin])
        weight = np.outer(weights[0], weights[1] * _ONE).astype(np.float32)
        values = image[:, tile[0], tile[1]] * weight
        self._sums[:, sums[0], sums[1]] += np.rint(values).astype(np.int32)

    def image(self, part: Rectangle) -> NDArray[np.float32]:
        """Pixels ``[C, rows, cols]`` of a part of the block, given as rows and columns of the
        scene."""
        rows, cols = (
            slice(pixels.start - inside.start, pixels.stop - inside.start)
            for pixels, inside in zip(part, self.block.write, strict=True)
        )
        return np.multiply(self._sums[:, rows, cols], np.float32(1 / _ONE), dtype=np.float32)
