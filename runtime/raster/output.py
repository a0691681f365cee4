"""The raster that a run writes: on PAN's grid, with MS's bands, and only when it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetWriter
from rasterio.transform import Affine
from rasterio.windows import Window

from ssdiff_trt.runtime.errors import OutputError
from ssdiff_trt.runtime.files import check_parent, scratch_folder
from ssdiff_trt.runtime.options import OutputOptions
from ssdiff_trt.runtime.raster.gdal import GDAL_ERRORS, check_complete, strict_options
from ssdiff_trt.runtime.raster.scene import Scene

_LAYOUT = {
    "TILED": "YES",
    "BLOCKXSIZE": "256",
    "BLOCKYSIZE": "256",
    "COMPRESS": "DEFLATE",
    "BIGTIFF": "IF_SAFER",
}
_COG_LAYOUT = {"COMPRESS": "DEFLATE", "PREDICTOR": "YES", "BIGTIFF": "IF_SAFER"}
_NO_OPTIONS = {"driver", "width", "height", "count", "dtype", "crs", "transform", "nodata", "mode"}
_SIDECARS = (".ovr", ".msk", ".aux.xml")


def convert(values: NDArray[np.floating], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Digital numbers to an output type: integers are rounded, then clipped, never wrapped."""
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    rounded = values.astype(np.promote_types(values.dtype, dtype))  # which holds both exactly
    np.rint(rounded, out=rounded)
    return rounded.clip(limits.min, limits.max, out=rounded).astype(dtype)


def encode(
    values: NDArray[np.floating],
    valid: NDArray[np.bool_],
    dtype: np.dtype[Any],
    nodata: float | None,
) -> NDArray[Any]:
    """Digital numbers as a file stores them, with ``nodata`` where not valid and nowhere else.

    Args:
        values: digital numbers ``[C, H, W]``.
        valid: ``[H, W]``.
        dtype: see :func:`convert`.
        nodata: a value of that type; with None, invalid pixels are 0.
    """
    pixels = convert(values, dtype)
    if nodata is not None:
        # A valid pixel that happens to have the nodata value moves one step away from it.
        pixels[pixels == nodata] = _beside(dtype.type(nodata))
    pixels[:, ~valid] = nodata or 0
    return pixels


def _beside(nodata: Any) -> Any:
    if nodata.dtype.kind == "f":
        return np.nextafter(nodata, nodata.dtype.type(np.inf))
    return nodata + 1 if nodata < np.iinfo(nodata.dtype).max else nodata - 1


def count_clipped(
    values: NDArray[np.floating], valid: NDArray[np.bool_], dtype: np.dtype[Any]
) -> int:
    """Values ``[C, H, W]`` of valid pixels ``[H, W]`` that :func:`convert` clips."""
    if dtype.kind == "f":
        return 0
    limits = np.iinfo(dtype)
    above, below = values >= limits.max + 0.5, values < limits.min - 0.5
    return int(((above | below) & valid).sum())


def holds(dtype: np.dtype[Any], value: float) -> bool:
    """Whether a type has that value, to mean no data."""
    if dtype.kind == "f":
        return True
    return bool(np.isfinite(value) and value == convert(np.array(value, float), dtype))


def check_target(
    path: Path, sources: Iterable[str | Path], overwrite: bool, parameter: str = "output"
) -> None:
    """That a file can be written there, and is none that it is made from.

    Folders above it are made when it is written.

    Raises:
        OutputError: if not.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a directory; name a file for the result.")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; give another `{parameter}` or pass `overwrite`.")
    for source in sources:
        if path.exists() and Path(source).exists() and path.samefile(source):
            raise OutputError(f"{path} is one of the inputs; give another `{parameter}`.")
    check_parent(path)


class RasterOutput:
    """A GeoTIFF on the grid of a scene: a sink.

    Args:
        path: of the result, ``.tif`` or ``.tiff``.
        scene: the pair that the result is made from; gives its grid, georeferencing, bands and how
            invalid pixels are marked.
        options: type, driver, creation options, and whether ``path`` may exist.

    Raises:
        OutputError: when the result cannot be written there like that.

    Attributes:
        path: of the result. Of a link, what it leads to; the link stays.
        clipped: values of valid pixels that the output type could not hold, so far.
    """

    def __init__(self, path: str | Path, scene: Scene, options: OutputOptions) -> None:
        self.path = Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path)
        self._overwrite = options.overwrite
        check_target(self.path, (scene.pan.name, scene.ms.name), options.overwrite)
        if self.path.suffix.lower() not in (".tif", ".tiff"):
            raise OutputError(
                f"The result is a GeoTIFF and {path} is no name for one; end in .tif."
            )
        self._scene, self._driver = scene, options.driver
        self._options = {key.upper(): value for key, value in options.creation_options.items()}
        if odd := sorted(key for key in self._options if key.lower() in _NO_OPTIONS):
            raise OutputError(f"{odd[0]} is no creation option of {self._driver}; leave it out.")
        self._dtype = np.dtype(options.dtype or scene.ms.dtypes[scene.bands[0] - 1])
        self._nodata = self._choose_nodata()
        flags = scene.mask_flags
        holes = flags or scene.resampled or scene.may_have_nan
        self._alpha = self._nodata is None and MaskFlags.alpha in flags
        self._mask = self._nodata is None and not self._alpha and bool(holes)
        self._bands = len(scene.bands) + self._alpha
        self.clipped = 0

    def _choose_nodata(self) -> float | None:
        """The first nodata value among the user's, MS's and PAN's that the output type holds."""
        scene = self._scene
        stated = (scene.nodata, scene.ms.nodatavals[scene.bands[0] - 1])
        for value in (*stated, scene.pan.nodatavals[scene.pan_band - 1]):
            if value is not None and holds(self._dtype, value):
                return float(value)
        return None

    @contextmanager
    def open(self, tags: Mapping[str, str]) -> Iterator[RasterOutput]:
        """See :class:`ssdiff_trt.runtime.sources.Sink`. The file gets its name when all of it is on
        the disk."""
        with scratch_folder(self.path, "output") as scratch:
            self._try_options(scratch)
            path, self.clipped = scratch / "result.tif", 0
            with self._create(path, tags) as self._file:
                yield self
                with self._translate_write_errors():
                    self._file.close()
            with self._translate_write_errors():
                check_complete(path)
                result = self._finished(path)
                check_complete(result)
                if not self._overwrite and self.path.exists():
                    raise OutputError(f"{self.path} was created by another program; it is kept.")
                os.replace(result, self.path)
                for suffix in _SIDECARS:  # of the file that was replaced
                    self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def _layout(self) -> dict[str, str]:
        """Creation options of the GeoTIFF."""
        layout = dict(_LAYOUT)
        if "NBITS" not in self._options:
            layout["PREDICTOR"] = "3" if self._dtype.kind == "f" else "2"
        return layout | (self._options if self._driver == "GTiff" else {})

    def _try_options(self, scratch: Path) -> None:
        """Write a small file like the result, since some options fail only at the end."""
        trial = scratch / "trial.tif"
        size = {"height": 64, "width": 64, "count": self._bands, "dtype": self._dtype}
        with strict_options(self._driver):
            with rasterio.open(trial, "w", driver="GTiff", **size, **self._layout()) as file:
                file.write(np.ones((self._bands, 64, 64), self._dtype))
            try:
                check_complete(self._finished(trial))
            except OSError as error:
                raise ValueError("nothing arrived in the file") from error

    def _finished(self, path: Path) -> Path:
        """A written GeoTIFF, or the COG made of it."""
        if self._driver == "GTiff":
            return path
        cog = path.with_suffix(".cog.tif")
        rasterio.shutil.copy(path, cog, driver="COG", **_COG_LAYOUT | self._options)
        return cog

    def _create(self, path: Path, tags: Mapping[str, str]) -> DatasetWriter:
        scene = self._scene
        rows, cols = scene.output
        profile: dict[str, Any] = {
            "height": len(rows),
            "width": len(cols),
            "count": self._bands,
            "dtype": self._dtype,
            "nodata": self._nodata,
            "crs": scene.pan.crs,
        }
        georeferenced = not scene.pan.transform.is_identity
        if georeferenced:
            profile["transform"] = scene.pan.transform * Affine.translation(cols.start, rows.start)
        with strict_options(self._driver):
            file = rasterio.open(path, "w", driver="GTiff", **profile, **self._layout())
        colours = [scene.ms.colorinterp[band - 1] for band in scene.bands]
        colours = [ColorInterp.undefined if c == ColorInterp.alpha else c for c in colours]
        file.colorinterp = [*colours, ColorInterp.alpha][: self._bands]
        for index, band in enumerate(scene.bands, start=1):
            if name := scene.ms.descriptions[band - 1]:
                file.set_band_description(index, name)
        if not georeferenced and scene.pan.rpcs:
            file.rpcs = scene.pan.rpcs
        if not georeferenced and scene.pan.gcps[0]:
            file.gcps = scene.pan.gcps
        file.update_tags(**tags)
        return file

    def write(
        self, rows: range, cols: range, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> None:
        """See :class:`ssdiff_trt.runtime.sources.Writer`."""
        self.clipped += count_clipped(values, valid, self._dtype)
        pixels = encode(values, valid, self._dtype, self._nodata)
        top, left = (r.start for r in self._scene.output)
        window = Window(cols.start - left, rows.start - top, len(cols), len(rows))
        indexes = list(range(1, len(values) + 1))
        with self._translate_write_errors():
            self._file.write(pixels, indexes, window=window)
            if self._alpha:
                opaque = np.iinfo(self._dtype).max if self._dtype.kind in "ui" else 255
                self._file.write((valid * opaque).astype(self._dtype), self._bands, window=window)
            if self._mask:
                with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):  # of this thread, whichever it is
                    self._file.write_mask(valid, window=window)

    @contextmanager
    def _translate_write_errors(self) -> Iterator[None]:
        try:
            yield
        except (*GDAL_ERRORS, OSError) as error:
            raise OutputError(
                f"{self.path} cannot be written ({error}); is the disk full?"
            ) from error
