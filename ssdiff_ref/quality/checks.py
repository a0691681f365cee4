"""What images must be before anything is computed from them.

Layout everywhere: multispectral images ``[C, H, W]``, PAN ``[H, W]``, masks ``[H, W]`` that are
true where a pixel was measured; digital numbers in float64.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.sensors import Sensor, find_sensor

Image = NDArray[np.float64]
Mask = NDArray[np.bool_]


def as_image(array: ArrayLike, name: str, layout: str = "[C, H, W]") -> Image:
    """The array as float64, or an error that calls it ``name`` if its layout is not that one."""
    image = np.asarray(array, dtype=np.float64)
    if image.ndim != layout.count(",") + 1 or not image.size:
        raise SSDiffError(
            f"The {name} has shape {list(image.shape)}, expected {layout}; rearrange its axes."
        )
    return image


def check_finite(image: Image, name: str) -> None:
    """That no value is NaN or infinite."""
    if bad := image.size - int(np.isfinite(image).sum()):
        raise SSDiffError(
            f"The {name} has {bad} values that are not finite, expected numbers everywhere it is "
            "judged; replace them or mark their pixels as not valid."
        )


def check_same_shape(image: Image, name: str, other: Image, other_name: str) -> None:
    """That two images have the same bands and pixels."""
    if image.shape != other.shape:
        raise SSDiffError(
            f"The {name} has shape {list(image.shape)}, expected that of the {other_name}, "
            f"{list(other.shape)}; give images of the same bands and pixels."
        )


def check_sensor(bands: int, sensor: Sensor) -> None:
    """That the sensor has that many bands."""
    if bands != len(sensor.bands):
        raise SSDiffError(
            f"The image has {bands} bands, expected the {len(sensor.bands)} of {sensor.title}; "
            "name the sensor that took it, or the bands to take (alpha is left out unless named)."
        )


def fit_sensor(name: str, bands: int) -> Sensor:
    """The sensor of that name for an image of so many bands; ``generic`` has as many as asked.

    Raises:
        SSDiffError: if it is unknown or has another number of bands.
    """
    sensor = find_sensor(name)
    if sensor.name == "generic":
        gains = (sensor.mtf_ms[0],) * bands
        sensor = replace(sensor, bands=sensor.band_names(bands), mtf_ms=gains)
    check_sensor(bands, sensor)
    return sensor


def check_grids(ms: Image, pan: Image) -> None:
    """That the grid of PAN is 4 times as fine as that of MS."""
    expected = [RATIO * size for size in ms.shape[-2:]]
    if list(pan.shape) != expected:
        raise SSDiffError(
            f"The PAN is {list(pan.shape)} pixels, expected {expected}, {RATIO} times the MS; "
            "crop both to the same ground."
        )


def check_divisible(image: Image) -> None:
    """That a quarter of ``[..., H, W]`` is a whole number of pixels."""
    height, width = image.shape[-2:]
    if height % RATIO or width % RATIO:
        raise SSDiffError(
            f"The image is {height} x {width} pixels, expected multiples of {RATIO}; crop it to "
            f"{height - height % RATIO} x {width - width % RATIO}."
        )


def as_mask(valid: ArrayLike | None, shape: tuple[int, ...]) -> Mask:
    """The mask of an image of that shape; everything is valid unless told otherwise."""
    if valid is None:
        return np.ones(shape[-2:], dtype=np.bool_)
    mask = np.asarray(valid)
    if mask.dtype != np.bool_ or mask.shape != shape[-2:]:
        raise SSDiffError(
            f"The mask of valid pixels is {mask.dtype} of shape {list(mask.shape)}, expected bool "
            f"of shape {list(shape[-2:])}; give one truth value per pixel."
        )
    if not mask.any():
        raise SSDiffError(
            "The mask leaves no valid pixels, expected at least one; judge another part."
        )
    return mask


def blank_nodata(image: Image, name: str, valid: Mask) -> Image:
    """The image, checked to be finite where it is valid, and 0 elsewhere.

    Zeros, so that whatever a producer leaves under the mask can neither count nor spread as NaN.
    """
    judged = image if valid.all() else np.where(valid, image, 0.0)
    check_finite(judged, name)
    return judged


def as_pair(
    fused: ArrayLike, other: ArrayLike, valid: ArrayLike | None, other_name: str = "reference"
) -> tuple[Image, Image, Mask]:
    """A fused image, what it is compared with, and the mask of both; all ready for arithmetic."""
    x, y = as_image(fused, "fused image"), as_image(other, other_name)
    check_same_shape(x, "fused image", y, other_name)
    mask = as_mask(valid, y.shape)
    return blank_nodata(x, "fused image", mask), blank_nodata(y, other_name, mask), mask
