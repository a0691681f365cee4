"""Arrays as the source and the sink of a run: nothing touches the disk."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.interpolator import GROUND_POSITION
from ssdiff_trt.runtime.options import ReadOptions
from ssdiff_trt.runtime.raster.checks import check_type
from ssdiff_trt.runtime.raster.encoding import Scaling, count_clipped, encode, holds
from ssdiff_trt.runtime.raster.image import Holes, band_numbers, mirrored
from ssdiff_trt.runtime.raster.placement import Placed, Placement, from_corners, place
from ssdiff_trt.runtime.raster.scene import choose_holes
from ssdiff_trt.runtime.sources import Disk, Pixels, Rectangle, ValueType, describe_sizes, hull

if TYPE_CHECKING:
    from typing_extensions import Self

AnyArray = NDArray[Any]


class ArrayPair(Placed):
    """PAN and MS as arrays of the same ground, their upper left corners at one place.

    Holes are NaN, ``nodata``, or the mask of a masked array (:mod:`numpy.ma`).

    Args:
        pan: ``[H, W]``, digital numbers of any real type.
        ms: ``[C, h, w]``, likewise; H and W are 4 h and 4 w, to within one MS pixel.
        options: bands and nodata; see :class:`ssdiff_trt.runtime.options.ReadOptions`. Bands are
            numbers, counted from 1.
        position: row and column of PAN where the centre of the first MS pixel lies; 1.5 when the
            grids fit.

    Raises:
        InputError: when the two do not make a pair.
    """

    name = "MS array"
    warnings: tuple[str, ...] = ()

    def __init__(
        self,
        pan: AnyArray,
        ms: AnyArray,
        options: ReadOptions | None = None,
        *,
        position: tuple[float, float] = (GROUND_POSITION, GROUND_POSITION),
    ) -> None:
        if pan.ndim != 2 or ms.ndim != 3 or not (pan.size and ms.size):
            raise InputError(
                f"The arrays have shapes {list(pan.shape)} and {list(ms.shape)}, expected PAN "
                "[H, W] and MS [C, H/4, W/4]; rearrange their axes."
            )
        for role, array in (("PAN", pan), ("MS", ms)):
            if array.dtype.kind not in "uif":
                raise InputError(
                    f"The {role} array is of {array.dtype}, expected real numbers; convert it."
                )
        options = options or ReadOptions()
        if options.pan_band is not None:
            raise InputError("A PAN array has one band.", parameter="pan_band")
        self.bands = tuple(band_numbers(options.bands, [None] * len(ms), self.name))
        self.identified = None
        self.file_order = tuple(range(len(self.bands)))
        self._pan_holes, self._ms_holes = choose_holes(options)
        self._position = position
        self._pan, self._ms = pan, ms[[band - 1 for band in self.bands]]
        self.placement = self._place((0.0, 0.0))

    def _place(self, shift: tuple[float, float]) -> Placement:
        pan, ms = self._pan.shape, self._ms.shape[1:]
        by_corners = from_corners((pan[0], pan[1]), (ms[0], ms[1]))
        offsets = np.array(self._position)[:, None] - GROUND_POSITION
        placement = place(
            (pan[0], pan[1]),
            (ms[0], ms[1]),
            lambda row, col: by_corners(row, col) + offsets,
            shift,
            ("PAN array", self.name),
        )
        if placement.resampled:
            raise InputError(
                f"PAN is {pan[0]} x {pan[1]} pixels and MS {ms[0]} x {ms[1]}; PAN must be 4 times "
                "as large, to within one MS pixel."
            )
        return placement

    def moved(self, rows: float, cols: float) -> Self:
        other = copy.copy(self)
        other.placement = other._place((rows, cols))
        return other

    def describe(self) -> str:
        (height, width), (low, narrow) = self._pan.shape, self._ms.shape[1:]
        return describe_sizes((height, width), (low, narrow), self.bands)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of MS."""
        return self._ms.dtype

    @property
    def nodata(self) -> float | None:
        """As given, of MS or else of PAN."""
        given = self._ms_holes.nodata
        return self._pan_holes.nodata if given is None else given

    @property
    def pan_values(self) -> ValueType:
        return self._values("PAN", self._pan, self._pan_holes)

    @property
    def ms_values(self) -> ValueType:
        return self._values("MS", self._ms, self._ms_holes)

    def _values(self, role: str, array: AnyArray, holes: Holes) -> ValueType:
        declared = holes.nodata is not None or np.ma.isMaskedArray(array)
        return ValueType(role, array.dtype.name, None, declared, holes.nodata == 0)

    def read(self, rows: range, cols: range) -> Pixels:
        pan, pan_valid = self._part(self._pan[None], rows, cols, self._pan_holes)
        ms_part, axes = self.placement.ms_parts(rows, cols)
        ms, ms_valid = self._part(self._ms, *ms_part, self._ms_holes)
        return Pixels(pan[0], pan_valid, ms, ms_valid, axes)

    def _part(
        self, image: AnyArray, rows: range, cols: range, holes: Holes
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        height, width = image.shape[1:]
        inside_rows = slice(max(rows.start, 0), min(rows.stop, height))
        inside_cols = slice(max(cols.start, 0), min(cols.stop, width))
        part = np.asanyarray(image[:, inside_rows, inside_cols])  # arrays of dask are computed
        stored = np.ma.getdata(part)
        values = stored.astype(np.float32)
        hole = holes.of(stored, [None] * len(stored)) | np.ma.getmaskarray(part).any(axis=0)
        valid = ~hole & np.isfinite(values).all(axis=0)
        return mirrored(values, valid, rows, cols, (height, width))

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for array in (self._pan, self._ms):
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(np.ma.getdata(array)).tobytes())
            digest.update(np.packbits(np.ma.getmaskarray(array)).tobytes())
        return digest.hexdigest()


class ArrayOutput:
    """An array on the grid of a source: a sink.

    Args:
        source: what the result is made from.
        dtype: of the result; that of MS by default.
        scale: digital numbers that become the least and the largest value of that type.

    Attributes:
        image: ``[C, H, W]`` once the context has ended; a masked array where the result
            has holes. Holes are filled with ``nodata``, else NaN or 0.
        clipped: values of valid pixels of the block that the type could not hold, so far.
        dtype: of the result.
    """

    warnings: tuple[str, ...] = ()
    message = left = ""
    with_uncertainty = False

    def __init__(
        self,
        source: ArrayPair,
        dtype: str | None = None,
        scale: tuple[float, float] | None = None,
    ) -> None:
        self._source, self.dtype = source, np.dtype(dtype or source.dtype)
        check_type(source, self.dtype, scale)
        self._scaling = Scaling.of(scale, self.dtype)
        self.image: AnyArray = np.empty(0, self.dtype)
        self.clipped = 0

    @contextmanager
    def open(
        self, blocks: Sequence[Rectangle], tags: Mapping[str, str], work: Mapping[str, str] | None
    ) -> Iterator[ArrayOutput]:
        """See :class:`ssdiff_trt.runtime.sources.Sink`; arrays have no tags."""
        rows, cols = self._extent = hull(blocks)
        self._pixels = np.empty((len(self._source.bands), len(rows), len(cols)), self.dtype)
        self._valid = np.zeros((len(rows), len(cols)), bool)
        yield self
        self.image = self._pixels
        if not self._valid.all():
            holes = np.broadcast_to(~self._valid, self._pixels.shape)
            self.image = np.ma.MaskedArray(self._pixels, holes, fill_value=self._filling)

    @property
    def _filling(self) -> float:
        nodata = self._source.nodata
        if nodata is not None and holds(self.dtype, nodata):
            return nodata
        return np.nan if self.dtype.kind == "f" else 0

    def disk(self, blocks: Sequence[Rectangle]) -> Disk:
        """See :class:`ssdiff_trt.runtime.sources.Sink`."""
        return Disk()

    def is_complete(self, work: Mapping[str, str] | None) -> bool:
        """See :class:`ssdiff_trt.runtime.sources.Sink`."""
        return False

    def finished_blocks(self, work: Mapping[str, str] | None) -> int:
        """See :class:`ssdiff_trt.runtime.sources.Sink`."""
        return 0

    def finished(self, block: Rectangle) -> None:
        """See :class:`ssdiff_trt.runtime.sources.Output`; nothing is kept from run to run."""

    def forget(self) -> None:
        """See :class:`ssdiff_trt.runtime.sources.Output`."""

    def begin(self, block: Rectangle) -> ArrayOutput:
        """See :class:`ssdiff_trt.runtime.sources.Output`."""
        self.clipped = 0
        return self

    def finish(self, counts: Mapping[str, float]) -> None:
        """See :class:`ssdiff_trt.runtime.sources.BlockWriter`."""

    def write(
        self, rows: range, cols: range, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> None:
        """See :class:`ssdiff_trt.runtime.sources.BlockWriter`."""
        values = self._scaling.apply(values)
        self.clipped += count_clipped(values, valid, self.dtype)
        top, left = (axis.start for axis in self._extent)
        place = np.s_[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
        pixels = encode(values, valid, self.dtype, None)
        pixels[:, ~valid] = self._filling
        self._pixels[(..., *place)] = pixels
        self._valid[place] = valid
