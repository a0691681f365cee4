"""Samples and datasets of rasters: how PAN is aligned, which rectangle is evaluated."""

from __future__ import annotations

import numpy as np
import pytest

from ssdiff_ref.protocol.datasets import Sample, open_pair
from ssdiff_trt.runtime.options import PairOptions
from ssdiff_trt.runtime.sensors import SENSORS
from tests.support.imagery import pair, write_pair
from tests.support.progress import RecordingProgress


@pytest.mark.parametrize(("aligned", "moved"), [(True, (0.7, -0.8)), (False, (0, 0))])
def test_pan_is_moved_to_the_protocol_s_position_where_its_own_was_measured(aligned, moved):
    rows, cols = np.mgrid[:64, :64].astype(float)
    sample = Sample(100 + 3 * rows + cols, np.ones((4, 16, 16)), None, None, (2.7, 1.2), aligned)
    expected = 100 + 3 * (rows + moved[0]) + cols + moved[1]
    inner = np.s_[20:-20, 20:-20]  # mirroring distorts the ramp at the edges
    found = sample.full(SENSORS["generic"]).pan
    np.testing.assert_allclose(found[inner], expected[inner], rtol=1e-6)


@pytest.mark.parametrize(
    ("smallest", "rows", "cols"),
    [
        (1, range(128), range(320)),  # above the hole
        (40, range(192), range(160)),  # to the left of it
        (56, range(128), range(320)),  # none is large enough
    ],
)
def test_the_largest_rectangle_of_the_preferred_size_is_evaluated(tmp_path, smallest, rows, cols):
    pan, ms = pair(0, 4, 48, 80)
    ms[:, 32, 40:] = 0
    dataset = open_pair(
        *write_pair(tmp_path, pan, ms, nodata=0),
        "generic",
        PairOptions(full_scale=2047, shift="none"),
        smallest=smallest,
        progress=RecordingProgress(),
    )
    assert (dataset.rows, dataset.cols) == (rows, cols)
    sample = dataset.read(0)
    np.testing.assert_array_equal(sample.ms, ms[:, : len(rows) // 4, : len(cols) // 4])
    np.testing.assert_array_equal(sample.pan, pan[: len(rows), : len(cols)])
