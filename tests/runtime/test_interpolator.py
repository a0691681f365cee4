"""The interpolator against the toolbox, and off the toolbox's grid."""

from __future__ import annotations

import numpy as np
import pytest

from ssdiff_trt.runtime.interpolator import HALO, interpolate, interpolate_with_halo
from tests.support.golden import GOLDEN


@pytest.fixture(scope="module")
def toolbox():
    with np.load(GOLDEN / "dlpan_wv3.npz") as arrays:
        return arrays["ms_lr"].transpose(2, 0, 1), arrays["lms"].transpose(2, 0, 1)


def test_a_whole_image_is_the_toolbox_s(toolbox):
    ms, lms = toolbox
    np.testing.assert_allclose(interpolate(ms, border="wrap"), lms, rtol=1e-12)


def test_given_pixels_are_found_again(toolbox):
    ms, _ = toolbox
    np.testing.assert_array_equal(interpolate(ms)[:, 2::4, 2::4], ms)


@pytest.mark.parametrize("width", [15, 16, 17, 33])
@pytest.mark.parametrize("height", [15, 16, 17, 33])
def test_an_image_of_any_size_is_that_of_one_block(height, width):
    """Blocks have 16 pixels on a side; a pixel of MS next to them begins another."""
    ms = np.random.default_rng(100 * height + width).uniform(1, 2, (2, height, width))
    whole = interpolate(ms)
    halo = [(0, 0), (HALO, HALO), (HALO, HALO)]
    expected = interpolate_with_halo(np.pad(ms, halo, mode="symmetric"))
    np.testing.assert_allclose(whole, expected, rtol=1e-12)


def test_a_part_with_its_halo_is_the_part_of_the_whole(toolbox):
    ms, lms = toolbox
    part = interpolate_with_halo(ms[:, 3 : 5 + 3 + 2 * HALO, 2 : 2 + 2 + 2 * HALO])
    row, col = 4 * (3 + HALO), 4 * (2 + HALO)
    np.testing.assert_allclose(part, lms[:, row : row + 20, col : col + 8], rtol=1e-9)


@pytest.mark.parametrize("position", [-0.5, 0.25, 1.0, 1.25, 1.5, 1.9, 2.0, 2.6, 3.5])
def test_a_smooth_image_is_found_where_its_pixels_lie(position):
    def image(row, col):
        return 3 + np.sin(row[:, None] / 11) * np.cos(col / 14)

    n = np.arange(-HALO, 12 + HALO)
    ms = image(4 * n + position, 4 * n + 2.0)
    lms = interpolate_with_halo(ms, (position, 2.0))
    np.testing.assert_allclose(lms, image(np.arange(48), np.arange(48)), atol=4e-3)
    if position != 2.0:
        assert np.abs(interpolate_with_halo(ms) - lms).max() > 8e-3
