"""Writing the result: on PAN's grid, with MS's bands, and only when it is complete."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetWriter
from rasterio.transform import Affine
from rasterio.windows import Window

from runtime.errors import SSDiffError
from runtime.scene import Scene

_LAYOUT = {
    "tiled": True,
    "blockxsize": 256,
    "blockysize": 256,
    "compress": "deflate",
    "bigtiff": "if_safer",
    "num_threads": "all_cpus",
}
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
DRIVERS = ("GTiff", "COG")


def convert(values: NDArray[np.floating], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Digital numbers to an output type: integers are rounded, then clipped, never wrapped."""
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.rint(values.astype(np.float64)).clip(limits.min, limits.max).astype(dtype)


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
        pixels = np.where(pixels == nodata, _beside(dtype.type(nodata)), pixels)
    return np.where(valid, pixels, dtype.type(nodata or 0))


def _beside(nodata: Any) -> Any:
    if nodata.dtype.kind == "f":
        return np.nextafter(nodata, nodata.dtype.type(np.inf))
    return nodata + 1 if nodata < np.iinfo(nodata.dtype).max else nodata - 1


def holds(dtype: np.dtype[Any], value: float) -> bool:
    """Whether a type has that value, to mean no data."""
    return dtype.kind == "f" or bool(value == convert(np.array(value), dtype))


def check_target(
    path: Path, sources: Iterable[str | Path], overwrite: bool, option: str = "--output"
) -> None:
    """That a file can be written there, and is none that it is made from."""
    if path.exists() and not overwrite:
        raise SSDiffError(f"{path} exists; give another {option} or pass --overwrite.")
    if path.is_dir():
        raise SSDiffError(f"{path} is a directory; name a file for the result.")
    for source in sources:
        if path.exists() and Path(source).exists() and path.samefile(source):
            raise SSDiffError(f"{path} is one of the inputs; give another {option}.")
    if not os.access(path.parent, os.W_OK):
        raise SSDiffError(f"{path.parent} is not a directory that can be written to.")


class Output:
    """The result of a scene, written window by window under a temporary name.

    Used as a context manager: the file gets its name when the block ends well, and is removed
    when it does not.

    Args:
        path: of the result.
        scene: what it is made from; gives grid, georeferencing, bands and how validity is told.
        dtype: a name of :data:`DTYPES`, or None for that of MS.
        driver: ``GTiff`` or ``COG``.
        options: creation options of the driver, over this class's own.
        tags: written into the file.
        overwrite: whether ``path`` may exist.

    Raises:
        SSDiffError: when the result cannot be written there like that.
    """

    def __init__(
        self,
        path: str | Path,
        scene: Scene,
        *,
        dtype: str | None = None,
        driver: str = "GTiff",
        options: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        check_target(self.path, (scene.pan.name, scene.ms.name), overwrite)
        if self.path.suffix.lower() not in (".tif", ".tiff"):
            raise SSDiffError(
                f"The result is a GeoTIFF and {path} is no name for one; end in .tif."
            )
        self._scene, self._driver, self._options = scene, driver, dict(options or {})
        self._dtype = np.dtype(dtype or scene.ms.dtypes[scene.bands[0] - 1])
        self._tags = dict(tags or {})
        self._nodata = self._choose_nodata()
        flags = scene.mask_flags
        holes = flags or scene.resampled or scene.may_have_nan
        self._alpha = self._nodata is None and MaskFlags.alpha in flags
        self._mask = self._nodata is None and not self._alpha and bool(holes)
        self._bands = len(scene.bands) + self._alpha

    def _choose_nodata(self) -> float | None:
        """The first nodata value among the user's, MS's and PAN's that the output type holds."""
        scene = self._scene
        stated = (scene.nodata, scene.ms.nodatavals[scene.bands[0] - 1])
        for value in (*stated, scene.pan.nodatavals[scene.pan_band - 1]):
            if value is not None and holds(self._dtype, value):
                return float(value)
        return None

    def __enter__(self) -> Output:
        with ExitStack() as stack:
            self._scratch = Path(stack.enter_context(self._make_scratch()))
            stack.enter_context(rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True))
            if self._driver == "COG":
                self._try_cog_options()
            self._file = stack.enter_context(self._create())
            self._stack = stack.pop_all()
        return self

    def _make_scratch(self) -> tempfile.TemporaryDirectory[str]:
        """Beside the result, so that giving it its name is one step."""
        try:
            return tempfile.TemporaryDirectory(prefix=f".{self.path.name}.", dir=self.path.parent)
        except OSError as error:
            raise SSDiffError(
                f"Nothing can be written to {self.path.parent} ({error.strerror}); "
                "give another --output."
            ) from error

    def _create(self) -> DatasetWriter:
        scene = self._scene
        rows, cols = scene.output
        profile: dict[str, Any] = {
            "height": len(rows),
            "width": len(cols),
            "count": self._bands,
            "dtype": self._dtype,
            "nodata": self._nodata,
            "crs": scene.pan.crs,
            **_LAYOUT,
            "predictor": 3 if self._dtype.kind == "f" else 2,
        }
        georeferenced = not scene.pan.transform.is_identity
        if georeferenced:
            profile["transform"] = scene.pan.transform * Affine.translation(cols.start, rows.start)
        if self._driver == "GTiff":
            profile |= {key.lower(): value for key, value in self._options.items()}
        with _strict_options(self._driver), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            file = rasterio.open(self._scratch / "result.tif", "w", driver="GTiff", **profile)
        colours = [scene.ms.colorinterp[band - 1] for band in scene.bands]
        colours = [ColorInterp.undefined if c == ColorInterp.alpha else c for c in colours]
        file.colorinterp = [*colours, ColorInterp.alpha][: self._bands]
        for index, band in enumerate(scene.bands, start=1):
            if name := scene.ms.descriptions[band - 1]:
                file.set_band_description(index, name)
        if not georeferenced:
            file.rpcs = scene.pan.rpcs
            if scene.pan.gcps[0]:
                file.gcps = scene.pan.gcps
        file.update_tags(**self._tags)
        return file

    def _try_cog_options(self) -> None:
        """Make a small COG now, since the real one is made when all the work is done."""
        source, target = (self._scratch / name for name in ("trial.tif", "trial.cog.tif"))
        profile = {"height": 16, "width": 16, "count": self._bands, "dtype": self._dtype}
        with _strict_options("COG"), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(source, "w", driver="GTiff", **profile):
                pass
            self._copy_to_cog(source, target)

    def _copy_to_cog(self, source: Path, target: Path) -> None:
        options = {"COMPRESS": "DEFLATE", "PREDICTOR": "YES", "BIGTIFF": "IF_SAFER"}
        options |= {key.upper(): value for key, value in self._options.items()}
        rasterio.shutil.copy(source, target, driver="COG", **options)

    def write(
        self, rows: range, cols: range, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> None:
        """Write a rectangle.

        Args:
            rows: rows of PAN, within the scene's output.
            cols: columns, likewise.
            values: digital numbers ``[C, rows, cols]``.
            valid: ``[rows, cols]``.
        """
        pixels = encode(values, valid, self._dtype, self._nodata)
        top, left = (r.start for r in self._scene.output)
        window = Window(cols.start - left, rows.start - top, len(cols), len(rows))
        indexes = list(range(1, len(values) + 1))
        with self._told_as_mistake():
            self._file.write(pixels, indexes, window=window)
            if self._alpha:
                opaque = np.iinfo(self._dtype).max if self._dtype.kind in "ui" else 255
                self._file.write((valid * opaque).astype(self._dtype), self._bands, window=window)
            if self._mask:
                self._file.write_mask(valid, window=window)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if error is not None:
                return
            with self._told_as_mistake():
                self._file.close()
                result = self._scratch / "result.tif"
                if self._driver == "COG":
                    result = self._scratch / "cog.tif"
                    self._copy_to_cog(self._scratch / "result.tif", result)
                os.replace(result, self.path)

    @contextmanager
    def _told_as_mistake(self) -> Iterator[None]:
        """The disk is full, more often than not."""
        try:
            yield
        except (RasterioError, OSError) as error:
            raise SSDiffError(
                f"{self.path} cannot be written ({error}); is there space on the disk?"
            ) from error


@contextmanager
def _strict_options(driver: str) -> Iterator[None]:
    """Refuse creation options that GDAL would only grumble about."""
    heard: list[str] = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("rasterio._env")
    logger.addHandler(listener)
    try:
        yield
    except (RasterioError, ValueError, TypeError) as error:
        raise SSDiffError(f"{driver} cannot be written like that ({error}).") from error
    finally:
        logger.removeHandler(listener)
    for message in heard:
        if "creation option" in message:
            reason = message.partition(" in ")[2]
            raise SSDiffError(f"A --co option does not work: {reason}; correct it.")
