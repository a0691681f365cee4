"""A PAN/MS pair, the input of a fusion method."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from ssdiff_ref.quality.checks import (
    Image,
    as_image,
    check_finite,
    check_grids,
    check_same_shape,
    check_sensor,
)
from ssdiff_trt.runtime.interpolator import PROTOCOL_POSITION, interpolate
from ssdiff_trt.runtime.sensors import Sensor


@dataclass(frozen=True)
class Pair:
    """PAN and MS as input of a fusion method, in digital numbers, float64.

    Raises:
        SSDiffError: on shapes that do not match each other or the sensor, or non-finite values.
    """

    pan: Image
    """``[H, W]``."""
    ms: Image
    """``[C, H/4, W/4]``."""
    lms: Image
    """``[C, H, W]``, ``ms`` interpolated to the size of ``pan``."""
    sensor: Sensor
    has_truth: bool = False
    """Whether the ground truth is known; it is aligned with MS, not with PAN."""
    position: tuple[float, float] = (PROTOCOL_POSITION, PROTOCOL_POSITION)
    """Row and column of ``pan`` at the centre of the first pixel of ``ms``."""
    toolbox: bool = False
    """Whether methods follow the arithmetic of the DLPan-Toolbox to the letter: images wrap at the
    edges, and quotients have no limits. Otherwise images are mirrored, and where the divisor of a
    quotient is no measure of light the detail of PAN is left out."""

    def __post_init__(self) -> None:
        for name, layout in (("pan", "[H, W]"), ("ms", "[C, H, W]"), ("lms", "[C, H, W]")):
            image = as_image(getattr(self, name), name.upper(), layout)
            check_finite(image, name.upper())
            object.__setattr__(self, name, image)
        check_sensor(len(self.ms), self.sensor)
        check_sensor(len(self.lms), self.sensor)
        check_grids(self.ms, self.pan)
        check_same_shape(self.lms[0], "band of LMS", self.pan, "PAN")

    @classmethod
    def of(cls, pan: ArrayLike, ms: ArrayLike, sensor: Sensor) -> Pair:
        """A pair as the toolbox has it: ``lms`` wraps at the edges."""
        bands = as_image(ms, "MS")
        lms = interpolate(bands, "wrap")
        return cls(as_image(pan, "PAN", "[H, W]"), bands, lms, sensor, toolbox=True)
