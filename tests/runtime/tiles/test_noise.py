"""Noise depends on seed and position alone."""

from __future__ import annotations

import numpy as np
import pytest

from ssdiff_trt.runtime.tiles.noise import noise


def test_overlapping_rectangles_have_the_same_noise():
    field = noise(5, 4, range(-3, 200), range(0, 150))
    inner = noise(5, 4, range(50, 180), range(63, 130))
    np.testing.assert_array_equal(inner, field[:, 53:183, 63:130])


def test_noise_is_unit_normal_and_differs_by_seed_position_and_band():
    field = noise(0, 3, range(0, 256), range(0, 256))
    assert field.mean() == pytest.approx(0, abs=0.01)
    assert field.std() == pytest.approx(1, abs=0.01)
    cells = [field[b, r : r + 64, c : c + 64] for b in range(3) for r in (0, 64) for c in (0, 64)]
    cells += [noise(1, 3, range(0, 64), range(0, 64))[0]]
    flat = np.stack([cell.ravel() for cell in cells])
    correlation = np.corrcoef(flat) - np.eye(len(flat))
    assert np.abs(correlation).max() < 0.08


@pytest.mark.parametrize(
    ("seed", "bands", "row", "col", "expected"),
    [
        (7, 4, -1, 63, [0.5729988, 0.1707198, 0.9285758, -1.0965223]),
        (7, 4, 0, 64, [1.2810302, 0.8700508, -1.1842359, -0.9304803]),
        (2**64 - 1, 8, 130, -65, [-1.7717074, 0.20961146, 1.2887547, -0.26391196]),
        (2**64 - 1, 8, 130, -63, [0.51294917, -1.4981334, -0.970156, -1.9713575]),
    ],
)
def test_a_seed_gives_the_noise_that_it_gave_in_earlier_versions(seed, bands, row, col, expected):
    """Of the first 4 bands. Other values mean that no earlier result can be repeated."""
    field = noise(seed, bands, range(row, row + 1), range(col, col + 1))
    assert field.shape == (bands, 1, 1)
    assert field[:4, 0, 0] == pytest.approx(expected, rel=1e-6)
