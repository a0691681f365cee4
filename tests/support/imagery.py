"""Synthetic rasters, bundles and backends for tests of ``ssdiff_ref``."""

from __future__ import annotations

import numpy as np
import rasterio
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter

from ssdiff_trt.runtime.bundle.manifest import (
    Manifest,
    Model,
    Provenance,
    SamplerDefaults,
    SensorScale,
)
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.raster.affine import product

UTM = "EPSG:32631"
GRID = Affine(0.5, 0, 500_000, 0, -0.5, 5_700_000)


def write_raster(path, image, transform=GRID, crs=UTM, **profile):
    """Write ``[H, W]`` or ``[C, H, W]`` as a GeoTIFF; returns ``path``."""
    bands = image if image.ndim == 3 else image[None]
    count, height, width = bands.shape
    shape = {"count": count, "height": height, "width": width, "dtype": bands.dtype}
    with rasterio.open(
        path, "w", driver="GTiff", crs=crs, transform=transform, **shape, **profile
    ) as file:
        file.write(bands)
    return path


def texture(seed, *shape):
    """Random image of digital numbers, 200 to 1800, with detail at several scales."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(shape)
    layers = [
        gaussian_filter(noise, [0] * (len(shape) - 2) + [sigma] * 2) * (1 + sigma)
        for sigma in (0.5, 2, 6)
    ]
    image = sum(layers)
    low, high = image.min(), image.max()
    return 200 + 1600 * (image - low) / (high - low)


def pair(seed, bands, height, width):
    """PAN ``[4 H, 4 W]`` and MS ``[C, H, W]`` of the same synthetic scene, uint16."""
    fine = texture(seed, 4 * height, 4 * width)
    tint = texture(seed + 1, bands, height, width)
    coarse = fine.reshape(height, 4, width, 4).mean(axis=(1, 3))
    ms = 0.7 * coarse + 0.3 * tint
    return np.rint(fine).astype("uint16"), np.rint(ms).astype("uint16")


def write_pair(folder, pan, ms, grid=GRID, **profile):
    """Write ``pan.tif`` and ``ms.tif`` on aligned grids."""
    return (
        write_raster(folder / "pan.tif", pan, grid, **profile),
        write_raster(folder / "ms.tif", ms, product(grid, Affine.scale(4)), **profile),
    )


def make_bundle(folder, name, bands, tile=64, **fields):
    """Write a bundle without graphs, for fake backends that need no network.

    Args:
        fields: of the manifest.
    """
    directory = folder / f"{name}.ssdiff"
    directory.mkdir()
    manifest = Manifest(
        name=name,
        model=Model(bands=bands, tile=tile),
        sensor=SensorScale(
            name="generic", bands=tuple(f"band {i}" for i in range(bands)), full_scale=2047
        ),
        sampler=SamplerDefaults(name="consistent", timesteps=(999,)),
        graphs=(),
        files={},
        provenance=Provenance(weights="none", weights_sha256="", created="now", exporter="none"),
        **fields,
    )
    (directory / "manifest.json").write_text(manifest.model_dump_json())
    return directory


class Upsampling:
    """Fake backend whose output is ``lms``."""

    batch = 8
    precision = "fp32"
    device = "cpu"

    def __init__(self, bundle: Bundle, threads: int | None = None):
        pass

    def sample(self, batches, schedule):
        for tiles in batches:
            yield self.images(*tiles)

    def images(self, noise, pan, lms, ms):
        return lms.clip(0, 1)

    def describe(self):
        return "no network"


def channels_last(image):
    return image.transpose(1, 2, 0)
