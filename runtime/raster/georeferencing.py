"""Georeferencing: where the pixels of MS lie on PAN, by what the files say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.warp import transform as transform_points

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.raster.gdal import GDAL_ERRORS
from ssdiff_trt.runtime.raster.image import name_of
from ssdiff_trt.runtime.raster.placement import Points, from_corners


def is_georeferenced(dataset: DatasetReader) -> bool:
    """Whether a raster has a geotransform."""
    return not dataset.transform.is_identity


def ms_to_pan(pan: DatasetReader, ms: DatasetReader) -> Points:
    """The map from places in MS to places in PAN.

    Raises:
        InputError: where the georeferencing of the two cannot be combined.
    """
    if is_georeferenced(pan) != is_georeferenced(ms) or bool(pan.crs) != bool(ms.crs):
        with_it, without = (pan, ms) if is_georeferenced(pan) and pan.crs else (ms, pan)
        raise InputError(
            f"{name_of(with_it)} is georeferenced and {name_of(without)} is not (or has no CRS); "
            "give both their georeferencing, or neither."
        )
    if not is_georeferenced(pan):
        return from_corners(pan.shape, ms.shape)

    def to_pan(row: NDArray[np.float64], col: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = ms.transform * (col, row)
        if pan.crs != ms.crs:
            try:
                x, y = map(np.asarray, transform_points(ms.crs, pan.crs, x, y))
            except GDAL_ERRORS as error:
                raise InputError(
                    f"The CRS of {name_of(ms)} cannot be converted to that of {name_of(pan)} "
                    f"({error}); warp MS to PAN's CRS yourself."
                ) from error
        pan_col, pan_row = ~pan.transform * (x, y)
        return np.stack([pan_row, pan_col])

    return to_pan
