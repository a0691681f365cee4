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
from ssdiff_trt.runtime.interpolator import interpolate
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
        """A pair whose ``lms`` is interpolated like the toolbox does, wrapping at the edges."""
        bands = as_image(ms, "MS")
        return cls(as_image(pan, "PAN", "[H, W]"), bands, interpolate(bands, "wrap"), sensor)
