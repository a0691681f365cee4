"""Pairs whose PAN and MS are displaced by a known shift."""

from __future__ import annotations

import numpy as np
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter, map_coordinates

from ssdiff_trt.runtime.raster.affine import product
from tests.support.imagery import texture, write_raster
from tests.support.rasters import PAN_GRID

WEIGHTS = (0.2, 0.3, 0.3, 0.2)


SIGMA = {0.3: 1.9756, 0.2: 2.2843}
"""Of the Gaussian that leaves this much at 1/8 cycles per pixel: exp(-2 (pi sigma / 8)**2)."""


EDGE = 24


def ground(height, width, seed):
    """What there is to see, in 4 bands on PAN's grid, with an edge around it."""
    size = 4 * height + 2 * EDGE, 4 * width + 2 * EDGE
    common = texture(seed, *size)
    return np.stack([0.7 * common + 0.3 * texture(seed + 10 + band, *size) for band in range(4)])


def through_optics(bands, gain=0.3):
    return np.stack([gaussian_filter(band, SIGMA[gain]) for band in bands])


def displaced(shift, height=96, width=96, *, weights=WEIGHTS, gain=0.3, noise=0.0, seed=3):
    """PAN and MS of one ground; MS shows at 4 n + 1.5 what PAN shows ``shift`` further."""
    bands = ground(height, width, seed)
    pan = np.tensordot(np.array(weights), bands, 1)[EDGE:-EDGE, EDGE:-EDGE]
    places = np.meshgrid(
        4 * np.arange(height) + 1.5 + shift[0] + EDGE,
        4 * np.arange(width) + 1.5 + shift[1] + EDGE,
        indexing="ij",
    )
    ms = np.stack([map_coordinates(band, places, order=5) for band in through_optics(bands, gain)])
    rng = np.random.default_rng(seed)
    return pan + noise * rng.standard_normal(pan.shape), ms + noise * rng.standard_normal(ms.shape)


def write_displaced(folder, shift, height=64, width=72, ms_grid=None, **details):
    pan, ms = (np.rint(image).astype("uint16") for image in displaced(shift, height, width))
    grid = product(PAN_GRID, Affine.scale(4)) if ms_grid is None else ms_grid
    return (
        write_raster(folder / "pan.tif", pan, PAN_GRID, **details),
        write_raster(folder / "ms.tif", ms, grid, **details),
    )
