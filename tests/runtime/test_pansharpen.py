"""A run, from two rasters to one."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.rpc import RPC
from rasterio.transform import Affine

from ssdiff_ref.classical.fusion import fuse
from ssdiff_trt import Pansharpener, SSDiffError
from ssdiff_trt.runtime.raster.affine import product
from tests.support.backends import StandIn
from tests.support.imagery import make_bundle
from tests.support.progress import RecordingProgress
from tests.support.rasters import PAN_GRID, UTM, interpolated, read_raster, smooth
from tests.support.scenes import holes, shifted


def test_output_is_on_pan_s_grid_with_ms_s_bands_and_type(make_pair, run):
    names = ("blue", "green", "red", "nir")
    pair = make_pair(ms={"descriptions": names})
    result = run(pair)
    with rasterio.open(result.output) as file:
        assert (file.height, file.width, file.count) == (160, 192, 4)
        assert file.crs == UTM
        assert file.transform == PAN_GRID
        assert file.dtypes == ("uint16",) * 4
        assert file.descriptions == names
        assert file.nodata is None
        assert file.mask_flag_enums == ([MaskFlags.all_valid],) * 4
        assert file.profile["tiled"]
        assert file.compression.name == "deflate"
    np.testing.assert_allclose(
        read_raster(result.output), interpolated(read_raster(pair[1])), atol=1
    )


def test_output_of_a_part_lies_where_the_part_lies(make_pair, run):
    pair = make_pair(ms={"transform": shifted(8, 20)})
    result = run(pair)
    with rasterio.open(result.output) as file:
        assert (file.height, file.width) == (152, 172)
        assert file.transform == product(PAN_GRID, Affine.translation(20, 8))
    expected = interpolated(read_raster(pair[1]))[:, :152, :172]
    # The last tiles mirror PAN and not MS, so all but the far edges agree.
    np.testing.assert_allclose(
        read_raster(result.output)[:, :140, :160], expected[:, :140, :160], atol=1
    )


def test_a_subpixel_shift_of_ms_is_made_up_for(make_pair, run):
    pair = make_pair(ms={"transform": shifted(0.5, 0.25)})
    result = run(pair)
    assert result.plan.source.position == (2.0, 1.75)
    expected = interpolated(read_raster(pair[1]), (2.0, 1.75))
    np.testing.assert_allclose(read_raster(result.output), expected, atol=1)


class DistanceFromEdge(StandIn):
    """A backend that returns how far each pixel is from the edge of its tile, in tiles."""

    def sample(self, batches, schedule):
        for tiles in batches:
            count, bands, tile, _ = tiles.lms.shape
            steps = np.minimum(np.arange(tile), np.arange(tile)[::-1]) / tile
            shape = count, bands, tile, tile
            yield np.broadcast_to(np.minimum.outer(steps, steps), shape).astype(np.float32)


def test_border_pixels_lie_inside_a_tile(make_pair, run):
    """Networks err at the edges of tiles, so the outer pixels of a scene must not be such edges."""
    pair = make_pair(
        pan={"pixels": smooth((1, 160, 192)) // 32}, ms={"pixels": smooth((4, 40, 48)) // 32}
    )
    result = run(pair, DistanceFromEdge(), dtype="float32", full_scale=64)
    assert read_raster(result.output).min() >= 6


@pytest.mark.parametrize("ratio", [4.0002, 4.003, 3.996, 4.005])
def test_a_ratio_of_nearly_4_is_a_position_for_each_tile(make_pair, run, ratio):
    """MS drifts from PAN's grid by up to two pixels of PAN, and is used without resampling."""

    def ground(rows, cols):
        row, col = np.meshgrid(rows, cols, indexing="ij")
        return 1000 + 500 * np.sin(row / 23) + 300 * np.cos(col / 31)

    first = 7.3, 4.8  # row and column of PAN where MS begins
    starts = [
        first[axis] + ratio * (np.arange(size) + 0.5) - 0.5 for axis, size in ((0, 420), (1, 60))
    ]
    pair = make_pair(
        pan={"pixels": np.ones((1, 1700, 260), np.uint16)},
        ms={
            "pixels": np.stack([ground(*starts)] * 4).astype(np.float32),
            "transform": product(
                PAN_GRID, Affine.translation(first[1], first[0]), Affine.scale(ratio)
            ),
        },
    )
    result = run(pair, dtype="float32", shift="none")
    assert not result.plan.source.resampled
    rows, cols = result.plan.source.output
    assert (rows.start, cols.start) == (7, 5)
    inner = np.s_[40:-40, 40:-40]
    image = read_raster(result.output)
    np.testing.assert_allclose(image[(0, *inner)], ground(rows[inner[0]], cols[inner[1]]), atol=1.5)
    again = run(pair, dtype="float32", shift="none", block=100, name="again.tif")
    np.testing.assert_array_equal(read_raster(again.output), image)


def test_pan_smaller_than_the_ms_pixels_it_touches_gives_an_output_of_its_size(make_pair, run):
    pair = make_pair(pan={"pixels": smooth((1, 158, 190))})
    result = run(pair)
    assert result.size == (158, 190)
    expected = interpolated(read_raster(pair[1]))[:, :158, :190]
    np.testing.assert_allclose(read_raster(result.output), expected, atol=1)


@pytest.mark.parametrize(("height", "width"), [(40, 192), (20, 24), (64, 64), (68, 400)])
def test_scenes_smaller_than_a_tile_and_odd_ones(make_pair, run, height, width):
    pair = make_pair(height, width)
    result = run(pair)
    assert result.size == (height, width)
    expected = interpolated(read_raster(pair[1]))
    np.testing.assert_allclose(read_raster(result.output), expected, atol=1)


def test_bytes_do_not_depend_on_batch_block_or_threads(make_pair, run, monkeypatch):
    """With the real network; the noise is large at t = 999, so a tile's place shows."""
    # Two threads are used even on one CPU, where a run would warn and take one.
    monkeypatch.setattr("ssdiff_trt.runtime.cpus.usable_cpus", lambda: 2)
    pair = make_pair(116, 136)
    first = run(pair, backend="onnxruntime", batch=1, threads=1)
    reference = read_raster(first.output)
    for name, options in {
        "batch": {"batch": 3},
        "block": {"batch": 16, "block": 64, "threads": 2},
        "larger block": {"block": 130},
    }.items():
        other = run(pair, backend="onnxruntime", name=f"{name}.tif", **options)
        np.testing.assert_array_equal(read_raster(other.output), reference)
        assert other.output.read_bytes() == first.output.read_bytes()


@pytest.mark.parametrize("block", [1, 64, 150, 4000])
def test_blocks_do_not_show_where_noise_pan_and_nodata_are_in_play(make_pair, run, block):
    pixels = smooth((4, 60, 70))
    pixels[:, 20:40, 30:50] = 0
    pair = make_pair(240, 280, ms={"pixels": pixels, "nodata": 0, "transform": shifted(3, -0.3)})
    backend = StandIn(pan=0.2, noise=0.01)
    reference = run(pair, backend, dtype="float32")
    other = run(pair, backend, name="other.tif", dtype="float32", block=block, batch=7)
    np.testing.assert_array_equal(read_raster(other.output), read_raster(reference.output))


def test_seeds_differ_and_repeat(make_pair, run):
    pair, backend = make_pair(), StandIn(noise=0.01)
    images = [
        read_raster(run(pair, backend, f"{i}.tif", seed=s).output) for i, s in enumerate((1, 1, 2))
    ]
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] != images[2]).mean() > 0.5


def test_every_tile_is_run_once_and_batches_are_as_asked(make_pair, run):
    backend = StandIn()
    result = run(make_pair(), backend, batch=4)
    assert result.counts.tiles == 4 * 4
    assert backend.batches == [4, 4, 4, 4]


def test_dtype_of_the_output_can_be_chosen(make_pair, run):
    pair = make_pair()
    exact = read_raster(run(pair, dtype="float32").output)
    assert exact.dtype == np.float32
    small = read_raster(run(pair, name="small.tif", dtype="uint8").output)
    np.testing.assert_array_equal(small, np.rint(exact).clip(0, 255))


@pytest.mark.parametrize("how", ["nodata", "zeros", "nan", "mask", "alpha"])
def test_holes_stay_holes_and_do_not_leak(make_pair, run, how):
    whole = read_raster(run(make_pair(), name="whole.tif", dtype="float32").output)
    options = {"nodata": 0} if how == "zeros" else {}
    result = run(holes(make_pair, how), dtype="uint16", **options)
    expected = np.zeros((160, 192), bool)
    expected[40:56, 80:96] = True
    assert result.counts.invalid_pixels == expected.sum()
    with rasterio.open(result.output) as file:
        values = file.read()
        assert file.nodata == {"nodata": 7, "zeros": 0}.get(how)
        np.testing.assert_array_equal(file.dataset_mask() == 0, expected)
    # Valid pixels beside the hole are made from what is around it and not from what is in it.
    difference = np.abs(values - whole)[:, ~expected]
    assert difference.max() < 120
    assert np.abs(values - whole)[:, :20].max() <= 0.5


@pytest.mark.parametrize("hidden", [0, 2047, 60000])
def test_what_lies_in_a_hole_cannot_change_what_lies_outside(make_pair, run, hidden):
    """With the real network, whose attention sees the whole tile."""
    images = []
    for value in (1, hidden):
        pan, ms = smooth((1, 64, 64), seed=1), smooth((4, 16, 16), seed=2)
        valid = np.ones((64, 64), bool)
        valid[24:40, 16:32] = False
        pan[:, ~valid] = value
        ms[:, 6:10, 4:8] = value
        pair = make_pair(
            pan={"pixels": pan, "mask": valid}, ms={"pixels": ms, "mask": valid[::4, ::4]}
        )
        result = run(pair, backend="onnxruntime", name=f"{value}.tif")
        with rasterio.open(result.output) as file:
            np.testing.assert_array_equal(file.dataset_mask() > 0, valid)
            images.append(file.read()[:, valid])
    np.testing.assert_array_equal(*images)


def test_holes_of_pan_count_too_and_empty_tiles_are_skipped(make_pair, run):
    pixels = smooth((1, 160, 192))
    pixels[:, :, 100:] = 0
    result = run(make_pair(pan={"pixels": pixels, "nodata": 0}))
    with rasterio.open(result.output) as file:
        assert file.nodata == 0
        mask = file.dataset_mask() > 0
    np.testing.assert_array_equal(mask, np.arange(192) < 100 + np.zeros((160, 1)))
    assert result.counts.empty_tiles == 4  # those from column 136 on
    assert result.counts.tiles == 12


def test_a_valid_pixel_never_gets_the_nodata_value(make_pair, run):
    pixels = np.full((4, 40, 48), 700, np.uint16)
    pixels[:, :10] = 5
    result = run(make_pair(ms={"pixels": pixels, "nodata": 5}), StandIn())
    with rasterio.open(result.output) as file:
        valid = file.dataset_mask() > 0
    assert valid[40:].all()
    pixels = np.full((4, 40, 48), 700, np.uint16)
    result = run(
        make_pair(ms={"pixels": pixels, "nodata": 700}, pan={"nodata": None}), name="n.tif"
    )
    assert result.counts.invalid_pixels == 160 * 192


def test_nothing_valid_at_all_still_gives_a_file(make_pair, run):
    result = run(make_pair(ms={"pixels": np.zeros((4, 40, 48), np.uint16), "nodata": 0}))
    assert result.counts.tiles == 0
    assert not read_raster(result.output).any()


def test_a_turned_ms_image_leaves_its_corners_without_data(make_pair, run):
    turned = product(PAN_GRID, Affine.rotation(10), Affine.scale(4))
    result = run(make_pair(ms={"transform": turned}))
    assert result.plan.source.resampled
    with rasterio.open(result.output) as file:
        mask = file.dataset_mask() > 0
    assert 0.5 < mask.mean() < 0.95
    assert result.counts.invalid_pixels == (~mask).sum()


def test_values_beyond_the_result_are_not_counted(make_pair, run):
    """The grid is whole pixels of MS, and may reach beyond PAN and so beyond the result."""
    pan, ms = np.full((1, 158, 190), 100, np.uint16), np.full((4, 40, 48), 100, np.uint16)
    pan[:, -6:], ms[:, -1] = 300, 300
    result = run(make_pair(pan={"pixels": pan}, ms={"pixels": ms}), full_scale=255)
    assert result.counts.beyond_pan == 6 * 190
    assert result.counts.beyond_ms == 48


def test_values_beyond_full_scale_are_counted(make_pair, run):
    pixels = smooth((4, 40, 48))
    pixels[1, 3, 5:8] = 3000
    result = run(make_pair(ms={"pixels": pixels}))
    assert (result.counts.beyond_pan, result.counts.beyond_ms) == (0, 3)
    assert (np.argwhere(read_raster(result.output)[[0, 2, 3]] > 2047)).size == 0
    assert read_raster(result.output)[1, 12:16, 20:32].max() > 2900
    result = run(make_pair(ms={"pixels": pixels}), name="other.tif", full_scale=4095)
    assert result.counts.beyond_ms == 0
    assert read_raster(result.output).max() > 2900


@pytest.mark.parametrize("overlap", [16, 32])
def test_what_the_network_cannot_be_is_that_of_ms(make_pair, run, overlap):
    """Negative reflectance, and clouds above full scale; elsewhere nothing changes."""
    plain = (smooth((4, 60, 80), seed=2) / 2047).astype(np.float32)
    beyond = plain.copy()
    beyond[:, 10:20, 10:20], beyond[2, 30:40, 50:60] = -0.05, 1.37
    results = []
    for name, pixels in (("plain.tif", plain), ("beyond.tif", beyond)):
        pan = {"pixels": (smooth((1, 240, 320)) / 2047).astype(np.float32)}
        pair = make_pair(240, 320, pan=pan, ms={"pixels": pixels})
        options = {"full_scale": 1, "shift": "none", "tile_overlap": overlap}
        results.append(read_raster(run(pair, name=name, **options).output))
    np.testing.assert_allclose(results[1][:, 52:68, 52:68], -0.05, atol=1e-3)
    np.testing.assert_allclose(results[1][2, 132:148, 212:228], 1.37, atol=6e-3)
    far = np.s_[:, 200:, :120]
    np.testing.assert_array_equal(results[0][far], results[1][far])


@pytest.mark.parametrize(
    ("of_pan", "of_ms", "options", "sentence"),
    [
        (30, 30, {}, "More than 5 % of the sampled PAN .* up to 54000.* `full_scale=65535`"),
        (1, 30, {}, "More than 5 % of the sampled MS .* `full_scale=65535`"),
        (
            1,
            1,
            {"full_scale": 1},
            "More than half of the sampled PAN pixels lie above full scale 1",
        ),
        (1, 1, {"full_scale": 1, "pan_full_scale": 2047}, "More than half of the sampled MS"),
    ],
)
def test_a_full_scale_that_would_cap_much_is_refused(
    make_pair, run, of_pan, of_ms, options, sentence
):
    pair = make_pair(
        pan={"pixels": smooth((1, 160, 192)) * of_pan}, ms={"pixels": smooth((4, 40, 48)) * of_ms}
    )
    with pytest.raises(SSDiffError, match=sentence):
        run(pair, **options)


def test_full_scale_comes_from_the_user_the_file_or_the_sensor(make_pair, run):
    result = run(make_pair())
    assert (result.plan.assumptions.ms_scale.value, result.plan.assumptions.pan_scale.value) == (
        2047,
        2047,
    )
    assert "sensor" in result.plan.assumptions.ms_scale.reason
    result = run(make_pair(ms={"nbits": 12}), name="nbits.tif")
    assert (result.plan.assumptions.ms_scale.value, result.plan.assumptions.pan_scale.value) == (
        4095,
        4095,
    )
    eight = {"pixels": (smooth((4, 40, 48)) // 8).astype(np.uint8)}
    with pytest.raises(SSDiffError, match=r"PAN would be 2047 .* of MS 255 .* state `full_scale`"):
        run(make_pair(ms=eight), name="eight.tif", bands=(1, 2, 3, 4))
    result = run(make_pair(ms=eight), name="eight.tif", bands=(1, 2, 3, 4), pan_full_scale=2047)
    assert (result.plan.assumptions.ms_scale.value, result.plan.assumptions.pan_scale.value) == (
        255,
        2047,
    )
    np.testing.assert_allclose(read_raster(result.output), interpolated(eight["pixels"]), atol=1)
    result = run(make_pair(), name="stated.tif", full_scale=5000, pan_full_scale=4000)
    assert (result.plan.assumptions.ms_scale.value, result.plan.assumptions.pan_scale.value) == (
        5000,
        4000,
    )


def test_a_shift_of_more_than_an_ms_pixel_moves_the_extent(make_pair, run, tmp_path, standin4):
    pan, ms = make_pair()
    result = run((pan, ms), shift=(0, 12))
    moved = read_raster(result.output)
    assert moved.shape == (4, 160, 184) == (4, *result.plan.size)
    with rasterio.open(result.output) as file:
        assert file.transform == product(PAN_GRID, Affine.translation(8, 0))
    fuse(pan, ms, tmp_path / "fused.tif", method="EXP", shift=(0, 12))
    with rasterio.open(tmp_path / "fused.tif") as file:
        assert file.transform == product(PAN_GRID, Affine.translation(8, 0))
        assert np.abs(file.read().astype(int) - moved).max() <= 1
    placed = product(PAN_GRID, Affine.translation(12, 0), Affine.scale(4))
    expected = read_raster(run(make_pair(ms={"transform": placed}), name="e.tif").output)
    np.testing.assert_array_equal(moved[..., 4:], expected)
    arrays = read_raster(pan)[0], read_raster(ms)
    with Pansharpener(standin4, backend=StandIn()) as sharpen:
        image = sharpen(*arrays, shift=(0, 12))
    np.testing.assert_array_equal(image, moved)


def any_rpc(line, sample):
    values = dict.fromkeys(("height_off", "lat_off", "long_off"), 1.0)
    values |= {f"{name}_scale": 2.0 for name in ("height", "lat", "long", "line", "samp")}
    values |= {f"{p}_{q}_coeff": [0.5] * 20 for p in ("line", "samp") for q in ("num", "den")}
    return RPC(line_off=line, samp_off=sample, **values)


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
@pytest.mark.parametrize("transform", [PAN_GRID, None])
def test_rpcs_of_pan_are_carried(make_pair, run, transform, driver):
    grid = transform and product(transform, Affine.scale(4))
    pan, ms = make_pair(pan={"transform": transform}, ms={"transform": grid})
    with rasterio.open(pan, "r+") as file:
        file.rpcs = any_rpc(70, 90)
    by = "files" if transform else "corners"
    with rasterio.open(run((pan, ms), driver=driver, georeferencing=by).output) as file:
        assert (file.rpcs.line_off, file.rpcs.samp_off) == (70, 90)
        assert file.rpcs.line_num_coeff == [0.5] * 20
        assert file.transform.is_identity == (transform is None)


def test_rpcs_move_with_the_extent(make_pair, run):
    inside = product(PAN_GRID, Affine.translation(16, 8), Affine.scale(4))
    pan, ms = make_pair(ms={"transform": inside})
    with rasterio.open(pan, "r+") as file:
        file.rpcs = any_rpc(70, 90)
    for name in ("once.tif", "again.tif"):
        with rasterio.open(run((pan, ms), name=name).output) as file:
            assert file.shape == (152, 176)
            assert (file.rpcs.line_off, file.rpcs.samp_off) == (62, 74)


@pytest.mark.parametrize("moved", [0, 12])
def test_gcps_of_pan_are_carried_and_move_with_the_extent(make_pair, run, moved):
    pan, ms = make_pair(pan={"transform": None}, ms={"transform": None})
    points = [GroundControlPoint(r, c, 2 * c, -r) for r, c in ((20, 30), (20, 90), (80, 30))]
    with rasterio.open(pan, "r+") as file:
        file.gcps = points, CRS.from_epsg(32631)
    result = run((pan, ms), shift=(0, moved), georeferencing="corners")
    with rasterio.open(result.output) as file:
        found, crs = file.gcps
    start = result.plan.source.output[1].start
    assert start == max(moved - 4, 0)
    assert [(p.row, p.col) for p in found] == [(p.row, p.col - start) for p in points]
    assert [(p.x, p.y) for p in found] == [(p.x, p.y) for p in points]
    assert crs.to_epsg() == 32631


def test_ms_that_explains_little_of_pan_causes_a_warning(make_pair, run):
    other = np.ascontiguousarray(smooth((4, 40, 48), seed=2)[:, ::-1, ::-1])
    noise = np.random.default_rng(5).integers(100, 900, (1, 160, 192), np.uint16)
    for pan in (noise, np.full_like(noise, 300)):
        progress = RecordingProgress()
        given = make_pair(pan={"pixels": pan}, ms={"pixels": other})
        run(given, progress=progress, overwrite=True)
        found = [w for w in progress.warnings if "variance of blurred PAN" in w]
        assert len(found) == (pan is noise)
        if found:
            assert found[0].startswith("the bands of MS explain ")


def test_tags_tell_where_the_pixels_come_from(make_pair, run, standin4):
    result = run(make_pair(), steps=2, seed=9, sampler="released")
    with rasterio.open(result.output) as file:
        tags = file.tags()
    assert tags["SSDIFF_BUNDLE_SHA256"] == standin4.sha256
    assert tags["SSDIFF_MODEL"] == "SSNet generic4"
    assert tags["SSDIFF_TIMESTEPS"] == "500,0"
    assert tags["SSDIFF_STEPS"] == "2"
    assert tags["SSDIFF_SEED"] == "9"
    assert tags["SSDIFF_SAMPLER"] == "released"
    assert tags["SSDIFF_VERSION"].startswith("ssdiff-trt ")


@pytest.mark.parametrize(
    ("options", "visited"),
    [
        ({"sampler": "released"}, tuple(range(900, -1, -100))),
        ({"sampler": "released", "steps": 2}, (500, 0)),
        ({"sampler": "released", "timesteps": [999]}, (999,)),
        ({"sampler": "consistent"}, (999, 68)),
        ({}, (999, 68)),
    ],
)
def test_the_sampler_of_the_authors_takes_their_timesteps_unless_told_others(
    make_pair, run, options, visited
):
    schedule = run(make_pair(), **options).plan.schedule
    assert schedule.timesteps == visited
    assert schedule.sampler == options.get("sampler", "consistent")


def test_creation_options_and_cog(make_pair, run):
    pair = make_pair(320, 320)
    plain = run(
        pair, creation_options={"COMPRESS": "LZW", "BLOCKXSIZE": "128", "BLOCKYSIZE": "128"}
    )
    with rasterio.open(plain.output) as file:
        assert file.compression.name == "lzw"
        assert file.block_shapes[0] == (128, 128)
    cog = run(pair, name="cog.tif", driver="COG", creation_options={"BLOCKSIZE": "128"})
    with rasterio.open(cog.output) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.block_shapes[0] == (128, 128)
        assert file.tags()["SSDIFF_SEED"] == "0"
    np.testing.assert_array_equal(read_raster(cog.output), read_raster(plain.output))


def test_quicklook_shows_three_panels(make_pair, run):
    result = run(make_pair(), quicklook=True)
    assert result.quicklook.name == "out.png"
    picture = read_raster(result.quicklook)
    assert picture.shape[1] > 160
    assert picture.shape[2] > 3 * 192
    panels = [picture[0, 40:180, 8 + k * 200 : 8 + k * 200 + 192] for k in range(3)]
    assert all(panel.std() > 20 for panel in panels)


def test_the_default_overlap_fits_small_tiles(make_pair, tmp_path):
    for tile, expected in ((128, 16), (64, 16), (32, 8), (16, 4)):
        bundle = make_bundle(tmp_path, f"tile{tile}", 4, tile)
        with Pansharpener(bundle).plan(*make_pair(64, 64), tmp_path / "o.tif") as plan:
            assert plan.rows.overlap == expected
