"""The digital number that counts as full scale."""

from __future__ import annotations

from dataclasses import dataclass

from ssdiff_trt.runtime.options import PairOptions
from ssdiff_trt.runtime.sources import Source, ValueType

STATED = "as stated"


@dataclass(frozen=True)
class Scale:
    """The digital number that an image is divided by, and why that one."""

    value: float
    reason: str

    def __str__(self) -> str:
        return f"{self.value:g} ({self.reason})"


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
        return Scale(stated, STATED)
    if values.bits:
        return Scale(2.0**values.bits - 1, f"{values.bits} bits, as declared in the file")
    return Scale(255, "8-bit file") if values.dtype == "uint8" else default


def choose_scales(source: Source, options: PairOptions, default: Scale) -> tuple[Scale, Scale]:
    """Full scales of PAN and MS of a source; see :func:`choose_scale`."""
    of_pan = options.full_scale if options.pan_full_scale is None else options.pan_full_scale
    return (
        choose_scale(source.pan_values, of_pan, default),
        choose_scale(source.ms_values, options.full_scale, default),
    )
