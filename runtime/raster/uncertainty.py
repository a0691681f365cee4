"""A result and its uncertainty: two rasters on one grid, written together."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetWriter

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.memory import check_space
from ssdiff_trt.runtime.options import OutputOptions
from ssdiff_trt.runtime.raster.output import RasterOutput
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.sources import BlockWriter, Disk, Output, Rectangle, Sink

TAG = "SSDIFF_UNCERTAINTY"
"""Tag that says what the values of a file of uncertainty mean."""
MEANING = (
    "expected absolute error of each value of {result}, in digital numbers of MS, estimated by "
    "formula {formula}; holes are NaN"
)


class UncertaintyRaster(RasterOutput):
    """The uncertainty of a result: a float32 GeoTIFF with its grid and bands, holes are NaN.

    Args:
        path: of the file, ``.tif`` or ``.tiff``.
        result: the raster whose uncertainty it is.
        scene: the pair that both are made from.
        options: those of the result; overviews and overwriting are the same, the rest is not.
        extent: rows and columns of PAN that both have.

    Raises:
        SSDiffError: when it cannot be written there like that.
    """

    parameter = "uncertainty"

    def __init__(
        self,
        path: str | Path,
        result: RasterOutput,
        scene: Scene,
        options: OutputOptions,
        extent: Rectangle | None = None,
    ) -> None:
        if os.path.realpath(path) == os.path.realpath(result.path):
            raise InputError(
                f"{path} is the result itself; give another name.", parameter=self.parameter
            )
        like = OutputOptions(
            dtype="float32", overviews=options.overviews, overwrite=options.overwrite
        )
        super().__init__(path, scene, like, extent)

    def _choose_nodata(self) -> float:
        return math.nan

    def _create(self, path: Path, tags: Mapping[str, str]) -> DatasetWriter:
        file = super()._create(path, tags)
        if any(file.offsets):  # a difference has none
            file.offsets = [0.0] * self.bands
        return file


class OutputWithUncertainty:
    """A sink that writes the bands to one sink, and their uncertainty to another.

    Each keeps its own finished blocks; a block is finished where both have it. The file of the
    uncertainty is placed first, and removed if the result then cannot be.

    Args:
        result: sink of the bands. What it writes is the same as without the other.
        uncertainty: sink of their uncertainty.
        formula: identifies how that is estimated.
        paths: files of both, in this order, if they are files.

    Attributes:
        warnings: one sentence each.
        message: see :class:`ssdiff_trt.runtime.sources.Output`.
    """

    with_uncertainty = True

    def __init__(
        self,
        result: Sink,
        uncertainty: Sink,
        formula: str,
        paths: tuple[Path, Path] | None = None,
    ) -> None:
        self._sinks = result, uncertainty
        self._formula, self._paths = formula, paths
        self.warnings = (*result.warnings, *uncertainty.warnings)
        self.message = ""
        self._outputs: tuple[Output, ...] = ()

    def disk(self, blocks: Sequence[Rectangle]) -> Disk:
        """See :class:`ssdiff_trt.runtime.sources.Sink`."""
        disks = [sink.disk(blocks) for sink in self._sinks]
        size, more = (
            sum(getattr(disk, name) for disk in disks) for name in ("result", "until_complete")
        )
        return Disk(size, more, check_space(self._paths[0], size, more) if self._paths else ())

    @contextmanager
    def open(
        self, blocks: Sequence[Rectangle], tags: Mapping[str, str], work: Mapping[str, str] | None
    ) -> Iterator[OutputWithUncertainty]:
        """See :class:`ssdiff_trt.runtime.sources.Sink`."""
        result, uncertainty = self._sinks
        name = self._paths[0].name if self._paths else "the result"
        about = {**tags, TAG: MEANING.format(result=name, formula=self._formula)}
        placed = complete = False
        try:
            with result.open(blocks, tags, work) as first:
                with uncertainty.open(blocks, about, self._depends(work)) as second:
                    self._outputs = first, second
                    self.message = self._found(blocks)
                    yield self
                placed = True
            complete = True
        finally:
            if placed and not complete and self._paths:
                self._paths[1].unlink(missing_ok=True)

    def _depends(self, work: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """All that the uncertainty depends on."""
        return work and {**work, "uncertainty": self._formula}

    def _found(self, blocks: Sequence[Rectangle]) -> str:
        """What was found of an earlier run, of the one of the two that has less."""
        result, uncertainty = self._outputs
        if not any(result.finished(block) for block in blocks):
            return result.message
        if any(uncertainty.finished(block) for block in blocks):
            return uncertainty.message
        return (
            uncertainty.message
            or "The unfinished run had no uncertainty; this one starts from the beginning"
        )

    def is_complete(self, work: Mapping[str, str] | None) -> bool:
        """See :class:`ssdiff_trt.runtime.sources.Sink`."""
        result, uncertainty = self._sinks
        return result.is_complete(work) and uncertainty.is_complete(self._depends(work))

    def finished_blocks(self, work: Mapping[str, str] | None) -> int:
        """See :class:`ssdiff_trt.runtime.sources.Sink`."""
        result, uncertainty = self._sinks
        return min(result.finished_blocks(work), uncertainty.finished_blocks(self._depends(work)))

    @property
    def left(self) -> str:
        """See :class:`ssdiff_trt.runtime.sources.Sink`."""
        return self._sinks[1].left and self._sinks[0].left

    def finished(self, block: Rectangle) -> Mapping[str, float] | None:
        """See :class:`ssdiff_trt.runtime.sources.Output`."""
        counts, others = (output.finished(block) for output in self._outputs)
        return None if others is None else counts

    def forget(self) -> None:
        """See :class:`ssdiff_trt.runtime.sources.Output`."""
        for output in self._outputs:
            output.forget()

    def begin(self, block: Rectangle) -> _BothWriters:
        """See :class:`ssdiff_trt.runtime.sources.Output`."""
        return _BothWriters(*(output.begin(block) for output in self._outputs))


class _BothWriters:
    """Writes a block of both; see :class:`ssdiff_trt.runtime.sources.BlockWriter`."""

    def __init__(self, result: BlockWriter, uncertainty: BlockWriter) -> None:
        self._writers = result, uncertainty
        self.clipped = 0

    def write(
        self, rows: range, cols: range, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> None:
        for writer, part in zip(self._writers, np.split(values, 2), strict=True):
            writer.write(rows, cols, part, valid)
        self.clipped = self._writers[0].clipped

    def finish(self, counts: Mapping[str, float]) -> None:
        for writer in self._writers:
            writer.finish(counts)
