"""A raster that is written from finished blocks, so that a run can be killed and continued."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from ssdiff_trt.runtime.errors import counted
from ssdiff_trt.runtime.journal import Journal, read_journal
from ssdiff_trt.runtime.memory import check_space
from ssdiff_trt.runtime.raster.gdal import (
    READ_ERRORS,
    check_complete,
    without_georeferencing_warnings,
    write_pixels,
)
from ssdiff_trt.runtime.raster.live import LiveView
from ssdiff_trt.runtime.raster.output import TILED, RasterOutput
from ssdiff_trt.runtime.scratch import work_folder, work_folder_of
from ssdiff_trt.runtime.sources import Disk, Rectangle, hull

_PROFILE = {**TILED, "driver": "GTiff", "photometric": "minisblack", "ZLEVEL": "1"}
"""Of the file of a block; no band is taken for alpha."""
WORK = "SSDIFF_WORK"
"""Tag with a hash of what the pixels of a result depend on, besides the state of the inputs."""
_CHUNK = 1 << 24
"""Bytes of pixels that are copied to the result at a time."""


class SpooledOutput:
    """A raster that is written from finished blocks, in the order of the file: a sink.

    Until the result is complete, each finished block is a GeoTIFF in a hidden folder beside it,
    with the journal of :mod:`ssdiff_trt.runtime.journal`. The result is written from these files,
    whole blocks of it at a time, so its bytes do not depend on how the scene was split.

    Args:
        raster: the result.
        resume: whether blocks that an earlier run has finished are used, and kept for a later one.
            Otherwise a block is removed once it is copied to the result.
        live: shows finished blocks while the run goes on.

    Attributes:
        warnings: one sentence each.
        message: see :class:`ssdiff_trt.runtime.sources.Output`.
        left: what a run that ended with an exception has left; empty if nothing.
    """

    with_uncertainty = False

    def __init__(
        self, raster: RasterOutput, resume: bool = True, live: LiveView | None = None
    ) -> None:
        self._raster, self._resume, self._live = raster, resume, live
        self.warnings = raster.warnings
        self.message = self.left = ""
        self._can_continue = False

    def disk(self, blocks: Sequence[Rectangle]) -> Disk:
        """See :class:`ssdiff_trt.runtime.sources.Sink`."""
        (rows, _), size = hull(blocks), self._raster.size
        kept = len(rows)
        if not (self._resume or self._live):
            kept = min(kept, 2 * max(len(block[0]) for block in blocks))
        more = size * kept // len(rows)
        more += size if self._raster.is_copied else 0
        return Disk(size, more, check_space(self._raster.path, size, more))

    @contextmanager
    def open(
        self, blocks: Sequence[Rectangle], tags: Mapping[str, str], work: Mapping[str, str] | None
    ) -> Iterator[SpooledOutput]:
        """See :class:`ssdiff_trt.runtime.sources.Sink`."""
        self._rows = [list(row) for _, row in groupby(blocks, key=lambda block: block[0])]
        self._extent, self._copied = hull(blocks), blocks[0][0].start
        known = self._known(work)
        if work:
            tags = {**tags, WORK: self._digest(work)}
        parameter = self._raster.parameter
        with work_folder(self._raster.path, lambda: self._keep(len(blocks)), parameter) as folder:
            with self._raster.translated_errors():
                self._folder, self._journal = folder, Journal(folder, known)
            self._can_continue = self._journal.listed
            self.message = self._found(len(blocks))
            self._show()
            try:
                with self._raster.written_in(folder, self._extent, tags):
                    yield self
                    self._copy_rows()
            finally:
                if self._live:
                    self._live.remove()

    def is_complete(self, work: Mapping[str, str] | None) -> bool:
        """See :class:`ssdiff_trt.runtime.sources.Sink`."""
        path = self._raster.path
        if work is None or not path.exists():
            return False
        try:
            with without_georeferencing_warnings(), rasterio.open(path) as file:
                made_by = file.tags().get(WORK)
        except READ_ERRORS:
            return False
        times = [os.stat(file).st_mtime_ns for file in self._raster.inputs if os.path.exists(file)]
        return made_by == self._digest(work) and max(times, default=0) <= path.stat().st_mtime_ns

    def finished_blocks(self, work: Mapping[str, str] | None) -> int:
        """See :class:`ssdiff_trt.runtime.sources.Sink`."""
        head, parts = read_journal(work_folder_of(self._raster.path))
        return len(parts) if head and head == self._known(work) else 0

    def _known(self, work: Mapping[str, str] | None) -> dict[str, str] | None:
        """What finished blocks depend on; None if they cannot be used later."""
        return {**work, **self._raster.encoding} if work and self._resume else None

    def _digest(self, work: Mapping[str, str]) -> str:
        """A short hash of what the pixels depend on, besides the state of the inputs."""
        known = {**work, **self._raster.encoding}
        known = {name: known[name] for name in known if name not in ("inputs", "block")}
        text = json.dumps(known, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _found(self, blocks: int) -> str:
        journal, name = self._journal, self._raster.path.name
        if journal.changed:
            return (
                f"An unfinished run of {name} cannot be continued, as {journal.changed} changed; "
                "this one starts from the beginning"
            )
        if journal.parts:
            return (
                f"An unfinished run of {name} is continued; finished so far: "
                f"{len(journal.parts)} of {counted(blocks, 'block')}"
            )
        if self._resume and not self._can_continue and blocks > 1:
            return "The inputs cannot be recognised later, so this run cannot be continued"
        return ""

    def _keep(self, blocks: int) -> bool:
        """Whether an unfinished run can be continued."""
        if not (self._can_continue and self._journal.parts):
            return False
        done = len(self._journal.parts)
        self.left = (
            f"Finished so far: {done} of {counted(blocks, 'block')}, kept in {self._folder}; the "
            "same command continues from there"
        )
        return True

    def finished(self, block: Rectangle) -> Mapping[str, float] | None:
        """See :class:`ssdiff_trt.runtime.sources.Output`."""
        part = self._journal.parts.get(_name(block))
        return part.counts if part else None

    def forget(self) -> None:
        """See :class:`ssdiff_trt.runtime.sources.Output`."""
        self._can_continue = False

    def begin(self, block: Rectangle) -> _BlockFile:
        """See :class:`ssdiff_trt.runtime.sources.Output`."""
        return _BlockFile(self, self._raster, self._folder / _name(block), block)

    def add(self, file: str, counts: Mapping[str, float]) -> None:
        """List a block whose file is complete, and copy what can be copied to the result."""
        self._journal.add(file, counts)
        self._show()
        self._copy_rows()

    def _show(self) -> None:
        """Bring the live view up to date."""
        if self._live is None:
            return
        blocks = [block for row in self._rows for block in row]
        files = {
            block: self._folder / _name(block)
            for block in blocks
            if _name(block) in self._journal.parts
        }
        raster, extent = self._raster, self._extent
        profile = raster.profile(*extent)
        self._live.show(profile, raster.names, raster.colours, extent, files, len(blocks))

    def _copy_rows(self) -> None:
        """Copy to the result all rows of whole blocks of its file that are finished."""
        rows, cols = self._extent
        height, width = self._raster.block_shape
        done = self._copied
        for row in self._rows:
            if any(_name(block) not in self._journal.parts for block in row):
                break
            done = max(done, row[0][0].stop)
        if done < rows.stop:
            done -= (done - rows.start) % height
        value = self._raster.dtype.itemsize * self._raster.bands
        down = height * max(1, min(256 // height, _CHUNK // (value * height * width)))
        across = width * max(1, _CHUNK // (value * down * width))
        for top in range(self._copied, done, down):
            for left in range(cols.start, cols.stop, across):
                bottom, right = min(top + down, done), min(left + across, cols.stop)
                self._copy(range(top, bottom), range(left, right))
        self._copied = done
        if not (self._journal.listed or self._live):
            for row in self._rows:
                if row[0][0].stop <= done:
                    for block in row:
                        (self._folder / _name(block)).unlink(missing_ok=True)

    def _copy(self, rows: range, cols: range) -> None:
        """Copy a rectangle of PAN to the result."""
        pixels = np.empty((self._raster.bands, len(rows), len(cols)), self._raster.dtype)
        valid = np.empty((len(rows), len(cols)), bool)
        for row in self._rows:
            if not _common(row[0][0], rows):
                continue
            for block in row:
                both = _common(block[0], rows), _common(block[1], cols)
                if not all(both):
                    continue
                place = _slice(both[0], rows), _slice(both[1], cols)
                inside = _slice(both[0], block[0]), _slice(both[1], block[1])
                with (
                    self._raster.translated_errors(),
                    without_georeferencing_warnings(),
                    rasterio.open(self._folder / _name(block)) as file,
                ):
                    window = Window.from_slices(*inside)
                    pixels[(..., *place)] = file.read(window=window)
                    valid[place] = file.dataset_mask(window=window) > 0
        self._raster.write_encoded(rows, cols, pixels, valid)


class _BlockFile:
    """The file of a block while it is written."""

    def __init__(self, spool: SpooledOutput, raster: RasterOutput, path: Path, block: Rectangle):
        self._spool, self._raster, self._path, self._block = spool, raster, path, block
        self._masks = raster.marks_by_mask
        self.clipped = 0
        predictor = 3 if raster.dtype.kind == "f" else 2
        with self._raster.translated_errors(), without_georeferencing_warnings():
            profile = raster.profile(*block)
            self._file = rasterio.open(path, "w", predictor=predictor, **profile, **_PROFILE)

    def write(
        self, rows: range, cols: range, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> None:
        """See :class:`ssdiff_trt.runtime.sources.BlockWriter`."""
        pixels, clipped = self._raster.encode(values, valid)
        self.clipped += clipped
        place = Window.from_slices(*map(_slice, (rows, cols), self._block))
        with self._raster.translated_errors():
            write_pixels(self._file, pixels, valid if self._masks else None, place)

    def finish(self, counts: Mapping[str, float]) -> None:
        """See :class:`ssdiff_trt.runtime.sources.BlockWriter`."""
        with self._raster.translated_errors():
            self._file.close()
            check_complete(self._path)
            self._spool.add(self._path.name, counts)


def _name(block: Rectangle) -> str:
    """Name of the file of a block."""
    rows, cols = block
    return f"{rows.start}-{rows.stop}_{cols.start}-{cols.stop}.tif"


def _common(one: range, other: range) -> range:
    return range(max(one.start, other.start), min(one.stop, other.stop))


def _slice(part: range, of: range) -> slice:
    """Where a part is in a range."""
    return slice(part.start - of.start, part.stop - of.start)
