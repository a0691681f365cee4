"""The digital number that counts as full scale."""

from __future__ import annotations

from dataclasses import dataclass

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.sources import ValueType

STATED = "as stated"


@dataclass(frozen=True)
class Scale:
    """The digital number that an image is divided by, and why that one."""

    value: float
    reason: str

    def __str__(self) -> str:
        return f"{self.value:g} ({self.reason})"


def check_full_scale(value: float, parameter: str = "full_scale") -> float:
    """A stated full scale, checked to be a positive number."""
    if not 0 < value < float("inf"):
        raise InputError(
            f"A full scale of {value:g} does not work; give a number above 0.", parameter=parameter
        )
    return value


def choose_scale(values: ValueType, stated: float | None, default: Scale) -> Scale:
    """Full scale of an image.

    The first of: what the user states; the bits that the file declares (NBITS); 255 for 8-bit
    files, which cannot hold more; a default, such as the sensor's. Never the largest value found,
    which would change from scene to scene.

    Args:
        values: type of the image's values.
        stated: by the user.
        default: used where neither the user nor the image states anything.
    """
    if stated is not None:
        return Scale(check_full_scale(stated), STATED)
    if values.bits:
        return Scale(2.0**values.bits - 1, f"{values.bits} bits, as declared in the file")
    return Scale(255, "8-bit file") if values.dtype == "uint8" else default


def choose_scales(
    pan: ValueType,
    ms: ValueType,
    default: Scale,
    *,
    full_scale: float | None,
    pan_full_scale: float | None,
) -> tuple[Scale, Scale]:
    """Full scales of PAN and MS.

    Args:
        pan: type of PAN's values.
        ms: type of MS's values.
        default: see :func:`choose_scale`.
        full_scale: of both, as stated by the user.
        pan_full_scale: of PAN, where it differs.
    """
    stated_pan = full_scale if pan_full_scale is None else pan_full_scale
    return choose_scale(pan, stated_pan, default), choose_scale(ms, full_scale, default)
