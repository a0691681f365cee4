"""Existing fused rasters and the reference that they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.io import DatasetReader

from ssdiff_ref.protocol.datasets import sensor_scale
from ssdiff_ref.quality.checks import Image, Mask, fit_sensor
from ssdiff_trt.runtime.errors import InputError, counted
from ssdiff_trt.runtime.memory import check_memory
from ssdiff_trt.runtime.raster.affine import product
from ssdiff_trt.runtime.raster.georeferencing import crs_name
from ssdiff_trt.runtime.raster.image import (
    Bands,
    Holes,
    choose_bands,
    open_raster,
    read_rectangle,
)
from ssdiff_trt.runtime.raster.placement import ON_GRID
from ssdiff_trt.runtime.raster.radiometry import Scale, choose_scale
from ssdiff_trt.runtime.raster.scene import value_type
from ssdiff_trt.runtime.sensors import Sensor


@dataclass(frozen=True)
class FusedRasters:
    """Fused images and their reference on one grid, in digital numbers, float64."""

    reference: Image
    """``[C, H, W]``."""
    fused: dict[str, Image]
    """Images ``[C, H, W]`` by file name without suffix, or by path if file names coincide."""
    valid: Mask
    """``[H, W]``, true where all images are valid."""
    sensor: Sensor
    scale: Scale


def open_fused(
    fused: Sequence[str | Path],
    reference: str | Path,
    sensor: str,
    *,
    bands: Bands | None = None,
    nodata: float | None = None,
    full_scale: float | None = None,
) -> FusedRasters:
    """Read fused rasters and their reference.

    Only pixels that are valid in all of them count, so that scores are comparable.

    Args:
        fused: rasters on the reference's grid.
        reference: ground truth.
        sensor: name of the sensor.
        bands: bands of each raster, counted from 1; all but alpha by default.
        nodata: nodata value of all rasters, overriding that of the files.
        full_scale: full scale of the digital numbers; that of the reference's file or the sensor
            by default.

    Raises:
        SSDiffError: if a raster cannot be read, is on another grid or has another number of bands,
            or no pixel is valid in all.
    """
    with ExitStack() as stack:
        truth = stack.enter_context(open_raster(reference, "reference"))
        reference_bands = choose_bands(truth, bands)
        optics = fit_sensor(sensor, len(reference_bands))
        opened: dict[str, DatasetReader] = {}
        for path in fused:
            # Files of the same name in different directories are called by their path.
            unique = [Path(other).stem for other in fused].count(Path(path).stem) == 1
            name = Path(path).stem if unique else str(path)
            if name in opened:
                raise InputError(f"{path} is given twice; give each fused raster once.")
            opened[name] = stack.enter_context(open_raster(path, "fused"))
        for image in opened.values():
            _check_grid(image, truth)
            if (count := len(choose_bands(image, bands))) != len(reference_bands):
                raise InputError(
                    f"{image.name} has {counted(count, 'band')}, expected the "
                    f"{len(reference_bands)} of {truth.name}; select the same "
                    "bands of both with `bands`."
                )
        held = 8 * truth.height * truth.width * len(reference_bands) * (len(opened) + 1)
        check_memory(
            held,
            f"The whole of {truth.name} and of {counted(len(opened), 'fused image')}, "
            f"{truth.width} x {truth.height} pixels each,",
            "cut out a smaller area of all with gdal_translate -projwin",
        )
        values_of = value_type("reference", truth, reference_bands[0], holes_declared=False)
        scale = choose_scale(values_of, full_scale, sensor_scale(optics))
        values, valid = _read(truth, reference_bands, nodata)
        if not valid.any():
            raise InputError(
                f"The reference {reference} has no valid pixel, expected at least one; "
                "check `nodata`."
            )
        images = {}
        for name, image in opened.items():
            images[name], image_valid = _read(image, choose_bands(image, bands), nodata)
            valid &= image_valid
            if not valid.any():
                raise InputError(
                    f"{image.name} has no valid pixel where the reference is valid, expected "
                    "images of the same area; check `nodata`."
                )
    return FusedRasters(values, images, valid, optics, scale)


def _read(image: DatasetReader, bands: list[int], nodata: float | None) -> tuple[Image, Mask]:
    values, valid = read_rectangle(
        image, bands, range(image.height), range(image.width), Holes(nodata)
    )
    return values.astype(np.float64), valid


def _check_grid(image: DatasetReader, reference: DatasetReader) -> None:
    """Raise an SSDiffError unless both rasters have the same size, CRS and transform.

    CRS and transform are not compared if either raster is not georeferenced.
    """
    if image.shape != reference.shape:
        raise InputError(
            f"{image.name} is {image.width} x {image.height} pixels, expected the "
            f"{reference.width} x {reference.height} of {reference.name}; crop both to the same "
            "grid."
        )
    if image.transform.is_identity or reference.transform.is_identity:
        return
    if image.crs != reference.crs:
        raise InputError(
            f"{image.name} is in {crs_name(image.crs)}, expected {crs_name(reference.crs)} as "
            f"{reference.name}; warp it to that grid."
        )
    to_reference = product(~reference.transform, image.transform)
    corners = ((0, 0), (image.width, 0), (0, image.height), (image.width, image.height))
    shift = max(
        abs(a - b)
        for corner in corners
        for a, b in zip(product(to_reference, corner), corner, strict=True)
    )
    if shift > ON_GRID:
        raise InputError(
            f"The grid of {image.name} is up to {shift:.2f} pixels off that of {reference.name}, "
            "expected the same grid; warp it to that."
        )
