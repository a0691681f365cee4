"""Terms of the training loss: back-projection of images, and their correlation with PAN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.sensors import SENSORS
from ssdiff_trt.runtime.tiles.backprojection import blur, spread

_GAINS = SENSORS["generic"].mtf_ms[:1]
"""MTF of any band that back-projection assumes; it is not known what sensor will be seen."""
_NOISE = 4e-3
"""Standard deviation of noise in the local correlation, as a fraction of full scale."""
_SMALLEST_ERROR = 1e-4
"""Added in squares under the root, which has no gradient at 0; as a fraction of full scale."""
_BRIGHTNESS, _BRIGHTNESS_OFFSET = 0.2, 0.03
"""Mean of a sample of weight 1, nearly, and what is added to means, as fractions of full scale; the
latter limits the weight of dark samples."""


def rms(difference: Tensor) -> Tensor:
    """Root of the mean square of each sample, ``[N]``, of ``[N, C, H, W]``."""
    return (difference.square().mean((1, 2, 3)) + _SMALLEST_ERROR**2).sqrt()


def brightness_weight(image: Tensor) -> Tensor:
    """Weight of each sample, ``[N]``, that makes errors relative to its mean, as in ERGAS.

    Args:
        image: ``[N, C, H, W]``, 0..1 of full scale.
    """
    return _BRIGHTNESS / (image.mean((1, 2, 3)) + _BRIGHTNESS_OFFSET)


def back_project(image: Tensor, ms: Tensor, position: Tensor, share: float) -> Tensor:
    """Back-projection as in a run; see :mod:`ssdiff_trt.runtime.tiles.backprojection`.

    Args:
        image: ``[N, C, H, W]``, 0..1 of full scale.
        ms: ``[N, C, H/4, W/4]``, likewise.
        position: row and column of PAN at the centre of the first pixel of MS, ``[N, 2]``.
        share: of the difference that is added, 0 to 1.
    """
    if not share:
        return image

    spreads = []
    for axis in (0, 1):
        size, places = image.shape[2 + axis], position[:, axis].tolist()
        matrices = torch.stack([torch.from_numpy(spread(size, place)) for place in places])
        spreads.append(matrices[:, None].to(image.device))
    down, across = spreads
    return image + share * (down @ (ms - seen(image, position, _GAINS)) @ across.mT)


def seen(image: Tensor, position: Tensor, gains: Sequence[float]) -> Tensor:
    """What the sensor of MS would see of images; see :mod:`ssdiff_trt.runtime.consistency`.

    Near the edges the blur is that of the pixels inside.

    Args:
        image: ``[N, C, H, W]``, any unit.
        position: row and column of PAN at the centre of the first pixel of MS, ``[N, 2]``.
        gains: MTF at the Nyquist frequency of MS, of each band or one for all.

    Returns:
        ``[N, C, H/4, W/4]``.
    """
    blurs = []
    for axis in (0, 1):
        size, places = image.shape[2 + axis], position[:, axis].tolist()
        matrices = [torch.from_numpy(blur(size, place, tuple(gains))) for place in places]
        blurs.append(torch.stack(matrices).to(image.device))
    rows, cols = blurs
    return rows @ image @ cols.mT


def local_decorrelation(image: Tensor, pan: Tensor, noise: float | Tensor = _NOISE) -> Tensor:
    """D_rho as a loss: the mean of one minus the correlation with PAN in windows of 4 x 4 pixels.

    After Scarpa & Ciotola (2022). Variances are increased by that of noise, so that windows
    without contrast do not count.

    Args:
        image: ``[N, C, H, W]``, 0..1 of full scale.
        pan: ``[N, 1, H, W]``, likewise.
        noise: its standard deviation, as a fraction of full scale; one for all samples, or
            ``[N, 1, 1, 1]``.
    """

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, RATIO, stride=1)

    image, pan = (x - x.mean((2, 3), keepdim=True) for x in (image, pan))
    covariance = mean(image * pan) - mean(image) * mean(pan)
    first, second = (mean(x * x) - mean(x) ** 2 + noise**2 for x in (image, pan))
    return 1 - (covariance / (first * second).sqrt()).mean()


def detail_decorrelation(image: Tensor, pan: Tensor, position: Tensor) -> Tensor:
    """One minus the correlation of the detail of images with PAN's, averaged over the bands.

    The detail is what the sensor of MS does not see; strong edges count most, unlike in
    :func:`local_decorrelation`.

    Args:
        image: ``[N, C, H, W]``, any unit.
        pan: ``[N, 1, H, W]``, any unit.
        position: row and column of PAN at the centre of the first pixel of MS, ``[N, 2]``.
    """
    details = (
        layer - back_project(torch.zeros_like(layer), seen(layer, position, _GAINS), position, 1)
        for layer in (image, pan.expand_as(image))
    )
    of_image, of_pan = (x - x.mean((0, 2, 3), keepdim=True) for x in details)
    covariance = (of_image * of_pan).mean((0, 2, 3))
    first, second = (x.square().mean((0, 2, 3)) + _NOISE**2 for x in (of_image, of_pan))
    return 1 - (covariance / (first * second).sqrt()).mean()
