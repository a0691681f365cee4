"""Checks of the values and bands of a pair, on a sample of its pixels.

Each check returns warnings, one sentence each, or raises an error; none changes anything. A new
check of the values is a function here and a line in :func:`check_values`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.errors import InputError, counted
from ssdiff_trt.runtime.interpolator import HALO, RATIO
from ssdiff_trt.runtime.raster.radiometry import STATED, Scale
from ssdiff_trt.runtime.sensors import BAND_NAMES
from ssdiff_trt.runtime.sources import Source, ValueType

_USUAL = (1, 255, 1023, 2047, 4095, 10000, 16383, 65535)
"""Full scales of reflectance, of 8, 10, 11 and 12 bits, of reflectance times 10000, of 14 and 16
bits."""
_DARKEST = 1 / 16
"""Least share of a stated full scale that nearly all pixels of a scene stay below: reflectance of
0.06, which only deep water does not reach; 12 bits in a file of 16."""
_FEW = 16
"""So few whole numbers are no image."""
_MANY = 0.01
"""Share of the pixels above which one value may be a fill value that nobody declared."""
_PATCHES = 5
"""Patches along each axis."""
_SIDE = 64
"""Pixels of MS on a side of a patch."""


@dataclass(frozen=True)
class Survey:
    """What a sample of an image holds."""

    largest: float
    """Largest value; 0 if no pixel of the sample is valid."""
    middle: float
    """Median of the largest values of the pixels."""
    upper: float
    """95 % quantile of these."""
    top: float
    """99.9 % quantile, which single bright pixels do not change."""
    fill: float
    """A value that often means no data: 0, the least one if it is negative, or the largest one of
    a type of 16 or more bits; that of the three which most pixels have in every band."""
    filled: float
    """Share of the valid pixels that have it in every band, 0..1."""


def check_values(source: Source, pan_scale: Scale, ms_scale: Scale) -> list[str]:
    """Warnings where a sample of the pixels contradicts the assumed full scale or nodata.

    Raises:
        InputError: if the values cannot be meant for that full scale.
    """
    pan, ms = survey(source)
    images = ((source.pan_values, pan, pan_scale), (source.ms_values, ms, ms_scale))
    shared = pan_scale.value == ms_scale.value
    largest = max(pan.largest, ms.largest)
    for values, sample, scale in images:
        _refuse_scale(values, sample, scale, largest if shared else sample.largest, shared)
    warnings = list(_undeclared_holes([(values, sample) for values, sample, _ in images]))
    for values, sample, scale in images:
        found = list(_implausible_scale(values, sample, scale, shared))
        warnings += found
        if found and shared:  # the same for the other
            break
    return warnings


def check_holes(source: Source) -> list[str]:
    """Warnings where pixels of a sample seem to be empty that nothing declares as such."""
    images = zip((source.pan_values, source.ms_values), survey(source), strict=True)
    return list(_undeclared_holes(list(images)))


def check_band_order(source: Source, expected: Sequence[str]) -> list[str]:
    """A warning where the files say that bands are others than those expected."""
    if (found := source.identified) is None:
        return []
    wrong = [
        (str(band), name, want)
        for band, name, want in zip(source.bands, found.names, expected, strict=True)
        if name and want in BAND_NAMES and name.rstrip("1") != want.rstrip("1")  # nir1 is nir
    ]
    if not wrong:
        return []
    remedy = "choose others with `bands`"
    if sorted(found.names) == sorted(expected):
        places = (str(source.bands[found.names.index(name)]) for name in expected)
        remedy = f"pass `bands={','.join(places)}`"
    bands, names, wanted = map(", ".join, zip(*wrong, strict=True))
    one = len(wrong) == 1
    return [
        f"band{'s' * (not one)} {bands} of MS {'is' if one else 'are'} {names} ({found.reason}) "
        f"and taken as {wanted}; if that is wrong, {remedy}"
    ]


def check_type(source: Source, dtype: np.dtype[Any], scale: tuple[float, float] | None) -> None:
    """That whole numbers can hold fractions of MS.

    Raises:
        InputError: if they would be rounded to next to nothing.
    """
    if scale is not None or dtype.kind == "f" or not source.ms_values.dtype.startswith("float"):
        return
    largest = survey(source)[1].largest
    if 0 < largest < _FEW:
        raise InputError(
            f"MS holds values up to {largest:.3g} in a sample, and {dtype} has whole numbers only; "
            f"state the interval that is spread over them, such as `scale=0,{ceil(largest)}`, or "
            "leave `dtype` out.",
        )


def _undeclared_holes(images: Sequence[tuple[ValueType, Survey]]) -> Iterator[str]:
    empty = {
        values.role: sample
        for values, sample in images
        if sample.filled > _MANY and not values.holes_declared
    }
    for fill in dict.fromkeys(sample.fill for sample in empty.values()):
        roles = [role for role, sample in empty.items() if sample.fill == fill]
        shares = (f"{empty[role].filled:.0%} of the sampled {role} pixels" for role in roles)
        option = "nodata" if len(roles) == 2 else f"{roles[0].lower()}_nodata"
        yield (
            f"{' and '.join(shares)} are {fill:.9g} and no nodata is declared; if these pixels are "
            f"empty, pass `{option}={fill:.9g}`"
        )


def _parameter(values: ValueType, shared: bool) -> str:
    """What states the full scale of an image; both have one unless that of PAN is another."""
    return "full_scale" if shared or values.role == "MS" else "pan_full_scale"


def _refuse_scale(
    values: ValueType, sample: Survey, scale: Scale, largest: float, shared: bool
) -> None:
    """Refuse values most of which lie beyond a stated full scale, or many beyond an assumed one.

    Args:
        largest: value that a full scale has to reach.
        shared: whether PAN and MS have the same.
    """
    stated = scale.reason == STATED
    if (sample.middle if stated else sample.upper) > scale.value:
        share = "half" if stated else "5 %"
        fits = next((usual for usual in _USUAL if usual >= largest), largest)
        raise InputError(
            f"More than {share} of the sampled {values.role} pixels lie above full scale {scale}, "
            f"up to {sample.largest:.6g}, so the result would be capped; state the full scale of "
            f"the data, such as `{_parameter(values, shared)}={fits:.9g}`."
        )
    fractions = values.dtype.startswith("float") and 0 < sample.largest <= 2 < scale.value
    if fractions and not stated:
        raise InputError(
            f"{values.role} holds fractions, up to {sample.largest:.3g} in a sample, and full "
            f"scale would be {scale}; state full scale, for reflectance `full_scale=1`."
        )


def _implausible_scale(
    values: ValueType, sample: Survey, scale: Scale, shared: bool
) -> Iterator[str]:
    if not sample.largest:
        return
    if scale.reason == STATED:
        if sample.top < _DARKEST * scale.value:
            yield (
                f"99.9 % of the sampled {values.role} pixels are at most {sample.top:.4g}, less "
                f"than 1/16 of full scale {scale}; unless the scene is that dark, pass the full "
                f"scale of the data, such as `{_parameter(values, shared)}=2047` for 11 bits"
            )
    elif not 0.02 * scale.value < sample.largest <= scale.value:
        yield (
            f"the largest {values.role} value in a sample is {sample.largest:.4g} and the assumed "
            f"full scale is {scale.value:g}; if the data has another, pass `full_scale`"
        )


def partly_zero(
    ms: NDArray[np.float32], valid: NDArray[np.bool_], values: ValueType
) -> NDArray[np.bool_]:
    """Valid pixels of MS ``[C, h, w]`` with a band at 0, where 0 means no data."""
    if not values.zero_is_nodata:
        return np.zeros_like(valid)
    return np.asarray((ms == 0).any(axis=0) & valid)


def partly_zero_warning(count: int) -> Iterator[str]:
    """A warning where there are so many such pixels, unless there are none."""
    if count:
        yield (
            f"{counted(count, 'pixel')} of MS {'is' if count == 1 else 'are'} 0 in some bands but "
            "not in all, where 0 means no data, and counted as valid; if bands are missing there, "
            "pass `zero_bands=any`"
        )


def clipped_warning(count: int) -> Iterator[str]:
    """A warning of values that the type of the result cannot hold, unless there are none."""
    if count:
        yield (
            f"{counted(count, 'value')} did not fit into the data type of the result and were set "
            "to its limits; choose another `dtype` or `scale`"
        )


def survey(source: Source) -> tuple[Survey, Survey]:
    """PAN and MS in 25 patches spread over a source."""
    pan, ms = [], []
    for rows in _spread(source.rows):
        for cols in _spread(source.cols):
            pixels = source.read(rows, cols)
            inner = np.s_[..., HALO:-HALO, HALO:-HALO]
            pan.append(pixels.pan[None, pixels.pan_valid])
            ms.append(pixels.ms[inner][:, pixels.ms_valid[inner]])
    return (
        _survey(np.concatenate(pan, axis=1), source.pan_values),
        _survey(np.concatenate(ms, axis=1), source.ms_values),
    )


def _spread(grid: range) -> list[range]:
    """Parts of an axis of the grid, as rows or columns of PAN."""
    coarse = len(grid) // RATIO
    side = min(_SIDE, coarse)
    starts = dict.fromkeys(np.linspace(0, coarse - side, _PATCHES, dtype=int).tolist())
    first = (grid.start + RATIO * start for start in starts)
    return [range(start, start + RATIO * side) for start in first]


def _survey(values: NDArray[np.float32], kind: ValueType) -> Survey:
    """A survey of valid pixels ``[C, n]``; those with the largest number of a type, where many have
    it, count as empty."""
    if not values.size:
        return Survey(0, 0, 0, 0, 0, 0)
    least, most = float(values.min()), _largest_of(kind.dtype)
    shares = {
        value: float(np.mean((values == np.float32(value)).all(axis=0)))
        for value in (0.0, *([least] if least < 0 else []), *([most] if most else []))
    }
    fill = max(shares, key=shares.__getitem__)
    if fill == most and shares[fill] > _MANY and not kind.holes_declared:
        values = values[:, ~(values == np.float32(fill)).all(axis=0)]
    largest = values.max(axis=0) if values.size else np.zeros(1)
    middle, upper, top = np.quantile(largest, [0.5, 0.95, 0.999])
    return Survey(float(largest.max()), float(middle), float(upper), float(top), fill, shares[fill])


def _largest_of(dtype: str) -> float | None:
    """The largest number of an integer type of 16 or more bits."""
    kind = np.dtype(dtype)
    if kind.itemsize == 1 or kind.kind not in "iu":
        return None
    return float(np.iinfo(kind).max)
