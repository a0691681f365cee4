"""Digital numbers as files and arrays store them: scaled, rounded, clipped, holes marked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


def limits(dtype: np.dtype[Any], bits: int | None = None) -> tuple[Any, Any]:
    """Least and largest value of a type, of which so many bits are stored (NBITS)."""
    if dtype.kind == "f":
        real = np.finfo(np.float16 if bits == 16 else dtype)
        return real.min, real.max
    whole = np.iinfo(dtype)
    return (whole.min, whole.max) if bits is None else (0, 2**bits - 1)


def convert(
    values: NDArray[np.floating], dtype: np.dtype[Any], bits: int | None = None
) -> NDArray[Any]:
    """Digital numbers to an output type: integers are rounded, then clipped, never wrapped.

    Args:
        values: digital numbers.
        dtype: the type.
        bits: so many are stored (NBITS), if not all.
    """
    if dtype.kind == "f" and bits is None:
        return values.astype(dtype)
    rounded = values.astype(np.promote_types(values.dtype, dtype))  # which holds both exactly
    if dtype.kind != "f":
        np.rint(rounded, out=rounded)
    return rounded.clip(*limits(dtype, bits), out=rounded).astype(dtype)


def encode(
    values: NDArray[np.floating],
    valid: NDArray[np.bool_],
    dtype: np.dtype[Any],
    nodata: float | None,
    bits: int | None = None,
) -> NDArray[Any]:
    """Digital numbers as a file stores them, with ``nodata`` where not valid and nowhere else.

    Args:
        values: digital numbers ``[C, H, W]``.
        valid: ``[H, W]``.
        dtype: see :func:`convert`.
        nodata: a value of that type; with None, invalid pixels are 0.
        bits: see :func:`convert`.
    """
    pixels = convert(values, dtype, bits)
    if nodata is not None:
        # A valid pixel that happens to have the nodata value moves one step away from it.
        pixels[pixels == nodata] = _beside(dtype.type(nodata), bits)
    pixels[:, ~valid] = nodata or 0
    return pixels


def _beside(nodata: Any, bits: int | None) -> Any:
    if nodata.dtype.kind == "f":
        real = np.float16 if bits == 16 else nodata.dtype.type
        return np.nextafter(real(nodata), real(np.inf))
    return nodata + 1 if nodata < limits(nodata.dtype, bits)[1] else nodata - 1


def count_clipped(
    values: NDArray[np.floating],
    valid: NDArray[np.bool_],
    dtype: np.dtype[Any],
    bits: int | None = None,
) -> int:
    """Values ``[C, H, W]`` of valid pixels ``[H, W]`` that :func:`convert` clips."""
    if dtype.kind == "f" and bits is None:
        return 0
    least, largest = limits(dtype, bits)
    if dtype.kind == "f":
        beyond = (values > largest) | (values < least)
    else:
        beyond = (values >= largest + 0.5) | (values < least - 0.5)
    return int((beyond & valid).sum())


def holds(dtype: np.dtype[Any], value: float, bits: int | None = None) -> bool:
    """Whether a file of that type can declare that value to mean no data."""
    if dtype.kind == "f" and bits is None:
        return not np.isfinite(value) or abs(value) <= float(np.finfo(dtype).max)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return bool(np.isnan(value) or value == float(np.float16(value)))
    # GDAL takes a float64, and writes its leading digits.
    exact = np.isfinite(value) and abs(value) <= 2**53
    return bool(exact and value == convert(np.array(value, float), dtype, bits))


@dataclass(frozen=True)
class Scaling:
    """A linear change of values."""

    factor: float = 1.0
    constant: float = 0.0

    @classmethod
    def of(
        cls, interval: tuple[float, float] | None, dtype: np.dtype[Any], bits: int | None = None
    ) -> Scaling:
        """Spread an interval over all values of an integer type, or over 0..1 of a float type."""
        if interval is None:
            return cls()
        least, largest = (0.0, 1.0) if dtype.kind == "f" else map(float, limits(dtype, bits))
        factor = (largest - least) / (interval[1] - interval[0])
        return cls(factor, least - interval[0] * factor)

    def apply(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if self == Scaling():
            return values
        return values * np.float32(self.factor) + np.float32(self.constant)

    @property
    def inverse(self) -> tuple[float, float]:
        """Factor and constant that undo it."""
        return 1 / self.factor, -self.constant / self.factor
