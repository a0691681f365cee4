"""Consistency of a fused image with MS: what the MS sensor would have seen of it, against MS.

A fused image holds what MS holds if, blurred by the sensor's MTF and sampled where the pixels of
MS lie, it equals MS (the consistency property of Wald et al., 1997). The MTF is a Gaussian that has
the sensor's gain at the Nyquist frequency of MS, as in all protocols of the field. A sensor that
averages exactly the area of its pixels would give another figure: no image is consistent with both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.sensors import mtf_sigma
from ssdiff_trt.runtime.sources import MSAxis

REACH = 20
"""Pixels of PAN around a pixel of MS that it sees, on each side; as in the DLPan-Toolbox."""

Array = NDArray[np.floating[Any]]


def seen_pixels(axis: MSAxis, size: int) -> range:
    """Pixels of MS that see nothing beyond ``size`` pixels of PAN."""
    half = axis.scale / 2 - 0.5
    first = math.ceil((REACH - half - axis.begin) / axis.scale)
    last = math.floor((size - 1 - REACH - half - axis.begin) / axis.scale)
    return range(first, max(first, last + 1))


def seen_weights(axis: MSAxis, ms: range, size: int, gain: float) -> NDArray[np.float32]:
    """Weight ``[len(ms), size]`` of each pixel of PAN in each of MS; rows have the sum 1."""
    centres = axis.begin + axis.scale * (np.array(ms) + 0.5) - 0.5
    away = np.arange(size) - centres[:, None]
    width = mtf_sigma(gain, axis.scale)
    weights = np.where(np.abs(away) <= REACH, np.exp(-(away**2) / (2 * width**2)), 0)
    scaled: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return scaled


def seen(band: Array, axes: tuple[MSAxis, MSAxis], gain: float) -> NDArray[np.float32]:
    """A band as the sensor of MS sees it.

    Args:
        band: ``[H, W]`` on the grid of PAN, any unit.
        axes: where the rows and columns of MS lie on those of the band.
        gain: MTF of the band at the Nyquist frequency of MS, above 0 and below 1.

    Returns:
        ``[h, w]``, the pixels of MS of :func:`seen_pixels` along both axes.
    """
    down, across = (
        seen_weights(axis, seen_pixels(axis, size), size, gain)
        for axis, size in zip(axes, band.shape, strict=True)
    )
    blurred: NDArray[np.float32] = down @ band.astype(np.float32) @ across.T
    return blurred


@dataclass
class Consistency:
    """Root mean square difference between MS and what its sensor would see of a fused image."""

    squares: float = 0.0
    """Sum of squared differences over values of MS, in the unit of MS."""
    values: int = 0
    """Number of them."""

    def add(
        self,
        image: Array,
        valid: NDArray[np.bool_],
        ms: Array,
        ms_valid: NDArray[np.bool_],
        axes: tuple[MSAxis, MSAxis],
        gains: Sequence[float],
    ) -> None:
        """Add a part of an image.

        Pixels of MS count that are valid and see valid pixels of the part only.

        Args:
            image: fused, ``[C, H, W]``, in the unit of MS.
            valid: ``[H, W]``.
            ms: ``[C, ...]``; ``axes`` give where its pixels lie.
            ms_valid: likewise, without bands.
            axes: rows and columns of MS on those of the image.
            gains: MTF of each band, see :func:`seen`.
        """
        rows, cols = (seen_pixels(axis, size) for axis, size in zip(axes, valid.shape, strict=True))
        if not (rows and cols):
            return
        inner = np.s_[..., rows.start : rows.stop, cols.start : cols.stop]
        counted = ms_valid[inner]
        if not valid.all():
            unseen = seen((~valid).astype(np.float32), axes, min(gains))
            counted = counted & (unseen < np.finfo(np.float32).eps)
        for band, true, gain in zip(image, ms[inner], gains, strict=True):
            difference = (seen(np.where(valid, band, 0), axes, gain) - true)[counted]
            self.squares += float((difference.astype(np.float64) ** 2).sum())
        self.values += len(image) * int(counted.sum())

    @property
    def rmse(self) -> float | None:
        """In the unit of MS; None where no pixel of MS counted."""
        return math.sqrt(self.squares / self.values) if self.values else None
