"""Calibration tiles lie outside the blocks that evaluation tiles are made of."""

from __future__ import annotations

import pytest

from ssdiff_trt.calibration.blocks import Blocks
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.tiles.tiling import Axis


@pytest.mark.parametrize("size", [(64, 64), (128, 200), (260, 132), (512, 36), (300, 516)])
def test_tiles_outside_the_evaluation_blocks(size):
    side = 16
    rows, cols = (Axis(length, side, 0) for length in size)
    blocks = Blocks(*(Axis(length // RATIO, side, 0) for length in size))
    reserved = {
        (row, col)
        for top, left in blocks.evaluation()
        for row in range(RATIO * top, RATIO * (top + side))
        for col in range(RATIO * left, RATIO * (left + side))
    }
    expected = [
        (i, j)
        for i, top in enumerate(rows.starts)
        for j, left in enumerate(cols.starts)
        if reserved.isdisjoint(
            (row, col) for row in range(top, top + side) for col in range(left, left + side)
        )
    ]
    assert blocks.outside(rows, cols).tolist() == [list(place) for place in expected]
