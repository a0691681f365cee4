"""Classical methods on rasters: the same scenes and the same kind of file as a run."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssdiff_ref.classical.baselines import METHODS, find_method
from ssdiff_ref.protocol.pair import Pair
from ssdiff_ref.quality.checks import fit_sensor
from ssdiff_trt.runtime.arguments import check_shift, none_left, take
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.memory import check_memory, check_space
from ssdiff_trt.runtime.options import OutputOptions, ReadOptions, ShiftChoice
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.raster.checks import (
    check_holes,
    clipped_warning,
    partly_zero,
    partly_zero_warning,
)
from ssdiff_trt.runtime.raster.image import BandFiles, Raster, name_of
from ssdiff_trt.runtime.raster.output import RasterOutput
from ssdiff_trt.runtime.raster.registration import choose_shift, moved_by, shift_warnings
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.sensors import Sensor
from ssdiff_trt.runtime.sources import Pixels
from ssdiff_trt.runtime.tiles.inputs import fill

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ssdiff_trt.runtime.options import FuseArguments

_LEAST_IMAGES = 2.5
"""Copies that any method holds: interpolated MS in float32 and float64, and the result."""
_IMAGES = 8
"""Largest number of copies of the result that a method holds, in float64."""
_LARGE = 4e9
"""Bytes of memory above which a warning is given."""


def fuse(
    pan: Raster,
    ms: Raster | BandFiles,
    output: str | Path | None = None,
    *,
    method: str,
    sensor: str = "generic",
    shift: ShiftChoice = "none",
    progress: Progress | None = None,
    **options: Unpack[FuseArguments],
) -> Path:
    """Fuse ``pan`` and ``ms`` into ``output`` by a classical method.

    The whole scene is held in memory, because the methods use statistics of all of it. Holes of
    PAN and MS are filled from the pixels around them before, and are holes of the result: no
    statistic sees a nodata value, but a large hole counts as the smooth surface that fills it.

    Args:
        pan: panchromatic raster.
        ms: multispectral raster with 4 times the pixel size.
        output: GeoTIFF to write; by default ``MS_METHOD.tif`` in the current directory.
        method: a name of :data:`ssdiff_ref.classical.baselines.METHODS`, in any case.
        sensor: that acquired the imagery, a name of :data:`ssdiff_trt.runtime.sensors.SENSORS`;
            its MTF is used by the methods with MTF in their names and by BDSD-PC.
        shift: as in :class:`ssdiff_trt.runtime.options.PairOptions`; by default MS is not moved.
        progress: receives progress updates.
        options: fields of :class:`ssdiff_trt.runtime.options.ReadOptions` and
            :class:`ssdiff_trt.runtime.options.OutputOptions`.

    Returns:
        The output.

    Raises:
        SSDiffError: when the input cannot be used; without leaving an output.
    """
    progress, method = progress or Progress(), find_method(method)
    check_shift(shift)
    arguments: dict[str, Any] = dict(options)
    reading, writing = take(ReadOptions, arguments), take(OutputOptions, arguments)
    none_left(arguments, "fuse")
    path = Path(output or f"{Path(name_of(ms)).stem}_{method.lower()}.tif")
    with Scene(pan, ms, reading) as scene:
        optics = fit_sensor(sensor, len(scene.bands))
        target = RasterOutput(path, scene, writing)
        for warning in (*scene.warnings, *target.warnings, *check_space(target.path, target.size)):
            progress.warn(warning)
        copy = 8 * len(scene.bands) * len(scene.rows) * len(scene.cols)
        check_memory(
            _LEAST_IMAGES * copy,
            f"{method} of all {len(scene.cols)} x {len(scene.rows)} pixels of {name_of(ms)} at "
            "once",
            "cut out a smaller area of PAN and MS with gdal_translate -projwin",
        )
        if (memory := _IMAGES * copy) > _LARGE:
            progress.warn(
                f"{method} takes the whole scene at once, about {memory / 1e9:.0f} GB of memory"
            )
        moved, measured = choose_shift(shift, scene)
        for warning in (*check_holes(scene), *shift_warnings(moved, measured)):
            progress.warn(warning)
        if any(moved):
            progress.note(moved_by(moved, measured))
            scene = scene.moved(*moved)
        pixels = scene.read(scene.rows, scene.cols)
        under = pixels.ms_under()
        some_zero = partly_zero(under.inner, under.inner_valid, scene.ms_values)
        for warning in partly_zero_warning(int(some_zero.sum())):
            progress.warn(warning)
        ms_valid = under.inner_valid.repeat(RATIO, axis=0).repeat(RATIO, axis=1)
        valid = pixels.pan_valid & ms_valid
        if not valid.any():
            raise InputError(
                f"{scene.pan.name} and {scene.ms.name} have no pixel that is valid in both, "
                "expected imagery; check `nodata`."
            )
        pair = pair_of(pixels, optics)
        with np.errstate(divide="ignore", invalid="ignore"):
            fused = METHODS[method](pair)
        if not np.isfinite(fused[:, valid]).all():
            raise InputError(
                f"{method} divides by zero on {scene.ms.name}, expected imagery with some contrast "
                "and light; choose another method."
            )
        rows, cols = scene.output
        inside = np.s_[
            ...,
            rows.start - scene.rows.start : rows.stop - scene.rows.start,
            cols.start - scene.cols.start : cols.stop - scene.cols.start,
        ]
        tags = {
            "TIFFTAG_SOFTWARE": f"ssdiff-trt {version('ssdiff-trt')}",
            "SSDIFF_METHOD": method,
            "SSDIFF_SENSOR": optics.name,
        }
        with target.open(scene.output, tags) as file:
            file.write(rows, cols, fused[inside].astype(np.float32), valid[inside])
    for sentence in clipped_warning(file.clipped):  # also of the overshoot of interpolated MS
        progress.note(sentence)
    share = 1 - valid[inside].mean()
    holes = f", {share:.1%} without data" if share else ""
    progress.note(f"{path}: {method}, {len(cols)} x {len(rows)}{holes}")
    return path


def pair_of(pixels: Pixels, sensor: Sensor) -> Pair:
    """A rectangle of a scene as input of the methods, its holes filled from their surroundings.

    Args:
        pixels: whole pixels of MS.
        sensor: that acquired the imagery.
    """
    filled = replace(
        pixels,
        pan=fill(pixels.pan[None], pixels.pan_valid)[0],
        ms=fill(pixels.ms, pixels.ms_valid),
    )
    part = filled.ms_under()
    fine, coarse, lms = (
        image.astype(np.float64) for image in (filled.pan, part.inner, filled.lms())
    )
    return Pair(fine, coarse, lms, sensor, position=part.position)
