"""Where a warped image has pixels."""

from __future__ import annotations

import numpy as np
import pytest

from ssdiff_trt.runtime.raster.warp import read_warped


@pytest.mark.parametrize("size", [(40, 12), (12, 40), (12, 12)])
def test_pixels_beyond_the_edges_are_holes_and_no_others(size):
    """Places are where they were, so values are too."""
    image = np.random.default_rng(0).random((2, *size)).astype(np.float32)
    beyond = 20

    def read(rows, cols):
        padded = np.pad(image, ((0, 0), (beyond, beyond), (beyond, beyond)), mode="symmetric")
        part = padded[:, rows.start + beyond :, cols.start + beyond :][:, : len(rows), : len(cols)]
        return part, np.ones(part.shape[1:], bool)

    rows, cols = (range(-3, length + 4) for length in size)
    values, valid = read_warped(read, size, lambda row, col: np.stack([row, col]), rows, cols)
    inside = np.pad(np.ones(size, bool), ((3, 4), (3, 4)))
    np.testing.assert_array_equal(valid, inside)
    np.testing.assert_allclose(values[:, valid], image.reshape(2, -1), atol=1e-6)
    assert not values[:, ~valid].any()
