"""What a run reads from and writes to: sources and sinks.

A source is a pair of PAN and MS on one grid, a sink takes the fused image. Rasters on disk are one
of each (:mod:`ssdiff_trt.runtime.raster`), arrays another (:mod:`ssdiff_trt.runtime.arrays`).

The grid of a source is PAN's, restricted to what both images cover and extended outward to whole
pixels of MS, so its height and width are multiples of 4. Where PAN ends inside a pixel of MS the
grid goes up to 3 pixels beyond PAN; those are mirrored when read, and are not part of the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pixels:
    """A rectangle of a source, in digital numbers. Invalid pixels have arbitrary values."""

    pan: NDArray[np.float32]
    """``[h, w]``."""
    pan_valid: NDArray[np.bool_]
    """``[h, w]``."""
    ms: NDArray[np.float32]
    """``[C, h / 4 + 2 HALO, w / 4 + 2 HALO]``."""
    ms_valid: NDArray[np.bool_]
    """``[h / 4 + 2 HALO, w / 4 + 2 HALO]``."""


@dataclass(frozen=True)
class ValueType:
    """Type of the values of an image, as declared."""

    role: str
    """``PAN`` or ``MS``."""
    dtype: str
    """A numpy dtype."""
    bits: int | None = None
    """Bits in use (NBITS), if declared."""
    holes_declared: bool = False
    """Whether nodata, a mask or alpha is declared."""
    zero_is_nodata: bool = False
    """Whether 0 means no data."""


def describe_sizes(pan: tuple[int, int], ms: tuple[int, int]) -> str:
    """Sizes of PAN and MS, given as height and width."""
    return f"PAN {pan[1]} x {pan[0]}, MS {ms[1]} x {ms[0]}"


Self = TypeVar("Self")


class Source(Protocol):
    """A pair of PAN and MS on one grid."""

    @property
    def name(self) -> str:
        """Name of the MS image, for messages."""
        ...

    def describe(self) -> str:
        """One line: the sizes of PAN and MS."""
        ...

    @property
    def bands(self) -> tuple[int, ...]:
        """Bands of MS in use, counted from 1, in the order of the network."""
        ...

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of these bands, empty where there is none."""
        ...

    @property
    def pan_values(self) -> ValueType:
        """Type of PAN's values."""
        ...

    @property
    def ms_values(self) -> ValueType:
        """Type of MS's values."""
        ...

    @property
    def rows(self) -> range:
        """Rows of PAN in the grid."""
        ...

    @property
    def cols(self) -> range:
        """Columns of PAN in the grid."""
        ...

    @property
    def output(self) -> tuple[range, range]:
        """Rows and columns of PAN that the result has."""
        ...

    @property
    def whole(self) -> tuple[range, range]:
        """Rows and columns of PAN that are whole pixels of MS, inside both images."""
        ...

    @property
    def position(self) -> tuple[float, float]:
        """Row and column of an MS pixel's centre among its 4 x 4 pixels of PAN, 1 to 2; 1.5 when
        the two grids fit."""
        ...

    @property
    def resampled(self) -> bool:
        """Whether MS is warped onto the grid, because a shift alone does not bring it there."""
        ...

    def read(self, rows: range, cols: range) -> Pixels:
        """Read a rectangle, mirrored beyond the images.

        Args:
            rows: rows of PAN; they start a multiple of 4 after :attr:`rows` does.
            cols: columns, likewise.
        """
        ...

    def moved(self: Self, rows: float, cols: float) -> Self:
        """The same pair with MS moved by so many pixels of PAN.

        The output keeps its size: where that moves MS off PAN by up to one of its pixels, MS is
        mirrored.

        Raises:
            InputError: when the two then do not overlap.
        """
        ...

    def fingerprint(self) -> str | None:
        """Identifies the content without reading all of it; None where that is not possible."""
        ...


class Writer(Protocol):
    """Takes the fused image, rectangle by rectangle."""

    clipped: int
    """Values of valid pixels that the output type could not hold, so far."""

    def write(
        self, rows: range, cols: range, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> None:
        """Write a rectangle.

        Args:
            rows: rows of PAN, within the source's output.
            cols: columns, likewise.
            values: digital numbers ``[C, rows, cols]``.
            valid: ``[rows, cols]``.
        """
        ...


class Sink(Protocol):
    """Where the fused image goes. Making one checks that it can be written."""

    warnings: tuple[str, ...]
    """How the result differs from what was asked for; one sentence each."""

    def open(
        self, extent: tuple[range, range], tags: Mapping[str, str]
    ) -> AbstractContextManager[Writer]:
        """Start writing; the result is complete when the context ends without an exception, and
        leaves nothing otherwise.

        Args:
            extent: rows and columns of PAN that the result has, see :attr:`Source.output`.
            tags: provenance, by name.
        """
        ...
