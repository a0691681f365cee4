"""Pairs of rasters with holes, shifts and mistakes."""

from __future__ import annotations

import numpy as np
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from ssdiff_trt.runtime.raster.affine import product
from tests.support.rasters import PAN_GRID, smooth

MS_GRID = product(PAN_GRID, Affine.scale(4))


def shifted(rows, cols):
    """MS's grid, moved by so many pixels of PAN."""
    return product(PAN_GRID, Affine.translation(cols, rows), Affine.scale(4))


def holes(make_pair, how):
    """A pair whose MS has a hole of 4 x 4 pixels, declared in some way."""
    pixels = smooth((4, 40, 48), seed=2)
    hole = np.s_[10:14, 20:24]
    if how == "nodata":
        pixels[(..., *hole)] = 7
        return make_pair(ms={"pixels": pixels, "nodata": 7})
    if how == "zeros":
        pixels[(..., *hole)] = 0
        return make_pair(ms={"pixels": pixels})
    if how == "nan":
        pixels = pixels.astype(np.float32)
        pixels[(2, *hole)] = np.nan
        return make_pair(ms={"pixels": pixels})
    valid = np.ones((40, 48), bool)
    valid[hole] = False
    if how == "mask":
        return make_pair(ms={"pixels": pixels, "mask": valid})
    alpha = (valid * 65535).astype(np.uint16)
    return make_pair(
        ms={
            "pixels": np.concatenate([pixels, alpha[None]]),
            "colorinterp": [ColorInterp.gray] * 4 + [ColorInterp.alpha],
        }
    )


REFUSALS = [
    ({"ms": {"transform": shifted(500, 0)}}, "do not overlap: .* rows 500 to 660"),
    ({"ms": {"transform": product(PAN_GRID, Affine.scale(2))}}, "is 2 x 2 pixels of pan.tif"),
    (
        {"ms": {"transform": product(PAN_GRID, Affine.scale(4.09))}},
        "is 4.09 x 4.09 pixels of pan.tif",
    ),
    ({"ms": {"transform": None}}, "pan.tif has a geotransform and a CRS, ms.tif has none"),
    ({"pan": {"transform": None}}, "pan.tif has none, ms.tif has a geotransform and a CRS"),
    ({"ms": {"crs": None}}, "ms.tif has a geotransform without a CRS"),
    ({"pan": {"pixels": smooth((2, 160, 192))}}, "has 2 bands; choose one with `pan_band`"),
    ({"ms": {"pixels": np.ones((4, 40, 48), np.complex64)}}, "MS .* has complex values"),
    ({"pan": {"pixels": np.ones((1, 160, 192), np.complex64)}}, "PAN .* has complex values"),
    (
        {
            "pan": {"transform": None, "pixels": smooth((1, 400, 400))},
            "ms": {"transform": None, "pixels": smooth((4, 101, 100))},
        },
        "must be 4 times as large",
    ),
]
