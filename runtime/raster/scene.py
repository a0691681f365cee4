"""A PAN and an MS raster as one scene: how they lie to each other, and what is valid in them.

The grid of a scene is PAN's, restricted to what both rasters cover and snapped outward to whole
pixels of MS, so its height and width are multiples of 4. Where PAN ends inside a pixel of MS the
grid goes up to 3 pixels beyond it; those are mirrored when read, and are not part of the output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as transform_points
from rasterio.windows import Window

from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.interpolator import GROUND_POSITION, HALO, RATIO
from ssdiff_trt.runtime.pixels import Pixels
from ssdiff_trt.runtime.raster.gdal import GDAL_ERRORS, without_georeferencing_warnings

RATIO_TOLERANCE = 0.02
ON_GRID = 0.1
"""PAN pixels by which MS may bend away from PAN's grid and still be used as it is."""

_Points = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


class Scene:
    """Opens a pair of rasters and checks that they can be fused.

    Args:
        pan: any raster that GDAL reads.
        ms: likewise, with 4 times the pixel size, at any shift and in any CRS.
        bands: bands of ``ms`` to take, counted from 1, in the order that the network expects;
            all but alpha by default.
        pan_band: band of ``pan``; needed when it has several.
        nodata: value that means no data in both, whatever the files say.

    Raises:
        SSDiffError: when the two do not make a pair.

    Attributes:
        rows: rows of PAN that are computed, possibly a little beyond it.
        cols: columns, likewise.
        position: row and column where an MS pixel lies among its 4 x 4 pixels of PAN, 1 to 2;
            1.5 when the two grids fit.
        resampled: whether MS has to be warped, because a shift alone does not bring it onto the
            grid.
        shift: rows and columns of PAN by which MS is taken to lie further than its georeferencing
            says; see :meth:`move`.
    """

    def __init__(
        self,
        pan: str | Path,
        ms: str | Path,
        *,
        bands: Sequence[int] | None = None,
        pan_band: int | None = None,
        nodata: float | None = None,
    ) -> None:
        with ExitStack() as stack:
            self.pan = stack.enter_context(open_raster(pan, "PAN"))
            self.ms = stack.enter_context(open_raster(ms, "MS"))
            self.pan_band = _choose_pan_band(self.pan, pan_band, self.ms)
            self.bands = choose_bands(self.ms, bands)
            self.nodata = _possible_nodata(nodata, self.pan, self.ms)
            self.shift = (0.0, 0.0)
            self._ms_source = stack.enter_context(self._place())
            self._stack = stack.pop_all()

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def move(self, rows: float, cols: float) -> None:
        """Take MS to lie so many pixels of PAN further than its georeferencing says.

        The output keeps its size: where that moves MS off PAN by up to one of its pixels, MS is
        mirrored.

        Raises:
            SSDiffError: when the two then do not overlap.
        """
        self.shift = rows, cols
        self._ms_source = self._stack.enter_context(self._place())

    @property
    def output(self) -> tuple[range, range]:
        """Rows and columns of PAN that the result has: the grid without what lies beyond PAN."""
        return self._covered

    @property
    def whole(self) -> tuple[range, range]:
        """Rows and columns of PAN that are whole pixels of MS, inside both rasters."""
        inside = []
        for grid, origin, coarse, fine in zip(
            (self.rows, self.cols),
            self._ms_origin,
            self._ms_source.shape,
            self.pan.shape,
            strict=True,
        ):
            first = max(grid.start, origin, 0)
            last = min(grid.stop, origin + RATIO * coarse, fine)
            start = first + (grid.start - first) % RATIO
            inside.append(range(start, start + max(last - start, 0) // RATIO * RATIO))
        return inside[0], inside[1]

    @property
    def mask_flags(self) -> set[MaskFlags]:
        """How the bands in use declare holes; empty when they do not."""
        return mask_flags(self.pan, [self.pan_band]) | mask_flags(self.ms, self.bands)

    @property
    def may_have_nan(self) -> bool:
        """Whether values may be missing as NaN."""
        return any(dtype.startswith("float") for dtype in (*self.pan.dtypes, *self.ms.dtypes))

    def _place(self) -> DatasetReader | WarpedVRT:
        """Find how MS lies on PAN, set the grid, and return what to read MS from."""
        to_pan = _ms_to_pan(self.pan, self.ms)
        _check_ratio(self.pan, self.ms, to_pan)
        # The outline of MS, in pixels of MS and of PAN. Other projections bend it: sample it well.
        along, start, end = np.linspace(0, 1, 21), np.zeros(21), np.ones(21)
        row = np.concatenate([start, end, along, along]) * self.ms.height
        col = np.concatenate([along, along, start, end]) * self.ms.width
        pan_row, pan_col = to_pan(row, col)
        strains, origins = [], []
        for on_pan, on_ms in ((pan_row, row), (pan_col, col)):
            apart = on_pan - RATIO * on_ms  # one number if MS lies straight on PAN's grid
            strains.append(np.ptp(apart) / 2)
            origins.append(float(apart.min() + apart.max()) / 2)
        self.resampled = max(strains) > ON_GRID
        covered, grids, anchors = [], [], []
        for values, size, origin, move in (
            (pan_row, self.pan.height, origins[0], self.shift[0]),
            (pan_col, self.pan.width, origins[1], self.shift[1]),
        ):
            # The output follows a move only as far as that exceeds a pixel of MS.
            far = move - min(max(move, -RATIO), RATIO)
            first, last = max(values.min() + far, 0), min(values.max() + far, size)
            if last - first < 1:
                raise SSDiffError(
                    f"{_name(self.ms)} and {_name(self.pan)} do not overlap: in pixels of PAN, MS "
                    f"covers rows {pan_row.min():.0f} to {pan_row.max():.0f} and columns "
                    f"{pan_col.min():.0f} to {pan_col.max():.0f}{self._moved()}, PAN has "
                    f"{self.pan.height} x {self.pan.width}; give images of the same place."
                )
            # Slivers of a pixel that come from rounding do not count.
            seen = _snapped(first + ON_GRID, last - ON_GRID, self._anchor(origin + far))
            covered.append(range(max(seen.start, 0), min(seen.stop, size)))
            anchors.append(self._anchor(origin + move))
            grids.append(_snapped(covered[-1].start, covered[-1].stop, anchors[-1]))
        self._covered = covered[0], covered[1]
        self.rows, self.cols = grids
        self.position: tuple[float, float] = (GROUND_POSITION, GROUND_POSITION)
        if not self.resampled:
            self._ms_origin = anchors[0], anchors[1]
            down, across = (
                origin + move - anchor
                for origin, move, anchor in zip(origins, self.shift, anchors, strict=True)
            )
            self.position = _on_64ths(GROUND_POSITION + down), _on_64ths(GROUND_POSITION + across)
            return self.ms
        self._ms_origin = self.rows.start - RATIO * HALO, self.cols.start - RATIO * HALO
        return self._warped()

    def _anchor(self, origin: float) -> int:
        """A row or column of PAN where a pixel of MS begins, if MS begins at ``origin``."""
        return 0 if self.resampled else math.ceil(origin - 0.5 - 1e-6)

    def _moved(self) -> str:
        return " moved by {:g},{:g}".format(*self.shift) if any(self.shift) else ""

    def _warped(self) -> WarpedVRT:
        """MS on PAN's grid divided by 4, with its halo."""
        if not _georeferenced(self.pan):
            raise SSDiffError(
                f"{_name(self.pan)} is {self.pan.width} x {self.pan.height} pixels and "
                f"{_name(self.ms)} {self.ms.width} x {self.ms.height}; without georeferencing PAN "
                "must be 4 times as large, to within one MS pixel."
            )
        if (alpha := _alpha_band(self.ms)) in self.bands:  # GDAL would weigh the others with it
            raise SSDiffError(
                f"{_name(self.ms)} marks band {alpha} as alpha and has to be warped onto PAN's "
                f"grid; clear the mark first: gdal_edit.py -colorinterp_{alpha} undefined"
            )
        row, col = (o - move for o, move in zip(self._ms_origin, self.shift, strict=True))
        local = None if self.pan.crs else "EPSG:3857"  # GDAL wants a name even for no projection
        return WarpedVRT(
            self.ms,
            src_crs=local,
            crs=self.pan.crs or local,
            transform=self.pan.transform * Affine.translation(col, row) * Affine.scale(RATIO),
            height=len(self.rows) // RATIO + 2 * HALO,
            width=len(self.cols) // RATIO + 2 * HALO,
            resampling=Resampling.cubic,
            tolerance=1e-6,  # of a pixel; 0 is refused
            src_nodata=self.nodata if self.nodata is not None else self.ms.nodata,
            add_alpha=_alpha_band(self.ms) is None,
        )

    def read(self, rows: range, cols: range) -> Pixels:
        """Read a rectangle, mirrored where it goes beyond the rasters.

        Args:
            rows: rows of PAN; they start a multiple of 4 after :attr:`rows` does.
            cols: columns, likewise.
        """
        pan, pan_valid = read_rectangle(self.pan, [self.pan_band], rows, cols, self.nodata)
        ms_rows, ms_cols = (
            range((r.start - o) // RATIO - HALO, (r.stop - o) // RATIO + HALO)
            for r, o in zip((rows, cols), self._ms_origin, strict=True)
        )
        nodata = None if self.resampled else self.nodata
        ms, ms_valid = read_rectangle(self._ms_source, self.bands, ms_rows, ms_cols, nodata)
        return Pixels(pan[0], pan_valid, ms, ms_valid)


def _snapped(first: float, last: float, anchor: int) -> range:
    """Whole pixels of MS that cover this part of an axis of PAN."""
    begin, end = math.floor((first - anchor) / RATIO), math.ceil((last - anchor) / RATIO)
    return range(anchor + RATIO * begin, anchor + RATIO * end)


def _on_64ths(position: float) -> float:
    return round(position * 64) / 64


def _name(dataset: DatasetReader | WarpedVRT) -> str:
    return Path(dataset.name).name


def open_raster(path: str | Path, role: str) -> DatasetReader:
    """Open a raster of real numbers; errors call it by its role, such as MS."""
    try:
        with without_georeferencing_warnings():
            dataset = rasterio.open(path)
    except GDAL_ERRORS as error:
        raise SSDiffError(f"The {role} image cannot be read ({error}); check the path.") from error
    if not dataset.count:
        raise SSDiffError(f"The {role} image {path} has no bands; name one of its subdatasets.")
    if any(dtype.startswith("complex") for dtype in dataset.dtypes):
        raise SSDiffError(
            f"The {role} image {path} has complex values ({dataset.dtypes[0]}); "
            "give an image of real numbers."
        )
    return dataset


def _alpha_band(dataset: DatasetReader | WarpedVRT) -> int | None:
    """The band marked as alpha. GDAL marks the fourth of 4 byte bands; the user may know better."""
    for index, colour in enumerate(dataset.colorinterp, start=1):
        if colour == ColorInterp.alpha:
            return index
    return None


def mask_flags(image: DatasetReader, used: Sequence[int]) -> set[MaskFlags]:
    """How an image declares holes in the bands that are used; empty when it does not."""
    flags = {flag for band in used for flag in image.mask_flag_enums[band - 1]}
    if (alpha := _alpha_band(image)) in used:
        flags -= {MaskFlags.alpha, MaskFlags.per_dataset}
    elif alpha is not None:
        flags.add(MaskFlags.alpha)
    return flags - {MaskFlags.all_valid}


def _possible_nodata(value: float | None, *images: DatasetReader) -> float | None:
    if value is None:
        return None
    for image in images:
        kind = np.dtype(image.dtypes[0])
        if kind.kind == "f" or (float(value).is_integer() and _within(kind, value)):
            return value
    kinds = " or ".join(sorted({image.dtypes[0] for image in images}))
    raise SSDiffError(f"The no-data value {value:g} cannot occur in {kinds}; give one that does.")


def _within(kind: np.dtype[Any], value: float) -> bool:
    limits = np.iinfo(kind)
    return bool(limits.min <= value <= limits.max)


def _colour_bands(dataset: DatasetReader) -> list[int]:
    return [i for i in dataset.indexes if i != _alpha_band(dataset)]


def _choose_pan_band(pan: DatasetReader, band: int | None, ms: DatasetReader) -> int:
    bands = _colour_bands(pan)
    if band is None and len(bands) == 1:
        return bands[0]
    if band is None:
        remedy = (
            f"{_name(ms)} has one, so are the two swapped?"
            if ms.count == 1
            else "choose one with --pan-band."
        )
        raise SSDiffError(f"The PAN image {_name(pan)} has {len(bands)} bands; {remedy}")
    if band not in pan.indexes:
        raise SSDiffError(f"The PAN image {_name(pan)} has no band {band}; it has {pan.count}.")
    return band


def choose_bands(ms: DatasetReader, bands: Sequence[int] | None) -> list[int]:
    """The bands asked for, checked to be there; all but alpha by default."""
    if bands is None:
        return _colour_bands(ms)
    for band in bands:
        if band not in ms.indexes:
            raise SSDiffError(f"The MS image {_name(ms)} has no band {band}; it has {ms.count}.")
    if len(set(bands)) < len(bands):
        raise SSDiffError(f"The bands {list(bands)} name one twice; name each once.")
    return list(bands)


def _georeferenced(dataset: DatasetReader) -> bool:
    return not dataset.transform.is_identity


def _ms_to_pan(pan: DatasetReader, ms: DatasetReader) -> _Points:
    """The map from rows and columns of MS to those of PAN, by their corners, ``[2, n]``."""
    if _georeferenced(pan) != _georeferenced(ms) or bool(pan.crs) != bool(ms.crs):
        with_it, without = (pan, ms) if _georeferenced(pan) and pan.crs else (ms, pan)
        raise SSDiffError(
            f"{_name(with_it)} is georeferenced and {_name(without)} is not (or has no CRS); "
            "give both their georeferencing, or neither."
        )
    if not _georeferenced(pan):
        # Upper left corners coincide. Less than an MS pixel at the far end is how products end.
        scales = [
            RATIO if abs(large - RATIO * small) < RATIO else large / small
            for large, small in ((pan.height, ms.height), (pan.width, ms.width))
        ]
        return lambda row, col: np.stack([row * scales[0], col * scales[1]])

    def to_pan(row: NDArray[np.float64], col: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = ms.transform * (col, row)
        if pan.crs != ms.crs:
            try:
                x, y = map(np.asarray, transform_points(ms.crs, pan.crs, x, y))
            except GDAL_ERRORS as error:
                raise SSDiffError(
                    f"The CRS of {_name(ms)} cannot be converted to that of {_name(pan)} "
                    f"({error}); warp MS to PAN's CRS yourself."
                ) from error
        pan_col, pan_row = ~pan.transform * (x, y)
        return np.stack([pan_row, pan_col])

    return to_pan


def _check_ratio(pan: DatasetReader, ms: DatasetReader, to_pan: _Points) -> None:
    row, col = ms.height / 2, ms.width / 2
    here, below, right = to_pan(np.array([row, row + 1, row]), np.array([col, col, col + 1])).T
    high, wide = math.dist(here, below), math.dist(here, right)
    if not all(abs(ratio / RATIO - 1) <= RATIO_TOLERANCE for ratio in (high, wide)):
        raise SSDiffError(
            f"A pixel of {_name(ms)} is {wide:.3g} x {high:.3g} pixels of {_name(pan)}, and the "
            "network sharpens by 4 only; give MS at its native resolution, 4 PAN pixels to one."
        )


@contextmanager
def translate_read_errors(source: DatasetReader | WarpedVRT, window: Window) -> Iterator[None]:
    """Around a read: a file that cannot be read there is a mistake of the user's."""
    try:
        yield
    except GDAL_ERRORS as error:
        rows, cols = window.toranges()
        raise SSDiffError(
            f"{_name(source)} is damaged at rows {rows[0]} to {rows[1]} and columns {cols[0]} to "
            f"{cols[1]}; get it again."
        ) from error


def read_rectangle(
    source: DatasetReader | WarpedVRT,
    bands: list[int],
    rows: range,
    cols: range,
    nodata: float | None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Values ``[bands, rows, cols]`` and validity ``[rows, cols]``, mirrored beyond the raster."""
    top, left = max(rows.start, 0), max(cols.start, 0)
    bottom, right = min(rows.stop, source.height), min(cols.stop, source.width)
    window = Window(left, top, right - left, bottom - top)
    with translate_read_errors(source, window):
        values = source.read(bands, window=window, out_dtype=np.float32)
    alpha = _alpha_band(source)
    declared = source.nodatavals[bands[0] - 1]
    if nodata is not None or (alpha in bands and declared is not None):
        nodata = declared if nodata is None else nodata
        valid = values != nodata
    elif alpha in bands:  # GDAL would take the mask from it
        valid = np.ones(values.shape, bool)
    else:
        nodata = declared
        valid = source.read_masks(bands, window=window) > 0
    # A single 0 among the bands is a dark pixel and not a hole.
    valid = valid.any(axis=0) if nodata == 0 else valid.all(axis=0)
    if alpha is not None and alpha not in bands:  # GDAL's masks miss it beside 4 or more bands
        valid &= source.read(alpha, window=window) > 0
    valid &= np.isfinite(values).all(axis=0)
    beyond = [(top - rows.start, rows.stop - bottom), (left - cols.start, cols.stop - right)]
    return (
        np.pad(values, [(0, 0), *beyond], mode="symmetric"),
        np.pad(valid, beyond, mode="symmetric"),
    )
