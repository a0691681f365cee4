"""What an output file can store."""

from __future__ import annotations

import numpy as np
import pytest

from ssdiff_trt.runtime.raster.encoding import convert, count_clipped, holds


@pytest.mark.parametrize(
    ("dtype", "value", "held"),
    [
        ("int64", 2.0**53, True),
        ("int64", 2.0**60, False),  # GDAL keeps the leading digits of a nodata value alone
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


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("uint8", [-3, 0.5, 1.5, 254.7, 400], [0, 0, 2, 255, 255]),
        ("int16", [-40000, -0.6, 32767.4, 40000], [-32768, -1, 32767, 32767]),
        ("uint32", [-1, 4294967040, 5e9], [0, 4294967040, 4294967295]),
        ("float32", [-1.5, 0.25], [-1.5, 0.25]),
    ],
)
def test_values_are_rounded_then_clipped_and_never_wrap(dtype, values, expected):
    converted = convert(np.array(values, np.float32), np.dtype(dtype))
    assert converted.dtype == dtype
    assert converted.tolist() == expected
