"""What a run reads from and writes to: sources and sinks.

A source is a pair of PAN and MS on one grid, a sink takes the fused image. Rasters on disk are one
of each (:mod:`ssdiff_trt.runtime.raster`), arrays another (:mod:`ssdiff_trt.runtime.arrays`).

The grid of a source is PAN's, restricted to what both images cover and extended outward to whole
pixels of MS, so its height and width are multiples of 4. Where PAN ends inside a pixel of MS the
grid goes up to 3 pixels beyond PAN; those are mirrored when read, and are not part of the output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.interpolator import GROUND_POSITION, HALO, RATIO, interpolate_with_halo

Rectangle = tuple[range, range]
"""Rows and columns."""
_ROUNDING = 1e-6  # of a pixel
_BLOCK = 64  # pixels of PAN on a side that are interpolated at one position


@dataclass(frozen=True)
class MSAxis:
    """Where the pixels of MS lie along an axis of PAN."""

    begin: float
    """Row or column of PAN where the first pixel of MS begins."""
    scale: float = RATIO
    """Pixels of PAN in a pixel of MS: 4, or nearly so."""

    def edge(self, ms: int) -> int:
        """The edge between pixels of PAN that is nearest to where a pixel of MS begins."""
        return math.ceil(self.begin + self.scale * ms - 0.5 - _ROUNDING)

    def under(self, pan: range) -> range:
        """The ``len(pan) / 4`` pixels of MS whose centre is nearest to that of pixels of PAN."""
        size = len(pan) // RATIO
        centre = (pan.start + pan.stop) / 2
        first = round((centre - self.begin) / self.scale - size / 2)
        return range(first, first + size)

    def position(self, pan: range) -> float:
        """Where the centre of the first of them lies, in pixels of PAN from the first of these.

        Exact in the middle, rounded to 1/64; 1.5 where the two fit, -0.5 to 3.5 otherwise.
        """
        ms = self.under(pan)
        middle = self.begin + self.scale * (ms.start + ms.stop) / 2
        offset = middle - (pan.start + pan.stop) / 2
        return round((GROUND_POSITION + offset) * 64) / 64

    def with_halo(self, pan: range) -> range:
        """Pixels of MS that the interpolator needs for any part of a range of PAN."""
        drift = abs(self.scale / RATIO - 1) * len(pan) / RATIO
        halo = HALO + (math.ceil(drift) + 1 if drift else 0)
        ms = self.under(pan)
        return range(ms.start - halo, ms.stop + halo)

    def beginning_in(self, pan: range) -> range:
        """Pixels of MS that begin in a range of PAN; adjacent ranges share none."""
        first, last = (
            math.ceil((edge - 0.5 - self.begin) / self.scale - _ROUNDING)
            for edge in (pan.start, pan.stop)
        )
        return range(first, last)

    def of_each(self, pan: range) -> NDArray[np.int64]:
        """The pixel of MS that holds the centre of each pixel of PAN."""
        places = (np.array(pan) + 0.5 - self.begin) / self.scale
        return np.floor(places + _ROUNDING).astype(np.int64)

    def relative(self, pan: int, ms: int) -> MSAxis:
        """The same, counted from a pixel of PAN and a pixel of MS."""
        return MSAxis(self.begin + self.scale * ms - pan, self.scale)


@dataclass(frozen=True)
class MSPart:
    """MS under a rectangle of PAN, with the halo of the interpolator."""

    values: NDArray[np.float32]
    """``[C, h / 4 + 2 HALO, w / 4 + 2 HALO]``, digital numbers."""
    valid: NDArray[np.bool_]
    """``[h / 4 + 2 HALO, w / 4 + 2 HALO]``."""
    position: tuple[float, float]
    """Row and column of the first pixel inside the halo; see :meth:`MSAxis.position`."""

    @property
    def inner(self) -> NDArray[np.float32]:
        """Values without the halo."""
        return self.values[:, HALO:-HALO, HALO:-HALO]

    @property
    def inner_valid(self) -> NDArray[np.bool_]:
        """Validity without the halo."""
        return self.valid[HALO:-HALO, HALO:-HALO]


@dataclass(frozen=True)
class Pixels:
    """A rectangle of a source, in digital numbers. Invalid pixels have arbitrary values."""

    pan: NDArray[np.float32]
    """``[h, w]``."""
    pan_valid: NDArray[np.bool_]
    """``[h, w]``."""
    ms: NDArray[np.float32]
    """``[C, ...]``, all that lies under PAN, and at least HALO pixels around it."""
    ms_valid: NDArray[np.bool_]
    """Likewise, without bands."""
    axes: tuple[MSAxis, MSAxis]
    """Where the rows and columns of :attr:`ms` lie on those of :attr:`pan`."""

    def ms_under(self, rows: range | None = None, cols: range | None = None) -> MSPart:
        """MS under a part of PAN; by default under all of it.

        Args:
            rows: rows of :attr:`pan`; their number is a multiple of 4.
            cols: columns, likewise.
        """
        parts = [
            range(size) if part is None else part
            for part, size in zip((rows, cols), self.pan.shape, strict=True)
        ]
        down, across = (
            slice(ms.start - HALO, ms.stop + HALO)
            for ms in (axis.under(part) for axis, part in zip(self.axes, parts, strict=True))
        )
        row, col = (axis.position(part) for axis, part in zip(self.axes, parts, strict=True))
        return MSPart(self.ms[:, down, across], self.ms_valid[down, across], (row, col))

    def lms(self) -> NDArray[np.float32]:
        """MS interpolated to the pixels of PAN, ``[C, h, w]``."""
        out = np.empty((len(self.ms), *self.pan.shape), np.float32)
        height, width = self.pan.shape
        for top in range(0, height, _BLOCK):
            for left in range(0, width, _BLOCK):
                rows, cols = (
                    range(top, min(top + _BLOCK, height)),
                    range(left, min(left + _BLOCK, width)),
                )
                part = self.ms_under(rows, cols)
                out[:, top : rows.stop, left : cols.stop] = interpolate_with_halo(
                    part.values, part.position
                )
        return out


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


def describe_sizes(pan: tuple[int, int], ms: tuple[int, int], bands: Sequence[int]) -> str:
    """Sizes of PAN and MS, given as height and width, and the bands in use."""
    numbers = ",".join(map(str, bands))
    return f"PAN {pan[1]} x {pan[0]}, MS {ms[1]} x {ms[0]}, bands {numbers}"


class Identified(NamedTuple):
    """Which band is which."""

    names: tuple[str, ...]
    """Of :data:`ssdiff_trt.runtime.sensors.BAND_NAMES`, empty where unknown."""
    reason: str
    """Where the names are from, such as "by colour interpretation"."""
    complete: bool
    """Whether these are blue, green, red and nir, or WorldView's eight, in any order."""


Self = TypeVar("Self")


class Source(Protocol):
    """A pair of PAN and MS on one grid."""

    @property
    def name(self) -> str:
        """Name of the MS image, for messages."""
        ...

    def describe(self) -> str:
        """One line: the sizes of PAN and MS, and the bands in use."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may be wrong with how MS lies on PAN."""
        ...

    @property
    def bands(self) -> tuple[int, ...]:
        """Bands of MS in use, counted from 1, in the order of the network."""
        ...

    @property
    def identified(self) -> Identified | None:
        """What the files say of these bands; None where they say nothing."""
        ...

    @property
    def file_order(self) -> tuple[int, ...]:
        """The bands of the result, as indices of :attr:`bands`: in the order of the file, unless
        another order was stated."""
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
        """Row and column of an MS pixel's centre among its 4 x 4 pixels of PAN, in the middle of
        the grid; 1.5 when the two grids fit."""
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


class BlockWriter(Protocol):
    """Takes the pixels of a block, rectangle by rectangle."""

    clipped: int
    """Values of valid pixels that the output type could not hold, so far."""

    def write(
        self, rows: range, cols: range, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> None:
        """Write a rectangle.

        Args:
            rows: rows of PAN, within the block.
            cols: columns, likewise.
            values: digital numbers ``[C, rows, cols]``; see also :attr:`Sink.with_uncertainty`.
            valid: ``[rows, cols]``.
        """
        ...

    def finish(self, counts: Mapping[str, float]) -> None:
        """The block is complete.

        Args:
            counts: what was counted while it was made.
        """
        ...


class Output(Protocol):
    """Takes the fused image, block by block, in any order."""

    message: str
    """What was found of an earlier run, in one sentence; empty if nothing was."""

    def finished(self, block: Rectangle) -> Mapping[str, float] | None:
        """What was counted in a block that an earlier run has finished; None if it has not."""
        ...

    def forget(self) -> None:
        """Keep no finished blocks if the run ends with an exception."""
        ...

    def begin(self, block: Rectangle) -> BlockWriter:
        """Start a block, given as rows and columns of PAN. One is written at a time."""
        ...


@dataclass(frozen=True)
class Disk:
    """Space that a result takes, if it cannot be compressed."""

    result: int = 0
    """Bytes of it."""
    until_complete: int = 0
    """Bytes of other files beside it until it is complete."""
    warnings: tuple[str, ...] = ()
    """A sentence where the disk may become full."""


class Sink(Protocol):
    """Where the fused image goes. Making one checks that it can be written."""

    warnings: tuple[str, ...]
    """How the result differs from what was asked for; one sentence each."""
    with_uncertainty: bool
    """Whether it takes the uncertainty of each band after the bands, ``[2 C, rows, cols]``."""

    def disk(self, blocks: Sequence[Rectangle]) -> Disk:
        """Space that writing takes."""
        ...

    def open(
        self, blocks: Sequence[Rectangle], tags: Mapping[str, str], work: Mapping[str, str] | None
    ) -> AbstractContextManager[Output]:
        """Start writing; the result is complete when the context ends without an exception, and
        nowhere otherwise.

        Args:
            blocks: rows and columns of PAN that the result has, in parts, row by row.
            tags: provenance, by name.
            work: all that the pixels depend on, by name; blocks that an earlier run has finished
                are used if it is the same. None where that is not known.
        """
        ...

    def is_complete(self, work: Mapping[str, str] | None) -> bool:
        """Whether the result is there already, made by the same work of inputs that have not
        changed since."""
        ...

    def finished_blocks(self, work: Mapping[str, str] | None) -> int:
        """Number of blocks that an unfinished run of the same work has left. Changes nothing."""
        ...

    @property
    def left(self) -> str:
        """What a run that ended with an exception has left, in one sentence; empty if nothing."""
        ...


def hull(blocks: Sequence[Rectangle]) -> Rectangle:
    """The rectangle that blocks make up, which are given row by row."""
    (top, left), (bottom, right) = blocks[0], blocks[-1]
    return range(top.start, bottom.stop), range(left.start, right.stop)
