"""Products of transforms with the operator that this version of affine has."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from affine import Affine

from ssdiff_trt.runtime.raster.affine import product


def test_products_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grid = product(Affine(2, 0, 10, 0, -2, 20), Affine.translation(1, 2), Affine.scale(4))
        assert tuple(grid)[:6] == (8, 0, 12, 0, -8, 16)
        assert product(grid, (1, 1)) == (20, 8)
        x, y = product(~grid, grid, (np.array([1.0, 2.0]), np.array([3.0, 4.0])))
    assert (x, y) == (pytest.approx([1, 2]), pytest.approx([3, 4]))
