"""Terms of the training loss: back-projection of images, and their correlation with PAN."""

from __future__ import annotations

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

    def along(axis: int) -> tuple[Tensor, Tensor]:
        """Matrices that blur and spread, ``[N, 1, ...]``."""
        size, places = image.shape[2 + axis], position[:, axis].tolist()
        blurs = [torch.from_numpy(blur(size, place, _GAINS)[0]) for place in places]
        spreads = [torch.from_numpy(spread(size, place)) for place in places]
        of_blur, of_spread = (torch.stack(each)[:, None] for each in (blurs, spreads))
        return of_blur.to(image.device), of_spread.to(image.device)

    (rows, down), (cols, across) = along(0), along(1)
    difference = ms - rows @ image @ cols.mT
    return image + share * (down @ difference @ across.mT)


def local_decorrelation(image: Tensor, pan: Tensor) -> Tensor:
    """D_rho as a loss: the mean of one minus the correlation with PAN in windows of 4 x 4 pixels.

    After Scarpa & Ciotola (2022). Variances are increased by that of noise, so that windows
    without contrast do not count.

    Args:
        image: ``[N, C, H, W]``, 0..1 of full scale.
        pan: ``[N, 1, H, W]``, likewise.
    """

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, RATIO, stride=1)

    image, pan = (x - x.mean((2, 3), keepdim=True) for x in (image, pan))
    covariance = mean(image * pan) - mean(image) * mean(pan)
    first, second = (mean(x * x) - mean(x) ** 2 + _NOISE**2 for x in (image, pan))
    return 1 - (covariance / (first * second).sqrt()).mean()
