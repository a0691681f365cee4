"""xarray objects as the source and the result of a run, with the conventions of rioxarray."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ssdiff_trt.runtime.arrays import AnyArray, ArrayOutput, ArrayPair
from ssdiff_trt.runtime.errors import BackendError, InputError, install
from ssdiff_trt.runtime.interpolator import GROUND_POSITION, RATIO
from ssdiff_trt.runtime.options import PairOptions
from ssdiff_trt.runtime.plan.plan import Plan
from ssdiff_trt.runtime.sources import Rectangle

_RATIO_TOLERANCE = 0.0015
"""Share by which a pixel of MS may differ from four of PAN."""
_EDGE = 1e-3
"""Part of a pixel of MS that counts as none."""

DataArray = Any
"""``xarray.DataArray``, which need not be installed."""
Run = Callable[[Plan], object]
"""Carries out a plan."""


def is_data_array(value: object) -> bool:
    """Whether something is an ``xarray.DataArray``."""
    kind = type(value)
    return kind.__name__ == "DataArray" and kind.__module__.partition(".")[0] == "xarray"


class DataArrayPair(ArrayPair):
    """PAN and MS as ``DataArray`` on grids that run alike, cut to what both cover.

    CRS, geotransform and nodata are those that rioxarray finds. Arrays of dask are read where they
    are needed.

    Args:
        pan: with dimensions y and x, and at most one band.
        ms: with dimensions band, y and x.
        options: see :class:`ssdiff_trt.runtime.options.PairOptions`; nodata of the arrays counts
            where none is given.

    Attributes:
        pan: PAN as given, cut.
        ms: MS as given, cut.

    Raises:
        SSDiffError: if rioxarray is missing, or the two do not make a pair.
    """

    name = "MS DataArray"

    def __init__(self, pan: DataArray, ms: DataArray, options: PairOptions) -> None:
        try:
            import rioxarray  # noqa: F401  adds the accessor rio
        except ImportError:
            raise BackendError(f"Arrays of xarray need rioxarray; {install('xarray')}.") from None
        if pan.ndim == 3 and len(pan) == 1:
            pan = pan[0]
        if pan.ndim != 2 or ms.ndim != 3:
            raise InputError(
                f"The arrays have dimensions {pan.dims} and {ms.dims}, expected PAN with y and x "
                "and MS with band, y and x; transpose or select."
            )
        if pan.rio.crs != ms.rio.crs:
            raise InputError(
                f"PAN is in {pan.rio.crs} and MS in {ms.rio.crs}, expected one CRS; reproject MS, "
                "or give files, which a run warps itself."
            )
        (pan_rows, ms_rows, row), (pan_cols, ms_cols, col) = _overlap(pan, ms)
        self.pan, self.ms = pan[pan_rows, pan_cols], ms[:, ms_rows, ms_cols]
        options = replace(
            options,
            pan_nodata=_nodata(options.pan_nodata, options, self.pan),
            ms_nodata=_nodata(options.ms_nodata, options, self.ms),
        )
        super().__init__(self.pan.data, self.ms.data, options, position=(row, col))

    def fingerprint(self) -> str:
        """The same for each, as reading all of them to see a change would compute all of them."""
        return "arrays of xarray"

    @property
    def lazy(self) -> bool:
        """Whether PAN or MS is an array of dask."""
        return self.pan.chunks is not None or self.ms.chunks is not None

    def wrap(self, result: Any) -> DataArray:
        """A result ``[C, H, W]``, maybe of dask, with the coordinates of PAN and the bands and
        attributes of MS."""
        import xarray

        image = filled(result) if isinstance(result, ArrayOutput) else result
        band, *_ = self.ms.dims
        pan_y, pan_x = self.pan.dims
        _, height, width = image.shape
        coordinates = {
            name: values
            for name, values in self.pan[:height, :width].coords.items()
            if set(values.dims) <= {pan_y, pan_x} and name != band
        }
        if band in self.ms.coords:
            chosen = [number - 1 for number in self.bands]
            coordinates[band] = self.ms.coords[band].data[chosen]
        wrapped = xarray.DataArray(
            image, coordinates, (band, pan_y, pan_x), self.ms.name, self.ms.attrs
        )
        if self.ms.rio.nodata is not None:
            wrapped = wrapped.rio.write_nodata(self.ms.rio.nodata)
        return wrapped


def fuse_later(plan: Plan, run: Run) -> DataArray:
    """The result of a plan for arrays of dask, as one that is computed when it is needed.

    Args:
        plan: its source is a :class:`DataArrayPair`, its sink an array.
        run: carries out plans, in other threads and processes too.
    """
    from dask import array
    from dask.delayed import delayed

    source, sink = plan.source, plan.sink
    assert isinstance(source, DataArrayPair)
    assert isinstance(sink, ArrayOutput)
    rows: dict[range, list[Any]] = {}
    shared = delayed(plan, pure=False, traverse=False)  # once in the graph, and not hashed
    for place in map(plan.place, plan.blocks):
        part = delayed(_part, pure=False)(shared, place, run)
        shape = len(source.bands), *map(len, place)
        rows.setdefault(place[0], []).append(array.from_delayed(part, shape, sink.dtype))
    return source.wrap(array.block(list(rows.values())))


def _part(plan: Plan, place: Rectangle, run: Run) -> AnyArray:
    """A part of the result; holes are filled."""
    import dask

    sink = copy.copy(plan.sink)
    assert isinstance(sink, ArrayOutput)
    with dask.config.set(scheduler="synchronous"):  # the parts of PAN and MS, in this thread
        run(replace(plan, extent=place, sink=sink))
    return filled(sink)


def filled(sink: ArrayOutput) -> AnyArray:
    """The image of a sink, with nodata in its holes."""
    image: AnyArray = np.ma.filled(sink.image)
    return image


def _nodata(own: float | None, options: PairOptions, array: DataArray) -> float | None:
    """The value that means no data: as stated, else that of the array, which may not have one."""
    if own is not None or options.nodata is not None:
        return own if own is not None else options.nodata
    found = array.rio.nodata
    return None if found is None or math.isnan(found) else float(found)


def _overlap(pan: DataArray, ms: DataArray) -> tuple[tuple[slice, slice, float], ...]:
    """Along rows and columns: the parts of PAN and MS that cover each other, and the position of
    the centre of the first pixel of that part of MS, in pixels of that of PAN."""
    fine, coarse = pan.rio.transform(), ms.rio.transform()
    if any((fine.b, fine.d, coarse.b, coarse.d)):
        raise InputError("The arrays are rotated; give files, which a run warps itself.")
    found = []
    for begin, step, ms_begin, ms_step, size, ms_size in (
        (fine.f, fine.e, coarse.f, coarse.e, *(array.rio.height for array in (pan, ms))),
        (fine.c, fine.a, coarse.c, coarse.a, *(array.rio.width for array in (pan, ms))),
    ):
        if abs(ms_step / step / RATIO - 1) > _RATIO_TOLERANCE:
            raise InputError(
                f"A pixel of MS is {ms_step / step:.4g} pixels of PAN, expected {RATIO}; give "
                "files, which a run warps itself."
            )
        offset = (ms_begin - begin) / step
        first = max(0, math.floor(-offset / RATIO + _EDGE))
        last = min(ms_size, math.ceil((size - offset) / RATIO - _EDGE))
        if last <= first:
            raise InputError("PAN and MS do not overlap; give arrays of the same place.")
        start, stop = (math.floor(offset + RATIO * edge + 0.5) for edge in (first, last))
        start, stop = max(0, start), min(size, stop)
        position = GROUND_POSITION + offset + RATIO * first - start
        found.append((slice(start, stop), slice(first, last), position))
    return tuple(found)
