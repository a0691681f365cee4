"""Blending weights sum to one, and the result does not depend on the blocks."""

from __future__ import annotations

import numpy as np
import pytest

from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.plan.plan import BLOCK
from ssdiff_trt.runtime.tiles.canvas import Canvas
from ssdiff_trt.runtime.tiles.tiling import Axis, blocks

SIZES = [4, 40, 64, 68, 100, 112, 116, 256, 700]


@pytest.mark.parametrize(
    ("overlap", "margin"), [(0, 0), (8, 0), (8, 4), (12, 0), (16, 8), (32, 0), (32, 16)]
)
@pytest.mark.parametrize("size", SIZES)
def test_weights_along_an_axis_sum_to_one(size, overlap, margin):
    axis = Axis(size, 64, overlap, margin)
    total = np.zeros(size)
    for i, start in enumerate(axis.starts):
        assert start % 4 == 0
        assert -margin <= start <= max(size + margin - 64, -margin)
        weights = axis.weights(i)
        assert weights.min() > 0
        assert weights.max() <= 1
        total[axis.begins[i] : axis.end(i)] += weights
    np.testing.assert_allclose(total, 1, atol=1e-12)


def test_a_scene_of_256_pixels_has_5_tiles_per_axis():
    axis = Axis(256, 64, 16)
    assert axis.starts == (0, 48, 96, 144, 192)


@pytest.mark.parametrize("size", SIZES)
def test_tiles_mirror_the_scene_beyond_its_border(size):
    axis = Axis(size, 64, 16, margin=8)
    scene = np.pad(np.arange(size), 64, mode="symmetric")
    for i, start in enumerate(axis.starts):
        inside = axis.inside(i)
        assert inside.start >= 0
        assert inside.stop <= max(size, 64)
        shown = np.array(inside)[axis.mirrored(i)]
        np.testing.assert_array_equal(shown, scene[64 + start : 128 + start])


def blend(rows, cols, tiles, pixels, area=None):
    """Blend the tiles of an area, in blocks of up to ``pixels`` pixels."""
    image = np.full((2, rows.size, cols.size), np.nan, np.float32)
    area = area or (range(rows.size), range(cols.size))
    for block in blocks(rows, cols, area, pixels):
        canvas = Canvas(2, block)
        windows = list(block.windows(120))
        done = [tile for window in windows for tile in window.tiles]
        assert len(set(done)) == len(done) == block.tiles
        for i, j in reversed(done):
            canvas.add(i, j, tiles[i, j])
        for window in windows:
            down, across = window.write
            image[:, down.start : down.stop, across.start : across.stop] = canvas.image(
                window.write
            )
            read_rows, read_cols = window.read
            assert read_rows.start <= down.start < down.stop <= read_rows.stop
            assert read_cols.start <= across.start < across.stop <= read_cols.stop
    return image


@pytest.mark.parametrize("height", SIZES)
@pytest.mark.parametrize(
    ("width", "overlap", "margin"),
    [(40, 16, 0), (180, 16, 0), (180, 16, 8), (320, 32, 16), (320, 0, 0)],
)
def test_the_result_does_not_depend_on_the_blocks(height, width, overlap, margin):
    rows, cols = Axis(height, 64, overlap, margin), Axis(width, 64, overlap, margin)
    rng = np.random.default_rng(1)
    shape = len(rows.starts), len(cols.starts), 2, 64, 64
    tiles = rng.random(shape, np.float32)
    whole = blend(rows, cols, tiles, 10_000)
    for pixels in (1, 100, 150):
        np.testing.assert_array_equal(blend(rows, cols, tiles, pixels), whole)
    area = range(height // 3, height), range(width // 5, width // 5 * 4)
    part = np.s_[:, height // 3 :, width // 5 : width // 5 * 4]
    np.testing.assert_array_equal(blend(rows, cols, tiles, 100, area)[part], whole[part])
    weighted = np.zeros((2, height, width))
    for i, row in enumerate(rows.starts):
        for j, col in enumerate(cols.starts):
            region = np.s_[:, rows.begins[i] : rows.end(i), cols.begins[j] : cols.end(j)]
            tile = tiles[i, j][
                :,
                rows.begins[i] - row : rows.end(i) - row,
                cols.begins[j] - col : cols.end(j) - col,
            ]
            weighted[region] += tile * np.outer(rows.weights(i), cols.weights(j))
    np.testing.assert_allclose(whole, weighted, atol=2e-7)


def test_blending_preserves_full_scale():
    rows = cols = Axis(300, 64, 12)
    tiles = np.ones((len(rows.starts), len(cols.starts), 2, 64, 64), np.float32)
    np.testing.assert_allclose(blend(rows, cols, tiles, 100), 1, atol=1e-7)


@pytest.mark.parametrize("overlap", [-4, 6, 36, 64])
def test_invalid_overlaps_are_refused(overlap):
    with pytest.raises(SSDiffError, match="set `tile_overlap` to a multiple of 4 from 0 to 32"):
        Axis(256, 64, overlap)


@pytest.mark.parametrize(("tile", "overlap"), [(64, 16), (32, 8), (64, 0), (64, 32)])
@pytest.mark.parametrize("size", [100, 2016, 2100, 5000, 200_000])
def test_blocks_of_42_tiles_cost_less_than_5_percent(tile, overlap, size):
    axis = Axis(size, tile, overlap, margin=overlap // 2 // 4 * 4)
    step = tile - overlap
    parts = axis.split(range(size), BLOCK * step)
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
    assert (parts[0].start, parts[-1].stop) == (0, size)
    assert max(map(len, parts)) <= BLOCK * step + overlap
    tiles = sum(len(axis.touching(part)) for part in parts)
    assert (tiles / len(axis.starts)) ** 2 < 1.05
