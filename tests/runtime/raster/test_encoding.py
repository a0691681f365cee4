"""What an output file can store."""

from __future__ import annotations

import numpy as np
import pytest

from ssdiff_trt.runtime.raster.encoding import count_clipped, holds


@pytest.mark.parametrize(
    ("dtype", "value", "held"),
    [
        ("int64", 2.0**53, True),
        ("int64", 2.0**60, False),  # GDAL is told the leading digits of a nodata value alone
        ("uint64", -1, False),
        ("int32", 0.5, False),
        ("int32", np.nan, False),
        ("int32", np.inf, False),
        ("float32", np.inf, True),
        ("float32", 1e39, False),
    ],
)
def test_a_nodata_value_is_one_that_the_file_can_declare(dtype, value, held):
    assert holds(np.dtype(dtype), value) == held


def test_values_of_valid_pixels_that_are_clipped_are_counted():
    values = np.array([[[255.4, 255.6, 300, -0.4]], [[-0.6, 0, 400, -9]]], np.float32)
    valid = np.array([[True, True, True, False]])
    assert count_clipped(values, valid, np.dtype("uint8")) == 4
