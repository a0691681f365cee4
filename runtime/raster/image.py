"""One raster: opening it, choosing bands, and reading values with their validity."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.raster.gdal import GDAL_ERRORS, without_georeferencing_warnings

Raster: TypeAlias = str | Path | DatasetReader
"""A path, or an open rasterio dataset, which stays open."""
BandFiles: TypeAlias = Sequence[str | Path]
"""One file for each band."""
Bands: TypeAlias = Sequence[int | str]
"""Bands by number, counted from 1, or by name."""


_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
}
"""GDAL's names of data types."""


def name_of(raster: Raster | BandFiles | WarpedVRT) -> str:
    """File name, for messages; of band files that of the first."""
    if isinstance(raster, str | Path):
        return Path(raster).name
    return name_of(raster[0]) if isinstance(raster, Sequence) else Path(raster.name).name


def open_raster(raster: Raster | BandFiles, role: str) -> DatasetReader:
    """Open a raster of real numbers.

    Args:
        raster: path, one path for each band, or open dataset. An open one is returned as it is.
        role: what errors call it, such as MS.

    Raises:
        InputError: if it cannot be read, or has no real values.
    """
    if isinstance(raster, DatasetReader):
        if raster.closed:
            raise InputError(f"The {role} dataset {raster.name} is closed; open it again.")
        dataset = raster
    else:
        if not isinstance(raster, str | Path):
            raster = _stacked(raster, role)
        try:
            with without_georeferencing_warnings():
                dataset = rasterio.open(raster)
        except GDAL_ERRORS as error:
            raise InputError(
                f"The {role} image cannot be read ({error}); check the path."
            ) from error
    if not dataset.count:
        raise InputError(f"The {role} image {raster} has no bands; name one of its subdatasets.")
    if any(dtype.startswith("complex") for dtype in dataset.dtypes):
        raise InputError(
            f"The {role} image {raster} has complex values ({dataset.dtypes[0]}); "
            "give an image of real numbers."
        )
    return dataset


def _stacked(files: BandFiles, role: str) -> str:
    """Band files as one raster: a GDAL virtual dataset.

    Raises:
        InputError: if they have several bands, masks, or different grids.
    """
    bands = []
    first = None
    for number, file in enumerate(files, start=1):
        with open_raster(file, role) as image:
            grid = (image.shape, image.crs, image.transform, image.dtypes[0])
            first = first or grid
            if image.count != 1 or grid != first:
                raise InputError(
                    f"{name_of(file)} has {image.count} bands, {image.width} x {image.height} "
                    f"pixels of {image.dtypes[0]}, expected one band on the grid and in the type "
                    f"of {name_of(files)}; give one file for each band."
                )
            if mask_flags(image, [1]) - {MaskFlags.nodata}:
                raise InputError(
                    f"{name_of(file)} declares a mask, expected nodata values at most; stack the "
                    "bands into one file with gdal_merge.py -separate, or gdalbuildvrt -separate."
                )
            name = image.descriptions[0] or Path(file).stem
            nodata = image.nodatavals[0]
            bands.append(
                f'<VRTRasterBand dataType="{_TYPES[image.dtypes[0]]}" band="{number}">'
                f"<Description>{escape(name)}</Description>"
                + (f"<NoDataValue>{nodata!r}</NoDataValue>" if nodata is not None else "")
                + f'<SimpleSource><SourceFilename relativeToVRT="0">{escape(os.path.abspath(file))}'
                "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
            )
            transform, crs = image.transform, image.crs
            height, width = image.shape
    place = "" if transform.is_identity else ", ".join(map(repr, transform.to_gdal()))
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">'
        + (f"<SRS>{escape(crs.to_wkt())}</SRS>" if crs else "")
        + (f"<GeoTransform>{place}</GeoTransform>" if place else "")
        + "".join(bands)
        + "</VRTDataset>"
    )


def alpha_band(dataset: DatasetReader | WarpedVRT) -> int | None:
    """The band marked as alpha. GDAL marks the fourth of 4 byte bands; the user may know better."""
    for index, colour in enumerate(dataset.colorinterp, start=1):
        if colour == ColorInterp.alpha:
            return index
    return None


def colour_bands(dataset: DatasetReader) -> list[int]:
    """All bands but alpha."""
    return [i for i in dataset.indexes if i != alpha_band(dataset)]


def mask_flags(image: DatasetReader, used: Sequence[int]) -> set[MaskFlags]:
    """How an image declares holes in the bands that are used; empty when it does not."""
    flags = {flag for band in used for flag in image.mask_flag_enums[band - 1]}
    if (alpha := alpha_band(image)) in used:
        flags -= {MaskFlags.alpha, MaskFlags.per_dataset}
    elif alpha is not None:
        flags.add(MaskFlags.alpha)
    return flags - {MaskFlags.all_valid}


def check_nodata(value: float | None, *images: DatasetReader) -> float | None:
    """The nodata value, checked to be possible in one of the images."""
    if value is None:
        return None
    for image in images:
        kind = np.dtype(image.dtypes[0])
        if kind.kind == "f" or (float(value).is_integer() and _within(kind, value)):
            return value
    kinds = " or ".join(sorted({image.dtypes[0] for image in images}))
    raise InputError(
        f"The nodata value {value:g} cannot occur in {kinds}; give one that does.",
        parameter="nodata",
    )


def _within(kind: np.dtype[Any], value: float) -> bool:
    limits = np.iinfo(kind)
    return bool(limits.min <= value <= limits.max)


def choose_bands(image: DatasetReader, bands: Bands | None) -> list[int]:
    """Numbers of the bands asked for; all but alpha by default.

    Raises:
        InputError: if one is not there, or is named twice.
    """
    if bands is None:
        return colour_bands(image)
    chosen = [_band_number(image, band) for band in bands]
    if len(set(chosen)) < len(chosen):
        names = ", ".join(map(str, bands))
        raise InputError(f"The bands {names} name one twice; name each once.", parameter="bands")
    return chosen


def _band_number(image: DatasetReader, band: int | str) -> int:
    if isinstance(band, str) and not band.isdecimal():
        names = [(name or "").lower() for name in image.descriptions]
        if (count := names.count(band.lower())) != 1:
            named = ", ".join(filter(None, names)) or "none"
            raise InputError(
                f"{count or 'No'} band{'s' * (count > 1)} of {name_of(image)} "
                f"{'are' if count > 1 else 'is'} named {band!r}; the names are: {named}. "
                "Choose bands by number.",
                parameter="bands",
            )
        return names.index(band.lower()) + 1
    if int(band) not in image.indexes:
        raise InputError(
            f"{name_of(image)} has no band {band}; it has {image.count}.", parameter="bands"
        )
    return int(band)


@contextmanager
def translate_read_errors(source: DatasetReader | WarpedVRT, window: Window) -> Iterator[None]:
    """Around a read: a file that cannot be read there is a mistake of the user's."""
    try:
        yield
    except GDAL_ERRORS as error:
        rows, cols = window.toranges()
        raise InputError(
            f"{name_of(source)} is damaged at rows {rows[0]} to {rows[1]} and columns {cols[0]} to "
            f"{cols[1]}; get it again."
        ) from error


def read_rectangle(
    source: DatasetReader | WarpedVRT,
    bands: Sequence[int],
    rows: range,
    cols: range,
    nodata: float | None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Values ``[bands, rows, cols]`` and validity ``[rows, cols]``, mirrored beyond the raster."""
    bands = list(bands)
    top, left = max(rows.start, 0), max(cols.start, 0)
    bottom, right = min(rows.stop, source.height), min(cols.stop, source.width)
    window = Window(left, top, right - left, bottom - top)
    with translate_read_errors(source, window):
        values = source.read(bands, window=window, out_dtype=np.float32)
    alpha = alpha_band(source)
    declared = source.nodatavals[bands[0] - 1]
    if nodata is not None or (alpha in bands and declared is not None):
        nodata = declared if nodata is None else nodata
        valid = values != nodata
    elif alpha in bands:  # GDAL would take the mask from it
        valid = np.ones(values.shape, bool)
    else:
        nodata = declared
        valid = source.read_masks(bands, window=window) > 0
    # A single 0 among the bands is a dark pixel and not a hole.
    valid = valid.any(axis=0) if nodata == 0 else valid.all(axis=0)
    if alpha is not None and alpha not in bands:  # GDAL's masks miss it beside 4 or more bands
        valid &= source.read(alpha, window=window) > 0
    valid &= np.isfinite(values).all(axis=0)
    return mirrored(values, valid, rows, cols, source.shape)


def mirrored(
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    rows: range,
    cols: range,
    size: tuple[int, int],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Values ``[C, h, w]`` and validity ``[h, w]`` of the part of a rectangle that lies inside an
    image of that size, mirrored to fill the rectangle."""
    beyond = [
        (max(-part.start, 0), max(part.stop - limit, 0))
        for part, limit in zip((rows, cols), size, strict=True)
    ]
    return (
        np.pad(values, [(0, 0), *beyond], mode="symmetric"),
        np.pad(valid, beyond, mode="symmetric"),
    )
