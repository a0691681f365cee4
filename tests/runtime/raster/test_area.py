"""A part of a result has the pixels that the whole has there, and its own georeferencing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform
from rasterio.windows import Window, from_bounds

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.raster.affine import product
from tests.support.backends import StandIn
from tests.support.progress import RecordingProgress
from tests.support.rasters import PAN_GRID, read_raster
from tests.support.scenes import shifted

GIVEN = {"dtype": "float32", "shift": "none"}
LEFT, TOP = 500_000, 5_700_000  # PAN has pixels of 0.5 m


@pytest.mark.parametrize(
    ("area", "rows", "cols"),
    [
        ((LEFT + 10, TOP - 50, LEFT + 40, TOP - 20), (40, 100), (20, 80)),
        ((LEFT + 10.2, TOP - 49.9, LEFT + 39.9, TOP - 20.3), (40, 100), (20, 80)),
        ((LEFT + 30.5, TOP - 31, LEFT + 31, TOP - 30.5), (61, 62), (61, 62)),
        ((0, 0, 1e7, 1e7), (0, 160), (0, 192)),
        ((LEFT - 100, TOP - 100, LEFT + 5, TOP + 100), (0, 160), (0, 10)),
    ],
)
@pytest.mark.parametrize("block", [48, None])
def test_a_part_is_cut_out_of_the_whole(make_pair, run, area, rows, cols, block):
    """From the tile layout, the full scale and the shift of the whole, with its noise."""
    pair = make_pair(ms={"transform": shifted(0.3, -0.4)})
    backend = StandIn(pan=0.2, noise=0.01)
    whole = run(pair, backend, name="whole.tif", **GIVEN)
    part = run(pair, backend, area=area, block=block, **GIVEN)
    np.testing.assert_array_equal(
        read_raster(part.output), read_raster(whole.output)[:, slice(*rows), slice(*cols)]
    )
    with rasterio.open(part.output) as file, rasterio.open(whole.output) as every:
        window = from_bounds(*file.bounds, every.transform)
        assert (window.row_off, window.col_off) == pytest.approx((rows[0], cols[0]))
        assert file.crs == every.crs
    assert part.size == (rows[1] - rows[0], cols[1] - cols[0])


@pytest.mark.parametrize("crs", [None, "EPSG:32631", "EPSG:3857"])
@pytest.mark.parametrize("kind", ["Polygon", "Feature", "FeatureCollection", "Point"])
def test_the_bounds_of_a_geojson_file_are_an_area(make_pair, run, tmp_path, crs, kind):
    """Longitude and latitude, unless the file names another CRS."""
    corners = ([LEFT + 20.1, LEFT + 39.9], [TOP - 39.9, TOP - 20.1])
    if kind == "Point":
        corners = ([LEFT + 20.1], [TOP - 39.9])
    points = transform("EPSG:32631", CRS.from_user_input(crs or "OGC:CRS84"), *corners)
    listed = [list(point) for point in zip(*points, strict=True)]
    geometry = {"type": "Polygon", "coordinates": [listed]}
    if kind == "Point":
        geometry = {"type": kind, "coordinates": listed[0]}
    content = {"type": "Feature", "properties": {}, "geometry": geometry}
    if kind == "FeatureCollection":
        empty = {"type": "Feature", "properties": {}, "geometry": None}
        content = {"type": kind, "features": [content, empty]}
    content = geometry if kind in ("Polygon", "Point") else content
    if crs:
        content["crs"] = {"type": "name", "properties": {"name": crs}}
    path = tmp_path / "area.geojson"
    path.write_text(json.dumps(content))
    part = run(make_pair(), area=str(path), **GIVEN)
    rows, cols = part.plan.extent
    assert (rows.start, rows.stop) == ((79, 80) if kind == "Point" else (40, 80))
    assert (cols.start, cols.stop) == ((40, 41) if kind == "Point" else (40, 80))


@pytest.mark.parametrize(
    "points", [[[-180, -90], [180, 90]], [[-90, 0], [90, 70]], [[2.9, 51], [3.1, 52]]]
)
def test_an_area_far_beyond_the_scene_is_all_of_it(make_pair, run, tmp_path, points):
    """Even where the CRS of PAN has no coordinates; that it reaches beyond is said."""
    path = tmp_path / "area.json"
    path.write_text(json.dumps({"type": "LineString", "coordinates": points}))
    progress = RecordingProgress()
    assert run(make_pair(), area=path, progress=progress, **GIVEN).size == (160, 192)
    assert progress.notes == ["The area reaches beyond the scene; the part inside is made"]
    whole = LEFT, TOP - 80, LEFT + 96, TOP
    assert run(make_pair(), area=whole, name="b.tif", **GIVEN).size == (160, 192)


def test_without_georeferencing_an_area_is_columns_and_rows(make_pair, run):
    pair = make_pair(pan={"transform": None}, ms={"transform": None})
    whole = run(pair, name="whole.tif", **GIVEN)
    part = run(pair, area=(20, 40, 80, 100), **GIVEN)
    np.testing.assert_array_equal(
        read_raster(part.output), read_raster(whole.output)[:, 40:100, 20:80]
    )


def test_a_quicklook_of_a_part_shows_the_part(make_pair, run):
    pytest.importorskip("matplotlib")
    result = run(
        make_pair(), area=(LEFT + 10, TOP - 50, LEFT + 40, TOP - 20), quicklook=True, **GIVEN
    )
    assert result.quicklook.stat().st_size > 1000


@pytest.mark.parametrize(
    ("area", "sentence"),
    [
        ((0, 0, 10, 10), r"no pixel of the result, which covers 500000,5699920,500096,5700000"),
        ((1, 2, 3), "The area 1,2,3 does not work; give minx,miny,maxx,maxy"),
        ((595640, 5.1, 595600, 5751230.5), "The area 595640,5.1,595600,5751230.5 does not work"),
        ((float("nan"), 0, 1, 9), "The area nan,0,1,9 does not work"),
        ("nothing.json", r"nothing.json cannot be read as GeoJSON \(No such file"),
        ("{", "cannot be read as GeoJSON"),
        ("[1, 2]", r"cannot be read as GeoJSON \(it is not an object\)"),
        ('{"type": "Polygon", "coordinates": [["a", 1]]}', "cannot be read as GeoJSON"),
        ('{"type": "Point", "coordinates": [1]}', "cannot be read as GeoJSON"),
        ('{"type": "Point", "coordinates": [51.4, 3]}', "no pixel .* longitude, then latitude"),
        ('{"coordinates": [1, 2], "crs": {"properties": {"name": "x"}}}', "read as GeoJSON"),
    ],
)
def test_areas_that_do_not_work_are_refused(make_pair, run, tmp_path, area, sentence):
    if isinstance(area, str) and not area.endswith(".json"):
        (tmp_path / "a.geojson").write_text(area)
        area = tmp_path / "a.geojson"
    with pytest.raises(InputError, match=sentence):
        run(make_pair(), area=area)


def test_a_geojson_file_needs_a_crs_of_pan(make_pair, run, tmp_path):
    (tmp_path / "a.geojson").write_text('{"type": "Point", "coordinates": [1, 2]}')
    pair = make_pair(pan={"transform": None}, ms={"transform": None})
    with pytest.raises(InputError, match=r"has no CRS for the coordinates of .*give columns"):
        run(pair, area=str(tmp_path / "a.geojson"))


def test_the_area_of_a_turned_grid_is_its_bounds(make_pair, run):
    turned = product(PAN_GRID, Affine.rotation(30))
    pair = make_pair(pan={"transform": turned}, ms={"transform": product(turned, Affine.scale(4))})
    whole = run(pair, name="whole.tif", **GIVEN)
    with rasterio.open(whole.output) as file:
        x, y = file.xy(80, 90)
    part = run(pair, area=(x - 5, y - 5, x + 5, y + 5), **GIVEN)
    rows, cols = part.plan.extent
    assert (rows.start + rows.stop) / 2 == pytest.approx(80.5, abs=1)
    assert (cols.start + cols.stop) / 2 == pytest.approx(90.5, abs=1)
    assert len(rows) == len(cols) == pytest.approx(2 * 10 * (0.5 + 0.75**0.5), abs=2)
    with rasterio.open(whole.output) as file:
        window = Window(cols.start, rows.start, len(cols), len(rows))
        np.testing.assert_array_equal(read_raster(part.output), file.read(window=window))
