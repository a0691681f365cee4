"""MS lies on PAN where geotransforms, CRS, RPCs or GCPs say, whatever their kind."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject
from rasterio.warp import transform as transform_points
from scipy.ndimage import binary_erosion, gaussian_filter, map_coordinates

from ssdiff_ref.classical.fusion import fuse
from ssdiff_ref.protocol.datasets import open_pair
from ssdiff_ref.protocol.wald import simulate
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.options import PairOptions, ReadOptions
from ssdiff_trt.runtime.raster.affine import product
from ssdiff_trt.runtime.raster.scene import Scene
from tests.support.progress import RecordingProgress
from tests.support.rasters import PAN_GRID, UTM, read_raster, smooth, write_raster
from tests.support.scenes import MS_GRID

WGS84 = "EPSG:4326"
SITE = 'LOCAL_CS["site grid",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'


def waves(x, y, unit):
    """An image of the ground, whose waves are some 25 units long."""
    return 1000 + 300 * np.sin(x / unit / 4) + 200 * np.cos(y / unit / 3.5 + x / unit / 6)


def centres(shape):
    rows, cols = np.mgrid[: shape[0], : shape[1]] + 0.5
    return rows.ravel(), cols.ravel()


def check_places(scene, expected, tolerance, share=0.5):
    """That MS on PAN's grid has the values expected at rows and columns of PAN."""
    pixels = scene.read(scene.rows, scene.cols)
    part = pixels.ms_under()
    height, width = part.inner_valid.shape
    rows, cols = (
        begin + place + 0.5 + 4 * np.arange(size)
        for begin, place, size in zip(
            (scene.rows.start, scene.cols.start), part.position, (height, width), strict=True
        )
    )
    wanted = expected(*(axis.ravel() for axis in np.meshgrid(rows, cols, indexing="ij")))
    error = np.abs(part.inner[0] - wanted.reshape(height, width))
    inner = binary_erosion(part.inner_valid, np.ones((3, 3)), iterations=4)  # no edge in reach
    assert inner.mean() > share
    assert error[inner].max() < tolerance


# RPCs and GCPs


def rpc(scale, row, col, tilt=0.0):
    """A model whose pixels are ``scale`` PAN pixels; its first one lies at a place of PAN's."""
    size = 1e-5  # degrees in a pixel of PAN
    terms = {name: [0.0] * 20 for name in ("line_num", "samp_num", "line_den", "samp_den")}
    terms["line_den"][0] = terms["samp_den"][0] = 1.0
    terms["line_num"][2], terms["line_num"][3] = -1.0, tilt  # of latitude and height
    terms["samp_num"][1], terms["samp_num"][7] = 1.0, 1e-4  # of longitude and its square
    half = 400
    return RPC(
        height_off=120.0,
        height_scale=500.0,
        lat_off=5.0 - size * half,
        lat_scale=size * half,
        long_off=7.0 + size * half,
        long_scale=size * half,
        # Lines and samples of RPCs are 0 at the centre of the first pixel.
        line_off=(half - row) / scale - 0.5,
        line_scale=half / scale,
        samp_off=(half - col) / scale - 0.5,
        samp_scale=half / scale,
        **{f"{name}_coeff": coefficients for name, coefficients in terms.items()},
    )


def bare(directory, name, pixels, **georeferencing):
    path = write_raster(directory / name, pixels)
    with rasterio.open(path, "r+") as file:
        for key, value in georeferencing.items():
            setattr(file, key, value)
    return path


def pan_waves(rows, cols):
    return waves(cols, rows, 4)


def image(shape, row, col, scale=4):
    """MS whose first pixel begins at a row and column of PAN."""
    rows, cols = centres(shape)
    values = pan_waves(row + scale * rows, col + scale * cols).reshape(shape)
    return np.stack([values] * 4).astype(np.float32)


@pytest.mark.parametrize(("row", "col"), [(0, 0), (40, 80), (-22.6, 13.3)])
@pytest.mark.parametrize("tilt", [0, 0.01])
@pytest.mark.parametrize("pixel_grid", [False, True])
def test_rpcs_place_ms(tmp_path, row, col, tilt, pixel_grid):
    pan = bare(tmp_path, "pan.tif", smooth((1, 320, 320)), rpcs=rpc(1, 0, 0, tilt))
    ms = bare(tmp_path, "ms.tif", image((80, 80), row, col), rpcs=rpc(4, row, col, tilt))
    if pixel_grid:  # as SPOT and Pleiades have it; it places nothing on the ground
        for path in (pan, ms):
            with rasterio.open(path, "r+") as file:
                file.transform = Affine(1, 0, 0, 0, -1, 0)
    with Scene(pan, ms) as scene:
        assert "placed by RPCs" in scene.describe()
        assert not scene.resampled
        low, high = max(row, 0), min(row + 320, 320)
        left, right = max(col, 0), min(col + 320, 320)
        begins = [axis.start for axis in scene.output]
        ends = [axis.stop for axis in scene.output]
        np.testing.assert_allclose(begins, (low, left), atol=1)
        np.testing.assert_allclose(ends, (high, right), atol=1)
        check_places(scene, pan_waves, 1)


def gcps(scale, row, col, bend=1e-5):
    """GCPs on 5 x 5 pixels of an image whose pixels are so many of PAN's, bent alike."""
    points = []
    for r in np.linspace(0, 320, 5):
        for c in np.linspace(0, 320, 5):
            y, x = 5_700_000 - (r + bend * c * c) / 2, 500_000 + (c + bend * r * c) / 2
            points.append(GroundControlPoint((r - row) / scale, (c - col) / scale, x, y))
    return points, CRS.from_user_input(UTM)


@pytest.mark.parametrize(("row", "col"), [(0, 0), (40, 80), (-22.6, 13.3)])
def test_gcps_place_ms(tmp_path, row, col):
    pan = bare(tmp_path, "pan.tif", smooth((1, 320, 320)), gcps=gcps(1, 0, 0))
    ms = bare(tmp_path, "ms.tif", image((80, 80), row, col), gcps=gcps(4, row, col))
    with Scene(pan, ms) as scene:
        assert "placed by GCPs" in scene.describe()
        assert not scene.resampled
        np.testing.assert_allclose(
            [axis.start for axis in scene.output], (max(row, 0), max(col, 0)), atol=1
        )
        check_places(scene, pan_waves, 1)


def test_models_that_differ_by_more_than_a_shift_warp(tmp_path):
    """Lines of PAN and MS run apart by a turn of two degrees."""
    turn = product(Affine.translation(20, 30), Affine.rotation(2), Affine.scale(4))
    points, crs = gcps(1, 0, 0)
    moved = []
    for point in points:
        col, row = product(~turn, (point.col, point.row))
        moved.append(GroundControlPoint(row, col, point.x, point.y))
    rows, cols = centres((60, 60))
    x, y = product(turn, (cols, rows))
    values = np.stack([pan_waves(y, x).reshape(60, 60)] * 4).astype(np.float32)
    pan = bare(tmp_path, "pan.tif", smooth((1, 320, 320)), gcps=(points, crs))
    ms = bare(tmp_path, "ms.tif", values, gcps=(moved, crs))
    with Scene(pan, ms) as scene:
        assert scene.resampled
        check_places(scene, pan_waves, 6)


def test_models_of_band_files_place_them(tmp_path):
    pixels = image((80, 80), 40, 80)
    pan = bare(tmp_path, "pan.tif", smooth((1, 320, 320)), rpcs=rpc(1, 0, 0))
    files = [
        bare(tmp_path, f"{band}.tif", pixels[band : band + 1], rpcs=rpc(4, 40, 80))
        for band in range(4)
    ]
    with Scene(pan, files) as scene:
        assert (scene.output[0].start, scene.output[1].start) == (40, 80)
        check_places(scene, pan_waves, 1)
    bare(tmp_path, "3.tif", pixels[3:], rpcs=rpc(4, 0, 0))
    with pytest.raises(SSDiffError, match=r"3.tif has .* one band on the grid"):
        Scene(pan, files)


@pytest.mark.parametrize(
    ("of_pan", "of_ms", "sentence"),
    [
        ({"rpcs": rpc(1, 0, 0)}, {}, "pan.tif has RPCs, ms.tif has none"),
        ({}, {"gcps": gcps(4, 0, 0)}, "pan.tif has none, ms.tif has GCPs"),
        ({"rpcs": rpc(1, 0, 0)}, {"gcps": gcps(4, 0, 0)}, "pan.tif has RPCs, ms.tif has GCPs"),
        (
            {"transform": PAN_GRID, "crs": CRS.from_user_input(UTM)},
            {"gcps": gcps(4, 0, 0)},
            "pan.tif has a geotransform and a CRS, ms.tif has GCPs",
        ),
        ({"gcps": (gcps(1, 0, 0)[0][:2], gcps(1, 0, 0)[1])}, {"gcps": gcps(4, 0, 0)}, "evaluated"),
    ],
)
def test_what_cannot_be_combined_is_refused_and_can_be_laid_corner_to_corner(
    tmp_path, of_pan, of_ms, sentence
):
    pair = (
        bare(tmp_path, "pan.tif", smooth((1, 320, 320)), **of_pan),
        bare(tmp_path, "ms.tif", image((80, 80), 0, 0), **of_ms),
    )
    with pytest.raises(SSDiffError, match=sentence):
        Scene(*pair)
    with Scene(*pair, ReadOptions(georeferencing="corners")) as scene:
        assert (scene.rows, scene.cols, scene.resampled) == (range(320), range(320), False)
        (warning,) = scene.warnings
        assert "tif is ignored" in warning
        check_places(scene, pan_waves, 1e-3)


@pytest.mark.parametrize("command", ["run", "fuse", "simulate", "evaluate"])
def test_corners_are_an_option_of_every_command_and_cause_a_warning(
    make_pair, tmp_path, run, command
):
    pair = make_pair(240, 320, ms={"transform": None})
    progress = RecordingProgress()
    options = {"georeferencing": "corners", "progress": progress}
    if command == "run":
        run(pair, **options)
    elif command == "fuse":
        fuse(*pair, output=tmp_path / "out.tif", method="gsa", **options)
    elif command == "simulate":
        simulate(*pair, output=tmp_path / "reduced", sensor="ge1", **options)
    else:
        open_pair(
            *pair, "ge1", PairOptions(georeferencing="corners", full_scale=2047), progress=progress
        )
    assert any("the georeferencing of pan.tif is ignored" in text for text in progress.warnings)


def test_a_crs_that_cannot_be_converted_is_named_in_a_few_words(make_pair):
    with pytest.raises(SSDiffError) as refusal:
        Scene(*make_pair(ms={"crs": SITE}))
    assert "site grid" in str(refusal.value)
    assert "EPSG:32631" in str(refusal.value)
    assert len(str(refusal.value)) < 200


# Flips and quarter turns


@pytest.mark.parametrize("who", ["ms", "pan"])
@pytest.mark.parametrize(
    ("name", "turn", "native"),
    [
        ("upside down", Affine(1, 0, 0, 0, -1, 40), lambda a: a[:, ::-1]),
        ("mirrored", Affine(-1, 0, 48, 0, 1, 0), lambda a: a[:, :, ::-1]),
        ("turned by 180", Affine(-1, 0, 48, 0, -1, 40), lambda a: a[:, ::-1, ::-1]),
        ("transposed", Affine(0, 1, 0, 1, 0, 0), lambda a: a.swapaxes(1, 2)),
        ("turned by 90", Affine(0, -1, 48, 1, 0, 0), lambda a: a.swapaxes(1, 2)[:, ::-1]),
    ],
)
def test_turned_images_give_the_pixels_of_those_that_are_not(
    make_pair, run, who, name, turn, native
):
    """Turns of MS under PAN by indexing; a turned PAN turns the result."""
    offset = Affine.translation(0.3, -0.45)  # of MS on PAN, in pixels of MS
    pan, ms = smooth((1, 160, 192), seed=1), smooth((4, 40, 48), seed=2)
    of_pan, of_ms = PAN_GRID, product(MS_GRID, offset)
    plain = run(
        make_pair(pan={"pixels": pan}, ms={"pixels": ms, "transform": of_ms}),
        name="plain.tif",
        shift="none",
    )
    if who == "ms":
        ms, of_ms = native(ms), product(of_ms, turn)
    else:
        large = Affine(turn.a, turn.b, 4 * turn.c, turn.d, turn.e, 4 * turn.f)
        pan, of_pan = native(pan), product(of_pan, large)
    pair = make_pair(
        pan={"pixels": np.ascontiguousarray(pan), "transform": of_pan},
        ms={"pixels": np.ascontiguousarray(ms), "transform": of_ms},
    )
    result = run(pair, name="turned.tif", shift="none")
    assert not result.plan.source.resampled
    expected, turned = read_raster(plain.output), read_raster(result.output)
    if who == "pan":  # on PAN's grid: put it back on that of the other
        with rasterio.open(result.output) as file, rasterio.open(plain.output) as known:
            rows, cols = centres(known.shape)
            at = product(~file.transform, known.transform, (cols, rows))
            col, row = (np.floor(axis).astype(int) for axis in at)
        assert np.abs(turned[:, row, col].reshape(expected.shape).astype(int) - expected).max() <= 1
    else:
        np.testing.assert_array_equal(turned, expected)


def test_simulation_of_turned_ms_states_where_it_lies(make_pair, tmp_path):
    ms = smooth((4, 60, 80), seed=2)
    plain = make_pair(240, 320, ms={"pixels": ms})
    simulate(*plain, output=tmp_path / "plain", sensor="ge1")
    turned = {
        "pixels": ms[:, ::-1].copy(),
        "transform": product(MS_GRID, Affine(1, 0, 0, 0, -1, 60)),
    }
    simulate(*make_pair(240, 320, ms=turned), output=tmp_path / "turned", sensor="ge1")
    for name in ("pan.tif", "ms.tif", "reference.tif"):
        with (
            rasterio.open(tmp_path / "plain" / name) as one,
            rasterio.open(tmp_path / "turned" / name) as other,
        ):
            assert one.transform.almost_equals(other.transform, 1e-6)
            np.testing.assert_array_equal(one.read(), other.read())


# Warps


def sharp_field(seed=3, side=1600):
    """An image with contrast at all frequencies, 8 pixels in one of PAN's."""
    rng = np.random.default_rng(seed)
    noise = sum(gaussian_filter(rng.normal(size=(side, side)), s) * s for s in (2, 6, 20, 60))
    return 1000 + 250 * noise / noise.std()


def test_a_warp_keeps_more_detail_than_gdals_cubic(make_pair):
    """At random offsets, against MS as the sensor would have seen it on PAN's grid."""
    side = 120
    truth = sharp_field(side=4 * side + 160)
    blurred = gaussian_filter(truth, 4 * np.sqrt(2 * np.log(1 / 0.3)) / np.pi)
    turn = product(Affine.translation(30.6, 9.7), Affine.rotation(4), Affine.scale(4))
    rows, cols = centres((100, 100))
    x, y = product(turn, (cols, rows))
    ms = map_coordinates(blurred, [y - 0.5, x - 0.5], order=5).reshape(100, 100)
    ms = np.stack([ms] * 4).astype(np.float32)
    grid = product(PAN_GRID, turn)
    with Scene(*make_pair(600, 600, ms={"pixels": ms, "transform": grid})) as scene:
        part = scene.read(scene.rows, scene.cols).ms_under()
        start = (scene.rows.start, scene.cols.start)
    inside = np.s_[20:70, 20:70]
    offsets = [begin + place for begin, place in zip(start, part.position, strict=True)]
    at = np.meshgrid(*(offset + 4 * np.arange(20, 70) for offset in offsets), indexing="ij")
    wanted = map_coordinates(blurred, at, order=5)
    assert part.inner_valid[inside].all()
    error = np.sqrt(np.mean((part.inner[0][inside] - wanted) ** 2))
    cubic = np.zeros(part.inner.shape[1:], np.float32)
    on_grid = product(
        PAN_GRID, Affine.translation(offsets[1] - 1.5, offsets[0] - 1.5), Affine.scale(4)
    )
    reproject(
        ms[0],
        cubic,
        src_transform=grid,
        dst_transform=on_grid,
        src_crs=UTM,
        dst_crs=UTM,
        resampling=Resampling.cubic,
    )
    assert error < 0.85 * np.sqrt(np.mean((cubic[inside] - wanted) ** 2))


@pytest.mark.parametrize("begin", [(0, 0), (5, 10), (-3, 7), (13, 2)])
def test_the_output_begins_where_warped_ms_does(make_pair, begin):
    ms = {
        "transform": product(PAN_GRID, Affine.translation(begin[1], begin[0]), Affine.scale(4.06))
    }
    with Scene(*make_pair(320, 320, ms={**ms, "pixels": smooth((4, 60, 60))})) as scene:
        assert scene.resampled
        assert tuple(axis.start for axis in scene.output) == tuple(max(b, 0) for b in begin)
        assert scene.read(scene.rows, scene.cols).ms_under().inner_valid[1:, 1:].all()


# A full turn of the Earth


def lonlat(west, north, size):
    return {"crs": WGS84, "transform": Affine(size, 0, west, 0, -size, north)}


def on_ground(grid, shape, crs):
    """What an image shows: waves of longitude and latitude, whose pixels have any name."""
    rows, cols = centres(shape)
    x, y = product(grid, (cols, rows))
    lon, lat = (x, y) if crs == WGS84 else transform_points(crs, WGS84, x, y)
    east = (np.asarray(lon) - 180 + 540) % 360 - 180  # degrees from the antimeridian
    return waves(east, np.asarray(lat) - 52, 4e-5).reshape(shape)


def across_180(crs, shape, degrees):
    """An image in some CRS, of so many degrees in a pixel, whose centre lies at 180, 52 degrees."""
    if crs == WGS84:
        return lonlat(180 - shape[1] * degrees / 2, 52 + shape[0] * degrees / 2, degrees)
    x, y = transform_points(WGS84, crs, [179.9998, 179.9999, 179.9998], [52, 52, 52.0001])
    wide, high = (np.hypot(x[i] - x[0], y[i] - y[0]) * degrees / 1e-4 for i in (1, 2))
    grid = product(Affine.translation(x[0], y[0]), Affine.scale(wide, -high))
    return {
        "crs": crs,
        "transform": product(grid, Affine.translation(-shape[1] / 2, -shape[0] / 2)),
    }


@pytest.mark.parametrize(
    ("pan", "ms"),
    [
        (lonlat(179.996, 52.004, 1e-5), lonlat(-180.004, 52.004, 4e-5)),
        (lonlat(179.996, 52.004, 1e-5), lonlat(179.996 - 720, 52.004, 4e-5)),
        (lonlat(-180.004, 52.004, 1e-5), lonlat(179.996, 52.004, 4e-5)),
        ("EPSG:32660", WGS84),
        ("EPSG:32601", WGS84),
        (WGS84, "EPSG:32660"),
        (WGS84, "EPSG:32601"),
        ("EPSG:32601", "EPSG:32660"),
        ("EPSG:3857", WGS84),
        (WGS84, "EPSG:3857"),
        ("EPSG:3857", "EPSG:32660"),
        ("EPSG:3832", WGS84),
    ],
)
def test_scenes_lie_across_180_degrees(tmp_path, pan, ms):
    size, low = (800, 800), (200, 200)
    profiles = []
    for profile, shape, scale in ((pan, size, 1), (ms, low, 4)):
        if isinstance(profile, str):
            profile = across_180(profile, shape, 1e-5 * scale)
        profiles.append(profile)
    pan, ms = profiles
    values = on_ground(ms["transform"], low, ms["crs"])
    pair = (
        write_raster(tmp_path / "pan.tif", smooth((1, *size)), **pan),
        write_raster(tmp_path / "ms.tif", np.stack([values] * 4).astype(np.float32), **ms),
    )

    def expected(rows, cols):
        x, y = product(pan["transform"], (cols, rows))
        lon, lat = (x, y) if pan["crs"] == WGS84 else transform_points(pan["crs"], WGS84, x, y)
        east = (np.asarray(lon) - 180 + 540) % 360 - 180
        return waves(east, np.asarray(lat) - 52, 4e-5)

    with Scene(*pair) as scene:
        check_places(scene, expected, 12)
