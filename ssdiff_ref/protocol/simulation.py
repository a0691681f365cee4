"""How a sensor would have seen the scene from 4 times as far: Wald's protocol, and its filters.

After ``genMTF``, ``MTF``, ``MTF_PAN``, ``LPfilterGauss`` and ``resize_images`` of the
DLPan-Toolbox (Deng et al., 2022), with which every published PanCollection image was made.
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


def bring_onto_ms(pan: Image, shift: tuple[float, float]) -> Image:
    """PAN ``[H, W]``, resampled by a spline of order 5 and mirrored at the edges.

    Args:
        pan: any unit.
        shift: rows and columns of PAN by which MS lies off it; see
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
    """A pair at a quarter of its resolution, for which ``ms`` is the truth (``resize_images.m``).

    Wald's protocol (Wald et al., 1997): MS goes through the sensor's MTF and is decimated, PAN
    is shrunk with :func:`bicubic_quarter`.

    Args:
        ms: ``[C, h, w]``, digital numbers; h and w multiples of 4.
        pan: ``[4 h, 4 w]``, digital numbers.
        sensor: that took them.
        position: row and column where the first pixel of MS lies on PAN. The toolbox does not
            ask, and takes the 1.5 of grids that fit.

    Returns:
        ``ms_lr`` ``[C, h/4, w/4]`` and ``pan_lr`` ``[h, w]``.

    Raises:
        SSDiffError: on sizes or bands that do not fit, or values that are not finite.
    """
    ms, pan = as_image(ms, "MS"), as_image(pan, "PAN", "[H, W]")
    check_grids(ms, pan)
    check_divisible(ms)
    check_finite(pan, "PAN")
    return decimate(mtf_filter(ms, sensor)), bicubic_quarter(pan, position)


def decimation_phase(ms: ArrayLike, truth: ArrayLike, sensor: Sensor) -> tuple[int, int]:
    """Which pixel of every 4 x 4 of the blurred truth a simulated MS has kept.

    It should be (2, 2), where :func:`decimate` takes it and the interpolator puts it. In two
    thirds of the QuickBird training patches of PanCollection it is another, so that they are
    displaced by a pixel.

    Args:
        ms: ``[C, H/4, W/4]``, digital numbers.
        truth: ``[C, H, W]``, what it was made from.
        sensor: with whose MTF.

    Returns:
        Row and column, 0..3: (2, 2) unless another phase leaves less than half its error. Flat
        images tell nothing.

    Raises:
        SSDiffError: on sizes or bands that do not fit, or values that are not finite.
    """
    ms, truth = as_image(ms, "MS"), as_image(truth, "reference")
    check_grids(ms, truth[0])
    check_sensor(len(ms), sensor)
    blurred = mtf_filter(truth, sensor)
    # Edges tell nothing either, if the patch was cut from a larger image after it was blurred.
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
