"""One raster: opening it, choosing bands, and reading values with their validity."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from ssdiff_trt.runtime.errors import InputError, counted
from ssdiff_trt.runtime.memory import check_memory
from ssdiff_trt.runtime.options import ZeroBands
from ssdiff_trt.runtime.raster.bands import identify
from ssdiff_trt.runtime.raster.gdal import (
    DATA_TYPES,
    READ_ERRORS,
    few_requests,
    open_dataset,
)
from ssdiff_trt.runtime.raster.header import check_file, check_header, colours_of, descriptions_of

Raster: TypeAlias = str | Path | DatasetReader
"""A path, or an open rasterio dataset, which stays open."""
BandFiles: TypeAlias = Sequence[str | Path]
"""One file for each band."""
Bands: TypeAlias = Sequence[int | str]
"""Bands by number, counted from 1, or by name."""


@dataclass(frozen=True)
class Holes:
    """Which values mean no data."""

    nodata: float | None = None
    """In place of the values that an image declares, if it is not None."""
    zero_bands: ZeroBands = "all"
    """Bands that have to be 0 where nodata is 0."""

    def of(self, values: NDArray[Any], declared: Sequence[float | None]) -> NDArray[np.bool_]:
        """Holes ``[h, w]`` among values ``[C, h, w]``, by the nodata value declared for each band.

        They have that value in any band, but in all bands where it is 0: one band at 0 is dark.
        """
        stated = declared if self.nodata is None else [self.nodata] * len(values)
        in_any = np.zeros(values.shape[1:], bool)
        in_all = np.full(values.shape[1:], None not in stated)
        for band, value in zip(values, stated, strict=True):
            if value is None:
                continue
            with np.errstate(over="ignore"):  # float32 values equal no larger one
                absent = band == value
            in_all &= absent
            if value != 0 or self.zero_bands == "any":
                in_any |= absent
        return in_any | in_all


def name_of(raster: Raster | BandFiles | WarpedVRT) -> str:
    """File name, for messages; of band files that of the first."""
    if isinstance(raster, str | Path):
        return Path(raster).name
    if isinstance(raster, Sequence):
        return name_of(raster[0])
    stacked = raster.name.startswith("<VRTDataset")  # its name is its whole text
    return Path(raster.files[0] if stacked else raster.name).name


def open_raster(raster: Raster | BandFiles, role: str) -> DatasetReader:
    """Open a raster of real numbers.

    Args:
        raster: path, one path for each band, or open dataset. An open one is returned as it is.
        role: what errors call it, such as MS.

    Raises:
        InputError: if it cannot be read, or its header cannot be used; see
            :func:`ssdiff_trt.runtime.raster.header.check_header`.
    """
    if isinstance(raster, DatasetReader):
        if raster.closed:
            raise InputError(f"The {role} dataset {raster.name} is closed; open it again.")
        check_header(raster, role)
        return raster
    if not isinstance(raster, str | Path):
        raster = _stacked(raster, role)
    check_file(raster, role)
    with ExitStack() as stack:
        try:
            dataset = stack.enter_context(open_dataset(raster))
        except READ_ERRORS as error:
            advice = (
                "it is a folder, give a file in it" if os.path.isdir(raster) else "check the path"
            )
            reason = str(error).rstrip(".")
            raise InputError(f"The {role} image cannot be read ({reason}); {advice}.") from None
        with few_requests(dataset.name):
            check_header(dataset, role)
        stack.pop_all()
    return dataset


def _stacked(files: BandFiles, role: str) -> str:
    """Band files as one raster: a GDAL virtual dataset.

    Raises:
        InputError: if they have several bands, masks, or different grids.
    """
    stack: Element | None = None
    grid: bytes | None = None
    for number, file in enumerate(files, start=1):
        with open_raster(file, role) as image:
            own = _virtual(image)
            own_grid = tostring(own) + image.dtypes[0].encode()
            stack, grid = own if stack is None else stack, grid or own_grid
            if number == 1 and image.count != 1:
                raise InputError(
                    f"{name_of(file)} has {image.count} bands, expected a file of one band for "
                    "each band of MS; give a file that has all bands as MS itself, not as one of "
                    "them."
                )
            if image.count != 1 or own_grid != grid:
                raise InputError(
                    f"{name_of(file)} has {counted(image.count, 'band')}, {image.width} x "
                    f"{image.height} pixels of {image.dtypes[0]}, expected one band on the grid "
                    f"and in the type of {name_of(files)}; give one file for each band."
                )
            if has_mask(image, [1]):
                raise InputError(
                    f"{name_of(file)} declares a mask, expected nodata values at most; stack the "
                    "bands into one file with gdal_merge.py -separate, or gdalbuildvrt -separate."
                )
            band = SubElement(
                stack, "VRTRasterBand", dataType=DATA_TYPES[image.dtypes[0]], band=str(number)
            )
            _add(band, "Description", descriptions_of(image)[0] or Path(file).stem)
            if (nodata := image.nodatavals[0]) is not None:
                digits = f"{nodata:.0f}" if float(nodata).is_integer() else repr(nodata)
                _add(band, "NoDataValue", digits)
            source = SubElement(band, "SimpleSource")
            _add(source, "SourceFilename", os.path.abspath(file), relativeToVRT="0")
            _add(source, "SourceBand", "1")
    return "" if stack is None else tostring(stack, encoding="unicode")


def _virtual(image: DatasetReader) -> Element:
    """A GDAL virtual dataset without bands: size and georeferencing of an image."""
    root = Element("VRTDataset", rasterXSize=str(image.width), rasterYSize=str(image.height))
    if image.crs:
        _add(root, "SRS", image.crs.to_wkt())
    if not image.transform.is_identity:
        _add(root, "GeoTransform", ", ".join(map(repr, image.transform.to_gdal())))
    points, crs = image.gcps
    if points:
        listed = SubElement(root, "GCPList", Projection=crs.to_wkt() if crs else "")
        for point in points:
            places = {"Pixel": point.col, "Line": point.row, "X": point.x, "Y": point.y}
            places["Z"] = point.z or 0.0
            SubElement(listed, "GCP", {key: repr(value) for key, value in places.items()})
    if rpcs := image.tags(ns="RPC"):
        metadata = SubElement(root, "Metadata", domain="RPC")
        for key, value in sorted(rpcs.items()):
            _add(metadata, "MDI", value, key=key)
    return root


def _add(parent: Element, name: str, text: str, **attributes: str) -> None:
    SubElement(parent, name, attributes).text = text


def alpha_band(dataset: DatasetReader | WarpedVRT) -> int | None:
    """The band marked as alpha. GDAL marks the fourth of 4 byte bands; the user may know better."""
    for index, colour in enumerate(colours_of(dataset), start=1):
        if colour == ColorInterp.alpha:
            return index
    return None


def colour_bands(dataset: DatasetReader) -> list[int]:
    """All bands but alpha."""
    alpha = alpha_band(dataset)
    return [band for band in dataset.indexes if band != alpha]


def has_mask(image: DatasetReader, used: Sequence[int]) -> bool:
    """Whether an image has a mask, or alpha beside the bands that are used."""
    alpha = alpha_band(image)
    return alpha not in (None, *used) or bool(_masked(image, used))


def _masked(image: DatasetReader | WarpedVRT, bands: Sequence[int]) -> list[int]:
    """Those of the bands that have a mask besides nodata and alpha, their own or the image's."""
    every = image.mask_flag_enums
    flags = {band: set(every[band - 1]) for band in bands}
    return [
        band
        for band in bands
        if not flags[band] & {MaskFlags.all_valid, MaskFlags.alpha}
        and flags[band] != {MaskFlags.nodata}
    ]


def check_palette(image: DatasetReader, used: Sequence[int]) -> None:
    """That the values of bands are no indices of a palette.

    Raises:
        InputError: if they are.
    """
    colours = colours_of(image)
    if ColorInterp.palette in (colours[band - 1] for band in used):
        raise InputError(
            f"The values of {name_of(image)} are indices of a palette, expected intensities; "
            "convert it with gdal_translate -expand gray (PAN) or -expand rgb (MS)."
        )


def check_nodata(value: float | None, parameter: str, *images: DatasetReader) -> None:
    """That a nodata value is possible in one of the images.

    Raises:
        InputError: if not.
    """
    if value is None:
        return
    for image in images:
        kind = np.dtype(image.dtypes[0])
        if kind.kind == "f" or (float(value).is_integer() and _within(kind, value)):
            return
    kinds = " or ".join(sorted({image.dtypes[0] for image in images}))
    raise InputError(
        f"The nodata value {value:g} cannot occur in {kinds}; give one that does.",
        parameter=parameter,
    )


def _within(kind: np.dtype[Any], value: float) -> bool:
    limits = np.iinfo(kind)
    return bool(limits.min <= value <= limits.max)


def choose_bands(image: DatasetReader, bands: Bands | None) -> list[int]:
    """Numbers of the bands asked for; all but alpha by default.

    Raises:
        InputError: if one is not there, or is named twice; or if none is asked for and the fourth
            of four 8-bit bands is marked as alpha, which GDAL does whatever it is.
    """
    if bands is None and image.dtypes == ("uint8",) * 4 and alpha_band(image) == 4:
        raise InputError(
            f"{name_of(image)} has four 8-bit bands and the last is marked as alpha, which GDAL "
            "does by default; name the bands in the order blue, green, red, near infrared: "
            "`bands=1,2,3,4` if the file has this order, `bands=3,2,1,4` if it begins with red; if "
            "the last is alpha, fuse the others with ssdiff-ref fuse and `bands=1,2,3`."
        )
    if bands is None:
        return colour_bands(image)
    names, colours = descriptions_of(image), colour_bands(image)
    own = {name.lower() for name in names if name}
    identified = found.names if (found := identify(image, colours)) else ()
    known = {name: band for name, band in zip(identified, colours, strict=False) if name}
    numbers = [
        band if (name := str(band).lower()) in own else known.get(name, band) for band in bands
    ]
    return band_numbers(numbers, names, name_of(image))


def band_numbers(bands: Bands | None, descriptions: Sequence[str | None], image: str) -> list[int]:
    """Numbers of bands.

    Args:
        bands: by number or name; None for all.
        descriptions: names of all bands of the image.
        image: its name, for messages.

    Raises:
        InputError: if one is not there, or is named twice.
    """
    if bands is None:
        return list(range(1, len(descriptions) + 1))
    names = [(name or "").lower() for name in descriptions]
    chosen = [_band_number(band, names, image) for band in bands]
    if len(set(chosen)) < len(chosen):
        given = ", ".join(map(str, bands))
        raise InputError(f"The bands {given} name one twice; name each once.", parameter="bands")
    return chosen


def _band_number(band: int | str, names: list[str], image: str) -> int:
    if isinstance(band, str) and not band.isdecimal():
        if (count := names.count(band.lower())) != 1:
            named = ", ".join(filter(None, names)) or "none"
            raise InputError(
                f"{count or 'No'} band{'s' * (count > 1)} of {image} "
                f"{'are' if count > 1 else 'is'} named {band!r}; the names are: {named}. "
                "Choose bands by number.",
                parameter="bands",
            )
        return names.index(band.lower()) + 1
    if not 1 <= int(band) <= len(names):
        raise InputError(
            f"{image} has no band {band}; it has {len(names)}, counted from 1.", parameter="bands"
        )
    return int(band)


@contextmanager
def translate_read_errors(source: DatasetReader | WarpedVRT, window: Window) -> Iterator[None]:
    """Around a read: a file that cannot be read there is a mistake of the user's."""
    rows, cols = window.toranges()
    try:
        yield
    except READ_ERRORS as error:
        raise InputError(
            f"{name_of(source)} is damaged at rows {rows[0]} to {rows[1]} and columns {cols[0]} to "
            f"{cols[1]}; get it again."
        ) from error


def read_rectangle(
    source: DatasetReader | WarpedVRT,
    bands: Sequence[int],
    rows: range,
    cols: range,
    holes: Holes,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Values ``[bands, rows, cols]`` and validity ``[rows, cols]``, mirrored beyond the raster.

    A pixel is valid if no nodata value, mask, alpha or NaN says that it is a hole.

    Raises:
        InputError: if the raster is damaged there, or memory does not hold the rectangle.
    """
    bands = list(bands)
    top, left = max(rows.start, 0), max(cols.start, 0)
    bottom, right = min(rows.stop, source.height), min(cols.stop, source.width)
    window = Window(left, top, right - left, bottom - top)
    dtypes = source.dtypes
    dtype = np.result_type(*(dtypes[band - 1] for band in bands))
    check_memory(
        len(bands) * window.height * window.width * (dtype.itemsize + 4),
        f"Reading {window.width} x {window.height} pixels of {name_of(source)}",
        "cut out a smaller area with gdal_translate -srcwin",
    )
    alpha = alpha_band(source)
    masked = _masked(source, bands)
    with translate_read_errors(source, window):
        stored = source.read(bands, window=window, out_dtype=dtype)
        declared = source.nodatavals
        valid = ~holes.of(stored, [declared[band - 1] for band in bands])
        # GDAL gives one mask for a band, whichever comes first of mask, nodata and alpha.
        if masked:
            valid &= (source.read_masks(masked, window=window) > 0).all(axis=0)
        if alpha is not None and alpha not in bands:
            valid &= source.read(alpha, window=window) > 0
    with np.errstate(over="ignore"):  # what float32 does not hold is not finite
        values = stored.astype(np.float32, copy=False)
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
