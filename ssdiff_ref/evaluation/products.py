"""Fused rasters that are there already, and the reference that they are judged by."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.io import DatasetReader

from ssdiff_ref.protocol.datasets import sensor_scale
from ssdiff_ref.quality.checks import Image, Mask, fit_sensor
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.raster.image import Bands, choose_bands, open_raster, read_rectangle
from ssdiff_trt.runtime.raster.placement import ON_GRID
from ssdiff_trt.runtime.raster.radiometry import Scale, choose_scale
from ssdiff_trt.runtime.raster.scene import value_type
from ssdiff_trt.runtime.sensors import Sensor


@dataclass(frozen=True)
class Products:
    """Images on one grid, in digital numbers, float64."""

    reference: Image
    """``[C, H, W]``."""
    fused: dict[str, Image]
    """By the names of the files."""
    valid: Mask
    """``[H, W]``: where all of them are."""
    sensor: Sensor
    scale: Scale


def open_products(
    fused: Sequence[str | Path],
    reference: str | Path,
    sensor: str,
    *,
    bands: Bands | None = None,
    nodata: float | None = None,
    full_scale: float | None = None,
) -> Products:
    """Read fused rasters and their reference.

    All are judged where all are valid, so that their scores can be compared.

    Args:
        fused: rasters on the reference's grid.
        reference: the truth.
        sensor: name of the sensor.
        bands: of each raster, counted from 1; all but alpha by default.
        nodata: value that means no data in all, whatever the files say.
        full_scale: of the digital numbers; that of the reference's file or the sensor by default.

    Raises:
        SSDiffError: when a raster cannot be read, lies on another grid or has other bands, or no
            pixel is valid in all.
    """
    with ExitStack() as stack:
        truth = stack.enter_context(open_raster(reference, "reference"))
        chosen = choose_bands(truth, bands)
        optics = fit_sensor(sensor, len(chosen))
        opened: dict[str, DatasetReader] = {}
        for path in fused:
            # Files of one name in several directories keep their directories.
            alone = [Path(other).stem for other in fused].count(Path(path).stem) == 1
            name = Path(path).stem if alone else str(path)
            if name in opened:
                raise SSDiffError(f"{path} is given twice; give each fused raster once.")
            opened[name] = stack.enter_context(open_raster(path, "fused"))
        for image in opened.values():
            _check_grid(image, truth)
            if len(choose_bands(image, bands)) != len(chosen):
                raise SSDiffError(
                    f"{image.name} has {len(choose_bands(image, bands))} bands, expected the "
                    f"{len(chosen)} of {truth.name}; choose the same of both with --bands."
                )
        values_of = value_type("reference", truth, chosen[0], holes_declared=False)
        scale = choose_scale(values_of, full_scale, sensor_scale(optics))
        values, valid = _read(truth, chosen, nodata)
        if not valid.any():
            raise SSDiffError(
                f"The reference {reference} has no valid pixel, expected imagery; check --nodata."
            )
        images = {}
        for name, image in opened.items():
            images[name], also = _read(image, choose_bands(image, bands), nodata)
            valid &= also
            if not valid.any():
                raise SSDiffError(
                    f"{image.name} has no valid pixel where the reference has one, expected "
                    "images of the same place; check --nodata."
                )
    return Products(values, images, valid, optics, scale)


def _read(image: DatasetReader, bands: list[int], nodata: float | None) -> tuple[Image, Mask]:
    values, valid = read_rectangle(image, bands, range(image.height), range(image.width), nodata)
    return values.astype(np.float64), valid


def _check_grid(image: DatasetReader, reference: DatasetReader) -> None:
    """That two rasters have the same pixels on the same ground, as far as they say."""
    if image.shape != reference.shape:
        raise SSDiffError(
            f"{image.name} is {image.width} x {image.height} pixels, expected the "
            f"{reference.width} x {reference.height} of {reference.name}; crop both to the same "
            "grid."
        )
    if image.transform.is_identity or reference.transform.is_identity:
        return
    if image.crs != reference.crs:
        raise SSDiffError(
            f"{image.name} is in {image.crs}, expected {reference.crs} as {reference.name}; warp "
            "it onto that grid."
        )
    to_reference = ~reference.transform * image.transform
    corners = ((0, 0), (image.width, 0), (0, image.height), (image.width, image.height))
    shift = max(
        abs(a - b) for corner in corners for a, b in zip(to_reference * corner, corner, strict=True)
    )
    if shift > ON_GRID:
        raise SSDiffError(
            f"{image.name} lies up to {shift:.2f} pixels off {reference.name}, expected the same "
            "grid; warp it onto that."
        )
