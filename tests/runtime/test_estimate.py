"""What a run would cost, without doing it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from ssdiff_trt.runtime.pansharpener import Pansharpener
from tests.support.backends import StandIn
from tests.support.rasters import leftovers, smooth


class Slow(StandIn):
    """Takes 20 ms for each tile."""

    def images(self, *tiles):
        time.sleep(0.02 * len(tiles[0]))
        return super().images(*tiles)


def cost(pair, bundle, output, backend=None, **options):
    with (
        Pansharpener(bundle, backend=backend or StandIn(), batch=2) as sharpener,
        sharpener.plan(*pair, output, shift="none", **options) as plan,
    ):
        return sharpener.estimate(plan)


def test_cost_is_counted_and_measured_and_nothing_is_written(make_pair, standin4, tmp_path):
    pair = make_pair(400, 400)
    found = cost(pair, standin4, tmp_path / "out.tif", Slow(), block=200)
    assert (found.tiles, found.blocks) == (121, 9)  # 9 tiles each way, and 2 at borders
    assert 0.02 <= found.seconds_per_tile < 0.06
    assert found.seconds == pytest.approx(121 * found.seconds_per_tile)
    assert found.disk == found.disk_until_complete == 400 * 400 * 4 * 2
    assert not leftovers(tmp_path)
    once = cost(pair, standin4, tmp_path / "out.tif", block=200, resume=False)
    assert once.disk_until_complete == 2 * 144 * 400 * 8  # two rows of blocks
    area = (500_000, 5_699_950, 500_050, 5_700_000)
    part = cost(pair, standin4, tmp_path / "out.tif", area=area)
    assert (part.tiles, part.blocks, part.disk) == (9, 1, 100 * 100 * 8)


def test_memory_follows_the_block_and_not_the_scene(make_pair, standin4, tmp_path):
    """A strip of 200,000 columns takes what a square of a block takes, but for places of tiles."""
    plans = []
    for height, width in ((64, 200_000), (64, 2000)):
        pan = np.zeros((height, width), np.uint16)
        ms = np.zeros((4, height // 4, width // 4), np.uint16)
        with (
            Pansharpener(standin4, backend=StandIn()) as sharpener,
            sharpener.plan(pan, ms, full_scale=2047, shift="none") as plan,
        ):
            plans.append(plan)
            assert max(len(block.write[1]) for block in plan.blocks) <= 42 * 48 + 16
    assert plans[0].memory < plans[1].memory + 2e6


def test_a_scene_without_data_has_no_time(make_pair, standin4, tmp_path):
    pair = make_pair(ms={"pixels": np.zeros((4, 40, 48), np.uint16), "nodata": 0})
    found = cost(pair, standin4, tmp_path / "out.tif")
    assert found.seconds is None
    assert found.tiles == 16


def test_tiles_with_data_are_found_wherever_they_are(make_pair, standin4, tmp_path):
    pixels = smooth((4, 150, 150), seed=2)
    pixels[:, 20:] = 0
    pixels[:, :, 20:] = 0
    pair = make_pair(600, 600, ms={"pixels": pixels, "nodata": 0})
    assert cost(pair, standin4, tmp_path / "out.tif", block=200).seconds is not None
