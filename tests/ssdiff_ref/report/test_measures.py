"""What a report measures and shows is what is in the rasters, and no part read is large."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
import rasterio
from PIL import Image

from ssdiff_ref.classical.baselines import mtf_glp_fs
from ssdiff_ref.classical.fusion import pair_of
from ssdiff_ref.quality.full_resolution import d_rho
from ssdiff_ref.report import images, measures
from ssdiff_ref.report.fused_scene import FusedScene
from ssdiff_ref.report.images import View, encoded, view_of_window, window_at
from ssdiff_ref.report.measures import overview_of, quality_maps
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.sensors import SENSORS
from tests.support.progress import RecordingProgress
from tests.support.rasters import PAN_GRID, interpolated, read_raster, smooth, write_raster

GENERIC = SENSORS["generic"]


@pytest.fixture
def opened(make_pair, tmp_path):
    """Opens a pair and a result of it, by default MS interpolated."""
    with ExitStack() as stack:

        def opened(height=160, width=192, change=None, **profile):
            pan, ms = make_pair(height, width)
            fused = interpolated(read_raster(ms)).astype(np.uint16)
            if change is not None:
                change(fused)
            path = write_raster(tmp_path / "fused.tif", fused, PAN_GRID, **profile)
            scene = stack.enter_context(Scene(pan, ms))
            return stack.enter_context(FusedScene(scene, path)), fused.astype(float)

        yield opened


def means(image, factor):
    height, width = (size // factor for size in image.shape[-2:])
    cut = image[..., : height * factor, : width * factor]
    return cut.reshape(*image.shape[:-2], height, factor, width, factor).mean((-3, -1))


@pytest.mark.parametrize(("most", "factor"), [(192, 1), (64, 3), (40, 5)])
def test_the_overview_is_the_mean_of_squares_of_pixels(opened, monkeypatch, tmp_path, most, factor):
    monkeypatch.setattr(measures, "OVERVIEW", most)
    monkeypatch.setattr(measures, "_STEP", 60)  # several parts, the last ones smaller
    scene, fused = opened()
    overview = overview_of(scene, RecordingProgress())
    assert overview.factor == factor
    np.testing.assert_allclose(overview.fused, means(fused, factor), rtol=1e-5)
    pan = read_raster(tmp_path / "pan.tif").astype(float)
    np.testing.assert_allclose(overview.pan, means(pan, factor)[0], rtol=1e-5)
    assert overview.lms.shape == overview.fused.shape
    # The nearest pixels of MS differ from interpolated ones at the edges of squares.
    assert np.abs(overview.lms - overview.fused).mean() < (1 if factor < 4 else 25)
    assert overview.valid.all()
    assert overview.holes == pytest.approx(0, abs=1e-6)


def test_holes_do_not_count_in_the_overview(opened, monkeypatch):
    def change(fused):
        fused[:] = 500
        fused[:, :6, :] = 0

    monkeypatch.setattr(measures, "OVERVIEW", 48)
    scene, _ = opened(change=change, nodata=0)
    overview = overview_of(scene, RecordingProgress())
    assert overview.factor == 4
    assert not overview.valid[0].any()
    assert overview.valid[1:].all()
    np.testing.assert_allclose(overview.fused[:, 1:], 500)  # of row 1 only half is valid
    assert overview.holes == pytest.approx(6 / 160, abs=1e-3)


def test_maps_find_the_block_that_is_wrong(opened):
    def change(fused):
        fused[:, 96:120, 130:150] += 300

    scene, fused = opened(change=change)
    maps = quality_maps(scene, GENERIC, RecordingProgress())
    row, col = maps.place("consistency")
    assert abs(row - 108) <= maps.side
    assert abs(col - 140) <= maps.side
    errors = maps.values["consistency"]
    assert np.nanmax(errors) > 5 * np.nanmedian(errors)
    assert maps.place("D_lambda") == (row, col)
    top, left = maps.rows[1], maps.cols[2]
    block = np.s_[..., top : top + maps.side, left : left + maps.side]
    pan = scene.read(range(160), range(192)).pixels.pan
    assert maps.values["D_rho"][1, 2] == pytest.approx(d_rho(fused[block], pan[block]), abs=1e-6)


def test_maps_of_a_large_scene_are_spread_over_it():
    starts = measures._starts(20000, 256)
    assert (len(starts), starts[0], starts[-1]) == (8, 20, 20000 - 20 - 256)
    assert not any(start % 4 for start in starts)
    assert measures._starts(60, 32) == []


def test_a_window_lies_inside_the_scene():
    assert window_at((1000, 2000), (3, 1999)) == (range(384), range(1616, 2000))
    assert window_at((1000, 2000), (500, 1000)) == (range(308, 692), range(808, 1192))
    assert window_at((100, 2000), (50, 1000)) == (range(100), range(808, 1192))


def test_a_window_shows_its_place(opened, monkeypatch):
    monkeypatch.setattr(images, "WINDOW", 64)
    monkeypatch.setattr(images, "_AROUND", 16)
    scene, fused = opened()
    view = view_of_window(scene, "here", (80, 100), GENERIC)
    assert view.text == "Rows 48 to 111, columns 68 to 131."
    cut = fused[:, 48:112, 68:132]
    low, high = np.percentile(cut, (2, 98), axis=(1, 2), keepdims=True)
    expected = 255 * ((cut - low) / (high - low)).clip(0, 1)
    np.testing.assert_allclose(view.products["Result"], expected, atol=0.6)
    around = scene.read(range(32, 128), range(52, 148))
    classical = mtf_glp_fs(pair_of(around.pixels, GENERIC))[:, 16:80, 16:80]
    stretched = 255 * ((classical - low) / (high - low)).clip(0, 1)
    np.testing.assert_allclose(view.products["MTF-GLP-FS"], stretched, atol=0.6)


def test_no_part_that_is_read_grows_with_the_scene(opened, monkeypatch):
    read, largest = FusedScene.read, []

    def recorded(self, rows, cols):
        largest.append(len(rows) * len(cols))
        return read(self, rows, cols)

    monkeypatch.setattr(FusedScene, "read", recorded)
    monkeypatch.setattr(measures, "_STEP", 64)
    monkeypatch.setattr(measures, "OVERVIEW", 64)
    scene, _ = opened(320, 400)
    overview_of(scene, RecordingProgress())
    assert max(largest) <= 64**2
    assert sum(largest) == 320 * 400


def test_images_are_compressed_until_they_fit(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (3, 200, 200)).astype(np.uint8)
    view = View("noise", "", {"PAN": noise[:1], "Result": noise}, np.ones((200, 200), bool))

    def size():
        return sum(len(band) for bands in encoded([view])[0].values() for band in bands)

    free = size()
    monkeypatch.setattr(images, "_LARGEST", 60_000)
    assert size() <= 60_000 < free / 2


def test_a_page_of_the_largest_scene_is_below_15_mb():
    """Noise, which compresses worst, of as many pixels as a page can show of eight bands."""
    pixels = (1 + 2 * 8) * measures.OVERVIEW**2 + 3 * (1 + 3 * 8) * images.WINDOW**2
    noise = np.random.default_rng(0).integers(0, 256, (256, 256)).astype(np.uint8)
    options = {"quality": images._QUALITIES[-1]}
    smallest = len(images._encoded(Image.fromarray(noise), "JPEG", **options)) / 256**2
    figures = 2_000_000
    assert pixels * smallest < images._LARGEST < 15_000_000 - figures


def test_the_unit_of_a_scaled_result_is_that_of_ms(make_pair, tmp_path):
    pan, ms = make_pair()
    path = write_raster(tmp_path / "scaled.tif", smooth((4, 160, 192), seed=4) // 8, PAN_GRID)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = [8.0] * 4, [16.0] * 4
    with Scene(pan, ms) as scene, FusedScene(scene, path) as fused:
        part = fused.read(range(0, 64), range(32, 64))
    expected = 8.0 * read_raster(path)[:, :64, 32:64] + 16
    np.testing.assert_allclose(part.fused, expected)
