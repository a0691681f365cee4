"""The search for the shift of one block by whole pixels of MS."""

from __future__ import annotations

import numpy as np

from ssdiff_trt.runtime.raster.block_fit import MARGIN, SEARCH, Pixels, _sampling, misfits_of
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
