"""The page of a result: its images, sentences and figures, and what it refuses."""

from __future__ import annotations

import re

import numpy as np
import pytest
import rasterio

from ssdiff_ref.report.report import report
from ssdiff_trt.runtime.errors import InputError, OutputError
from tests.support.backends import StandIn
from tests.support.progress import RecordingProgress
from tests.support.rasters import PAN_GRID, leftovers, read_raster, smooth, write_raster
from tests.support.report import bands_of, image_of
from tests.support.scenes import MS_GRID, holes

NEAR = 3.0
"""Mean difference of two images with values 0 to 255 that JPEG and rounding explain."""


@pytest.fixture
def page_of(run, tmp_path):
    """Runs a pair without a network, and gives the text of the report of its result."""

    def page_of(pair, backend=None, reading=None, **options):
        result = run(pair, backend or StandIn(pan=0.2), **options)
        given = {"uncertainty": result.uncertainty, **(reading or {})}
        progress = RecordingProgress()
        path = report(result.output, *pair, tmp_path / "page.html", progress=progress, **given)
        assert f"{path}: report" in progress.notes[-1]
        assert progress.done == progress.total > 0
        return path.read_text(encoding="utf-8")

    return page_of


def test_the_page_shows_every_band_at_one_stretch(make_pair, page_of, tmp_path):
    page = page_of(make_pair())
    fused = read_raster(tmp_path / "out.tif").astype(float)
    low, high = np.percentile(fused, (2, 98), axis=(1, 2), keepdims=True)
    expected = 255 * ((fused - low) / (high - low)).clip(0, 1)
    result = bands_of(page, "Result")
    assert np.abs(result - expected).mean() < NEAR
    lms, classical = (bands_of(page, name) for name in ("MS, interpolated", "MTF-GLP-FS"))
    pan = read_raster(tmp_path / "pan.tif") / 2047
    # The stand-in adds a fifth of PAN to MS; the images show the difference at the same stretch.
    step = 255 * 0.2 * 2047 * pan / (high - low)
    inside = (lms > 1) & (result < 254) & (result > 1)
    assert np.abs(result - lms - step)[inside].mean() < NEAR
    assert classical.shape == result.shape
    assert image_of(page, "v0p0-0").size == (192, 160)
    assert len(re.findall("data:image/jpeg", page)) == 1 + 3 * 4


@pytest.mark.parametrize(
    ("changes", "options", "reading"),
    [
        ({}, {"shift": (3.0, -2.0)}, {}),
        ({}, {"area": (500_003, 5_699_930, 500_080, 5_699_996.5)}, {}),  # from row 7 and column 6
        ({}, {"scale": (0, 2047), "dtype": "uint8"}, {}),
        ({"descriptions": ("red", "green", "blue", "nir")}, {}, {}),
        ({}, {"bands": (4, 2, 1, 3)}, {"bands": (4, 2, 1, 3)}),
    ],
    ids=["shift", "area", "scale", "order of the file", "order of the user"],
)
def test_a_result_that_equals_interpolated_ms_looks_like_it(
    make_pair, page_of, changes, options, reading
):
    """Wherever it lies, whatever its values and order of bands."""
    page = page_of(make_pair(ms=changes), StandIn(), reading, **{"shift": "none", **options})
    result, lms = bands_of(page, "Result"), bands_of(page, "MS, interpolated")
    assert np.abs(result - lms).mean() < NEAR
    assert np.abs(result - lms[::-1]).mean() > 10 * NEAR  # bands differ, so their order counts


def test_nothing_is_fetched(make_pair, page_of, tmp_path):
    page = page_of(make_pair(), uncertainty=str(tmp_path / "error.tif"))
    targets = re.findall(r"""(?:src|href|data)=["']([^"']*)|url\(["']?([^"')]*)""", page)
    found = [one or other for one, other in targets]
    assert len(found) > 20
    assert all(re.match("data:image/|#", target) for target in found)
    assert "default-src 'none'" in page
    assert "@import" not in page


def test_holes_are_covered(make_pair, page_of, tmp_path):
    pair = holes(make_pair, "mask")
    page = page_of(pair)
    with rasterio.open(tmp_path / "out.tif") as file:
        valid = file.dataset_mask() > 0
    assert 0 < (~valid).sum() < valid.size
    cover = np.asarray(image_of(page, "v0h"))
    np.testing.assert_array_equal(cover[..., 1] > 0, ~valid)
    assert f"{(~valid).mean():.1%} of them without data" in page
    assert 'class="hole v0h"' in page


def test_without_holes_nothing_is_covered(make_pair, page_of):
    page = page_of(make_pair())
    assert "v0h" not in page
    assert "of them without data" not in page


def test_a_result_without_any_data_has_a_page(make_pair, page_of):
    page = page_of(make_pair(pan={"pixels": np.zeros((1, 160, 192), np.uint16), "nodata": 0}))
    assert "100.0% of them without data" in page
    assert "no block has enough valid pixels" in page


def test_eight_bands_have_their_names(make_pair, tmp_path):
    pan, ms = make_pair(64, 64, bands=8)
    fused = write_raster(tmp_path / "fused.tif", smooth((8, 64, 64), seed=5), PAN_GRID)
    page = report(fused, pan, ms).read_text(encoding="utf-8")
    assert (tmp_path / "fused.html").exists()
    assert 'data-bands="4,2,1">True colour' in page
    assert 'data-bands="6,4,2">False colour' in page
    assert '<option value="5">red edge</option>' in page
    assert "too small for maps of quality" in page


def test_one_band_is_shown_in_grey(make_pair, tmp_path):
    pan, ms = make_pair(64, 64, bands=1)
    fused = write_raster(tmp_path / "fused.tif", smooth((1, 64, 64), seed=5), PAN_GRID)
    page = report(fused, pan, ms).read_text(encoding="utf-8")
    assert 'class="blue v0p3-0"' in page
    assert "True colour</button>" not in page


def test_uncertainty_is_drawn_where_there_is_one(make_pair, page_of, tmp_path):
    pair = make_pair()
    page = page_of(pair, uncertainty=str(tmp_path / "error.tif"))
    with rasterio.open(tmp_path / "error.tif") as file:
        middle = np.median(file.read().mean(axis=0))
    assert f"median {middle:.3g}," in page
    assert "largest uncertainty" in page
    without = report(tmp_path / "out.tif", *pair, tmp_path / "other.html").read_text()
    assert "There is no file of uncertainty" in without
    assert "largest difference from MS" in without
    assert "how long it took, is not kept in a result" in without


def test_provenance_is_in_plain_words_and_escaped(make_pair, page_of):
    page = page_of(make_pair(ms={"descriptions": ("Red", "Green", "Blue", "<u>4")}), seed=7)
    assert '<th scope="row">Seed of the noise</th><td>7</td>' in page
    assert ">&lt;u&gt;4</option>" in page
    assert "<u>4" not in page
    assert 'data-bands="0,1,2">True colour' in page


def test_bands_without_colours_in_their_names_are_those_of_the_network(make_pair, page_of):
    page = page_of(make_pair(ms={"descriptions": ("b1", "b2", "b3", "b4")}))
    assert '<option value="3">nir</option>' in page
    assert 'data-bands="2,1,0">True colour' in page


@pytest.mark.parametrize(
    ("output", "changes", "message"),
    [
        ("page.txt", {}, "page.txt is no name for one; end in .html"),
        ("there.html", {}, "there.html exists; give another `report` or pass `overwrite`"),
        ("page.html", {"bands": (1, 2, 3)}, r"does not have the bands .*pass `bands=1,2,3,4`"),
        ("page.html", {"bands": (2, 1, 3, 4)}, r"pass `bands=1,2,3,4`"),
        ("page.html", {"sensor": "wv3", "bands": None}, "wv3|WorldView-3"),
        ("page.html", {"uncertainty": "small.tif"}, "not all on the grid of pan.tif"),
        ("page.html", {"uncertainty": "part.tif"}, "part.tif does not cover the area of out.tif"),
    ],
)
def test_what_cannot_be_reported_is_refused(make_pair, run, tmp_path, output, changes, message):
    pair = make_pair()
    result = run(pair, StandIn()).output
    (tmp_path / "there.html").write_text("mine")
    write_raster(tmp_path / "small.tif", smooth((4, 40, 48)), MS_GRID)
    write_raster(tmp_path / "part.tif", smooth((4, 80, 96)), PAN_GRID)
    if "uncertainty" in changes:
        changes = {"uncertainty": tmp_path / changes["uncertainty"]}
    before = leftovers(tmp_path)
    if changes.get("sensor") == "wv3":
        result = write_raster(tmp_path / "small.tif", smooth((3, 160, 192)), PAN_GRID)
        changes = {**changes, "bands": (1, 2, 3)}
    with pytest.raises((InputError, OutputError), match=message):
        report(result, *pair, tmp_path / output, **changes)
    assert leftovers(tmp_path) == before
    assert (tmp_path / "there.html").read_text() == "mine"


def test_a_result_of_another_place_is_refused(make_pair, tmp_path):
    pair = make_pair()
    elsewhere = rasterio.Affine(0.5, 0, 510_000, 0, -0.5, 5_700_000)
    other = write_raster(tmp_path / "o.tif", smooth((4, 160, 192)), elsewhere)
    with pytest.raises(InputError, match=r"o\.tif has 192 x 160 pixels that are not all on the"):
        report(other, *pair)
    few = write_raster(tmp_path / "few.tif", smooth((2, 160, 192)), PAN_GRID)
    with pytest.raises(InputError, match=r"few\.tif has 2 bands, expected the 4 of ms\.tif"):
        report(few, *pair)
    with pytest.raises(InputError, match="MS is missing"):
        report(other, pair[0])
