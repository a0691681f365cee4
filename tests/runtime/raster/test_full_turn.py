"""In which coordinate systems x repeats after a turn around the Earth."""

from __future__ import annotations

import pytest
from rasterio.crs import CRS

from ssdiff_trt.runtime.raster.georeferencing import _full_turn


@pytest.mark.parametrize(
    ("crs", "turn"),
    [
        ("EPSG:4326", 360),
        ("EPSG:3857", 40075016.7),
        ("EPSG:32631", None),  # x grows faster away from its central meridian
        ("+proj=ortho +lat_0=52 +lon_0=180", None),  # which does not show the Gulf of Guinea
    ],
)
def test_a_full_turn_is_that_of_systems_in_which_x_is_proportional_to_longitude(crs, turn):
    found = _full_turn(CRS.from_user_input(crs))
    assert found == (None if turn is None else pytest.approx(turn, rel=1e-8))
