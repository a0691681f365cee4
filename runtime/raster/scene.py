"""A PAN and an MS raster as one source: how they lie to each other, and what is valid in them."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.transform import Affine

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.options import ReadOptions
from ssdiff_trt.runtime.raster.bands import identify, in_order
from ssdiff_trt.runtime.raster.fingerprint import fingerprint
from ssdiff_trt.runtime.raster.georeferencing import HOW_PLACED, is_georeferenced, map_pair
from ssdiff_trt.runtime.raster.header import bits_of, descriptions_of
from ssdiff_trt.runtime.raster.image import (
    BandFiles,
    Holes,
    Raster,
    check_nodata,
    check_palette,
    choose_bands,
    colour_bands,
    has_mask,
    name_of,
    open_raster,
    read_rectangle,
)
from ssdiff_trt.runtime.raster.placement import (
    Coordinates,
    Orientation,
    Placed,
    orient,
    place,
)
from ssdiff_trt.runtime.raster.warp import read_warped
from ssdiff_trt.runtime.sources import Identified, Pixels, ValueType, describe_sizes


class Scene(Placed):
    """Opens a pair of rasters and checks that they can be fused: a source.

    Used as a context manager. It reads in one thread at a time.

    Args:
        pan: any raster that GDAL reads; a path, or an open dataset, which stays open.
        ms: likewise, or one file for each band, with 4 times the pixel size, at any shift and in
            any CRS.
        options: bands and nodata; see :class:`ssdiff_trt.runtime.options.ReadOptions`.

    Raises:
        InputError: when the two do not make a pair.

    Attributes:
        options: as given.
        pan: the dataset of PAN.
        ms: the dataset of MS.
        pan_band: the band of PAN in use.
        pan_holes: values that mean no data in PAN.
        ms_holes: values that mean no data in MS.
        shift: rows and columns of PAN by which MS is moved; see :meth:`moved`.
        map: the places of MS on PAN, by the files, without the shift.
        orientation: how MS is turned for its rows and columns to run like those of PAN.
        placement: how MS, turned, lies on PAN.
    """

    def __init__(
        self,
        pan: Raster,
        ms: Raster | BandFiles,
        options: ReadOptions | None = None,
    ) -> None:
        self.options = options = options or ReadOptions()
        with ExitStack() as stack:
            self.pan, self.ms = (
                open_raster(raster, role)
                if isinstance(raster, DatasetReader)
                else stack.enter_context(open_raster(raster, role))
                for raster, role in ((pan, "PAN"), (ms, "MS"))
            )
            self.pan_band = _choose_pan_band(self.pan, options.pan_band, self.ms)
            self.bands = tuple(choose_bands(self.ms, options.bands))
            if options.bands is None:
                self.bands = in_order(self.ms, self.bands)
            for image, used in ((self.pan, (self.pan_band,)), (self.ms, self.bands)):
                check_palette(image, used)
            check_nodata(options.nodata, "nodata", self.pan, self.ms)
            check_nodata(options.pan_nodata, "pan_nodata", self.pan)
            check_nodata(options.ms_nodata, "ms_nodata", self.ms)
            self.pan_holes, self.ms_holes = choose_holes(options)
            self.map = map_pair(self.pan, self.ms, corners=options.georeferencing == "corners")
            self.orientation = orient(self.ms.shape, self.map.to_pan)
            self._place((0.0, 0.0))
            self._stack = stack.pop_all()

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def moved(self, rows: float, cols: float) -> Scene:
        """See :meth:`ssdiff_trt.runtime.sources.Source.moved`. Both close with the first."""
        other = copy.copy(self)
        other._place((rows, cols))
        return other

    @property
    def name(self) -> str:
        return name_of(self.ms)

    def describe(self) -> str:
        placed = HOW_PLACED.get(self.map.kind, "")
        found = self.identified
        which = ""
        if self.options.bands is None and found and found.complete:
            which = f" ({', '.join(found.names)}, {found.reason})"
        return describe_sizes(self.pan.shape, self.ms.shape, self.bands) + which + placed

    @property
    def file_order(self) -> tuple[int, ...]:
        if self.options.bands is not None:
            return tuple(range(len(self.bands)))
        return tuple(sorted(range(len(self.bands)), key=self.bands.__getitem__))

    @property
    def output_bands(self) -> tuple[int, ...]:
        """Bands of MS in the order of the result."""
        return tuple(self.bands[index] for index in self.file_order)

    @property
    def warnings(self) -> tuple[str, ...]:
        named = [name_of(image) for image in (self.pan, self.ms) if is_georeferenced(image)]
        if self.map.kind != "corners" or not named:
            return ()
        return (
            f"the georeferencing of {' and '.join(named)} is ignored: PAN and MS are taken to show "
            "the same ground from corner to corner",
        )

    @cached_property
    def identified(self) -> Identified | None:
        return identify(self.ms, self.bands)

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands in use, empty where there is none."""
        names = descriptions_of(self.ms)
        return tuple(names[band - 1] or "" for band in self.bands)

    @cached_property
    def pan_values(self) -> ValueType:
        return self._values("PAN", self.pan, (self.pan_band,), self.pan_holes)

    @cached_property
    def ms_values(self) -> ValueType:
        return self._values("MS", self.ms, self.bands, self.ms_holes)

    def _values(
        self, role: str, image: DatasetReader, bands: tuple[int, ...], holes: Holes
    ) -> ValueType:
        values = image.nodatavals
        nodata = {values[band - 1] for band in bands} - {None}
        if holes.nodata is not None:
            nodata = {holes.nodata}
        declared = bool(nodata) or has_mask(image, bands)
        return value_type(role, image, bands[0], declared, 0 in nodata)

    @property
    def may_have_holes(self) -> bool:
        """Whether the result may have any."""
        pan, ms = (self.pan, self.pan_values), (self.ms, self.ms_values)
        return self.resampled or _may_have_holes(*pan) or _may_have_holes(*ms)

    def fingerprint(self) -> str | None:
        return fingerprint(self.pan, self.ms)

    def _place(self, shift: tuple[float, float]) -> None:
        """Set the grid for a shift."""
        self.shift = shift
        size, turn = self.orientation.size(self.ms.shape), self.orientation
        names = name_of(self.pan), name_of(self.ms)
        self.placement = place(
            self.pan.shape,
            size,
            lambda row, col: self.map.to_pan(*turn.places(row, col, size)),
            shift,
            names,
        )
        if self.placement.resampled and self.map.kind == "corners":
            raise InputError(
                f"{names[0]} is {self.pan.width} x {self.pan.height} pixels and {names[1]} "
                f"{self.ms.width} x {self.ms.height}; without georeferencing PAN must be 4 times "
                "as large, to within one MS pixel."
            )

    @property
    def ms_transform(self) -> Affine | None:
        """Geotransform of MS in the CRS of PAN, if the pixels that are read are on it."""
        plain = self.orientation == Orientation() and not self.resampled
        same = self.map.kind in ("map", "local") and self.ms.crs == self.pan.crs
        return self.ms.transform if plain and same else None

    def read(self, rows: range, cols: range) -> Pixels:
        pan, pan_valid = read_rectangle(self.pan, [self.pan_band], rows, cols, self.pan_holes)
        ms_part, axes = self.placement.ms_parts(rows, cols)
        if self.resampled:
            ms, ms_valid = read_warped(self._read_ms, self.ms.shape, self._places, *ms_part)
        else:
            turn, size = self.orientation, self.orientation.size(self.ms.shape)
            values, valid = self._read_ms(*turn.native(*ms_part, size))
            ms, ms_valid = turn.apply(values), turn.apply(valid)
        return Pixels(pan[0], pan_valid, ms, ms_valid, axes)

    def _read_ms(self, rows: range, cols: range) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """MS as it is in the file."""
        return read_rectangle(self.ms, self.bands, rows, cols, self.ms_holes)

    def _places(self, row: Coordinates, col: Coordinates) -> Coordinates:
        """Places in MS of places in warped MS."""
        pan_row, pan_col = (
            axis.begin - move + axis.scale * place
            for axis, move, place in zip(self.placement.axes, self.shift, (row, col), strict=True)
        )
        return self.map.to_ms(pan_row, pan_col)


def _may_have_holes(image: DatasetReader, values: ValueType) -> bool:
    return values.holes_declared or any(dtype.startswith("float") for dtype in image.dtypes)


def choose_holes(options: ReadOptions) -> tuple[Holes, Holes]:
    """Values that mean no data in PAN and MS."""
    pan, ms = (
        options.nodata if own is None else own for own in (options.pan_nodata, options.ms_nodata)
    )
    return Holes(pan), Holes(ms, options.zero_bands)


def value_type(
    role: str, image: DatasetReader, band: int, holes_declared: bool, zero_is_nodata: bool = False
) -> ValueType:
    """Type of the values of a raster's band."""
    bits = bits_of(image, band)
    return ValueType(role, image.dtypes[band - 1], bits, holes_declared, zero_is_nodata)


def _choose_pan_band(pan: DatasetReader, band: int | None, ms: DatasetReader) -> int:
    bands = colour_bands(pan)
    if band is None and len(bands) == 1:
        return bands[0]
    if band is None:
        remedy = (
            f"{name_of(ms)} has one, so are the two swapped?"
            if ms.count == 1
            else "choose one with `pan_band`."
        )
        raise InputError(f"The PAN image {name_of(pan)} has {len(bands)} bands; {remedy}")
    if band not in pan.indexes:
        raise InputError(
            f"The PAN image {name_of(pan)} has no band {band}; it has {pan.count}.",
            parameter="pan_band",
        )
    return band
