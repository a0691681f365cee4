"""Filters of the DLPan-Toolbox: MTF-matched blur, low-pass, decimation, bicubic shrinking."""

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
"""Taps of the MTF kernels along each axis."""
REACH = TAPS // 2
"""Radius of the MTF kernels in pixels."""
BICUBIC_SUPPORT = 4 * RATIO
"""Taps of :func:`bicubic_quarter` along each axis, in input pixels."""
BICUBIC_BEFORE = (BICUBIC_SUPPORT - RATIO) // 2
"""Taps before the 4 input pixels that an output pixel covers."""
_LOWPASS_GAIN = 0.3
"""MTF at the Nyquist frequency of an average MS band, as the toolbox assumes it."""


@cache
def gaussian_kernel(gain: float, span: int = TAPS - 1) -> Image:
    """Kernel ``[41, 41]`` of a sensor whose MTF is a Gaussian.

    The response is sampled at 41 frequencies and turned into a kernel by the window method with
    Huang's circular Kaiser window (Aiazzi et al., 2006). Its sum is about 0.9988; like the toolbox,
    this does not normalise it.

    Args:
        gain: MTF at the Nyquist frequency of the decimated grid, 0..1.
        span: number of samples that the frequency axis is assumed to span.
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
    """Blur each band with the sensor's MTF; the size is unchanged (``MTF.m``).

    Args:
        ms: ``[C, H, W]``, digital numbers, on a grid 4 times finer than the sensor's own.
        sensor: sensor with the ``mtf_ms`` to use.

    Raises:
        SSDiffError: if the sensor does not have C bands, or on non-finite values.
    """
    image = as_image(ms, "image")
    check_sensor(len(image), sensor)
    check_finite(image, "image")
    bands = zip(image, sensor.mtf_ms, strict=True)
    return np.stack([_filtered(band, gaussian_kernel(gain)) for band, gain in bands])


def mtf_filter_pan(pan: ArrayLike, sensor: Sensor) -> Image:
    """Blur PAN ``[H, W]`` with the sensor's ``mtf_pan``; the size is unchanged (``MTF_PAN.m``)."""
    image = as_image(pan, "PAN", "[H, W]")
    check_finite(image, "PAN")
    return _filtered(image, gaussian_kernel(sensor.mtf_pan))


def lowpass(pan: ArrayLike) -> Image:
    """Blur PAN ``[H, W]`` with an average MS MTF; the size is unchanged (``LPfilterGauss.m``).

    The toolbox assumes that the frequency axis spans 41 samples here, but 40 in the MTF filters.
    """
    image = as_image(pan, "PAN", "[H, W]")
    check_finite(image, "PAN")
    return _filtered(image, gaussian_kernel(_LOWPASS_GAIN, span=TAPS))


def decimate(image: NDArray[Value]) -> NDArray[Value]:
    """Every fourth pixel of ``[..., H, W]`` from index 2, where the interpolator puts MS pixels."""
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
    # Stretching the kernel by the ratio prevents aliasing.
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
    """Shrink by 4 like MATLAB's ``imresize(image, 1/4)``: antialiased bicubic, mirrored edges.

    Output pixel n is centred on input pixel 4 n + 1.5 unless ``position`` says otherwise.

    Args:
        image: ``[..., H, W]``, any unit; H and W multiples of 4.
        position: row and column of the input that the first output pixel is centred on.

    Raises:
        SSDiffError: if H or W is not a multiple of 4.
    """
    full = np.asarray(image, dtype=np.float64)
    check_divisible(full)
    shorter = _shrink_rows(full, position[0])
    return _shrink_rows(shorter.swapaxes(-1, -2), position[1]).swapaxes(-1, -2)
