"""The uncertainty of a result, a raster beside it."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from ssdiff_trt import pansharpen
from ssdiff_trt.runtime.errors import InputError, OutputError
from ssdiff_trt.runtime.raster.spool import SpooledOutput
from ssdiff_trt.runtime.scenes import match_scenes, read_scenes
from ssdiff_trt.runtime.tiles.uncertainty import FLOOR
from tests.support.backends import StandIn
from tests.support.progress import RecordingProgress
from tests.support.rasters import PAN_GRID, leftovers, read_raster, smooth

GIVEN = {"block": 48, "batch": 1, "shift": "none"}


class Stopping(StandIn):
    """A backend that stops after some tiles."""

    def __init__(self, tiles):
        super().__init__(pan=0.2, noise=0.01)
        self.tiles = tiles

    def images(self, *tiles):
        if len(self.batches) == self.tiles:
            raise KeyboardInterrupt
        return super().images(*tiles)


def backend():
    return StandIn(pan=0.2, noise=0.01)


@pytest.fixture
def uncertain(run, tmp_path):
    """Runs with uncertainty; gives the result and its file."""

    def go(pair, network=None, name="out.tif", **options):
        path = tmp_path / f"u_{name}"
        given = {"uncertainty": str(path), **GIVEN, **options}
        result = run(pair, network or backend(), name=name, **given)
        assert result.uncertainty == path
        return result, path

    return go


def test_the_file_is_on_the_grid_of_the_result_and_says_what_it_means(make_pair, uncertain):
    names = ("blue", "green", "red", "nir")
    pair = make_pair(ms={"pixels": smooth((4, 40, 48), seed=2), "descriptions": names})
    result, path = uncertain(pair)
    with rasterio.open(result.output) as image, rasterio.open(path) as file:
        assert (file.dtypes, file.count) == (("float32",) * 4, 4)
        assert (file.shape, file.transform, file.crs) == (image.shape, PAN_GRID, image.crs)
        assert file.descriptions == image.descriptions == names
        assert np.isnan(file.nodata)
        tags, others = file.tags(), image.tags()
        values = file.read()
    assert tags["SSDIFF_UNCERTAINTY"].startswith(
        "expected absolute error of each value of out.tif, in digital numbers of MS, estimated by"
    )
    assert "SSDIFF_UNCERTAINTY" not in others
    assert tags["SSDIFF_SEED"] == others["SSDIFF_SEED"]
    assert values.min() > 0
    assert result.summary()["uncertainty"] == str(path)


def test_the_result_is_the_same_with_it_and_without(make_pair, run, uncertain):
    pair = make_pair()
    plain = run(pair, backend(), name="plain.tif", **GIVEN).output.read_bytes()
    result, _ = uncertain(pair)
    assert result.output.read_bytes() == plain
    assert result.consistency.values > 0


def test_it_does_not_depend_on_blocks_and_batches(make_pair, uncertain):
    pair = make_pair()
    _, first = uncertain(pair)
    _, second = uncertain(pair, name="two.tif", block=200, batch=7, resume=False)
    np.testing.assert_array_equal(read_raster(first), read_raster(second))


def test_a_part_has_the_values_of_the_whole(make_pair, uncertain):
    pair = make_pair(pan={"transform": None}, ms={"transform": None})
    _, whole = uncertain(pair, name="whole.tif")
    _, part = uncertain(pair, area=(20, 40, 81, 103))
    np.testing.assert_array_equal(read_raster(part), read_raster(whole)[:, 40:103, 20:81])


@pytest.mark.parametrize(("dtype", "full_scale"), [(np.uint8, 255), (np.uint16, 4000)])
def test_values_are_digital_numbers(make_pair, uncertain, dtype, full_scale):
    pan, ms = np.full((1, 160, 192), 100, dtype), np.full((4, 40, 48), 100, dtype)
    pair = make_pair(pan={"pixels": pan}, ms={"pixels": ms})
    options = {"full_scale": full_scale, "scale": (0, full_scale), "dtype": "uint8"}
    options["bands"] = (1, 2, 3, 4)
    _, path = uncertain(pair, StandIn(), **options)
    np.testing.assert_allclose(read_raster(path), FLOOR * full_scale, rtol=1e-3)


def test_bands_are_in_the_order_of_the_result(make_pair, uncertain):
    """Only the third band of the file has detail."""
    ms = np.full((4, 40, 48), 500, np.uint16)
    ms[2] += 300 * (np.indices((40, 48)).sum(axis=0) % 5 == 0).astype(np.uint16)
    pair = make_pair(ms={"pixels": ms})
    _, path = uncertain(pair, StandIn(), bands=(4, 3, 2, 1))
    means = read_raster(path).mean(axis=(1, 2))
    _, path = uncertain(pair, StandIn(), bands=(1, 2, 3, 4), name="straight.tif")
    straight = read_raster(path).mean(axis=(1, 2))
    np.testing.assert_allclose(straight[[0, 1, 3]], FLOOR * 2047, rtol=1e-3)
    assert straight[2] > 10
    order = means.argmax()
    assert means[order] == pytest.approx(straight[2], rel=1e-5)
    with rasterio.open(path.with_name("out.tif")) as image:
        varied = [band for band, values in enumerate(image.read()) if np.ptp(values) > 10]
    assert varied == [order]


@pytest.mark.parametrize("marked", ["nodata", "mask"])
def test_holes_are_nan_and_nothing_else_is(make_pair, uncertain, marked):
    pixels, valid = smooth((4, 40, 48), seed=2), np.ones((40, 48), bool)
    valid[8:20, 10:30] = False
    given = {"nodata": {"nodata": 0}, "mask": {"mask": valid}}[marked]
    pixels = pixels * valid if marked == "nodata" else pixels
    result, path = uncertain(make_pair(ms={"pixels": pixels.astype(np.uint16), **given}))
    hole = ~valid.repeat(4, axis=0).repeat(4, axis=1)
    for band in read_raster(path):
        np.testing.assert_array_equal(np.isnan(band), hole)
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.dataset_mask() == 0, hole)
    with rasterio.open(result.output) as image:
        np.testing.assert_array_equal(image.dataset_mask() == 0, hole)


def test_an_offset_of_the_values_is_none_of_the_error(make_pair, uncertain):
    pair = make_pair()
    with rasterio.open(pair[1], "r+") as ms:
        ms.scales, ms.offsets = (0.01,) * 4, (-3.0,) * 4
    result, path = uncertain(pair)
    with rasterio.open(result.output) as image, rasterio.open(path) as file:
        assert (image.scales, image.offsets) == ((0.01,) * 4, (-3.0,) * 4)
        assert (file.scales, file.offsets) == ((0.01,) * 4, (0.0,) * 4)


def test_a_stopped_run_is_continued_with_the_same_bytes(make_pair, uncertain, tmp_path):
    pair = make_pair()
    expected, band = uncertain(pair, name="whole.tif")
    with pytest.raises(KeyboardInterrupt):
        uncertain(pair, Stopping(20))
    assert {".out.tif.unfinished", ".u_out.tif.unfinished"} <= set(leftovers(tmp_path))
    network, progress = backend(), RecordingProgress()
    result, path = uncertain(pair, network, progress=progress)
    assert progress.notes[0].startswith("An unfinished run of u_out.tif is continued; finished")
    assert sum(network.batches) < result.counts.tiles
    assert result.output.read_bytes() == expected.output.read_bytes()
    np.testing.assert_array_equal(read_raster(path), read_raster(band))
    assert not [name for name in leftovers(tmp_path) if name.startswith(".")]


def test_blocks_without_uncertainty_are_made_again(make_pair, run, uncertain):
    pair = make_pair()
    expected, band = uncertain(pair, name="whole.tif")
    with pytest.raises(KeyboardInterrupt):
        run(pair, Stopping(20), **GIVEN)
    network, progress = backend(), RecordingProgress()
    result, path = uncertain(pair, network, progress=progress)
    assert progress.notes[0] == (
        "The unfinished run had no uncertainty; this one starts from the beginning"
    )
    assert sum(network.batches) == result.counts.tiles == expected.counts.tiles
    assert result.output.read_bytes() == expected.output.read_bytes()
    np.testing.assert_array_equal(read_raster(path), read_raster(band))


def test_blocks_with_uncertainty_serve_a_run_without(make_pair, run, uncertain):
    pair = make_pair()
    expected = run(pair, backend(), name="whole.tif", **GIVEN)
    with pytest.raises(KeyboardInterrupt):
        uncertain(pair, Stopping(20))
    network = backend()
    result = run(pair, network, **GIVEN)
    assert sum(network.batches) < result.counts.tiles
    assert result.output.read_bytes() == expected.output.read_bytes()


def test_it_is_removed_where_the_result_cannot_be_placed(make_pair, uncertain, tmp_path):
    class Rival(StandIn):
        def images(self, *tiles):
            (tmp_path / "out.tif").write_text("mine")
            return super().images(*tiles)

    with pytest.raises(OutputError, match=r"out.tif was created by another program; it is kept"):
        uncertain(make_pair(), Rival())
    assert (tmp_path / "out.tif").read_text() == "mine"
    assert "u_out.tif" not in leftovers(tmp_path)


def test_an_interrupted_run_keeps_the_file_that_it_was_to_replace(make_pair, uncertain, tmp_path):
    (tmp_path / "u_out.tif").write_text("mine")
    with pytest.raises(KeyboardInterrupt):
        uncertain(make_pair(), Stopping(3), overwrite=True)
    assert (tmp_path / "u_out.tif").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("out.tif", r"out.tif is the result itself; give another name"),
        ("./link/../out.tif", r"out.tif is the result itself"),
        ("pan.tif", r"pan.tif is one of the inputs; give another `uncertainty`"),
        ("u.png", r"u.png is no name for one; end in .tif"),
        ("link", r"is a directory; name a file"),
        ("pan.tif/u.tif", r"is not a directory that can be written to"),
    ],
)
def test_names_that_do_not_work_are_refused(make_pair, run, tmp_path, name, sentence):
    (tmp_path / "link").mkdir()
    pair = make_pair()
    before = pair[0].read_bytes()
    with pytest.raises((InputError, OutputError), match=sentence):
        run(pair, uncertainty=f"{tmp_path}/{name}", overwrite=True)
    assert pair[0].read_bytes() == before
    assert leftovers(tmp_path) == ["link"]


def test_an_empty_name_means_none_as_for_the_result(make_pair, run, tmp_path):
    assert run(make_pair(), uncertainty="").uncertainty is None


def test_it_overwrites_nothing_without_overwrite(make_pair, run, uncertain, tmp_path):
    (tmp_path / "u_out.tif").write_text("mine")
    with pytest.raises(OutputError, match=r"u_out.tif exists; give another `uncertainty` or pass"):
        uncertain(make_pair())
    assert leftovers(tmp_path) == ["u_out.tif"]
    assert uncertain(make_pair(), overwrite=True)[1].stat().st_size > 1000


def test_arrays_have_no_file_for_it(bundle4):
    pan, ms = np.ones((64, 64)), np.ones((4, 16, 16))
    with pytest.raises(InputError, match="leave `uncertainty` out, or give rasters"):
        pansharpen(pan, ms, full_scale=2, uncertainty="u.tif")


def test_disk_and_memory_of_both_are_stated(make_pair, standin4, tmp_path):
    from ssdiff_trt import Pansharpener

    pair, paths = make_pair(), (tmp_path / "o.tif", str(tmp_path / "u.tif"))
    with Pansharpener(standin4, backend=StandIn()) as sharpener:
        with sharpener.plan(*pair, paths[0], shift="none") as plan:
            alone = plan.disk, plan.memory
        with sharpener.plan(*pair, paths[0], shift="none", uncertainty=paths[1]) as plan:
            disk, memory = plan.disk, plan.memory
            assert isinstance(plan.sink._sinks[0], SpooledOutput)
    pixels = 160 * 192 * 4
    assert (alone[0].result, disk.result) == (2 * pixels, 6 * pixels)
    assert memory - alone[1] == 2 * 4 * pixels


def test_the_spread_over_seeds_counts_as_an_independent_error(make_pair, run, uncertain):
    """The image of the stand-in has 0.01 times the noise, so that is its standard deviation."""
    pan, ms = np.full((1, 160, 192), 500, np.uint16), np.full((4, 40, 48), 500, np.uint16)
    pair = make_pair(pan={"pixels": pan}, ms={"pixels": ms})
    network = StandIn(noise=0.01)
    given = {"tile_overlap": 0, "back_projection": 0, "dtype": "float32"}
    one, alone = uncertain(pair, StandIn(noise=0.01), **given)
    many, path = uncertain(pair, network, name="many.tif", uncertainty_seeds=9, **given)
    np.testing.assert_array_equal(read_raster(many.output), read_raster(one.output))
    assert sum(network.batches) == 9 * many.counts.tiles
    images = [
        read_raster(run(pair, StandIn(noise=0.01), name=f"{seed}.tif", seed=seed, **given).output)
        for seed in range(9)
    ]
    spread = np.std(images, axis=0, ddof=1)
    assert spread.mean() == pytest.approx(0.01 * 2047, rel=0.05)
    np.testing.assert_allclose(
        read_raster(path), np.hypot(read_raster(alone), spread), rtol=1e-3, atol=0.01
    )
    with rasterio.open(path) as file:
        assert "spread of 9 seeds" in file.tags()["SSDIFF_UNCERTAINTY"]


def test_the_spread_does_not_depend_on_blocks_and_batches(make_pair, uncertain):
    pair, given = make_pair(), {"uncertainty_seeds": 3, "seed": 2**64 - 1}
    _, first = uncertain(pair, **given)
    _, second = uncertain(pair, name="two.tif", block=200, batch=7, resume=False, **given)
    np.testing.assert_array_equal(read_raster(first), read_raster(second))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"uncertainty_seeds": 4}, "`uncertainty_seeds` is 4 and there is no `uncertainty`"),
        ({"uncertainty_seeds": 0, "uncertainty": "u.tif"}, "give a number of 1 or more"),
    ],
)
def test_seeds_that_do_not_work_are_refused(make_pair, run, given, sentence):
    with pytest.raises(InputError, match=sentence):
        run(make_pair(), backend(), **given)


def test_the_quicklook_shows_it(make_pair, uncertain, monkeypatch):
    pytest.importorskip("matplotlib")
    shown = {}
    monkeypatch.setattr(
        "ssdiff_trt.runtime.quicklook.show",
        lambda panel, image, title: shown.update({title.partition(",")[0]: image}),
    )
    _, path = uncertain(make_pair(), quicklook=True)
    mean = read_raster(path).mean(axis=0)
    assert list(shown) == ["PAN", "MS", "SSDiff", "Uncertainty"]
    picture, *_ = shown["Uncertainty"]
    np.testing.assert_allclose(picture, (mean / np.percentile(mean, 98)).clip(0, 1), rtol=1e-5)


def test_a_pattern_and_a_table_name_one_for_each_scene(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.tif").touch()
    found = match_scenes(f"{tmp_path}/*.tif", [], "o/*.tif", "u/*.tif")
    assert [entry.options for entry in found] == [
        {"uncertainty": "u/a.tif"},
        {"uncertainty": "u/b.tif"},
    ]
    with pytest.raises(InputError, match=r"uncertainty of .*b.tif, u.tif, is the uncertainty of"):
        match_scenes(f"{tmp_path}/*.tif", [], "o/*.tif", "u.tif")
    with pytest.raises(InputError, match=r"uncertainty of .*a.tif, o/a.tif, is that of .*a.tif to"):
        match_scenes(f"{tmp_path}/*.tif", [], "o/*.tif", "o/*.tif")
    (tmp_path / "t.csv").write_text("pan,output,uncertainty\na.tif,x.tif,u/a.tif\nb.tif,y.tif,\n")
    first, second = read_scenes(tmp_path / "t.csv", lambda name, text: (name, text))
    assert first.options == {"uncertainty": str(tmp_path / "u/a.tif")}
    assert second.options == {}
