"""A part of a result, stated by coordinates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.crs
from rasterio.warp import transform, transform_bounds

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.files import json_of, reading
from ssdiff_trt.runtime.raster.affine import product
from ssdiff_trt.runtime.raster.gdal import GDAL_ERRORS
from ssdiff_trt.runtime.raster.image import name_of
from ssdiff_trt.runtime.raster.placement import Coordinates
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.sources import Rectangle

_DIGITS = 6
"""Decimals of a pixel; what is beyond them is rounding of coordinates."""


def extent_of(area: Sequence[float] | str, scene: Scene) -> tuple[Rectangle, bool]:
    """Rows and columns of PAN of a part of the result, outward to whole pixels.

    Args:
        area: least x, least y, greatest x and greatest y in the CRS of PAN, or the path of a
            GeoJSON file, whose bounds count. Columns and rows of PAN if it has no geotransform.
        scene: the pair.

    Returns:
        Also whether the area reaches beyond the result.

    Raises:
        InputError: if the result has no pixel there, or the file cannot be used.
    """
    hint = ""
    if isinstance(area, str):
        xs, ys = _in_crs_of(scene, Path(area))
        hint = " Coordinates of GeoJSON are longitude, then latitude."
    else:
        left, bottom, right, top = area
        xs, ys = np.array([left, left, right, right]), np.array([bottom, top, bottom, top])
    cols, rows = product(~scene.pan.transform, (xs, ys))
    inside, beyond = [], False
    for places, most in zip((rows, cols), scene.output, strict=True):
        first = math.floor(round(float(places.min()), _DIGITS))
        last = math.ceil(round(float(places.max()), _DIGITS))
        inside.append(range(max(first, most.start), min(last, most.stop)))
        beyond |= inside[-1] != range(first, last)
    if not all(inside):
        covered = ",".join(f"{value:.10g}" for value in _bounds(scene))
        raise InputError(
            f"The area has no pixel of the result, which covers {covered} (minx,miny,maxx,maxy); "
            f"give another.{hint}",
            parameter="area",
        )
    return (inside[0], inside[1]), beyond


def _bounds(scene: Scene) -> tuple[float, float, float, float]:
    """Least x and y and greatest x and y of a result, in the CRS of PAN."""
    rows, cols = scene.output
    row = np.array([rows.start, rows.start, rows.stop, rows.stop], float)
    col = np.array([cols.start, cols.stop, cols.start, cols.stop], float)
    x, y = product(scene.pan.transform, (col, row))
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _in_crs_of(scene: Scene, path: Path) -> Coordinates:
    """Coordinates ``[2, n]`` of all points of a GeoJSON file, in the CRS of PAN.

    They are longitude and latitude (RFC 7946), unless a member ``crs`` names another CRS, as files
    of 2008 do. Points that are far from the result, where its CRS may have no coordinates, are
    moved to a frame around it.
    """
    what = f"{path} cannot be read as GeoJSON"
    with reading(what, "give a GeoJSON file, or minx,miny,maxx,maxy", *GDAL_ERRORS):
        content = json_of(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it is not an object")
        points = np.array(list(_points(content)), float)
        if not (points.size and np.isfinite(points).all()):
            raise ValueError("it has no coordinates")
        named = content.get("crs") or {"properties": {"name": "OGC:CRS84"}}
        crs = rasterio.crs.CRS.from_user_input(named["properties"]["name"])
    if scene.pan.crs is None:
        raise InputError(
            f"{name_of(scene.pan)} has no CRS for the coordinates of {path}; give columns and "
            "rows.",
            parameter="area",
        )
    remedy = "give minx,miny,maxx,maxy"
    with reading(f"{path} cannot be brought to the CRS of PAN", remedy, *GDAL_ERRORS):
        around = np.array(transform_bounds(scene.pan.crs, crs, *_bounds(scene))).reshape(2, 2)
        frame = around[1] - around[0]
        points = points.clip(around[0] - frame, around[1] + frame)
        return np.array(transform(crs, scene.pan.crs, *points.T), float)


def _points(content: Any) -> Iterator[tuple[float, float]]:
    """Longitudes and latitudes of all points of a GeoJSON object."""
    if isinstance(content, dict):
        members = ("features", "geometries", "geometry", "coordinates")
        for member in members:
            if content.get(member) is not None:
                yield from _points(content[member])
    elif content and not isinstance(content[0], list | dict):
        yield content[0], content[1]
    else:
        for one in content:
            yield from _points(one)
