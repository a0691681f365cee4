"""A PAN and an MS raster as one source: how they lie to each other, and what is valid in them."""

from __future__ import annotations

import copy
from contextlib import ExitStack

from rasterio.enums import MaskFlags, Resampling
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.options import ReadOptions
from ssdiff_trt.runtime.raster.fingerprint import fingerprint
from ssdiff_trt.runtime.raster.georeferencing import is_georeferenced, ms_to_pan
from ssdiff_trt.runtime.raster.image import (
    BandFiles,
    Raster,
    alpha_band,
    check_nodata,
    choose_bands,
    colour_bands,
    mask_flags,
    name_of,
    open_raster,
    read_rectangle,
)
from ssdiff_trt.runtime.raster.placement import Placed, place
from ssdiff_trt.runtime.sources import Pixels, ValueType, describe_sizes


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
        pan: the dataset of PAN.
        ms: the dataset of MS.
        pan_band: the band of PAN in use.
        nodata: value that means no data in both, if it was given.
        shift: rows and columns of PAN by which MS is moved; see :meth:`moved`.
        placement: how MS lies on PAN.
    """

    def __init__(
        self,
        pan: Raster,
        ms: Raster | BandFiles,
        options: ReadOptions | None = None,
    ) -> None:
        options = options or ReadOptions()
        with ExitStack() as stack:
            self.pan, self.ms = (
                open_raster(raster, role)
                if isinstance(raster, DatasetReader)
                else stack.enter_context(open_raster(raster, role))
                for raster, role in ((pan, "PAN"), (ms, "MS"))
            )
            self.pan_band = _choose_pan_band(self.pan, options.pan_band, self.ms)
            self.bands = tuple(choose_bands(self.ms, options.bands))
            self.nodata = check_nodata(options.nodata, self.pan, self.ms)
            self._stack = stack
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
        return describe_sizes(self.pan.shape, self.ms.shape)

    @property
    def band_names(self) -> tuple[str, ...]:
        return tuple(self.ms.descriptions[band - 1] or "" for band in self.bands)

    @property
    def pan_values(self) -> ValueType:
        return self._values("PAN", self.pan, (self.pan_band,))

    @property
    def ms_values(self) -> ValueType:
        return self._values("MS", self.ms, self.bands)

    def _values(self, role: str, image: DatasetReader, bands: tuple[int, ...]) -> ValueType:
        declared = self.nodata is not None or bool(mask_flags(image, bands))
        return value_type(role, image, bands[0], declared)

    @property
    def mask_flags(self) -> set[MaskFlags]:
        """How the bands in use declare holes; empty when they do not."""
        return mask_flags(self.pan, [self.pan_band]) | mask_flags(self.ms, self.bands)

    @property
    def may_have_nan(self) -> bool:
        """Whether values may be missing as NaN."""
        return any(dtype.startswith("float") for dtype in (*self.pan.dtypes, *self.ms.dtypes))

    def fingerprint(self) -> str | None:
        return fingerprint(self.pan, self.ms)

    def _place(self, shift: tuple[float, float]) -> None:
        """Set the grid for a shift, and what MS is read from."""
        self.shift = shift
        to_pan = ms_to_pan(self.pan, self.ms)
        names = name_of(self.pan), name_of(self.ms)
        self.placement = place(self.pan.shape, self.ms.shape, to_pan, shift, names)
        self._ms_source: DatasetReader | WarpedVRT = self.ms
        if self.placement.resampled:
            self._ms_source = self._stack.enter_context(self._warped())

    def _warped(self) -> WarpedVRT:
        """MS on PAN's grid divided by 4, with its halo."""
        if not is_georeferenced(self.pan):
            raise InputError(
                f"{name_of(self.pan)} is {self.pan.width} x {self.pan.height} pixels and "
                f"{name_of(self.ms)} {self.ms.width} x {self.ms.height}; without georeferencing "
                "PAN must be 4 times as large, to within one MS pixel."
            )
        if (alpha := alpha_band(self.ms)) in self.bands:  # GDAL would weigh the others with it
            raise InputError(
                f"{name_of(self.ms)} marks band {alpha} as alpha and has to be warped onto PAN's "
                f"grid; clear the mark first: gdal_edit.py -colorinterp_{alpha} undefined"
            )
        row, col = (o - move for o, move in zip(self.placement.ms_origin, self.shift, strict=True))
        height, width = self.placement.warped_size
        local = None if self.pan.crs else "EPSG:3857"  # GDAL wants a name even for no projection
        return WarpedVRT(
            self.ms,
            src_crs=local,
            crs=self.pan.crs or local,
            transform=self.pan.transform * Affine.translation(col, row) * Affine.scale(RATIO),
            height=height,
            width=width,
            resampling=Resampling.cubic,
            tolerance=1e-6,  # of a pixel; 0 is refused
            src_nodata=self.nodata if self.nodata is not None else self.ms.nodata,
            add_alpha=alpha_band(self.ms) is None,
        )

    def read(self, rows: range, cols: range) -> Pixels:
        pan, pan_valid = read_rectangle(self.pan, [self.pan_band], rows, cols, self.nodata)
        ms_rows, ms_cols = self.placement.ms_part(rows, cols)
        nodata = None if self.resampled else self.nodata
        ms, ms_valid = read_rectangle(self._ms_source, self.bands, ms_rows, ms_cols, nodata)
        return Pixels(pan[0], pan_valid, ms, ms_valid)


def value_type(role: str, image: DatasetReader, band: int, holes_declared: bool) -> ValueType:
    """Type of the values of a raster's band."""
    bits = int(image.tags(band, ns="IMAGE_STRUCTURE").get("NBITS", 0)) or None
    return ValueType(role, image.dtypes[band - 1], bits, holes_declared)


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
