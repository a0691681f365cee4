"""From the pixels of a window to what the network takes.

Every tile is made from the pixels that it covers and nothing else, so it does not depend on the
window it was read with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rasterio.fill import fillnodata

from ssdiff_trt.runtime.interpolator import HALO, RATIO, interpolate_with_halo
from ssdiff_trt.runtime.raster.checks import partly_zero
from ssdiff_trt.runtime.sources import Source
from ssdiff_trt.runtime.tiles.batch import Tiles
from ssdiff_trt.runtime.tiles.noise import noise
from ssdiff_trt.runtime.tiles.tiling import Window


@dataclass(frozen=True)
class WindowInputs:
    """A window, read and prepared."""

    window: Window
    places: list[tuple[int, int]]
    """Row and column index, on the scene's axes, of each tile with a valid pixel."""
    tiles: Tiles
    """These tiles."""
    valid: NDArray[np.bool_]
    """``[rows, cols]`` of what the window writes."""
    beyond_pan: int
    """Valid PAN pixels below 0 or above full scale in what the window writes."""
    beyond_ms: int
    """Valid MS pixels likewise."""
    partly_zero: int
    """Valid MS pixels with a band at 0, where 0 means no data."""

    def without_tiles(self) -> WindowInputs:
        """The rest, once the tiles are sent: they are nearly all of its memory."""
        return replace(self, tiles=Tiles(*(np.empty(0, np.float32),) * 4))

    def batches(self, size: int) -> Iterator[tuple[list[tuple[int, int]], Tiles]]:
        """Places and tiles, so many at a time."""
        for first in range(0, len(self.places), size):
            part = slice(first, first + size)
            yield self.places[part], self.tiles.part(part)


def fill(values: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Replace what is not valid by what is around it, ``[C, h, w]`` and ``[h, w]``.

    The network looks at a whole tile: a hole has to look like nothing in particular.
    """
    if valid.all() or not valid.any():
        return values
    known = np.where(valid, values, 0)
    mask = valid.astype(np.uint8)
    reach = float(sum(valid.shape))
    return np.stack([fillnodata(band, mask, max_search_distance=reach) for band in known])


def prepare(
    source: Source, window: Window, seed: int, pan_scale: float, ms_scale: float
) -> WindowInputs:
    """Read a window and make the inputs of its tiles.

    Args:
        source: the pair.
        window: rows and columns count from the start of the scene's grid.
        seed: of the noise.
        pan_scale: full scale of PAN.
        ms_scale: full scale of MS.
    """
    top, left = source.rows.start, source.cols.start
    seen_rows, seen_cols = window.read
    rows = range(top + seen_rows.start, top + seen_rows.stop)
    cols = range(left + seen_cols.start, left + seen_cols.stop)
    pixels = source.read(rows, cols)
    field = noise(seed, len(source.bands), rows, cols)
    inner_valid = pixels.ms_valid[HALO:-HALO, HALO:-HALO]
    valid = pixels.pan_valid & inner_valid.repeat(RATIO, axis=0).repeat(RATIO, axis=1)

    tile, low = window.rows.tile, window.rows.tile // RATIO + 2 * HALO
    places, noises, pans, coarse = [], [], [], []
    for i, j in window.tiles:
        row = window.rows.starts[i] - seen_rows.start
        col = window.cols.starts[j] - seen_cols.start
        fine = np.s_[row : row + tile, col : col + tile]
        if not valid[fine].any():
            continue
        wide = np.s_[row // RATIO : row // RATIO + low, col // RATIO : col // RATIO + low]
        places.append((i, j))
        noises.append(field[(..., *fine)])
        pans.append(fill(pixels.pan[(None, *fine)], pixels.pan_valid[fine]))
        coarse.append(fill(pixels.ms[(..., *wide)], pixels.ms_valid[wide]))
    shape = len(places), len(source.bands)
    haloed = np.array(coarse, np.float32).reshape(*shape, low, low) / np.float32(ms_scale)
    tiles = Tiles(
        noise=np.array(noises, np.float32).reshape(*shape, tile, tile),
        pan=np.array(pans, np.float32).reshape(-1, 1, tile, tile) / np.float32(pan_scale),
        lms=interpolate_with_halo(haloed, source.position),
        ms=np.ascontiguousarray(haloed[..., HALO:-HALO, HALO:-HALO]),
    )

    out_rows, out_cols = (
        slice(w.start - s.start, w.stop - s.start)
        for w, s in zip(window.write, window.read, strict=True)
    )
    coarse_rows, coarse_cols = (
        slice(s.start // RATIO, s.stop // RATIO) for s in (out_rows, out_cols)
    )
    inner = pixels.ms[:, HALO:-HALO, HALO:-HALO]
    ms_beyond = ((inner < 0) | (inner > ms_scale)).any(axis=0) & inner_valid
    some_zero = partly_zero(inner, inner_valid, source.ms_values)
    pan_beyond = ((pixels.pan < 0) | (pixels.pan > pan_scale)) & pixels.pan_valid
    return WindowInputs(
        window,
        places,
        tiles,
        valid=valid[out_rows, out_cols],
        beyond_pan=int(pan_beyond[out_rows, out_cols].sum()),
        beyond_ms=int(ms_beyond[coarse_rows, coarse_cols].sum()),
        partly_zero=int(some_zero[coarse_rows, coarse_cols].sum()),
    )
