"""The header of a raster: what GDAL knows of it before any pixel is read, and how to read that."""

from __future__ import annotations

import math
import os
import stat
from contextlib import suppress
from pathlib import Path

import numpy as np
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.memory import check_memory
from ssdiff_trt.runtime.raster.fingerprint import dataset_files
from ssdiff_trt.runtime.raster.gdal import GDAL_ERRORS, READ_ERRORS, without_georeferencing_warnings

MOST_BANDS = 1000
_USED = (
    *("crs", "gcps", "rpcs", "nodatavals", "mask_flag_enums", "scales", "offsets"),
    *("files", "colorinterp"),
)
"""What is read of any image, and fails where it is damaged. The last raises what GDAL found wrong
with files beside the image when it read the others."""
SIDECARS = (".aux.xml", ".msk", ".ovr")
"""Ends of the names of files that GDAL reads beside an image."""


def check_file(path: str | Path, role: str) -> None:
    """That neither a file nor one beside it that GDAL reads is one to wait at without end.

    Raises:
        InputError: if one is a pipe or a device.
    """
    for name in (f"{path}{suffix}" for suffix in ("", *SIDECARS)):
        try:
            kind = os.stat(name).st_mode
        except (OSError, ValueError):  # one of GDAL's own names, or nothing
            continue
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise InputError(f"{name} of the {role} image is a pipe or a device, expected a file.")


def check_header(image: DatasetReader, role: str) -> None:
    """That a raster has real values in a number of bands that can be used, a geotransform that has
    an inverse, blocks that fit into memory, and metadata that can be read.

    Raises:
        InputError: if not.
    """
    called = f"The {role} image {image.name}"
    if not image.count:
        raise InputError(f"{called} has no bands; name one of its subdatasets.")
    if image.count > MOST_BANDS:
        raise InputError(
            f"{called} has {image.count} bands, expected {MOST_BANDS} at most; extract those to "
            "use with gdal_translate -b."
        )
    if any(dtype.startswith("complex") for dtype in image.dtypes):
        raise InputError(
            f"{called} has complex values ({image.dtypes[0]}); give an image of real numbers."
        )
    try:
        with without_georeferencing_warnings():
            for band in range(image.count + 1):
                for domain in (None, *image.tag_namespaces(band)):
                    image.tags(band, ns=domain)
            for name in _USED:
                getattr(image, name)
    except READ_ERRORS as error:
        raise InputError(
            f"The header of {image.name} cannot be read ({error}); get the {role} image again, "
            "with the files beside it."
        ) from None
    for file in dataset_files(image):
        check_file(file, role)
    values = image.transform.to_gdal()
    if not all(map(math.isfinite, values)) or not 0 < abs(image.transform.determinant) < math.inf:
        raise InputError(
            f"The geotransform of {image.name} is {', '.join(f'{value:g}' for value in values)}, "
            "which places no pixel; correct it with gdal_edit.py -a_ullr, or drop it with "
            "gdal_edit.py -unsetgt."
        )
    height, width = image.block_shapes[0]
    check_memory(
        height * width * np.dtype(image.dtypes[0]).itemsize,
        f"One block of {image.name}, {width} x {height} pixels,",
        "divide it into tiles with gdal_translate -co TILED=YES",
    )


def descriptions_of(image: DatasetReader) -> tuple[str | None, ...]:
    """Names of the bands; none where they are not UTF-8."""
    with suppress(UnicodeDecodeError):
        return tuple(image.descriptions)
    return (None,) * image.count


def colours_of(image: DatasetReader | WarpedVRT) -> tuple[ColorInterp, ...]:
    """Colours of the bands. rasterio raises here, once, what GDAL has found wrong with other files
    and rasterio did not raise then."""
    with suppress(*GDAL_ERRORS):
        return tuple(image.colorinterp)
    return tuple(image.colorinterp)


def units_of(image: DatasetReader) -> tuple[str | None, ...]:
    """Units of the bands; none where they are not UTF-8."""
    with suppress(UnicodeDecodeError):
        return tuple(image.units)
    return (None,) * image.count


def bits_of(image: DatasetReader, band: int) -> int | None:
    """Bits in use of a band, as declared (NBITS); None where nothing is, or what its type does not
    have. Those of real numbers are half precision, which says nothing about the values."""
    stated, kind = image.tags(band, ns="IMAGE_STRUCTURE").get("NBITS"), image.dtypes[band - 1]
    possible = () if kind.startswith("float") else range(1, 8 * np.dtype(kind).itemsize + 1)
    return next((bits for bits in possible if str(bits) == stated), None)
