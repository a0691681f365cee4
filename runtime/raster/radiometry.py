"""The digital number that counts as full scale."""

from __future__ import annotations

from dataclasses import dataclass

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.options import PairOptions
from ssdiff_trt.runtime.sources import Source, ValueType

STATED = "as stated"


@dataclass(frozen=True)
class Scale:
    """The digital number that an image is divided by, and why that one."""

    value: float
    reason: str

    def __str__(self) -> str:
        return f"{self.value:.9g} ({self.reason})"


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
    """Full scales of PAN and MS of a source; see :func:`choose_scale`.

    Bits that one of the images declares count for both.

    Raises:
        InputError: if the two differ and were neither stated nor declared.
    """
    of_pan = options.full_scale if options.pan_full_scale is None else options.pan_full_scale
    pan_values, ms_values = source.pan_values, source.ms_values
    pan_default = choose_scale(ms_values, None, default) if ms_values.bits else default
    ms_default = choose_scale(pan_values, None, default) if pan_values.bits else default
    pan = choose_scale(pan_values, of_pan, pan_default)
    ms = choose_scale(ms_values, options.full_scale, ms_default)
    known = of_pan is not None or (pan_values.bits and ms_values.bits)
    if pan.value != ms.value and not known:
        raise InputError(
            f"The full scale of PAN would be {pan} and that of MS {ms}, and one product has one; "
            "state `full_scale`, and `pan_full_scale` if that of PAN does differ."
        )
    return pan, ms
