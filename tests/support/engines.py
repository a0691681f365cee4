"""A network in numpy, and what engines and backends are tested on."""

from __future__ import annotations

import numpy as np

from ssdiff_trt.runtime.tiles.batch import Tiles

BANDS, TILE = 4, 32


def residual(x_t, pan, lms, ms, t):
    """A network in numpy that mixes all that it is given."""
    wide = ms.repeat(4, axis=2).repeat(4, axis=3)
    told = t.reshape(-1, 1, 1, 1) / np.float32(1000)
    return (
        np.float32(0.1) * x_t * told + np.float32(0.3) * pan - np.float32(0.2) * lms + wide
    ) * np.float32(0.4)


def step(x_t, pan, lms, ms, t, coefficients):
    image = (residual(x_t, pan, lms, ms, t) + lms).clip(0, 1)
    return coefficients[0] * image + coefficients[1] * x_t + coefficients[2] * lms


def engine_tiles(count, seed=0):
    rng = np.random.default_rng(seed)
    return Tiles(
        rng.standard_normal((count, BANDS, TILE, TILE), np.float32),
        rng.random((count, 1, TILE, TILE), np.float32),
        rng.random((count, BANDS, TILE, TILE), np.float32),
        rng.random((count, BANDS, TILE // 4, TILE // 4), np.float32),
    )
