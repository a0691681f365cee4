"""Which digital number counts as full scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rasterio.io import DatasetReader
from rasterio.windows import Window

from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.raster.scene import translate_read_errors

STATED = "as stated"


@dataclass(frozen=True)
class Scale:
    """The digital number that an image is divided by, and why that one."""

    value: float
    reason: str

    def __str__(self) -> str:
        return f"{self.value:g} ({self.reason})"


def known_scale(stated: float | None, dtype: str, bits: int | None = None) -> Scale | None:
    """Full scale as far as the user and the data tell; see :func:`choose_scale`."""
    if stated is not None:
        if not 0 < stated < float("inf"):
            raise SSDiffError(f"A full scale of {stated:g} does not work; give a number above 0.")
        return Scale(stated, STATED)
    if bits:
        return Scale(2.0**bits - 1, f"{bits} bits, as the file says")
    return Scale(255, "8-bit file") if dtype == "uint8" else None


def raster_scale(image: DatasetReader, band: int, stated: float | None) -> Scale | None:
    """The same of a raster."""
    bits = int(image.tags(band, ns="IMAGE_STRUCTURE").get("NBITS", 0))
    return known_scale(stated, image.dtypes[band - 1], bits)


def choose_scale(image: DatasetReader, band: int, stated: float | None, bundle: Bundle) -> Scale:
    """Full scale of an image.

    The first of: what the user states; the bits that the file says it uses (NBITS); 255 for 8-bit
    files, which cannot hold more; the sensor of the bundle. Never the largest value found, which
    would change from scene to scene.
    """
    sensor = bundle.manifest.sensor
    return raster_scale(image, band, stated) or Scale(
        sensor.full_scale, f"that of the bundle's sensor, {sensor.name}"
    )


@dataclass(frozen=True)
class Survey:
    """A glance at an image: 25 patches spread over it."""

    largest: float
    zeros: float
    """Share of pixels that are exactly 0 in every band."""


def survey(image: DatasetReader, bands: Sequence[int]) -> Survey:
    """Glance at the bands in use, to warn of what looks wrong; no scale is made of it."""
    patches = []
    for row in np.linspace(0, max(image.height - 64, 0), 5, dtype=int):
        for col in np.linspace(0, max(image.width - 64, 0), 5, dtype=int):
            window = Window(col, row, min(64, image.width), min(64, image.height))
            with translate_read_errors(image, window):
                patch = image.read(list(bands), window=window, masked=True)
            patches.append(patch.astype(np.float32).filled(np.nan).reshape(len(bands), -1))
    values = np.concatenate(patches, axis=1)
    values = values[:, np.isfinite(values).all(axis=0)]
    if not values.size:
        return Survey(0, 0)
    return Survey(float(values.max()), float(np.mean((values == 0).all(axis=0))))
