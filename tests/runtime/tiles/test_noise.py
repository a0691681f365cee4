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
