"""TODO."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pixels:
    """A rectangle of a scene, in digital numbers. Values that are not valid mean nothing."""

    pan: NDArray[np.float32]
    """``[h, w]``."""
    pan_valid: NDArray[np.bool_]
    ms: NDArray[np.float32]
    """``[C, h / 4 + 2 HALO, w / 4 + 2 HALO]``."""
    ms_valid: NDArray[np.bool_]
