"""A small network in numpy, its sampling step and random input tiles, for tests of backends."""

from __future__ import annotations

import numpy as np

from ssdiff_trt.runtime.tiles.batch import Tiles

BANDS, TILE = 4, 32


def residual(x_t, pan, lms, ms, t):
    """Residual of a network that depends on every input."""
    upsampled = ms.repeat(4, axis=2).repeat(4, axis=3)
    time = t.reshape(-1, 1, 1, 1) / np.float32(1000)
    return (
        np.float32(0.1) * x_t * time + np.float32(0.3) * pan - np.float32(0.2) * lms + upsampled
    ) * np.float32(0.4)


def step(x_t, pan, lms, ms, t, coefficients):
    """Next state of the sampling loop, as the step graph computes it."""
    image = (residual(x_t, pan, lms, ms, t) + lms).clip(0, 1)
    return coefficients[0] * image + coefficients[1] * x_t + coefficients[2] * lms


def engine_tiles(count, seed=0):
    """Random tiles in the shapes of the engine."""
    rng = np.random.default_rng(seed)
    return Tiles(
        rng.standard_normal((count, BANDS, TILE, TILE), np.float32),
        rng.random((count, 1, TILE, TILE), np.float32),
        rng.random((count, BANDS, TILE, TILE), np.float32),
        rng.random((count, BANDS, TILE // 4, TILE // 4), np.float32),
    )
