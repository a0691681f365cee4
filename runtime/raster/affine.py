"""Products of affine transforms."""

from __future__ import annotations

import operator
from functools import reduce
from typing import Any

from affine import Affine

_multiply = operator.matmul if hasattr(Affine, "__matmul__") else operator.mul
"""affine 3 has ``@`` and warns of ``*``, which is all that affine 2 has."""


def product(*factors: Any) -> Any:
    """The transform that applies the last factor first.

    Args:
        factors: transforms; the last may be a point, x and y, of which the image is returned.
    """
    return reduce(_multiply, factors)
