"""TODO."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Tiles(NamedTuple):
    """A batch of tiles, 0..1 of full scale, in the shapes of the graphs."""

    noise: Array
    """``[N, C, tile, tile]``, unit normal."""
    pan: Array
    """``[N, 1, tile, tile]``."""
    lms: Array
    """``[N, C, tile, tile]``."""
    ms: Array
    """``[N, C, tile / 4, tile / 4]``."""

    def part(self, which: slice | NDArray[np.bool_]) -> Tiles:
        """Some of them."""
        return Tiles(*(array[which] for array in self))
