"""The raster that a run writes: on PAN's grid, with MS's bands, and only when it is complete."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.transform import Affine
from rasterio.windows import Window

from ssdiff_trt.runtime.errors import OutputError
from ssdiff_trt.runtime.files import behind_link, check_target
from ssdiff_trt.runtime.options import OutputOptions
from ssdiff_trt.runtime.raster.affine import product
from ssdiff_trt.runtime.raster.bands import colours
from ssdiff_trt.runtime.raster.checks import check_type
from ssdiff_trt.runtime.raster.encoding import Scaling, count_clipped, encode, holds
from ssdiff_trt.runtime.raster.fingerprint import every_file
from ssdiff_trt.runtime.raster.gdal import (
    GDAL_ERRORS,
    FilledBlocks,
    add_overviews,
    check_complete,
    strict_options,
    write_pixels,
)
from ssdiff_trt.runtime.raster.header import SIDECARS, descriptions_of
from ssdiff_trt.runtime.raster.metadata import carry_metadata
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.scratch import scratch_folder
from ssdiff_trt.runtime.sources import Rectangle

TILED = {
    "TILED": "YES",
    "BLOCKXSIZE": "256",
    "BLOCKYSIZE": "256",
    "COMPRESS": "DEFLATE",
    "BIGTIFF": "IF_SAFER",
}
"""Creation options of a GeoTIFF, if the user gives no others."""
_COG_LAYOUT = {"COMPRESS": "DEFLATE", "PREDICTOR": "YES", "BIGTIFF": "IF_SAFER"}
_NO_OPTIONS = {"driver", "width", "height", "count", "dtype", "crs", "transform", "nodata", "mode"}
_NBITS = {"uint8": (1, 8), "uint16": (9, 16), "uint32": (17, 32), "float32": (16, 16)}
"""Fewest and most bits that GDAL stores of a type."""


class RasterOutput:
    """A GeoTIFF on the grid of a scene: a sink.

    Args:
        path: of the result, ``.tif`` or ``.tiff``.
        scene: the pair that the result is made from; gives its grid, georeferencing, bands and how
            invalid pixels are marked.
        options: type, driver, creation options, and whether ``path`` may exist.
        extent: rows and columns of PAN that it has; by default all that the scene gives.

    Raises:
        OutputError: when the result cannot be written there like that.

    Attributes:
        path: of the result. Of a link, what it leads to; the link stays.
        dtype: type of its values.
        bands: number of them.
        names: of its bands, None where there is none.
        colours: of its bands.
        size: bytes of its values.
        inputs: every file that it is made from.
        is_copied: whether it is written twice, a COG from a GeoTIFF.
        marks_by_mask: whether a mask says what is not valid, rather than a nodata value.
        clipped: values of valid pixels that the output type could not hold, so far.
        warnings: one sentence each.
    """

    parameter = "output"
    """What names :attr:`path`, for messages."""

    def __init__(
        self,
        path: str | Path,
        scene: Scene,
        options: OutputOptions,
        extent: Rectangle | None = None,
    ) -> None:
        self.path = behind_link(Path(path))
        self._overwrite = options.overwrite
        if os.path.isdir(self.path):
            raise OutputError(f"{path} is a directory; name a file for the result.")
        self.inputs = every_file(scene.pan, scene.ms)
        for suffix in ("", *SIDECARS):
            target = self.path.with_name(self.path.name + suffix)
            check_target(target, self.inputs, options.overwrite, self.parameter)
        if self.path.suffix.lower() not in (".tif", ".tiff"):
            raise OutputError(
                f"The result is a GeoTIFF and {path} is no name for one; end in .tif."
            )
        try:
            str(self.path).encode()
        except UnicodeEncodeError:
            raise OutputError(
                f"The name {path} is not UTF-8, as GDAL expects; give another `{self.parameter}`."
            ) from None
        self._scene, self._driver = scene, options.driver
        self.is_copied = self._driver == "COG"
        self._options = {key.upper(): value for key, value in options.creation_options.items()}
        if odd := sorted(key for key in self._options if key.lower() in _NO_OPTIONS):
            raise OutputError(f"{odd[0]} is no creation option of {self._driver}; leave it out.")
        self.dtype = np.dtype(options.dtype or scene.ms.dtypes[scene.output_bands[0] - 1])
        names = descriptions_of(scene.ms)
        self.names = [names[band - 1] for band in scene.output_bands]
        self.colours = colours(scene.ms, scene.output_bands)
        self.bands, self._crs, self._transform = len(self.names), scene.pan.crs, scene.pan.transform
        self._bits = self._check_bits()
        check_type(scene, self.dtype, options.scale)
        self._scaling = Scaling.of(options.scale, self.dtype, self._bits)
        self._overviews = options.overviews
        self.size = self.dtype.itemsize * self.bands * math.prod(map(len, extent or scene.output))
        self.warnings: tuple[str, ...] = ()
        self._nodata = self._choose_nodata()
        self.marks_by_mask = self._nodata is None and scene.may_have_holes
        self.clipped = 0
        self._filled: FilledBlocks | None = None  # of a sparse file

    def _check_bits(self) -> int | None:
        """Bits that are stored, if fewer than the type has."""
        stated = self._options.get("NBITS")
        if stated is None:
            return None
        fewest, most = _NBITS.get(self.dtype.name, (0, 0))
        if not (stated.isdecimal() and fewest <= int(stated) <= most):
            known = ", ".join(f"{low} to {high} for {name}" for name, (low, high) in _NBITS.items())
            raise OutputError(
                f"NBITS={stated} does not work with {self.dtype.name}, expected {known}; change "
                "NBITS or `dtype`."
            )
        return int(stated) if int(stated) < 8 * self.dtype.itemsize else None

    def _choose_nodata(self) -> float | None:
        """The first nodata value of MS or PAN, stated before declared, that the file can have.

        Without one, a mask marks the holes: GDAL sees it in any file, but alpha only beside 1 or 3
        bands.
        """
        scene = self._scene
        ms = scene.ms_holes.nodata, scene.ms.nodatavals[scene.output_bands[0] - 1]
        pan = scene.pan_holes.nodata, scene.pan.nodatavals[scene.pan_band - 1]
        candidates = [value for value in (*ms, *pan) if value is not None]
        fitting = [float(v) for v in candidates if holds(self.dtype, v, self._bits)]
        with tempfile.TemporaryDirectory() as scratch:
            if self._try_options(Path(scratch), *fitting[:1]):
                return next(iter(fitting), None)
        self.warnings += (
            f"this compression changes values, and with them nodata {fitting[0]:g}; the holes of "
            "the result are a mask instead",
        )
        return None

    @contextmanager
    def open(self, extent: Rectangle, tags: Mapping[str, str]) -> Iterator[RasterOutput]:
        """Write the result; it gets its name when all of it is on the disk, at the end of the
        context, and is nowhere if that ends in an exception.

        Args:
            extent: rows and columns of PAN that the result has.
            tags: provenance, by name.
        """
        with (
            scratch_folder(self.path, self.parameter) as scratch,
            self.written_in(scratch, extent, tags),
        ):
            yield self

    @contextmanager
    def written_in(
        self, scratch: Path, extent: Rectangle, tags: Mapping[str, str]
    ) -> Iterator[None]:
        """As :meth:`open`, in a scratch folder on the same disk."""
        path, self._extent, self.clipped = scratch / "result.tif", extent, 0
        with self._create(path, tags) as self._file:
            if self._options.get("SPARSE_OK", "NO").upper() in ("YES", "TRUE", "ON"):
                self._filled = FilledBlocks(self._file.block_shapes[0])
            yield
            with self.translated_errors():
                self._file.close()
        with self.translated_errors():
            check_complete(path, self._filled.lack if self._filled else None)
            result = self._finished(path)
            if self._overviews and self._driver == "GTiff":
                add_overviews(result)
            with rasterio.open(path) as written:
                empty = partial(self._is_empty, written) if self._filled else None
                check_complete(result, empty)
            if not self._overwrite and self.path.exists():
                raise OutputError(f"{self.path} was created by another program; it is kept.")
            beside = list(self._beside(result))
            for _, place in beside:
                check_target(place, self.inputs, self._overwrite, self.parameter)
            for suffix in SIDECARS:  # of the file that is replaced
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            for sidecar, place in beside:
                os.replace(sidecar, place)
            os.replace(result, self.path)

    def _is_empty(self, file: DatasetReader, block: Window) -> bool:
        """Whether a block of the result is nothing but nodata or 0."""
        read = file.read if self._nodata is None else file.read_masks
        return not read(window=block).any()

    def _beside(self, result: Path) -> Iterator[tuple[Path, Path]]:
        """Files that GDAL wrote beside the result, such as ``.tfw``, and where they belong."""
        for file in result.parent.glob(f"{result.stem}[._]*"):
            if file.name.startswith(f"{result.name}."):
                yield file, self.path.with_name(self.path.name + file.name[len(result.name) :])
            elif file != result:
                yield file, self.path.with_name(self.path.stem + file.name[len(result.stem) :])

    def _layout(self) -> dict[str, str]:
        """Creation options of the GeoTIFF."""
        layout = dict(TILED)
        if "NBITS" not in self._options:
            layout["PREDICTOR"] = "3" if self.dtype.kind == "f" else "2"
        return layout | (self._options if self._driver == "GTiff" else {})

    def _try_options(self, scratch: Path, nodata: float | None = None) -> bool:
        """Write small files like the result, since some options fail only at the end, and find
        whether the nodata value stays where it was, there and in overviews."""
        overviews = self._options.get("OVERVIEW_COMPRESS", "AUTO")
        changes = [{}] if overviews.upper() == "AUTO" else [{}, {"COMPRESS": overviews}]
        kept = [self._try(scratch, nodata, change) for change in changes]
        return all(kept)

    def _try(self, scratch: Path, nodata: float | None, change: Mapping[str, str]) -> bool:
        trial, rng = scratch / "trial.tif", np.random.default_rng(0)
        bands, valid = len(self._scene.bands), rng.random((64, 64)) < 0.5
        size = {"height": 64, "width": 64, "count": bands, "dtype": self.dtype}
        profile = {**size, "nodata": nodata, **self._layout()}
        values = np.full((bands, 64, 64), 100, np.float32)  # small when compressed
        with strict_options(self._driver):
            with rasterio.open(trial, "w", driver="GTiff", **profile) as file:
                file.colorinterp = self.colours
                file.write(encode(values, valid, self.dtype, nodata, self._bits))
            try:
                finished = self._finished(trial, change)
                check_complete(finished)
            except OSError as error:
                raise ValueError("nothing arrived in the file") from error
            with rasterio.open(finished) as file:
                return nodata is None or bool(((file.read_masks() > 0) == valid).all())

    def _finished(self, path: Path, change: Mapping[str, str] | None = None) -> Path:
        """A written GeoTIFF, or the COG made of it, with a change of the options."""
        if self._driver == "GTiff":
            return path
        cog, layout = path.with_name(f"cog-{path.name}"), dict(_COG_LAYOUT)
        if "NBITS" in self._options:
            del layout["PREDICTOR"]  # which is for whole bytes
        if self._overviews:
            layout["STATISTICS"] = "YES"  # overviews are part of any COG
        options = layout | self._options | dict(change or {})
        rasterio.shutil.copy(path, cog, driver="COG", **options)
        return cog

    def _create(self, path: Path, tags: Mapping[str, str]) -> DatasetWriter:
        scene, (rows, cols) = self._scene, self._extent
        profile = self.profile(rows, cols)
        with strict_options(self._driver):
            file = rasterio.open(path, "w", driver="GTiff", **profile, **self._layout())
        file.colorinterp = self.colours
        for index, name in enumerate(self.names, start=1):
            if name:
                file.set_band_description(index, name)
        if scene.pan.rpcs:
            rpcs = copy(scene.pan.rpcs)
            rpcs.line_off -= rows.start
            rpcs.samp_off -= cols.start
            file.rpcs = rpcs
        points, crs = scene.pan.gcps
        if points and "transform" not in profile:  # a GeoTIFF has either a geotransform or GCPs
            points = [copy(point) for point in points]
            for point in points:
                point.row -= rows.start
                point.col -= cols.start
            file.gcps = points, crs or rasterio.crs.CRS()
        carry_metadata(file, scene.pan, scene.ms, scene.output_bands, self._scaling.inverse)
        file.update_tags(**tags)
        return file

    def profile(self, rows: range, cols: range) -> dict[str, Any]:
        """Size, type, nodata and georeferencing of a file with a part of the result.

        Args:
            rows: rows of PAN.
            cols: columns of PAN.
        """
        profile: dict[str, Any] = {
            "height": len(rows),
            "width": len(cols),
            "count": self.bands,
            "dtype": self.dtype,
            "nodata": self._nodata,
            "crs": self._crs,
        }
        if not self._transform.is_identity:
            moved = Affine.translation(cols.start, rows.start)
            profile["transform"] = product(self._transform, moved)
        return profile

    @property
    def block_shape(self) -> tuple[int, int]:
        """Height and width in pixels of the blocks that the file stores, while it is open."""
        height, width = self._file.block_shapes[0]
        return height, width

    @property
    def encoding(self) -> dict[str, str]:
        """What the values depend on that :meth:`encode` gives, by name."""
        return {
            "data type": f"{self.dtype}{f' of {self._bits} bits' if self._bits else ''}",
            "nodata": str(self._nodata),
            "scale": str(self._scaling.inverse),
        }

    def encode(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> tuple[NDArray[Any], int]:
        """Digital numbers ``[C, H, W]``, bands in the order of the network, as the file has them;
        and how many values of valid pixels ``[H, W]`` it cannot hold."""
        values = self._scaling.apply(values[list(self._scene.file_order)])
        clipped = count_clipped(values, valid, self.dtype, self._bits)
        return encode(values, valid, self.dtype, self._nodata, self._bits), clipped

    def write(
        self, rows: range, cols: range, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> None:
        """See :class:`ssdiff_trt.runtime.sources.Writer`."""
        pixels, clipped = self.encode(values, valid)
        self.clipped += clipped
        self.write_encoded(rows, cols, pixels, valid)

    def write_encoded(
        self, rows: range, cols: range, pixels: NDArray[Any], valid: NDArray[np.bool_]
    ) -> None:
        """Write a rectangle, given as :meth:`encode` gives it."""
        top, left = (r.start for r in self._extent)
        window = Window(cols.start - left, rows.start - top, len(cols), len(rows))
        if self._filled:
            filled = valid if self._nodata is not None else (pixels != 0).any(axis=0)
            self._filled.add(filled, window)
        with self.translated_errors():
            write_pixels(self._file, pixels, valid if self.marks_by_mask else None, window)

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        try:
            with rasterio.Env():  # without it, GDAL prints on standard error in other threads
                yield
        except (*GDAL_ERRORS, OSError) as error:
            folder, cause = self.path.parent, "is the disk full?"
            if not folder.is_dir():
                cause = f"{folder} was removed"
            elif isinstance(error, FileNotFoundError):
                cause = f"something in {folder} was removed"
            raise OutputError(f"{self.path} cannot be written ({error}); {cause}") from error
