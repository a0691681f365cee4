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
from ssdiff_trt.runtime.sources import MSAxis, Rectangle, Source
from ssdiff_trt.runtime.tiles.batch import Tiles
from ssdiff_trt.runtime.tiles.noise import noise
from ssdiff_trt.runtime.tiles.tiling import Window


@dataclass(frozen=True)
class WindowInputs:
    """A window, read and prepared."""

    window: Window
    origin: tuple[int, int]
    """First row and column of the scene's grid, in pixels of PAN."""
    places: list[tuple[int, int]]
    """Row and column index, on the scene's axes, of each tile with a valid pixel."""
    tiles: Tiles
    """These tiles."""
    positions: list[tuple[float, float]]
    """Row and column of each tile at the centre of its first pixel of MS."""
    place: Rectangle
    """Rows and columns of PAN that the window writes."""
    valid: NDArray[np.bool_]
    """``[rows, cols]`` of these."""
    ms: NDArray[np.float32]
    """MS under the window, and more around it, ``[C, ...]`` in digital numbers."""
    ms_valid: NDArray[np.bool_]
    """Likewise, without bands."""
    axes: tuple[MSAxis, MSAxis]
    """Where the rows and columns of :attr:`ms` lie on those of the window."""
    beyond_pan: int
    """Valid PAN pixels of the result below 0 or above full scale."""
    beyond_ms: int
    """Valid MS pixels likewise."""
    partly_zero: int
    """Valid MS pixels with a band at 0, where 0 means no data."""
    excess: dict[tuple[int, int], NDArray[np.float32]]
    """Of tiles with MS below 0 or above full scale, which the network's images cannot be: that part
    of MS, interpolated, ``[C, tile, tile]`` in units of full scale; 0 elsewhere."""

    def noise(self, seed: int) -> NDArray[np.float32]:
        """That of the tiles for another seed, ``[N, C, tile, tile]``."""
        return _noise(seed, len(self.ms), self.window, self.places, self.origin)

    @property
    def empty(self) -> int:
        """Number of its tiles without a valid pixel."""
        return len(self.window.tiles) - len(self.places)

    def with_tiles(self, *kept: str) -> WindowInputs:
        """The same with some parts of the tiles only; they are nearly all of its memory."""
        nothing = np.empty(0, np.float32)
        others = dict.fromkeys(set(Tiles._fields).difference(kept), nothing)
        return replace(self, tiles=self.tiles._replace(**others))

    def batches(self, size: int) -> Iterator[tuple[range, Tiles]]:
        """Indices of tiles, and the tiles, so many at a time."""
        for first in range(0, len(self.places), size):
            part = range(first, min(first + size, len(self.places)))
            yield part, self.tiles.part(slice(part.start, part.stop))


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
    row_axis, col_axis = pixels.axes
    of_each = np.ix_(row_axis.of_each(range(len(rows))), col_axis.of_each(range(len(cols))))
    valid = pixels.pan_valid & pixels.ms_valid[of_each]

    grid = window.block
    tile = grid.rows.tile
    places, pans, coarse, positions = [], [], [], []
    for i, j in window.tiles:
        row, col = (
            range(inside.start - seen.start, inside.stop - seen.start)
            for inside, seen in (
                (grid.rows.inside(i), seen_rows),
                (grid.cols.inside(j), seen_cols),
            )
        )
        fine = np.s_[row.start : row.stop, col.start : col.stop]
        if not valid[fine].any():
            continue
        part = pixels.ms_under(row, col)
        places.append((i, j))
        pans.append(fill(pixels.pan[(None, *fine)], pixels.pan_valid[fine]))
        coarse.append(fill(part.values, part.valid))
        positions.append(part.position)
    low = tile // RATIO + 2 * HALO
    pan = np.array(pans, np.float32).reshape(-1, 1, tile, tile) / np.float32(pan_scale)
    haloed = np.array(coarse, np.float32).reshape(-1, len(source.bands), low, low)
    haloed /= np.float32(ms_scale)
    outside = haloed - haloed.clip(0, 1)
    concerned = np.flatnonzero(outside.any(axis=(1, 2, 3)))

    def interpolated(images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Tiles of MS on PAN's grid, ``[N, C, tile, tile]``."""
        lms = np.empty((len(places), len(source.bands), tile, tile), np.float32)
        for position in set(positions):
            alike = [index for index, other in enumerate(positions) if other == position]
            lms[alike] = interpolate_with_halo(images[alike], position)
        return mirrored(lms)

    def mirrored(images: NDArray[np.float32], ratio: int = 1) -> NDArray[np.float32]:
        """Tiles that reach beyond the scene, from those inside it."""
        out = np.empty_like(images)
        for image, inside, (i, j) in zip(out, images, places, strict=True):
            down, across = grid.rows.mirrored(i), grid.cols.mirrored(j)
            image[:] = inside[:, down[::ratio, None] // ratio, across[::ratio] // ratio]
        return out

    tiles = Tiles(
        noise=_noise(seed, len(source.bands), window, places, (top, left)),
        pan=mirrored(pan),
        lms=interpolated(haloed),
        ms=mirrored(haloed[..., HALO:-HALO, HALO:-HALO], RATIO),
    )

    excess = interpolated(outside) if concerned.size else tiles.lms

    out_rows, out_cols = (
        range(w.start - s.start, w.stop - s.start)
        for w, s in zip(window.write, window.read, strict=True)
    )
    out = np.s_[out_rows.start : out_rows.stop, out_cols.start : out_cols.stop]
    down = row_axis.beginning_in(out_rows)
    across = col_axis.beginning_in(out_cols)
    low_out = np.s_[..., down.start : down.stop, across.start : across.stop]
    ms, ms_valid = pixels.ms[low_out], pixels.ms_valid[low_out]
    ms_beyond = ((ms < 0) | (ms > ms_scale)).any(axis=0) & ms_valid
    pan_beyond = ((pixels.pan < 0) | (pixels.pan > pan_scale)) & pixels.pan_valid
    return WindowInputs(
        window,
        (top, left),
        places,
        tiles,
        positions,
        place=(rows[out_rows.start : out_rows.stop], cols[out_cols.start : out_cols.stop]),
        valid=valid[out],
        ms=pixels.ms,
        ms_valid=pixels.ms_valid,
        axes=(row_axis.relative(out_rows.start, 0), col_axis.relative(out_cols.start, 0)),
        beyond_pan=int(pan_beyond[out].sum()),
        beyond_ms=int(ms_beyond.sum()),
        partly_zero=int(partly_zero(ms, ms_valid, source.ms_values).sum()),
        excess={places[index]: excess[index] for index in concerned},
    )


def _noise(
    seed: int, bands: int, window: Window, places: list[tuple[int, int]], origin: tuple[int, int]
) -> NDArray[np.float32]:
    """Noise ``[N, C, tile, tile]`` of tiles of a window, a function of the pixel of PAN."""
    rows, cols = window.block.rows, window.block.cols
    tile = rows.tile
    top, left = rows.starts[window.tile_rows[0]], cols.starts[window.tile_cols[0]]
    bottom, right = (
        rows.starts[window.tile_rows[-1]] + tile,
        cols.starts[window.tile_cols[-1]] + tile,
    )
    field = noise(
        seed,
        bands,
        range(origin[0] + top, origin[0] + bottom),
        range(origin[1] + left, origin[1] + right),
    )
    out = np.empty((len(places), bands, tile, tile), np.float32)
    for image, (i, j) in zip(out, places, strict=True):
        row, col = rows.starts[i] - top, cols.starts[j] - left
        image[:] = field[:, row : row + tile, col : col + tile]
    return out
