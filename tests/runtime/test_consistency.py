"""Consistency of results with MS."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from ssdiff_trt.runtime.consistency import REACH, Consistency, seen, seen_pixels
from ssdiff_trt.runtime.sources import MSAxis
from tests.support.backends import StandIn
from tests.support.rasters import read_raster, smooth
from tests.support.scenes import shifted


@pytest.mark.parametrize("offset", [(0, 0), (0.5, 0.25), (8, 20)])
def test_the_consistency_with_ms_is_that_of_the_whole_image(make_pair, run, offset):
    pair = make_pair(ms={"transform": shifted(*offset), "pixels": smooth((4, 40, 48)), "nodata": 0})
    with rasterio.open(pair[1], "r+") as file:
        ms = file.read()
        ms[:, 10:14, 20:24] = 0
        file.write(ms)
    result = run(pair, StandIn(pan=0.1), dtype="float32")
    image, source = read_raster(result.output), result.plan.source
    valid = image[0] != 0
    expected = Consistency()
    rows, cols = source.output
    axes = tuple(
        MSAxis(where - 1.5 + grid.start - inside.start)
        for where, grid, inside in zip(
            source.position, (source.rows, source.cols), (rows, cols), strict=True
        )
    )
    expected.add(image, valid, ms, (ms != 0).all(axis=0), axes, [0.3] * 4)
    assert result.consistency.values <= expected.values
    assert result.consistency.rmse == pytest.approx(expected.rmse, rel=0.05)
    assert result.consistency.rmse > 10
    summary = result.summary()["consistency"]
    assert summary == {"rmse": result.consistency.rmse, "mtf": "generic"}
    # The parts of a scene that are written together each lack their edges.
    parts = run(pair, StandIn(pan=0.1), dtype="float32", block=96, name="parts.tif")
    assert parts.consistency.rmse == pytest.approx(expected.rmse, rel=0.2)


def test_scenes_too_small_for_consistency_have_none(make_pair, run):
    result = run(make_pair(pan={"pixels": smooth((1, 36, 36))}, ms={"pixels": smooth((4, 9, 9))}))
    assert result.consistency.rmse is None
    assert result.summary()["consistency"]["rmse"] is None


@pytest.mark.parametrize("begin", [0.0, 0.5, -1.25])
@pytest.mark.parametrize("scale", [4.0, 4.01])
def test_the_sensor_sees_a_sine_with_the_contrast_of_its_mtf(begin, scale):
    axes = MSAxis(begin, scale), MSAxis(begin, scale)
    cols = np.arange(160.0)
    frequency = 1 / (2 * scale)  # the Nyquist frequency of MS
    wave = np.cos(2 * np.pi * frequency * (cols - begin - scale / 2 + 0.5))
    image = np.broadcast_to(100 + wave, (160, 160))
    inside = seen_pixels(axes[0], 160)
    expected = 100 + 0.3 * np.cos(np.pi * np.array(inside))
    result = seen(image, axes, 0.3)
    np.testing.assert_allclose(result, np.broadcast_to(expected, result.shape), atol=2e-4)


def test_pixels_that_see_beyond_the_image_or_into_holes_do_not_count():
    assert seen_pixels(MSAxis(0.0), 2 * REACH) == range(5, 5)
    inside = seen_pixels(MSAxis(0.0), 100)
    assert inside.start * 4 + 1.5 - REACH >= 0 > (inside.start - 1) * 4 + 1.5 - REACH
    assert (inside.stop - 1) * 4 + 1.5 + REACH <= 99 < inside.stop * 4 + 1.5 + REACH
    image, valid = np.ones((1, 100, 100)), np.ones((100, 100), bool)
    ms, ms_valid = np.full((1, 25, 25), 3.0), np.ones((25, 25), bool)
    axes = MSAxis(0.0), MSAxis(0.0)
    whole = Consistency()
    whole.add(image, valid, ms, ms_valid, axes, [0.3])
    assert (whole.values, whole.rmse) == (len(inside) ** 2, pytest.approx(2, rel=1e-6))
    valid[50, 50], ms_valid[6, 6] = False, False
    image[0, 50, 50], ms[0, 6, 6] = np.nan, 1e9
    holes = Consistency()
    holes.add(image, valid, ms, ms_valid, axes, [0.3])
    away = np.abs(4 * np.array(inside) + 1.5 - 50)
    least, most = ((away <= reach).sum() ** 2 for reach in (8, REACH))
    assert least < whole.values - holes.values - 1 <= most
    assert holes.rmse == pytest.approx(2, rel=1e-6)
    assert Consistency().rmse is None


@pytest.mark.parametrize("begin", [0, 0.25, -2.5, 3.75, -30, 47])
@pytest.mark.parametrize("scale", [4, 4.01])
def test_pixels_that_see_nothing_beyond_pan_are_all_of_them(begin, scale):
    size = 160
    centres = begin + scale * (np.arange(-20, 60) + 0.5) - 0.5
    inside = (centres - REACH >= 0) & (centres + REACH <= size - 1)
    assert list(seen_pixels(MSAxis(begin, scale), size)) == list(np.arange(-20, 60)[inside])
