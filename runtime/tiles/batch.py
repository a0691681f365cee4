"""Batches of tiles, the input of backends."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Tiles(NamedTuple):
    """A batch of tiles in the shapes of the graphs; images in 0..1 of full scale."""

    noise: Array
    """Unit normal noise ``[N, C, tile, tile]``."""
    pan: Array
    """PAN ``[N, 1, tile, tile]``."""
    lms: Array
    """Upsampled MS ``[N, C, tile, tile]``."""
    ms: Array
    """MS ``[N, C, tile / 4, tile / 4]``."""

    def part(self, which: slice | NDArray[np.bool_]) -> Tiles:
        """A subset of the tiles, by slice or by mask ``[N]``."""
        return Tiles(*(array[which] for array in self))
