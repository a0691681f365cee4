"""Rasters, and reading them back."""

import os
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

from ssdiff_trt.runtime.interpolator import HALO, interpolate_with_halo
from ssdiff_trt.runtime.raster.affine import product

UTM = "EPSG:32631"


PAN_GRID = Affine(0.5, 0, 500_000, 0, -0.5, 5_700_000)


EXAMPLE = Path(__file__).parents[2] / "examples" / "sentinel2"


def write_raster(path, pixels, transform=None, crs=UTM, mask=None, descriptions=None, **profile):
    """Write ``[C, H, W]`` as a GeoTIFF; without a transform there is no georeferencing."""
    pixels = np.asarray(pixels)
    georeferencing = {} if transform is None else {"transform": transform, "crs": crs}
    colours = profile.pop("colorinterp", None)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(pixels),
        height=pixels.shape[1],
        width=pixels.shape[2],
        dtype=pixels.dtype,
        **georeferencing,
        **profile,
    ) as file:
        if colours:
            file.colorinterp = colours
        file.write(pixels)
        if mask is not None:
            file.write_mask(mask)
        if descriptions:
            file.descriptions = descriptions
    return path


def read_raster(path):
    with rasterio.open(path) as file:
        return file.read()


def smooth(shape, seed=0, low=200, high=1800, knots=9):
    """A smooth random image ``[C, H, W]`` of digital numbers."""
    rng = np.random.default_rng(seed)
    bands, height, width = shape
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    image = np.zeros(shape)
    for band in range(bands):
        for _ in range(knots):
            fy, fx, phase = rng.uniform(-6, 6), rng.uniform(-6, 6), rng.uniform(0, 7)
            image[band] += np.cos(2 * np.pi * (fy * y + fx * x) + phase)
    image = (image - image.min()) / np.ptp(image)
    return np.rint(low + image * (high - low)).astype(np.uint16)


class PairMaker:
    """Writes a PAN and an MS raster of the same ground, with any changes to either."""

    def __init__(self, directory):
        self.directory = directory

    def __call__(self, height=160, width=192, bands=4, pan=None, ms=None):
        pan_parts = {"pixels": smooth((1, height, width), seed=1), "transform": PAN_GRID}
        ms_parts = {
            "pixels": smooth((bands, height // 4, width // 4), seed=2),
            "transform": product(PAN_GRID, Affine.scale(4)),
        }
        return (
            write_raster(self.directory / "pan.tif", **pan_parts | (pan or {})),
            write_raster(self.directory / "ms.tif", **ms_parts | (ms or {})),
        )


def interpolated(ms, position=(1.5, 1.5)):
    """What a run gives with a backend that adds nothing: MS on the grid of PAN, rounded."""
    halo = [(0, 0), (HALO, HALO), (HALO, HALO)]
    lms = interpolate_with_halo(np.pad(ms.astype(float), halo, mode="symmetric"), position)
    return np.rint(lms).clip(0, 2047)


def leftovers(directory):
    return sorted(set(os.listdir(directory)) - {"pan.tif", "ms.tif"})
