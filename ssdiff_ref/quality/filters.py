"""TODO."""

from __future__ import annotations

import math
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.signal import fftconvolve

from ssdiff_ref.quality.checks import (
    Image,
    as_image,
    check_divisible,
    check_finite,
    check_sensor,
)
from ssdiff_trt.runtime.interpolator import GROUND_POSITION, RATIO
from ssdiff_trt.runtime.sensors import Sensor

Value = TypeVar("Value", bound=np.generic)


TAPS = 41


REACH = TAPS // 2
"""Pixels on each side that a filtered pixel depends on."""


BICUBIC_SUPPORT = 4 * RATIO
"""Pixels in a row that :func:`bicubic_quarter` makes one of."""


BICUBIC_BEFORE = (BICUBIC_SUPPORT - RATIO) // 2
"""How many of them come before the 4 that the one covers."""


_LOWPASS_GAIN = 0.3


@cache
def gaussian_kernel(gain: float, span: int = TAPS - 1) -> Image:
    """The kernel ``[41, 41]`` of a sensor whose MTF is a Gaussian.

    The response is sampled on 41 frequencies and turned into a kernel by the window method with
    Huang's circular Kaiser window (Aiazzi et al., 2006). Its sum is about 0.9988 and stays so:
    the toolbox does not normalise it.

    Args:
        gain: of the MTF at the Nyquist frequency of the decimated grid, 0..1.
        span: samples that the frequency axis is taken to span.
    """
    axis = np.arange(TAPS) - REACH
    squared_radius = axis[:, None] ** 2 + axis**2
    width = span / (2 * RATIO) / np.sqrt(-2 * np.log(gain))
    response = np.exp(-squared_radius / (2 * width**2))
    window = np.interp(np.sqrt(squared_radius), axis, np.kaiser(TAPS, 0.5), right=0.0)
    kernel: Image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(response)).real) * window
    kernel.flags.writeable = False
    return kernel


def _filtered(band: Image, kernel: Image) -> Image:
    filtered: Image = fftconvolve(np.pad(band, REACH, mode="edge"), kernel, mode="valid")
    return filtered


def mtf_filter(ms: ArrayLike, sensor: Sensor) -> Image:
    """Blur each band as the sensor's optics would; the size stays (``MTF.m``).

    Args:
        ms: ``[C, H, W]``, digital numbers, on a grid 4 times finer than the sensor's own.
        sensor: whose ``mtf_ms`` to use.

    Raises:
        SSDiffError: if the sensor does not have C bands, or on values that are not finite.
    """
    image = as_image(ms, "image")
    check_sensor(len(image), sensor)
    check_finite(image, "image")
    bands = zip(image, sensor.mtf_ms, strict=True)
    return np.stack([_filtered(band, gaussian_kernel(gain)) for band, gain in bands])


def mtf_filter_pan(pan: ArrayLike, sensor: Sensor) -> Image:
    """Blur PAN ``[H, W]`` with the sensor's ``mtf_pan``; the size stays (``MTF_PAN.m``)."""
    image = as_image(pan, "PAN", "[H, W]")
    check_finite(image, "PAN")
    return _filtered(image, gaussian_kernel(sensor.mtf_pan))


def lowpass(pan: ArrayLike) -> Image:
    """Blur PAN ``[H, W]`` as an average MS band would see it; the size stays (``LPfilterGauss.m``).

    The toolbox takes the frequency axis to span 41 samples here and 40 in the sensors' filters.
    """
    image = as_image(pan, "PAN", "[H, W]")
    check_finite(image, "PAN")
    return _filtered(image, gaussian_kernel(_LOWPASS_GAIN, span=TAPS))


def decimate(image: NDArray[Value]) -> NDArray[Value]:
    """Every fourth pixel of ``[..., H, W]``, from index 2: where the interpolator put them."""
    return image[..., 2::RATIO, 2::RATIO]


def _cubic(x: Image) -> Image:
    """The cubic convolution kernel with a = -1/2 (Keys, 1981, eq. 15)."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _shrink_rows(image: Image, position: float) -> Image:
    support, before = BICUBIC_SUPPORT, BICUBIC_BEFORE
    whole = 0 if 1 <= position <= 2 else math.floor(position - 1)
    # The kernel is stretched by the ratio against aliasing.
    weights = _cubic((np.arange(support) - before + whole - position) / RATIO)
    height = image.shape[-2]
    edge = before + abs(whole)
    edges = [(0, 0)] * (image.ndim - 2) + [(edge, edge), (0, 0)]
    padded = np.pad(image, edges, mode="symmetric")
    first = edge - before + whole
    shrunk: Image = sum(
        weight * padded[..., k : k + height : RATIO, :]
        for k, weight in enumerate(weights / weights.sum(), start=first)
    )
    return shrunk


def bicubic_quarter(
    image: ArrayLike, position: tuple[float, float] = (GROUND_POSITION, GROUND_POSITION)
) -> Image:
    """MATLAB's ``imresize(image, 1/4)``: antialiased bicubic, centred on 4 n + 1.5, mirrored.

    Args:
        image: ``[..., H, W]``, any unit; H and W multiples of 4.
        position: row and column to centre the first pixel on instead.

    Raises:
        SSDiffError: if they are not.
    """
    full = np.asarray(image, dtype=np.float64)
    check_divisible(full)
    shorter = _shrink_rows(full, position[0])
    return _shrink_rows(shorter.swapaxes(-1, -2), position[1]).swapaxes(-1, -2)
