"""A result with the pair that it was made from, read part by part."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from ssdiff_trt.runtime.errors import InputError, counted
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.raster.affine import product
from ssdiff_trt.runtime.raster.image import Holes, name_of, open_raster, read_rectangle
from ssdiff_trt.runtime.raster.placement import ON_GRID
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.sources import Pixels, Rectangle

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """A rectangle of a result and its pair."""

    pixels: Pixels
    """PAN and MS."""
    fused: Values
    """``[C, h, w]``, in digital numbers of MS, 0 in holes."""
    valid: NDArray[np.bool_]
    """``[h, w]``: pixels of the result with a value."""
    uncertainty: Values | None
    """``[h, w]``: mean of the bands, in digital numbers of MS; 0 in holes."""


class FusedScene:
    """A result with the pair that it was made from. Used as a context manager.

    Args:
        scene: the pair, MS moved as it was for the result; it stays open.
        result: raster on the grid of PAN.
        uncertainty: raster of its uncertainty, if there is one.

    Raises:
        InputError: if one cannot be read or is not on the grid of the pair.

    Attributes:
        size: height and width of what is read: whole pixels of MS, so up to 3 pixels at each
            edge of the result are left out.
        origin: row and column of PAN where it begins.
        bands: number of bands, in the order of the network.
        tags: of the result.
    """

    def __init__(
        self, scene: Scene, result: str | Path, uncertainty: str | Path | None = None
    ) -> None:
        self.pair, self.bands = scene, len(scene.bands)
        self._places = [1 + scene.file_order.index(band) for band in range(self.bands)]
        with ExitStack() as files:
            self._open(files, result, uncertainty)
            self._files = files.pop_all()

    def _open(self, files: ExitStack, result: str | Path, uncertainty: str | Path | None) -> None:
        self._result = files.enter_context(open_raster(result, "result"))
        self._uncertainty: DatasetReader | None = None
        extent = self._located(self._result)
        if uncertainty is not None:
            self._uncertainty = files.enter_context(open_raster(uncertainty, "uncertainty"))
            if self._located(self._uncertainty) != extent:
                raise InputError(
                    f"{name_of(uncertainty)} does not cover the area of {name_of(result)}, "
                    "expected the uncertainty of that result; give its own.",
                    parameter="uncertainty",
                )
        self.tags: dict[str, str] = self._result.tags()
        # MS is read by whole pixels, which begin where the grid of the pair does.
        grid = self.pair.rows.start, self.pair.cols.start
        self._first = [
            -(axis.start - start) % RATIO for axis, start in zip(extent, grid, strict=True)
        ]
        self.origin = [axis.start + skip for axis, skip in zip(extent, self._first, strict=True)]
        height, width = (
            (len(axis) - skip) // RATIO * RATIO
            for axis, skip in zip(extent, self._first, strict=True)
        )
        self.size = height, width
        if not all(self.size):
            raise InputError(
                f"{name_of(result)} has no whole pixel of MS, expected 4 x 4 pixels or more; give "
                "a larger result."
            )

    def __enter__(self) -> FusedScene:
        return self

    def __exit__(self, *exception: object) -> None:
        self._files.close()

    @property
    def has_uncertainty(self) -> bool:
        """Whether parts have it."""
        return self._uncertainty is not None

    def _located(self, image: DatasetReader) -> Rectangle:
        """Rows and columns of PAN that a raster has."""
        pan = self.pair.pan
        if image.count < self.bands:
            raise InputError(
                f"{name_of(image)} has {counted(image.count, 'band')}, expected the {self.bands} "
                f"of {self.pair.name} in use; give the pair that it was made from, or its `bands`."
            )
        rows, cols = self.pair.output
        top, left, error = float(rows.start), float(cols.start), 0.0
        if not pan.transform.is_identity:
            to_pan = product(~pan.transform, image.transform)
            (left, top), end = product(to_pan, (0, 0)), product(to_pan, (image.width, image.height))
            error = max(abs(end[0] - left - image.width), abs(end[1] - top - image.height))
        found = (
            range(round(top), round(top) + image.height),
            range(round(left), round(left) + image.width),
        )
        error = max(error, abs(top - round(top)), abs(left - round(left)))
        inside = all(
            part.start >= whole.start and part.stop <= whole.stop
            for part, whole in zip(found, (rows, cols), strict=True)
        )
        if not inside or error > ON_GRID or (pan.transform.is_identity and found != (rows, cols)):
            raise InputError(
                f"{name_of(image)} has {image.width} x {image.height} pixels that are not all on "
                f"the grid of {name_of(pan)} where PAN and MS overlap ({len(cols)} x {len(rows)} "
                "pixels), expected a result of this pair; give the pair that it was made from."
            )
        return found

    def read(self, rows: range, cols: range) -> Part:
        """Read a rectangle.

        Args:
            rows: within :attr:`size`; they start and end at multiples of 4.
            cols: likewise.
        """
        pixels = self.pair.read(
            *(
                range(start + part.start, start + part.stop)
                for start, part in zip(self.origin, (rows, cols), strict=True)
            )
        )
        fused, valid = self._read(self._result, rows, cols)
        ms, result = self.pair.ms, self._result
        for image, place, band in zip(fused, self._places, self.pair.bands, strict=True):
            factor, constant = ms.scales[band - 1], ms.offsets[band - 1]
            own = result.scales[place - 1], result.offsets[place - 1]
            if factor and own != (factor, constant):  # the run had the option `scale`
                image *= own[0] / factor
                image += (own[1] - constant) / factor
        uncertainty = None
        if self._uncertainty is not None:
            errors, known = self._read(self._uncertainty, rows, cols)
            uncertainty = np.where(known, errors.mean(axis=0), 0).astype(np.float32)
        return Part(pixels, np.where(valid, fused, 0), valid, uncertainty)

    def _read(
        self, image: DatasetReader, rows: range, cols: range
    ) -> tuple[Values, NDArray[np.bool_]]:
        down, across = (
            range(part.start + skip, part.stop + skip)
            for part, skip in zip((rows, cols), self._first, strict=True)
        )
        return read_rectangle(image, self._places, down, across, Holes())

    def parts(self, step: int) -> list[tuple[range, range]]:
        """Rows and columns of rectangles that cover all of it, ``step`` pixels on a side."""
        down, across = (
            [range(start, min(start + step, size)) for start in range(0, size, step)]
            for size in self.size
        )
        return [(rows, cols) for rows in down for cols in across]
