"""Classical methods on rasters: the same scenes and the same kind of file as a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ssdiff_ref.classical.baselines import METHODS, find_method
from ssdiff_ref.protocol.pair import Pair
from ssdiff_ref.quality.checks import fit_sensor
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.interpolator import HALO, RATIO, interpolate
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.raster.output import Output
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.tiles.inputs import fill

_IMAGES = 8
"""How many copies of the result a method holds at most, in float64."""
_LARGE = 4e9


def fuse(
    pan: str | Path,
    ms: str | Path,
    output: str | Path | None = None,
    *,
    method: str,
    sensor: str = "generic",
    bands: Sequence[int] | None = None,
    pan_band: int | None = None,
    nodata: float | None = None,
    dtype: str | None = None,
    driver: str = "GTiff",
    options: Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Fuse ``pan`` and ``ms`` into ``output`` by a classical method.

    The whole scene is held in memory, for the methods' statistics are of all of it. Pixels without
    data are filled in from those around them before, in PAN and MS each, and have no data in the
    result: so no statistic sees a nodata value, but a large hole counts as the smooth surface that
    it is filled with.

    Args:
        pan: panchromatic raster.
        ms: multispectral raster with 4 times the pixel size.
        output: GeoTIFF to write; by default ``MS_METHOD.tif`` in the current directory.
        method: a name of :data:`ssdiff_ref.classical.baselines.METHODS`, in any case.
        sensor: that took them, a name of :data:`ssdiff_trt.runtime.sensors.SENSORS`; its MTF
            matters to the methods with MTF in their names and to BDSD-PC.
        bands: of ``ms``, in the sensor's order, counted from 1; all but alpha by default.
        pan_band: band of ``pan``, needed when it has several.
        nodata: value that means no data in both, whatever the files say.
        dtype: of the output; that of ``ms`` by default.
        driver: ``GTiff`` or ``COG``.
        options: creation options of the driver.
        overwrite: replace an existing output.
        progress: told how work goes.

    Returns:
        The output.

    Raises:
        SSDiffError: when the input cannot be used; without leaving an output.
    """
    progress, method = progress or Progress(), find_method(method)
    path = Path(f"{Path(ms).stem}_{method.lower()}.tif" if output is None else output)
    with Scene(pan, ms, bands=bands, pan_band=pan_band, nodata=nodata) as scene:
        optics = fit_sensor(sensor, len(scene.bands))
        tags = {
            "TIFFTAG_SOFTWARE": f"ssdiff-trt {version('ssdiff-trt')}",
            "SSDIFF_METHOD": method,
            "SSDIFF_SENSOR": optics.name,
        }
        target = Output(
            path,
            scene,
            dtype=dtype,
            driver=driver,
            options=options,
            tags=tags,
            overwrite=overwrite,
        )
        memory = 8 * _IMAGES * len(scene.bands) * len(scene.rows) * len(scene.cols)
        if memory > _LARGE:
            progress.warn(
                f"{method} takes the whole scene at once, about {memory / 1e9:.0f} GB of memory"
            )
        pixels = scene.read(scene.rows, scene.cols)
        inner = np.s_[..., HALO:-HALO, HALO:-HALO]
        ms_valid = pixels.ms_valid[inner].repeat(RATIO, axis=0).repeat(RATIO, axis=1)
        valid = pixels.pan_valid & ms_valid
        if not valid.any():
            raise SSDiffError(
                f"{pan} and {ms} have no pixel that is valid in both, expected imagery; "
                "check --nodata."
            )
        with_halo = fill(pixels.ms, pixels.ms_valid).astype(np.float64)
        # The borders of what is interpolated lie in the halo, whose neighbours are real.
        fine = RATIO * HALO
        lms = interpolate(with_halo, position=scene.position)[..., fine:-fine, fine:-fine]
        pair = Pair(fill(pixels.pan[None], pixels.pan_valid)[0], with_halo[inner], lms, optics)
        with np.errstate(divide="ignore", invalid="ignore"):
            fused = METHODS[method](pair)
        if not np.isfinite(fused[:, valid]).all():
            raise SSDiffError(
                f"{method} divides by zero on {ms}, expected imagery with some contrast and light; "
                "choose another method."
            )
        rows, cols = scene.output
        part = np.s_[
            ...,
            rows.start - scene.rows.start : rows.stop - scene.rows.start,
            cols.start - scene.cols.start : cols.stop - scene.cols.start,
        ]
        with target:
            target.write(rows, cols, fused[part].astype(np.float32), valid[part])
    share = 1 - valid[part].mean()
    holes = f", {share:.1%} without data" if share else ""
    progress.note(f"{path}: {method}, {len(cols)} x {len(rows)}{holes}")
    return path
