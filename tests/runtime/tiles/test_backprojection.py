"""Back-projection brings the image of a tile nearer to MS, and changes nothing that is right."""

from __future__ import annotations

import numpy as np
import pytest

from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.options import SamplingOptions
from ssdiff_trt.runtime.tiles.backprojection import back_project, blur, spread
from tests.support.backends import StandIn
from tests.support.imagery import make_bundle
from tests.support.rasters import read_raster, smooth

GAINS = (0.2, 0.3)


def tile_and_ms(position, seed=0):
    """A tile ``[2, 64, 64]`` in 0..1, and the MS that is consistent with it."""
    image = (smooth((2, 64, 64), seed=seed) / 2047).astype(np.float32)
    rows, cols = (blur(64, at, GAINS) for at in position)
    return image, rows @ image @ cols.swapaxes(-2, -1)


@pytest.mark.parametrize("position", [(1.5, 1.5), (2, 2), (-0.5, 3.25)])
def test_what_is_consistent_stays(position):
    image, ms = tile_and_ms(position)
    out = back_project(image, ms, position, GAINS, 1)
    np.testing.assert_allclose(out, image, atol=1e-6)


@pytest.mark.parametrize("position", [(1.5, 1.5), (2, 2), (-0.5, 3.25)])
def test_a_smooth_error_goes_and_half_of_it_with_half_the_share(position):
    image, ms = tile_and_ms(position)
    error = 0.02 * np.sin(np.arange(64) / 9, dtype=np.float32)
    inner = np.s_[:, 16:-16, 16:-16]
    left = [
        np.abs(back_project(image + error, ms, position, GAINS, share) - image)[inner].max()
        for share in (0, 0.5, 1)
    ]
    assert left[0] > 0.015
    assert left[1] == pytest.approx(left[0] / 2, rel=0.1)
    assert left[2] < 0.1 * left[0]


def test_kernels_sum_to_one_and_lie_where_ms_does():
    weights, taps = blur(32, 2.25, (0.3,))[0], spread(32, 2.25)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(taps.sum(axis=1), 1, rtol=1e-5)
    centres = (weights @ np.arange(32))[3:5]
    np.testing.assert_allclose(centres, 4 * np.arange(3, 5) + 2.25, atol=0.05)


def test_values_stay_in_the_range_that_they_had():
    """Else a correction of dark water would be negative."""
    image, ms = np.full((1, 32, 32), 0.01, np.float32), np.zeros((1, 8, 8), np.float32)
    ms[0, 4, 4] = -0.5
    assert back_project(image, ms, (1.5, 1.5), (0.3,), 1).min() == 0
    image[0, 3, 3] = -0.2
    assert back_project(image, ms, (1.5, 1.5), (0.3,), 1).min() == np.float32(-0.2)


def test_a_run_is_nearer_to_ms_and_its_tags_say_why(make_pair, run):
    pair = make_pair(240, 280)
    backend = StandIn(pan=0.2)
    plain, corrected = (
        run(pair, backend, f"{share}.tif", dtype="float32", back_projection=share)
        for share in (0, 1)
    )
    assert corrected.consistency.rmse < 0.5 * plain.consistency.rmse
    tags = corrected.plan.tags("")
    assert (tags["SSDIFF_BACK_PROJECTION"], plain.plan.tags("")["SSDIFF_BACK_PROJECTION"]) == (
        *("1", "0"),
    )


@pytest.mark.parametrize("block", [1, 64, 150])
def test_blocks_do_not_show(make_pair, run, block):
    pixels = smooth((4, 60, 70))
    pixels[:, 20:40, 30:50] = 0
    pair = make_pair(240, 280, ms={"pixels": pixels, "nodata": 0})
    images = [
        read_raster(
            run(pair, StandIn(pan=0.2), name, dtype="float32", back_projection=1, **options).output
        )
        for name, options in (("a.tif", {}), ("b.tif", {"block": block, "batch": 7}))
    ]
    np.testing.assert_array_equal(*images)


def test_the_share_is_that_asked_for_or_the_bundles_with_its_own_sampler(make_pair, run, tmp_path):
    path = make_bundle(tmp_path, "sharing", 4)
    manifest = open_bundle(path).manifest
    sampler = manifest.sampler.model_copy(update={"back_projection": 0.25})
    (path / "manifest.json").write_text(
        manifest.model_copy(update={"sampler": sampler}).model_dump_json()
    )
    pair = make_pair()
    shares = [
        run(pair, StandIn(), f"{number}.tif", bundle=path, **options).plan.back_projection
        for number, options in enumerate(
            ({}, {"back_projection": 0.75}, {"sampler": "released"}, {"sampler": "consistent"})
        )
    ]
    assert shares == [0.25, 0.75, 0, 0.25]


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan"), "half"])
def test_a_share_is_from_0_to_1(share):
    with pytest.raises(InputError, match="does not work; give a number"):
        SamplingOptions(back_projection=share)
