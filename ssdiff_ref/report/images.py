"""The images of a report: each band of each product in grey, at one stretch a band."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssdiff_ref.classical.baselines import METHODS
from ssdiff_ref.classical.fusion import pair_of
from ssdiff_ref.report.fused_scene import FusedScene
from ssdiff_ref.report.measures import Overview
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.quicklook import stretch
from ssdiff_trt.runtime.sensors import Sensor

CLASSICAL = "MTF-GLP-FS"
"""The classical method beside the result, one of the best of them and without parameters."""
WINDOW = 384
"""Pixels on a side of a window at full resolution."""
_AROUND = 64
"""Pixels around a window that are fused with it by the classical method."""
_QUALITIES = (88, 80, 70, 55, 40, 25, 10)
"""Qualities of JPEG that are tried until the images are small enough."""
_LARGEST = 12_700_000
"""Most bytes of all JPEGs in base64."""

Grey = NDArray[np.uint8]
Bands = dict[str, NDArray[np.floating[Any]]]
"""Images ``[C, h, w]`` by product, in any unit."""


@dataclass(frozen=True)
class View:
    """One place of the scene in several products."""

    title: str
    text: str
    """What is shown, in a sentence or two."""
    products: dict[str, Grey]
    """``[C, h, w]`` by name; PAN has one band."""
    valid: NDArray[np.bool_]
    """``[h, w]``."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.valid.shape
        return height, width


def view_of_all(overview: Overview) -> View:
    """The whole scene."""
    factor = overview.factor
    text = (
        "Every pixel of the result is shown."
        if factor == 1
        else f"Each pixel shown is the mean of {factor} x {factor} pixels of the result."
    )
    bands: Bands = {"MS, interpolated": overview.lms, "Result": overview.fused}
    return _view("Whole scene", text, overview.pan, bands, overview.valid)


def view_of_window(scene: FusedScene, title: str, middle: tuple[int, int], sensor: Sensor) -> View:
    """A window at full resolution around a place, moved to where the scene has all of it."""
    rows, cols = window_at(scene.size, middle)
    around = [
        range(max(part.start - _AROUND, 0), min(part.stop + _AROUND, size))
        for part, size in zip((rows, cols), scene.size, strict=True)
    ]
    part = scene.read(around[0], around[1])
    pair = pair_of(part.pixels, sensor)
    with np.errstate(divide="ignore", invalid="ignore"):
        classical = np.nan_to_num(METHODS[CLASSICAL](pair))
    top, left = (part.start - wide.start for part, wide in zip((rows, cols), around, strict=True))
    cut = np.s_[..., top : top + len(rows), left : left + len(cols)]
    text = f"Rows {rows.start} to {rows.stop - 1}, columns {cols.start} to {cols.stop - 1}."
    bands: Bands = {"MS, interpolated": pair.lms, CLASSICAL: classical, "Result": part.fused}
    shown = {name: image[cut] for name, image in bands.items()}
    return _view(title, text, pair.pan[cut], shown, part.valid[cut])


def window_at(size: tuple[int, int], middle: tuple[int, int]) -> tuple[range, range]:
    """Rows and columns of a window, multiples of 4."""
    found = []
    for length, place in zip(size, middle, strict=True):
        side = min(WINDOW, length)
        start = min(max(place - side // 2, 0), length - side) // RATIO * RATIO
        found.append(range(start, start + side))
    return found[0], found[1]


def _view(
    title: str,
    text: str,
    pan: NDArray[np.floating],
    bands: Bands,
    valid: NDArray[np.bool_],
) -> View:
    """Stretch the products; those with bands alike, by the last of them."""
    grey: dict[str, list[Grey]] = {name: [] for name in bands}
    for band in range(len(next(iter(bands.values())))):  # one by one, as stretching takes memory
        of_each = _grey([image[band] for image in bands.values()], valid)
        for several, one in zip(grey.values(), of_each, strict=True):
            several.append(one)
    products = {"PAN": np.stack(_grey([pan], valid))}
    products |= {name: np.stack(several) for name, several in grey.items()}
    return View(title, text, products, valid)


def _grey(images: list[NDArray[np.floating[Any]]], valid: NDArray[np.bool_]) -> list[Grey]:
    """One band ``[h, w]`` of some products, at the stretch of the last; 0 in holes."""
    stretched = stretch([image[None] for image in images], valid)
    return [np.rint(np.where(valid, image[0], 0) * 255).astype(np.uint8) for image in stretched]


def encoded(views: Sequence[View]) -> list[dict[str, list[str]]]:
    """The bands of each product of each view as base64 of JPEG, all at the best quality with which
    they fit into the page."""
    for quality in _QUALITIES:
        images = [
            {
                name: [_encoded(Image.fromarray(band), "JPEG", quality=quality) for band in bands]
                for name, bands in view.products.items()
            }
            for view in views
        ]
        every = (band for view in images for bands in view.values() for band in bands)
        if sum(map(len, every)) <= _LARGEST:
            break
    return images


def encoded_holes(view: View) -> str | None:
    """A PNG, as base64, that covers the holes in grey; None if there is no hole."""
    if view.valid.all():
        return None
    grey = np.where(view.valid, 0, 255).astype(np.uint8)
    image = Image.merge("LA", [Image.new("L", grey.shape[::-1], 128), Image.fromarray(grey)])
    return _encoded(image, "PNG", optimize=True)


def _encoded(image: Image.Image, kind: str, **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return b64encode(file.getvalue()).decode()
