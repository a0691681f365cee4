"""The search for the shift of one block by whole pixels of MS."""

from __future__ import annotations

import numpy as np

from ssdiff_trt.runtime.raster.block_fit import (
    MARGIN,
    SEARCH,
    Pixels,
    _sampling,
    _valid,
    misfits_of,
)
from tests.support.rasters import smooth


def test_misfits_are_the_log_likelihood_and_least_where_ms_lies():
    """MS is PAN as MS would see it, at another distance along rows than along columns."""
    height, width, position = 40, 44, (1.5, 3.0)
    pan = smooth((1, 4 * height, 4 * width), seed=4, knots=60)[0].astype(float)
    inner_rows, inner_cols = (
        _sampling(size - 2 * MARGIN, place)[0]
        for size, place in zip((height, width), position, strict=True)
    )
    ms = np.ones((1, height, width))
    ms[0, MARGIN:-MARGIN, MARGIN:-MARGIN] = inner_rows @ pan @ inner_cols.T
    valid = np.ones((height, width), bool)
    misfits = misfits_of(Pixels(pan, np.ones(pan.shape, bool), ms, valid, position))
    assert misfits.shape == (2 * SEARCH + 1,) * 2
    assert np.unravel_index(misfits.argmin(), misfits.shape) == (SEARCH, SEARCH)
    count = (height - 2 * (MARGIN + SEARCH)) * (width - 2 * (MARGIN + SEARCH))
    # Less than 1 % is left unexplained, and at least the 1e-9 that is always added.
    assert count / 2 * np.log(1e-9) <= misfits.min() < count / 2 * np.log(0.01)


def test_pan_that_is_invalid_or_0_over_a_pixel_of_ms_is_no_pixel_to_compare():
    pan, ms = np.ones((80, 80)), np.ones((1, 20, 20))
    pan_valid, ms_valid = np.ones((80, 80), bool), np.ones((20, 20), bool)
    pan[20:24, 20:24] = 0  # pixel 5, 5 of MS
    pan[40:44, 20:23] = 0  # pixel 10, 5 is not 0 everywhere
    pan_valid[61, 22] = False  # pixel 15, 5
    ms_valid[5, 15] = False
    ms[:, 10, 15] = 0
    expected = np.ones((18, 18), bool)
    for row, col in ((5, 5), (15, 5)):
        expected[row - 2 : row + 1, col - 2 : col + 1] = False  # seen from all around it
    expected[5 - 1, 15 - 1] = expected[10 - 1, 15 - 1] = False
    found = _valid(Pixels(pan, pan_valid, ms, ms_valid, (1.5, 1.5)), 1)
    np.testing.assert_array_equal(found, expected)
