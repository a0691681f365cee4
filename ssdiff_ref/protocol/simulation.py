"""Degradation of arrays by Wald's protocol.

Follows ``resize_images`` of the DLPan-Toolbox (Deng et al., 2022), which produced all published
PanCollection images.
Images are ``[C, H, W]`` or ``[H, W]`` in digital numbers, float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from ssdiff_ref.quality.checks import (
    Image,
    as_image,
    check_divisible,
    check_finite,
    check_grids,
    check_sensor,
)
from ssdiff_ref.quality.filters import REACH, bicubic_quarter, decimate, mtf_filter
from ssdiff_trt.runtime.interpolator import GROUND_POSITION, RATIO
from ssdiff_trt.runtime.sensors import Sensor


def align_pan_to_ms(pan: Image, shift: tuple[float, float]) -> Image:
    """Resample PAN so that it is aligned with MS: spline of order 5, mirrored at the edges.

    Args:
        pan: ``[H, W]``, any unit.
        shift: rows and columns of PAN by which MS is displaced; see
            :class:`ssdiff_trt.runtime.raster.registration.Shift`.
    """
    rows, cols = shift
    moved: Image = ndimage.shift(pan, (-rows, -cols), order=5, mode="reflect")
    return moved


def degrade(
    ms: ArrayLike,
    pan: ArrayLike,
    sensor: Sensor,
    position: tuple[float, float] = (GROUND_POSITION, GROUND_POSITION),
) -> tuple[Image, Image]:
    """Degrade a pair by 4, so that ``ms`` becomes its ground truth (``resize_images.m``).

    Wald's protocol (Wald et al., 1997): MS is blurred with the sensor's MTF and decimated, PAN is
    shrunk with :func:`bicubic_quarter`.

    Args:
        ms: ``[C, h, w]``, digital numbers; h and w multiples of 4.
        pan: ``[4 h, 4 w]``, digital numbers.
        sensor: sensor that acquired them.
        position: row and column of PAN at the centre of the first pixel of MS. The toolbox always
            assumes 1.5, that of aligned grids.

    Returns:
        ``ms_lr`` ``[C, h/4, w/4]`` and ``pan_lr`` ``[h, w]``.

    Raises:
        SSDiffError: on mismatched sizes or bands, or non-finite values.
    """
    ms, pan = as_image(ms, "MS"), as_image(pan, "PAN", "[H, W]")
    check_grids(ms, pan)
    check_divisible(ms)
    check_finite(pan, "PAN")
    return decimate(mtf_filter(ms, sensor)), bicubic_quarter(pan, position)


def decimation_phase(ms: ArrayLike, truth: ArrayLike, sensor: Sensor) -> tuple[int, int]:
    """Estimate the decimation phase of a simulated MS: the pixel sampled in each 4 x 4 block.

    The expected phase is (2, 2), which :func:`decimate` and the interpolator use. Two thirds of the
    QuickBird training patches of PanCollection have another, so their MS is displaced by a pixel.

    Args:
        ms: ``[C, H/4, W/4]``, digital numbers.
        truth: ``[C, H, W]``, the image that ``ms`` was simulated from.
        sensor: sensor whose MTF blurred it.

    Returns:
        Row and column, 0..3: (2, 2) unless another phase has less than half its error, so always
        (2, 2) for flat images.

    Raises:
        SSDiffError: on mismatched sizes or bands, or non-finite values.
    """
    ms, truth = as_image(ms, "MS"), as_image(truth, "reference")
    check_grids(ms, truth[0])
    check_sensor(len(ms), sensor)
    blurred = mtf_filter(truth, sensor)
    # Edges are excluded: they differ if the patch was cut from a larger image after blurring.
    margin = REACH // RATIO if min(ms.shape[-2:]) > 2 * (REACH // RATIO) else 0
    inner = np.s_[..., margin : ms.shape[1] - margin, margin : ms.shape[2] - margin]
    errors = {
        (row, col): float(np.abs((blurred[..., row::RATIO, col::RATIO] - ms)[inner]).mean())
        for row in range(RATIO)
        for col in range(RATIO)
    }
    best = min(errors, key=errors.__getitem__)
    expected = (2, 2)
    return best if errors[best] < errors[expected] / 2 else expected
