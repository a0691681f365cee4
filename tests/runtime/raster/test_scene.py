"""How two rasters lie to each other, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.interpolator import HALO
from ssdiff_trt.runtime.options import ReadOptions
from ssdiff_trt.runtime.raster.affine import product
from ssdiff_trt.runtime.raster.scene import Scene
from tests.support.rasters import PAN_GRID, UTM, smooth
from tests.support.scenes import MS_GRID, REFUSALS, holes, shifted


def test_grids_that_fit(make_pair):
    with Scene(*make_pair()) as scene:
        assert (scene.rows, scene.cols) == (range(160), range(192))
        assert scene.output == (range(160), range(192))
        assert scene.position == (1.5, 1.5)
        assert not scene.resampled


@pytest.mark.parametrize(
    ("move", "rows", "cols", "position"),
    [
        ((0.5, 0.5), range(160), range(192), (2.0, 2.0)),  # the field's simulated pairs
        ((0.25, -0.25), range(160), range(192), (1.75, 1.25)),
        ((3, 0), range(3, 163), range(192), (1.5, 1.5)),
        ((-4, 8), range(156), range(8, 192), (1.5, 1.5)),
        ((-6.25, 0), range(-2, 154), range(192), (1.25, 1.5)),
    ],
)
def test_ms_shifted_on_pan(make_pair, move, rows, cols, position):
    with Scene(*make_pair(ms={"transform": shifted(*move)})) as scene:
        assert (scene.rows, scene.cols) == (rows, cols)
        assert scene.output == (range(max(rows.start, 0), min(rows.stop, 160)), cols)
        assert scene.position == position
        assert not scene.resampled


EXTENTS = [
    ((161, 195), (40, 48), (160, 192)),  # MS is smaller by less than a pixel
    ((161, 195), (41, 49), (161, 195)),  # MS is larger by less than a pixel
    ((158, 190), (40, 48), (158, 190)),
]


@pytest.mark.parametrize(
    ("pan_size", "ms_size", "output", "georeferenced"),
    [
        *((*sizes, georeferenced) for sizes in EXTENTS for georeferenced in (True, False)),
        ((160, 192), (60, 20), (160, 80), True),
    ],
)
def test_extents_that_differ(make_pair, pan_size, ms_size, output, georeferenced):
    pan = {"pixels": smooth((1, *pan_size))}
    ms = {"pixels": smooth((4, *ms_size))}
    if not georeferenced:
        pan["transform"] = ms["transform"] = None
    with Scene(*make_pair(pan=pan, ms=ms)) as scene:
        assert tuple(len(axis) for axis in scene.output) == output
        assert len(scene.rows) % 4 == len(scene.cols) % 4 == 0
        pixels = scene.read(scene.rows, scene.cols)
        assert pixels.pan.shape == (len(scene.rows), len(scene.cols))


def test_a_ratio_that_drifts_by_a_little_is_a_shift_and_by_more_is_warped(make_pair):
    almost = product(PAN_GRID, Affine.scale(4.0025))
    with Scene(*make_pair(ms={"transform": almost})) as scene:
        assert not scene.resampled
    more = product(PAN_GRID, Affine.scale(4.05))
    with Scene(*make_pair(ms={"transform": more})) as scene:
        assert scene.resampled
        assert scene.position == (1.5, 1.5)
        assert scene.output == (range(160), range(192))


def ground(x, y):
    """A smooth scene in UTM metres."""
    return 1000 + 300 * np.sin((x - 500_000) / 13) + 200 * np.cos((y - 5_700_000) / 17)


def test_ms_in_another_projection_lands_where_it_belongs(make_pair):
    (west, east), (south, north) = transform_points(
        UTM, "EPSG:4326", [499_990, 500_110], [5_699_905, 5_700_010]
    )
    size = 2.0 / 70_000, 2.0 / 111_000  # about 2 m there
    grid = Affine(size[0], 0, west, 0, -size[1], north)
    height, width = int((north - south) / size[1]), int((east - west) / size[0])
    rows, cols = np.mgrid[0:height, 0:width]
    x, y = transform_points(
        "EPSG:4326",
        UTM,
        west + (cols.ravel() + 0.5) * size[0],
        north - (rows.ravel() + 0.5) * size[1],
    )
    values = ground(np.array(x), np.array(y)).reshape(height, width)
    ms = {
        "pixels": np.stack([values] * 4).astype(np.float32),
        "transform": grid,
        "crs": "EPSG:4326",
    }
    with Scene(*make_pair(ms=ms)) as scene:
        assert scene.resampled
        assert scene.output == (range(160), range(192))
        pixels = scene.read(range(160), range(192))
    inner = np.s_[HALO:-HALO, HALO:-HALO]
    assert pixels.ms_valid[inner].all()
    row, col = np.mgrid[0:40, 0:48]
    x, y = product(PAN_GRID, (4 * col + 2, 4 * row + 2))
    np.testing.assert_allclose(pixels.ms[0][inner], ground(x, y), atol=3)


def test_a_warped_image_reads_the_same_in_parts(make_pair):
    turned = product(MS_GRID, Affine.rotation(3), Affine.translation(-4, -4))
    with Scene(*make_pair(ms={"pixels": smooth((4, 60, 70)), "transform": turned})) as scene:
        assert scene.resampled
        rows, cols = scene.rows, scene.cols
        whole = scene.read(rows, cols)
        part = scene.read(
            range(rows.start + 64, rows.start + 128), range(cols.start + 32, cols.start + 96)
        )
    np.testing.assert_array_equal(part.ms, whole.ms[:, 16 : 32 + 2 * HALO, 8 : 24 + 2 * HALO])
    np.testing.assert_array_equal(
        part.ms_valid, whole.ms_valid[16 : 32 + 2 * HALO, 8 : 24 + 2 * HALO]
    )
    assert not whole.ms_valid.all()


def test_reading_beyond_the_edge_mirrors(make_pair):
    pan, ms = make_pair()
    with Scene(pan, ms) as scene:
        pixels = scene.read(range(0, 64), range(0, 64))
    with rasterio.open(ms) as file:
        values = file.read().astype(np.float32)
    mirrored = np.pad(values, [(0, 0), (HALO, 0), (HALO, 0)], mode="symmetric")
    np.testing.assert_array_equal(pixels.ms, mirrored[:, : 16 + 2 * HALO, : 16 + 2 * HALO])


def test_bands_can_be_chosen_and_reordered(make_pair):
    pan, ms = make_pair(bands=5)
    with rasterio.open(ms) as file:
        values = file.read([4, 2, 1])
    with Scene(pan, ms, ReadOptions(bands=(4, 2, 1))) as scene:
        pixels = scene.read(scene.rows, scene.cols)
    np.testing.assert_array_equal(pixels.ms[:, HALO:-HALO, HALO:-HALO], values)


def test_alpha_is_not_a_band(make_pair):
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    with Scene(*make_pair(ms={"colorinterp": colours})) as scene:
        assert scene.bands == (1, 2, 3)


@pytest.mark.parametrize("how", ["nodata", "zeros", "nan", "mask", "alpha"])
def test_holes_are_found_however_they_are_declared(make_pair, how):
    nodata = 0 if how == "zeros" else None
    with Scene(*holes(make_pair, how), ReadOptions(nodata=nodata)) as scene:
        pixels = scene.read(scene.rows, scene.cols)
    expected = np.ones((40, 48), bool)
    expected[10:14, 20:24] = False
    np.testing.assert_array_equal(pixels.ms_valid[HALO:-HALO, HALO:-HALO], expected)
    assert pixels.pan_valid.all()


def test_one_band_at_0_is_dark_and_one_band_at_another_nodata_value_is_a_hole(make_pair):
    pixels = smooth((4, 40, 48))
    pixels[3, 5, 5] = 0
    with Scene(*make_pair(ms={"pixels": pixels, "nodata": 0})) as scene:
        assert scene.read(scene.rows, scene.cols).ms_valid.all()
    pixels[3, 5, 5] = 65535
    with Scene(*make_pair(ms={"pixels": pixels, "nodata": 65535})) as scene:
        assert not scene.read(scene.rows, scene.cols).ms_valid[5 + HALO, 5 + HALO]


@pytest.mark.parametrize(("changes", "sentence"), REFUSALS)
def test_what_is_no_pair_is_refused(make_pair, changes, sentence):
    with pytest.raises(SSDiffError, match=sentence):
        Scene(*make_pair(**changes))


def test_files_and_bands_that_are_not_there_are_refused(make_pair, tmp_path):
    pan, ms = make_pair()
    text = tmp_path / "text.tif"
    text.write_text("no image")
    with pytest.raises(SSDiffError, match="The PAN image cannot be read"):
        Scene(tmp_path / "nothing.tif", ms)
    with pytest.raises(SSDiffError, match="The MS image cannot be read"):
        Scene(pan, text)
    with pytest.raises(SSDiffError, match="has no band 9; it has 4"):
        Scene(pan, ms, ReadOptions(bands=(1, 9)))
    with pytest.raises(SSDiffError, match="has no band 2; it has 1"):
        Scene(pan, ms, ReadOptions(pan_band=2))


def test_a_band_of_pan_can_be_chosen(make_pair):
    pixels = smooth((2, 160, 192))
    with Scene(*make_pair(pan={"pixels": pixels}), ReadOptions(pan_band=2)) as scene:
        np.testing.assert_array_equal(scene.read(scene.rows, scene.cols).pan, pixels[1])


def test_any_raster_that_gdal_reads_will_do(make_pair, tmp_path):
    pan, ms = make_pair()
    vrt = tmp_path / "ms.vrt"
    with rasterio.open(ms) as source:
        rasterio.shutil.copy(source, vrt, driver="VRT")
    with Scene(pan, vrt) as scene:
        assert scene.bands == (1, 2, 3, 4)
