"""Georeferencing: where the pixels of MS lie on PAN, by what the files say."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.transform import GCPTransformer, RPCTransformer
from rasterio.warp import transform as transform_points

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.raster.affine import product
from ssdiff_trt.runtime.raster.gdal import READ_ERRORS
from ssdiff_trt.runtime.raster.image import name_of
from ssdiff_trt.runtime.raster.placement import Points, from_corners

Coordinates = NDArray[np.float64]
Found = TypeVar("Found")
Kind = Literal["map", "rpc", "gcp", "local", "corners"]

_WGS84 = CRS.from_epsg(4326)
_RPC_OPTIONS = {"RPC_PIXEL_ERROR_THRESHOLD": 1e-6, "RPC_MAX_ITERATIONS": 50}
"""GDAL's defaults locate a pixel to 0.1 pixel only."""
_TEXTS: dict[Kind, str] = {
    "map": "a geotransform and a CRS",
    "rpc": "RPCs",
    "gcp": "GCPs",
    "local": "a geotransform without a CRS",
}


HOW_PLACED: dict[Kind, str] = {"rpc": ", placed by RPCs", "gcp": ", placed by GCPs"}
"""What is printed of the less usual kinds."""


@dataclass(frozen=True)
class PairMap:
    """Places of MS on PAN, and of PAN on MS."""

    to_pan: Points
    to_ms: Points
    kind: Kind
    """What says so."""


def map_pair(pan: DatasetReader, ms: DatasetReader, *, corners: bool) -> PairMap:
    """Find how the pixels of MS and PAN correspond.

    Of geotransforms with a CRS, RPCs, GCPs, and geotransforms without a CRS, the first that both
    images have counts. RPCs are evaluated at one height, the height offset of those of PAN. If
    neither image has any, they show the same ground, corner to corner.

    Args:
        pan: PAN.
        ms: MS.
        corners: whether they show the same ground, corner to corner, whatever the files say.

    Raises:
        InputError: if their georeferencing differs in kind, or cannot be evaluated.
    """
    pan_kinds, ms_kinds = _kinds(pan), _kinds(ms)
    if corners or not (pan_kinds or ms_kinds):
        to_pan = from_corners(pan.shape, ms.shape)
        ratios = to_pan(np.ones(1), np.ones(1))
        return PairMap(to_pan, lambda row, col: np.stack([row, col]) / ratios, "corners")
    kind = next((kind for kind in pan_kinds if kind in ms_kinds), None)
    if kind is None:
        has = [
            f"{name_of(image)} has {' and '.join(_TEXTS[kind] for kind in kinds) or 'none'}"
            for image, kinds in ((pan, pan_kinds), (ms, ms_kinds))
        ]
        raise InputError(
            f"The georeferencing of the two cannot be combined: {has[0]}, {has[1]}; warp or "
            "orthorectify both alike, or, if both show the same ground from corner to corner, pass "
            "`georeferencing=corners`."
        )
    on_pan, on_ms = (_translated(_Ground, image, kind, pan) for image in (pan, ms))
    return PairMap(_between(on_ms, on_pan), _between(on_pan, on_ms), kind)


def is_georeferenced(image: DatasetReader) -> bool:
    """Whether anything says where an image lies on the ground."""
    return bool(_kinds(image))


def _kinds(image: DatasetReader) -> list[Kind]:
    """The kinds of georeferencing of an image, the best first."""
    placed = not image.transform.is_identity
    has = {
        "map": placed and bool(image.crs),
        "rpc": bool(image.rpcs),
        "gcp": bool(image.gcps[0]),
        "local": placed and not image.crs,
    }
    return [kind for kind in _TEXTS if has[kind]]


class _Ground:
    """How an image lies on the ground, by one kind of georeferencing.

    Args:
        image: the image.
        kind: one of ``_TEXTS``.
        pan: the image whose RPCs state the height.
    """

    def __init__(self, image: DatasetReader, kind: Kind, pan: DatasetReader) -> None:
        self.name = name_of(image)
        self.crs = image.crs
        self._transform = image.transform
        self._model: GCPTransformer | RPCTransformer | None = None
        if kind == "rpc":
            self._model, self.crs = RPCTransformer(image.rpcs, **_RPC_OPTIONS), _WGS84
            self._height = pan.rpcs.height_off
        elif kind == "gcp":
            points, self.crs = image.gcps
            self._model, self._height = GCPTransformer(points), 0.0
        self._turn = _full_turn(self.crs)
        (self._centre,), _ = self.places(*(np.array([size / 2]) for size in image.shape))

    def places(self, row: Coordinates, col: Coordinates) -> tuple[Coordinates, Coordinates]:
        """Coordinates x and y of pixels."""
        if self._model:
            heights = np.full_like(row, self._height)
            x, y = self._model.xy(row, col, zs=heights, offset="ul")
        else:
            x, y = product(self._transform, (col, row))
        return np.asarray(x), np.asarray(y)

    def pixels(self, x: Coordinates, y: Coordinates) -> Coordinates:
        """Rows and columns ``[2, n]`` at coordinates."""
        if self._turn:  # of the places that are whole turns of the Earth apart, the nearest
            x = x - self._turn * np.round((x - self._centre) / self._turn)
        if self._model:
            heights = np.full_like(x, self._height)
            rows, cols = self._model.rowcol(x, y, zs=heights, op=float)
            return np.stack([np.asarray(rows), np.asarray(cols)])
        col, row = product(~self._transform, (x, y))
        return np.stack([row, col])


def _between(start: _Ground, end: _Ground) -> Points:
    """Maps pixels of one image to those of another."""

    def points(row: Coordinates, col: Coordinates) -> Coordinates:
        x, y = _translated(start.places, row, col)
        if start.crs != end.crs:
            try:
                x, y = map(np.asarray, transform_points(start.crs, end.crs, x, y))
            except READ_ERRORS as error:
                raise InputError(
                    f"The CRS of {start.name} ({crs_name(start.crs)}) and {end.name} "
                    f"({crs_name(end.crs)}) cannot be converted to each other; warp MS to PAN's "
                    "CRS yourself."
                ) from error
        return _translated(end.pixels, x, y)

    return points


def crs_name(crs: CRS | None) -> str:
    """A CRS in a few words: its code, else its name."""
    if not crs:
        return "none"
    if authority := crs.to_authority():
        return ":".join(authority)
    named = re.match(r'\w+\["([^"]+)"', crs.to_wkt())
    return named[1] if named else "without a name"


def _translated(function: Callable[..., Found], *arguments: object) -> Found:
    """Call a function of GDAL's; a failure is a mistake in the files."""
    try:
        return function(*arguments)
    except READ_ERRORS as error:
        raise InputError(
            f"The georeferencing of PAN and MS cannot be evaluated ({error}); correct it, or warp "
            "both to one CRS."
        ) from error


def _full_turn(crs: CRS | None) -> float | None:
    """Difference of x of a full turn around the Earth, if x grows in proportion to longitude."""
    if not crs:
        return None
    try:
        x, _ = transform_points(_WGS84, crs, [0, 1, 2, 3], [0, 0, 0, 0])
    except READ_ERRORS:
        return None
    steps = np.diff(x)
    if not np.isfinite(steps).all() or np.ptp(steps) > 1e-5 * np.abs(steps).max():
        return None
    return 360 * float(steps.mean())
