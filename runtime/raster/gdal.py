"""Errors for GDAL's warnings about creation options, for write failures it does not report, and for
servers that do not answer; no code in rasters, and no waiting for standard input."""

from __future__ import annotations

import logging
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._env import set_gdal_config
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.windows import Window

from ssdiff_trt.runtime.errors import OutputError

GDAL_ERRORS = (RasterioError, CPLE_BaseError, UnicodeEncodeError)
"""Exceptions that rasterio raises when GDAL fails, some not subclasses of RasterioError, and for a
name that is not UTF-8."""
_NO_VALUES = ValueError, ArithmeticError, LookupError, SystemError, MemoryError
READ_ERRORS = (*GDAL_ERRORS, *_NO_VALUES)
"""Exceptions that rasterio raises of what a file contains: also values that are none or lack, texts
that are not UTF-8, and sizes that no memory holds."""
DATA_TYPES = {
    **{"uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16"},
    **{"uint32": "UInt32", "int32": "Int32", "float32": "Float32", "float64": "Float64"},
    **{"uint64": "UInt64", "int64": "Int64"},
}
"""GDAL's names of data types, by those of numpy."""


# Of itself GDAL waits without end for a server that is silent, and for standard input where a
# raster names it. In the environment these hold for every thread, and leave own values as they are.
for _name, _value in {
    "GDAL_HTTP_CONNECTTIMEOUT": 30,
    "GDAL_HTTP_TIMEOUT": 300,  # of one request, usually for a few blocks
    "GDAL_HTTP_LOW_SPEED_TIME": 30,
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1,  # bytes per second
    "GDAL_HTTP_MAX_RETRY": 2,
    "GDAL_HTTP_RETRY_DELAY": 1,
    "CPL_ALLOW_VSISTDIN": "NO",  # it is read more than once, which no pipe can be
}.items():
    os.environ.setdefault(_name, str(_value))

# A VRT can contain Python code for its pixels. It is not run, whatever the environment or GDAL's
# configuration file allow: the variable holds if GDAL reads that file later, the option if it has.
os.environ["GDAL_VRT_ENABLE_PYTHON"] = "NO"
set_gdal_config("GDAL_VRT_ENABLE_PYTHON", "NO")

_SMALLEST_OVERVIEW = 256  # pixels along the longer side; a smaller one is of no use


_SERVERS = re.compile(
    r"(https?|s3|gs|az|oss|webhdfs)(\+\w+)?://|/vsi(curl|s3|gs|az|adls|oss|webhdfs|swift)"
)
_ON_SERVERS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".tif,.tiff,.aux.xml,.msk",
}


@contextmanager
def few_requests(raster: str | Path) -> Iterator[bool]:
    """Context manager in which GDAL asks a server for few files beside a TIFF.

    It would list the folder, and ask for 30 files that may be there. Those with nodata, metadata
    and the mask remain, unless the environment says otherwise.

    Args:
        raster: name of the TIFF, or of any other raster, for which nothing changes.

    Yields:
        Whether it is a TIFF on a server.
    """
    name = str(raster)
    if not (_SERVERS.match(name) and name.lower().endswith((".tif", ".tiff"))):
        yield False
        return
    chosen = {key: value for key, value in _ON_SERVERS.items() if key not in os.environ}
    with rasterio.Env(**chosen):
        yield True


def open_dataset(raster: str | Path) -> DatasetReader:
    """Open a raster with rasterio, which it raises errors like; see :func:`few_requests`."""
    with without_georeferencing_warnings(), few_requests(raster) as on_server:
        dataset = rasterio.open(raster)
        if on_server:  # what GDAL asks for when it is first needed, it asks for now
            _ = dataset.tags(), dataset.rpcs, dataset.overviews(1), dataset.mask_flag_enums
        return dataset


@contextmanager
def without_georeferencing_warnings() -> Iterator[None]:
    """Suppress rasterio's warning about rasters without georeferencing, which are supported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def strict_options(driver: str) -> Iterator[None]:
    """Context manager around the creation of a file that turns GDAL's warnings into errors.

    Raises:
        OutputError: if GDAL cannot create the file, or warns about a creation option.
    """
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("rasterio._env")
    logger.addHandler(handler)
    try:
        with without_georeferencing_warnings():
            yield
    except (*GDAL_ERRORS, ValueError, TypeError) as error:
        raise OutputError(
            f"{driver} cannot be written like that ({error}); check `creation_options` and `dtype`."
        ) from error
    finally:
        logger.removeHandler(handler)
    for message in messages:
        if "creation option" in message:
            reason = message.partition(" in ")[2]
            raise OutputError(f"A creation option does not work: {reason}; correct it.")


def add_overviews(path: Path) -> None:
    """Add overviews, averaged by 2, 4, 8 and so on, and exact statistics to a GeoTIFF."""
    with without_georeferencing_warnings(), rasterio.open(path, "r+") as file:
        levels = range(1, max(1, math.ceil(math.log2(max(file.shape) / _SMALLEST_OVERVIEW)) + 1))
        file.build_overviews([2**level for level in levels], Resampling.average)
        file.update_stats(approx=False)


class FilledBlocks:
    """The blocks of a file to which anything but nodata or 0 was written.

    Args:
        block: height and width of a block in pixels.
    """

    def __init__(self, block: tuple[int, int]) -> None:
        self._height, self._width = block
        self._filled: set[tuple[int, int]] = set()

    def add(self, pixels: NDArray[np.bool_], window: Window) -> None:
        """Record what was written to a window: ``pixels`` ``[H, W]`` are filled."""
        rows, cols = np.nonzero(pixels)
        row, col = (rows + window.row_off) // self._height, (cols + window.col_off) // self._width
        self._filled |= {(int(i.real), int(i.imag)) for i in np.unique(row + 1j * col)}

    def lack(self, block: Window) -> bool:
        """Whether a block of the file is none of them."""
        return (block.row_off // self._height, block.col_off // self._width) not in self._filled


def write_pixels(
    file: DatasetWriter, pixels: NDArray[Any], valid: NDArray[np.bool_] | None, window: Window
) -> None:
    """Write pixels ``[C, H, W]`` to a window of a GeoTIFF, and which are valid to its mask."""
    file.write(pixels, window=window)
    if valid is not None:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):  # of this thread, whichever it is
            file.write_mask(valid, window=window)


def check_complete(path: Path, is_empty: Callable[[Window], bool] | None = None) -> None:
    """Check that every block of a GeoTIFF is in the file.

    GDAL writes the last blocks when it closes a file, and rasterio does not report a failure then.

    Args:
        path: of the file.
        is_empty: whether a block may be missing, as nothing but nodata or 0 was written to it and
            the file is sparse; None if it is not.

    Raises:
        OSError: if a block is missing or truncated.
    """
    size = path.stat().st_size
    with without_georeferencing_warnings(), rasterio.open(path) as file:
        bands = file.indexes if file.interleaving.name == "band" else [1]
        for (row, col), block in file.block_windows(1):
            for band in bands:
                offset, length = (
                    file.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=band)
                    for what in ("OFFSET", "SIZE")
                )
                if offset is None and is_empty and is_empty(block):
                    continue
                if offset is None or int(offset) + int(length) > size:
                    raise OSError("the file is truncated")
