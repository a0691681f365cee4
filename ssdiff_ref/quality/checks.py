"""Validation of images, masks and sensors before metrics and methods use them.

Layout throughout: multispectral images ``[C, H, W]``, PAN ``[H, W]``, masks ``[H, W]`` that are
true where a pixel is valid; digital numbers in float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from ssdiff_trt.runtime.errors import InputError, counted
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.sensors import Sensor, find_sensor

Image = NDArray[np.float64]
Mask = NDArray[np.bool_]


def as_image(array: ArrayLike, name: str, layout: str = "[C, H, W]") -> Image:
    """The array as float64.

    Raises:
        SSDiffError: if it is empty or does not have as many axes as ``layout``; the message uses
            ``name``.
    """
    image = np.asarray(array, dtype=np.float64)
    if image.ndim != layout.count(",") + 1 or not image.size:
        raise InputError(
            f"The {name} has shape {list(image.shape)}, expected {layout}; rearrange its axes."
        )
    return image


def check_finite(image: Image, name: str) -> None:
    """Raise an SSDiffError if any value is NaN or infinite."""
    if count := image.size - int(np.isfinite(image).sum()):
        raise InputError(
            f"The {name} has {count} non-finite values, expected finite values in all valid "
            "pixels; replace them or mark those pixels as invalid."
        )


def check_same_shape(image: Image, name: str, other: Image, other_name: str) -> None:
    """Raise an SSDiffError unless both images have the same shape."""
    if image.shape != other.shape:
        raise InputError(
            f"The {name} has shape {list(image.shape)}, expected that of the {other_name}, "
            f"{list(other.shape)}; give images of the same bands and pixels."
        )


def check_sensor(bands: int, sensor: Sensor) -> None:
    """Raise an SSDiffError unless the sensor has ``bands`` bands."""
    if bands != len(sensor.bands):
        raise InputError(
            f"The image has {counted(bands, 'band')}, expected the {len(sensor.bands)} of "
            f"{sensor.title}; name the sensor that acquired it, or select the bands (alpha is "
            "excluded by default)."
        )


def fit_sensor(name: str, bands: int) -> Sensor:
    """The sensor called ``name``, for an image of so many bands (:meth:`Sensor.fitted`).

    Raises:
        SSDiffError: if the sensor is unknown or has another number of bands.
    """
    sensor = find_sensor(name).fitted(bands)
    check_sensor(bands, sensor)
    return sensor


def check_grids(ms: Image, pan: Image) -> None:
    """Raise an SSDiffError unless PAN is 4 times the size of MS in both directions."""
    expected = [RATIO * size for size in ms.shape[-2:]]
    if list(pan.shape) != expected:
        raise InputError(
            f"The PAN is {list(pan.shape)} pixels, expected {expected}, {RATIO} times the MS; "
            "crop both to the same area."
        )


def check_divisible(image: Image) -> None:
    """Raise an SSDiffError unless H and W of ``[..., H, W]`` are multiples of 4."""
    height, width = image.shape[-2:]
    if height % RATIO or width % RATIO:
        raise InputError(
            f"The image is {height} x {width} pixels, expected multiples of {RATIO}; crop it to "
            f"{height - height % RATIO} x {width - width % RATIO}."
        )


def as_mask(valid: ArrayLike | None, shape: tuple[int, ...]) -> Mask:
    """Check the mask of an image of shape ``[..., H, W]``; None means that all pixels are valid."""
    if valid is None:
        return np.ones(shape[-2:], dtype=np.bool_)
    mask = np.asarray(valid)
    if mask.dtype != np.bool_ or mask.shape != shape[-2:]:
        raise InputError(
            f"The mask of valid pixels is {mask.dtype} of shape {list(mask.shape)}, expected bool "
            f"of shape {list(shape[-2:])}; give one boolean per pixel."
        )
    if not mask.any():
        raise InputError(
            "The mask has no valid pixels, expected at least one; choose another area."
        )
    return mask


def inner_mask(mask: Mask, reach: int, mode: str = "nearest") -> Mask:
    """Valid pixels whose neighbours within ``reach`` are valid too; ``mode`` as in ndimage.

    Raises:
        SSDiffError: if there is none.
    """
    inner: Mask = ndimage.minimum_filter(mask, size=2 * reach + 1, mode=mode)
    if not inner.any():
        raise InputError(
            f"No valid pixel has {reach} valid neighbours on each side, expected at least one; "
            "choose an area with less nodata."
        )
    return inner


def blank_nodata(image: Image, name: str, valid: Mask) -> Image:
    """The image with invalid pixels set to 0; valid pixels are checked to be finite.

    Zeros, so that values under the mask neither count nor spread as NaN through filters.
    """
    masked = image if valid.all() else np.where(valid, image, 0.0)
    check_finite(masked, name)
    return masked


def as_pair(
    fused: ArrayLike, other: ArrayLike, valid: ArrayLike | None, other_name: str = "reference"
) -> tuple[Image, Image, Mask]:
    """Validated fused image, the image to compare it with, and their mask; nodata set to 0."""
    x, y = as_image(fused, "fused image"), as_image(other, other_name)
    check_same_shape(x, "fused image", y, other_name)
    mask = as_mask(valid, y.shape)
    return blank_nodata(x, "fused image", mask), blank_nodata(y, other_name, mask), mask
