"""Wald's protocol on rasters: writes a pair degraded by 4, and its ground truth."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from scipy import ndimage

from ssdiff_ref.protocol.datasets import read_whole
from ssdiff_ref.protocol.simulation import degrade
from ssdiff_ref.quality.checks import Mask, fit_sensor
from ssdiff_ref.quality.filters import BICUBIC_BEFORE, BICUBIC_SUPPORT, REACH, decimate
from ssdiff_trt.runtime.errors import InputError, OutputError
from ssdiff_trt.runtime.files import check_target
from ssdiff_trt.runtime.interpolator import GROUND_POSITION, PROTOCOL_POSITION, RATIO
from ssdiff_trt.runtime.options import ReadOptions
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.raster.affine import product
from ssdiff_trt.runtime.raster.bands import colours
from ssdiff_trt.runtime.raster.encoding import encode, holds
from ssdiff_trt.runtime.raster.fingerprint import every_file
from ssdiff_trt.runtime.raster.gdal import GDAL_ERRORS, check_complete
from ssdiff_trt.runtime.raster.header import descriptions_of
from ssdiff_trt.runtime.raster.image import Holes
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.scratch import scratch_folder
from ssdiff_trt.runtime.sensors import Sensor
from ssdiff_trt.runtime.tiles.inputs import fill

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ssdiff_trt.runtime.options import ReadArguments

FILES = ("pan.tif", "ms.tif", "reference.tif")
"""Names of the files that :func:`simulate` writes."""


def simulate(
    pan: str | Path,
    ms: str | Path,
    output: str | Path,
    *,
    sensor: str = "generic",
    overwrite: bool = False,
    progress: Progress | None = None,
    **reading: Unpack[ReadArguments],
) -> Path:
    """Degrade a pair of rasters by Wald's protocol, so that MS is the ground truth of the result.

    Writes three GeoTIFFs: ``reference.tif``, MS unchanged; ``pan.tif``, PAN shrunk to the grid of
    MS; ``ms.tif``, MS blurred by the sensor's MTF and decimated by 4. As is usual for this
    protocol, the centre of pixel n of ``ms.tif`` is that of pixel 4 n + 2 of ``pan.tif``, half a
    pixel further than on aligned grids; its georeferencing states this offset.

    The files have the data types of PAN and MS. A pixel is nodata if any pixel that was filtered
    into it is. Either all three files are written or none. The whole scene is held in memory.

    Args:
        pan: panchromatic raster.
        ms: multispectral raster with 4 times the pixel size.
        output: directory to write to; created if missing.
        sensor: sensor whose MTF blurs MS, a name of
            :data:`ssdiff_trt.runtime.sensors.SENSORS`.
        overwrite: whether to replace existing files.
        progress: receives notes and warnings.
        reading: fields of :class:`ssdiff_trt.runtime.options.ReadOptions`.

    Returns:
        The directory.

    Raises:
        SSDiffError: if the two do not form a pair, no valid pixel remains, or the files cannot be
            written.
    """
    progress, folder = progress or Progress(), Path(output)
    _check_folder(folder, (pan, ms), overwrite)
    with Scene(pan, ms, ReadOptions(**reading)) as scene:
        for warning in scene.warnings:
            progress.warn(warning)
        optics = fit_sensor(sensor, len(scene.bands))
        layers = _degrade(scene, optics)
        tags = {
            "TIFFTAG_SOFTWARE": f"ssdiff-trt {version('ssdiff-trt')}",
            "SSDIFF_PROTOCOL": f"Wald, MTF of {optics.name}",
        }
        with scratch_folder(folder.absolute(), "output") as scratch:
            staging = scratch / "staging"
            staging.mkdir()
            try:
                for layer in layers:
                    _write(staging / layer.name, scene, layer, tags)
                    check_complete(staging / layer.name)
            except (*GDAL_ERRORS, OSError) as error:
                raise OutputError(
                    f"{folder} cannot be written ({error}); is the disk full?"
                ) from error
            if folder.exists():
                for layer in layers:
                    os.replace(staging / layer.name, folder / layer.name)
            else:
                os.rename(staging, folder)
    progress.note(f"MTF of {optics.name}: {optics.mtf_source}")
    if scene.resampled:
        progress.warn("MS had to be warped to PAN's grid (Lanczos); the reference is the warped MS")
    for layer in layers:
        height, width = layer.valid.shape
        nodata_share = "" if layer.valid.all() else f", {1 - layer.valid.mean():.1%} nodata"
        progress.note(f"{folder / layer.name}: {width} x {height}{nodata_share}")
    return folder


@dataclass(frozen=True)
class _Layer:
    """An output file."""

    name: str
    source: DatasetReader
    """Raster that determines data type, nodata value and band names."""
    holes: Holes
    """Which of its values mean no data."""
    bands: Sequence[int]
    """Bands of ``source``, counted from 1."""
    grid: Affine
    values: NDArray[np.floating[Any]]
    valid: Mask


def _degrade(scene: Scene, sensor: Sensor) -> list[_Layer]:
    whole = read_whole(scene)
    # MS is decimated by 4, so its sides have to be multiples of 4.
    height, width = (size - size % RATIO for size in whole.ms_valid.shape)
    if not (height and width):
        raise InputError(
            f"PAN and MS share {whole.ms_valid.shape[0]} x {whole.ms_valid.shape[1]} pixels of MS, "
            f"expected {RATIO} x {RATIO} or more; give a larger pair."
        )
    coarse, fine = np.s_[..., :height, :width], np.s_[..., : RATIO * height, : RATIO * width]
    ms, ms_valid = whole.ms[coarse], whole.ms_valid[coarse]
    pan, pan_valid = whole.pan[fine], whole.pan_valid[fine]
    ms_lr, pan_lr = degrade(
        fill(ms, ms_valid), fill(pan[None], pan_valid)[0], sensor, whole.position
    )
    ms_lr_valid, pan_lr_valid = _reduced_ms_valid(ms_valid), _reduced_pan_valid(pan_valid)
    if not (ms_lr_valid.any() and pan_lr_valid.any()):
        raise InputError(
            f"Every pixel of {scene.ms.name} is nodata or within {REACH} pixels of it, expected "
            "some that are not; give an area with less nodata."
        )
    grid = _ms_grid(scene, whole.rows.start, whole.cols.start)
    half = PROTOCOL_POSITION - GROUND_POSITION
    coarse_grid = product(grid, Affine.translation(half, half), Affine.scale(RATIO))
    order = list(scene.file_order)
    pan_bands, of_ms = [scene.pan_band], (scene.ms, scene.ms_holes, scene.output_bands)
    return [
        _Layer("pan.tif", scene.pan, scene.pan_holes, pan_bands, grid, pan_lr[None], pan_lr_valid),
        _Layer("ms.tif", *of_ms, coarse_grid, ms_lr[order], ms_lr_valid),
        _Layer("reference.tif", *of_ms, grid, ms[order], ms_valid),
    ]


def _ms_grid(scene: Scene, row: int, col: int) -> Affine:
    """Transform of MS starting at a row and column of PAN, in the CRS of PAN."""
    down, right = (position - GROUND_POSITION for position in scene.position)
    corner = product(scene.pan.transform, Affine.translation(col + right, row + down))
    if scene.ms_transform is None:
        # Without georeferencing the unit is pixels of PAN: the transform still has to state the
        # half-pixel offset between the reduced grids.
        return product(corner, Affine.scale(RATIO))
    ms_col, ms_row = product(~scene.ms_transform, corner, (0, 0))
    return product(scene.ms_transform, Affine.translation(round(ms_col), round(ms_row)))


def _check_folder(folder: Path, sources: Sequence[str | Path], overwrite: bool) -> None:
    if os.path.exists(folder) and not folder.is_dir():
        raise InputError(f"{folder} is a file, expected a directory; give another `output`.")
    if os.path.isdir(folder):
        inputs = every_file(*sources)
        for name in FILES:
            check_target(folder / name, inputs, overwrite)
    else:
        check_target(folder, (), overwrite)


def _reduced_ms_valid(valid: Mask) -> Mask:
    """True where all pixels that were blurred into a pixel of the reduced MS are valid."""
    inner: Mask = ndimage.minimum_filter(valid, size=2 * REACH + 1, mode="nearest")
    return decimate(inner)


def _reduced_pan_valid(valid: Mask) -> Mask:
    """True where all pixels that contribute to a pixel of the reduced PAN are valid."""
    shift = BICUBIC_BEFORE - BICUBIC_SUPPORT // 2
    inner: Mask = ndimage.minimum_filter(valid, size=BICUBIC_SUPPORT, mode="reflect", origin=shift)
    return inner[::RATIO, ::RATIO]


def _write(path: Path, scene: Scene, layer: _Layer, tags: dict[str, str]) -> None:
    source, first = layer.source, layer.bands[0] - 1
    dtype = np.dtype(source.dtypes[first])
    declared = source.nodatavals[first]
    stated = declared if layer.holes.nodata is None else layer.holes.nodata
    nodata = stated if stated is not None and holds(dtype, stated) else None
    profile = {
        "driver": "GTiff",
        "height": layer.valid.shape[0],
        "width": layer.valid.shape[1],
        "count": len(layer.values),
        "dtype": dtype,
        "nodata": nodata,
        "crs": scene.pan.crs,
        "transform": layer.grid,
        "tiled": True,
        "compress": "deflate",
        "predictor": 3 if dtype.kind == "f" else 2,
    }
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as file:
        file.colorinterp = colours(source, layer.bands)
        names = descriptions_of(source)
        for index, band in enumerate(layer.bands, start=1):
            if name := names[band - 1]:
                file.set_band_description(index, name)
        file.update_tags(**tags)
        file.write(encode(layer.values, layer.valid, dtype, nodata))
        if nodata is None and not layer.valid.all():
            file.write_mask(layer.valid)
