"""Figures of a report."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ssdiff_ref.report.figures import draw_uncertainty
from ssdiff_ref.report.measures import Overview


@pytest.mark.parametrize("empty", [0, 16])
def test_pixels_without_data_are_grey_in_the_map_of_uncertainty(empty):
    pan, bands = np.ones((32, 32), np.float32), np.ones((4, 32, 32), np.float32)
    valid = np.arange(32)[:, None] >= empty + np.zeros(32)
    overview = Overview(1, pan, bands, bands, valid, pan, empty / 32)
    with Image.open(io.BytesIO(draw_uncertainty(overview))) as image:
        grey = (np.asarray(image.convert("RGB")) == 0xCC).all(axis=-1).mean()
    assert grey == pytest.approx(empty / 32 * 0.75, abs=0.1)
