"""The shift between MS and PAN: measured, printed and corrected."""

from __future__ import annotations

import click
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter

from ssdiff_trt.cli.messages import print_plan
from ssdiff_trt.cli.trt import cli
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.options import ReadOptions
from ssdiff_trt.runtime.raster.affine import product
from ssdiff_trt.runtime.raster.registration import Shift, measure_arrays, measure_source
from ssdiff_trt.runtime.raster.scene import Scene
from tests.support.backends import StandIn
from tests.support.displaced import EDGE, SIGMA, displaced, ground, through_optics, write_displaced
from tests.support.imagery import write_raster
from tests.support.progress import RecordingProgress
from tests.support.rasters import PAN_GRID, read_raster


@pytest.mark.parametrize("shift", [(0.4, -1.3), (3, 2), (-3.9, 3.9), (0, 0)])
@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"noise": 15},
        {"weights": (0.1, 0.1, 0.2, 0.6), "gain": 0.2, "noise": 5},
        {"height": 24, "width": 36},
        {"height": 22, "width": 22, "noise": 5},
    ],
)
def test_a_known_shift_is_found(shift, conditions):
    found = measure_arrays(*displaced(shift, **conditions), (1.5, 1.5))
    assert (found.rows, found.cols) == pytest.approx(shift, abs=0.05)
    assert found.error < 0.05
    assert found.share > 0.95
    assert found.reliable == (shift != (0, 0))


def test_it_is_measured_from_where_ms_is_thought_to_lie():
    found = measure_arrays(*displaced((0.4, -1.3)), (2.0, 1.0))
    assert (found.rows, found.cols) == pytest.approx((-0.1, -0.8), abs=0.02)


@pytest.mark.parametrize("shift", [(5.5, 0), (-8, 6.3), (15.5, -15.5)])
def test_a_shift_by_several_pixels_of_ms_is_found(shift):
    found = measure_arrays(*displaced(shift), (1.5, 1.5))
    assert (found.rows, found.cols) == pytest.approx(shift, abs=0.05)
    assert found.reliable


@pytest.mark.parametrize("shift", [(17, 0), (20, 3)])
def test_what_is_too_far_is_not_taken_for_reliable(shift):
    assert not measure_arrays(*displaced(shift), (1.5, 1.5)).reliable


def test_what_shows_nothing_in_common_is_not_reliable():
    rng = np.random.default_rng(0)
    flat = np.full((256, 256), 300.0), np.full((4, 64, 64), 200.0)
    noise = rng.normal(300, 20, (256, 256)), rng.normal(200, 20, (4, 64, 64))
    pan, ms = displaced((2, 1), 64, 64)
    for images in (flat, noise, (pan, noise[1]), (noise[0], ms), (pan, flat[1]), (flat[0], ms)):
        found = measure_arrays(*images)
        assert not found.reliable
        assert found.share < 0.3
    assert not measure_arrays(pan[:60, :60], ms[:, :15, :15]).reliable


def test_blocks_that_disagree_are_left_out():
    pan, ms = displaced((1.2, -0.6), 96, 96)
    other, _ = displaced((0, 0), 96, 96)
    pan[:160, :160] = np.roll(other, (9, -7), (0, 1))[:160, :160]
    found = measure_arrays(pan, ms, (1.5, 1.5))
    assert (found.rows, found.cols) == pytest.approx((1.2, -0.6), abs=0.05)


def test_parts_have_their_own_shifts_and_places():
    pan, ms = displaced((1.2, -0.6), 96, 96)
    _, other = displaced((1.2, -1.0), 96, 96)
    ms[..., 48:] = other[..., 48:]
    found = measure_arrays(pan, ms, (1.5, 1.5))
    assert len(found.parts) >= 6
    for part in found.parts:
        row, col = part.place
        assert 0 < row < 384
        assert 0 < col < 384
        assert part.error < 0.25
        assert part.rows == pytest.approx(1.2, abs=0.1)
        if abs(col - 192) > 64:
            assert part.cols == pytest.approx(-0.6 if col < 192 else -1.0, abs=0.15)
    assert {part.place[1] > 192 for part in found.parts} == {True, False}


def test_nodata_does_not_count(tmp_path):
    pan, ms = (np.rint(image).astype("uint16") for image in displaced((0.4, -1.3), 90, 80))
    ms[:, :30] = 0
    pan[:, 250:] = 0
    paths = (
        write_raster(tmp_path / "pan.tif", pan),
        write_raster(tmp_path / "ms.tif", ms, product(PAN_GRID, Affine.scale(4))),
    )
    with Scene(*paths, ReadOptions(nodata=0)) as scene:
        found = measure_source(scene)
    assert (found.rows, found.cols) == pytest.approx((0.4, -1.3), abs=0.05)
    assert found.share > 0.95


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ((0.5, -0.25), (0.1, -0.85)),  # MS is said to be where it is, but for this
        ((-8, 12), (0.6, -1.1)),
    ],
)
def test_what_the_georeferencing_says_is_not_part_of_it(tmp_path, said, expected):
    true = said[0] + expected[0], said[1] + expected[1]
    pan, ms = displaced((true[0] % 4, true[1] % 4), 80, 80)
    whole = [int(value // 4) for value in true]
    pan = np.roll(pan, (4 * whole[0], 4 * whole[1]), (0, 1))
    grid = product(PAN_GRID, Affine.translation(said[1], said[0]), Affine.scale(4))
    paths = write_raster(tmp_path / "pan.tif", pan), write_raster(tmp_path / "ms.tif", ms, grid)
    with Scene(*paths) as scene:
        found = measure_source(scene)
    assert (found.rows, found.cols) == pytest.approx(expected, abs=0.05)


def test_clouds_elsewhere_in_pan_than_in_ms_do_not_move_a_pair():
    pan, ms = displaced((0, 0), 160, 160)
    rng = np.random.default_rng(0)
    field = gaussian_filter(rng.standard_normal(pan.shape), 12)
    cloud = np.clip((field - np.quantile(field, 0.96)) / (0.3 * field.std()), 0, 1)
    pan += np.roll(cloud, (7, 9), (0, 1)) * (3000 - pan)
    ms += gaussian_filter(cloud, SIGMA[0.3])[1::4, 1::4] * (3000 - ms)
    found = measure_arrays(pan, ms, (1.5, 1.5))
    assert (found.rows, found.cols) == pytest.approx((0, 0), abs=0.1)
    assert not found.reliable


def test_holes_that_are_not_declared_do_not_count():
    pan, ms = displaced((0.4, -1.3), 90, 80)
    ms[:, :30] = 0
    pan[:128] = 0  # up to the same place, but for a part of the shift
    found = measure_arrays(pan, ms, (1.5, 1.5))
    assert (found.rows, found.cols) == pytest.approx((0.4, -1.3), abs=0.05)
    assert found.share > 0.95


def test_what_is_measured_too_coarsely_is_not_reliable():
    assert Shift(0.3, 2.55, 0.2, 0.9).reliable
    assert not Shift(0.3, 2.55, 0.74, 0.9).reliable


def test_the_shifts_of_parts_are_told():
    pan, ms = displaced((0, 0), 160, 160)
    assert measure_arrays(pan, ms, (1.5, 1.5)).spread < 0.05
    _, other = displaced((0, 1.5), 160, 160)
    ms[:, :, 80:] = other[:, :, 80:]
    found = measure_arrays(pan, ms, (1.5, 1.5))
    assert found.spread == pytest.approx(1.5, abs=0.2)


# Scenes that are moved


@pytest.mark.parametrize("move", [(0, 0), (-0.9, 1.4), (3.99, -3.99), (0.5, -0.5), (2, 2)])
@pytest.mark.parametrize("size", [(160, 192), (158, 190), (170, 200)])
def test_the_output_keeps_its_size_when_ms_is_moved(make_pair, move, size):
    pan = np.ones((1, *size), np.uint16)
    with Scene(*make_pair(pan={"pixels": pan})) as scene:
        before, rows = scene.output, scene.rows
        scene = scene.moved(*move)
        assert scene.output == before
        for grid, kept in zip((scene.rows, scene.cols), before, strict=True):
            assert len(grid) % 4 == 0
            assert kept.start - 4 < grid.start <= kept.start
            assert kept.stop <= grid.stop < kept.stop + 4
        if move == (0, 0):
            assert scene.rows == rows
        # Where the first pixel of MS lies on PAN, whole pixels and fraction together.
        found = [axis.begin for axis in scene.placement.axes]
        assert found == pytest.approx(move, abs=1 / 128)


def test_a_move_by_more_than_a_pixel_of_ms_moves_the_output(make_pair):
    with Scene(*make_pair()) as scene:
        scene = scene.moved(12, -20)
        assert scene.output == (range(8, 160), range(176))
        with pytest.raises(SSDiffError, match=r"moved by 500,0, PAN has"):
            scene.moved(500, 0)


# Runs


def error(result):
    """Of a run that does no more than interpolate, against the ground as MS would see it on PAN."""
    truth = through_optics(ground(64, 72, seed=3))[:, EDGE:-EDGE, EDGE:-EDGE]
    return np.abs(read_raster(result.output) - truth)[:, 40:-40, 40:-40].mean()


@pytest.mark.parametrize("shift", [(-0.93, 1.38), (3.2, -2.7)])
def test_a_run_moves_ms_onto_pan(tmp_path, run, shift):
    still = run(write_displaced(tmp_path, (0, 0)), name="still.tif", dtype="float32")
    assert still.plan.assumptions.shift == (0, 0)
    pair = write_displaced(tmp_path, shift)
    progress = RecordingProgress(verbose=True)
    moved = run(pair, name="moved.tif", dtype="float32", progress=progress)
    assert moved.plan.assumptions.shift == pytest.approx(shift, abs=0.03)
    assert error(moved) == pytest.approx(error(still), rel=0.05)
    left = run(pair, name="left.tif", dtype="float32", shift="none")
    assert error(left) > 3 * error(still)
    assert left.plan.assumptions.measured_shift is None
    rows, cols = moved.plan.assumptions.shift
    print_plan(moved.plan, progress)
    (line,) = [note for note in progress.notes if "MS is moved" in note]
    assert line.startswith(
        f"MS is moved by {rows:+.2f} rows and {cols:+.2f} columns of PAN (measured, ±0.0"
    )
    with rasterio.open(moved.output) as file, rasterio.open(left.output) as other:
        assert file.tags()["SSDIFF_SHIFT"] == f"{rows:g},{cols:g}"
        assert (file.shape, file.transform) == (other.shape, other.transform)
        assert "SSDIFF_SHIFT" not in other.tags()
    stated = run(pair, name="stated.tif", dtype="float32", shift=moved.plan.assumptions.shift)
    assert stated.output.read_bytes() == moved.output.read_bytes()


@pytest.mark.parametrize("options", [{"block": 64, "batch": 3}, {"block": 130, "batch": 1}])
def test_blocks_do_not_show_where_ms_is_moved(tmp_path, run, options):
    pair = write_displaced(tmp_path, (-2.3, 3.4))
    backend = StandIn(pan=0.2, noise=0.01)
    first = run(pair, backend, name="first.tif")
    other = run(pair, backend, name="other.tif", **options)
    assert any(first.plan.assumptions.shift)
    assert other.output.read_bytes() == first.output.read_bytes()


def test_a_scene_that_is_not_displaced_gives_the_bytes_that_it_gives_unmeasured(tmp_path, run):
    pair = write_displaced(tmp_path, (0.04, -0.05))
    measured = run(pair, name="measured.tif")
    assert measured.plan.assumptions.measured_shift.share > 0.9
    plain = run(pair, name="plain.tif", shift="none")
    assert measured.output.read_bytes() == plain.output.read_bytes()


def test_pairs_that_show_different_things_are_left_as_they_are(make_pair, run):
    pair = make_pair()
    assert run(pair).plan.assumptions.shift == (0, 0)


def test_what_is_warped_is_moved_too(tmp_path, run):
    """A ratio that is a little off, so that MS is warped; its ground is 1.2 pixels further."""
    grid = product(PAN_GRID, Affine.scale(4 * 1.004))
    still = run(
        write_displaced(tmp_path, (0, 0), ms_grid=grid), name="s.tif", dtype="float32", shift="none"
    )
    assert still.plan.source.resampled
    moved = run((tmp_path / "pan.tif", tmp_path / "ms.tif"), name="m.tif", shift=(4, -8))
    values, expected = read_raster(moved.output), read_raster(still.output)
    np.testing.assert_allclose(values[:, 50:150, 50:150], expected[:, 46:146, 58:158], atol=1.01)
    with rasterio.open(moved.output) as file:
        assert file.tags()["SSDIFF_SHIFT"] == "4,-8"


def test_a_shift_that_is_too_large_is_told_and_not_made_up_for(tmp_path, run):
    progress = RecordingProgress(verbose=True)
    result = run(write_displaced(tmp_path, (17.6, 0)), progress=progress)
    assert result.plan.assumptions.shift == (0, 0)
    (warning,) = [text for text in progress.warnings if "too far to be sure" in text]
    assert warning.startswith("MS seems to lie +17.6")
    assert "state `shift=17.6" in warning


def test_the_command_takes_a_shift(tmp_path, monkeypatch):
    taken = []

    def plan(self, *paths, **options):
        taken.append(options["shift"])
        raise click.exceptions.Exit(0)

    monkeypatch.setattr("ssdiff_trt.runtime.pansharpener.Pansharpener.plan", plan)
    for words in ([], ["--shift", "none"], ["--shift", "-0.9,1.4"]):
        assert CliRunner().invoke(cli, ["run", "a.tif", "b.tif", *words]).exit_code == 0
    assert taken == ["auto", "none", (-0.9, 1.4)]
    for wrong in ("1", "1,2,3", "left"):
        done = CliRunner().invoke(cli, ["run", "a.tif", "b.tif", "--shift", wrong])
        assert done.exit_code == 2
        assert "write a shift like -0.9,1.4" in done.output


def test_a_shift_that_is_no_number_is_refused(make_pair, run):
    with pytest.raises(SSDiffError, match="A shift of nan,1 does not work"):
        run(make_pair(), shift=(float("nan"), 1.0))


def test_flat_rasters_are_measured_without_warnings(make_pair, run):
    """All residuals are rounding errors there, and quotients of them may be beyond any number."""
    pan, ms = np.full((1, 158, 190), 300, np.uint16), np.full((4, 40, 48), 300, np.uint16)
    result = run(make_pair(pan={"pixels": pan}, ms={"pixels": ms}), full_scale=2047)
    assert not any(result.plan.assumptions.shift)
    np.testing.assert_allclose(read_raster(result.output), 300, atol=1)
