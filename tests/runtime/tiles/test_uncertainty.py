"""The uncertainty of a tile, of images whose parts are known."""

from __future__ import annotations

import numpy as np
import pytest

from ssdiff_trt.runtime.tiles.canvas import LIMIT
from ssdiff_trt.runtime.tiles.uncertainty import DETAIL, FLOOR, UNEXPLAINED, parts, uncertainty

GAINS = (0.3, 0.2)
POSITION = (1.5, 1.5)
LEVEL = 0.4
CHECKS = np.float32(0.02) * (-1) ** np.add.outer(np.arange(64), np.arange(64))
"""Detail that blur by the MTF removes, of magnitude 0.02 everywhere."""
INNER = np.s_[16:-16, 16:-16]


def flat(bands=2, size=64):
    return np.full((bands, size, size), LEVEL, np.float32)


def window_peak(sigma):
    """Root of the largest weight of a Gaussian window in two dimensions."""
    return 1 / np.exp(-(np.arange(-20, 21) ** 2) / (2 * sigma**2)).sum()


def estimate(image, pan=None, ms=None, position=POSITION):
    height, width = image.shape[1:]
    pan = flat(1) if pan is None else pan
    ms = np.full((len(image), height // 4, width // 4), LEVEL, np.float32) if ms is None else ms
    return uncertainty(image.astype(np.float32), pan.astype(np.float32), ms, position, GAINS)


@pytest.mark.parametrize("position", [(1.5, 1.5), (2, 2), (-0.5, 3.25)])
def test_a_flat_image_that_agrees_with_ms_has_the_floor(position):
    np.testing.assert_allclose(estimate(flat(), position=position), FLOOR, atol=1e-6)


def test_detail_that_pan_has_counts_less_than_detail_that_it_does_not_have():
    image = flat() + CHECKS
    explained, guessed = estimate(image, flat(1) + 3 * CHECKS), estimate(image)
    inner = (slice(None), *INNER)
    np.testing.assert_allclose(explained[inner], FLOOR + DETAIL * 0.02, rtol=0.02)
    np.testing.assert_allclose(guessed[inner], FLOOR + (DETAIL + UNEXPLAINED) * 0.02, rtol=0.01)
    inverted = estimate(image, flat(1) - 3 * CHECKS)
    np.testing.assert_allclose(inverted, explained, atol=2e-5)


def test_what_ms_says_against_the_image_is_an_independent_error():
    ms = np.full((2, 16, 16), LEVEL, np.float32)
    ms[1] += 0.03
    one, other = estimate(flat(), ms=ms)
    np.testing.assert_allclose(one, FLOOR, atol=1e-6)
    np.testing.assert_allclose(other, np.hypot(FLOOR, 0.03), rtol=1e-4)


def test_a_spot_is_uncertain_where_it_is_and_in_its_band():
    image = flat()
    image[0, 20, 41] += 0.2
    spot, other = estimate(image)
    assert np.unravel_index(spot.argmax(), spot.shape) == (20, 41)
    height = 0.2 * (DETAIL * window_peak(0.7) + UNEXPLAINED * window_peak(2))
    assert spot[20, 41] == pytest.approx(height, rel=0.1)  # the blur leaves some of the spot
    away = np.hypot(*np.ogrid[-20:44, -41:23]) > 20
    np.testing.assert_allclose(spot[away], FLOOR, atol=3e-4)
    np.testing.assert_allclose(other, FLOOR, atol=1e-6)


def test_noise_of_pan_explains_nothing_where_pan_is_flat():
    """Rounding of a flat PAN would otherwise fit anything."""
    tiny = flat(1) + CHECKS / np.float32(2e4)
    inner = (slice(None), *INNER)
    np.testing.assert_allclose(
        estimate(flat() + CHECKS, tiny)[inner], estimate(flat() + CHECKS)[inner], rtol=0.01
    )


def test_what_is_measured_is_local_and_of_any_shape():
    image = flat(2)[:, :, :32].copy()
    image[:, :, 16:] += CHECKS[:, 16:32]
    ms = np.full((2, 16, 8), LEVEL, np.float32)
    measured = parts(image, flat(1)[:, :, :32], ms, POSITION, GAINS)
    assert [part.shape for part in measured] == [(2, 64, 32)] * 3
    assert measured.detail[:, 16:-16, :10].max() < 0.001
    np.testing.assert_allclose(measured.detail[:, 16:-16, 21:26], 0.02, rtol=0.05)


def test_it_can_be_blended():
    image = flat() + 300 * CHECKS
    assert estimate(image).max() == np.float32(LIMIT)
