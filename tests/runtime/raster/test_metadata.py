"""What else than pixels a result takes over, and the files beside it."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from ssdiff_ref.classical.fusion import fuse
from ssdiff_trt import pansharpen
from ssdiff_trt.runtime.errors import SSDiffError
from tests.support.backends import StandIn
from tests.support.rasters import PAN_GRID, leftovers, read_raster, smooth


@pytest.fixture
def described(make_pair):
    """A pair with the metadata of a product."""
    pan, ms = make_pair()
    with rasterio.open(pan, "r+") as file:
        file.update_tags(AREA_OR_POINT="Point", TIFFTAG_DATETIME="2026:01:02 03:04:05", OF_PAN="1")
        file.update_tags(1, STATISTICS_MEAN="7")
    with rasterio.open(ms, "r+") as file:
        file.update_tags(
            ACQUISITIONDATETIME="2026-01-02",
            TIFFTAG_COPYRIGHT="Somebody",
            TIFFTAG_SOFTWARE="Another program",
            TIFFTAG_XRESOLUTION="72",
        )
        file.update_tags(ns="IMD", **{"IMAGE_1.satId": "GE01"})
        file.update_tags(ns="IMAGERY", CLOUDCOVER="3", SATELLITEID="GE01")
        file.scales, file.offsets = [0.5, 0.25, 2, 1], [0, 3, -1, 0]
        file.units = ["W m-2 sr-1 um-1"] * 4
        for band in range(1, 5):
            file.update_tags(band, absCalFactor=str(band), STATISTICS_MAXIMUM="9")
            file.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=str(0.4 + 0.1 * band))
    return pan, ms


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_metadata_of_the_scene_are_carried_and_statistics_are_not(described, run, driver):
    result = run(described, driver=driver, shift="none")
    with rasterio.open(result.output) as file:
        tags = file.tags()
        assert tags["ACQUISITIONDATETIME"] == "2026-01-02"
        assert tags["TIFFTAG_COPYRIGHT"] == "Somebody"
        assert tags["TIFFTAG_DATETIME"] == "2026:01:02 03:04:05"
        assert tags["AREA_OR_POINT"] == "Point"
        assert tags["OF_PAN"] == "1"
        assert tags["TIFFTAG_SOFTWARE"].startswith("ssdiff-trt")
        assert "TIFFTAG_XRESOLUTION" not in tags
        assert file.transform == PAN_GRID
        assert file.tags(ns="IMD")["IMAGE_1.satId"] == "GE01"
        assert file.tags(ns="IMAGERY")["SATELLITEID"] == "GE01"
        assert file.scales == (0.5, 0.25, 2, 1)
        assert file.offsets == (0, 3, -1, 0)
        assert file.units == ("W m-2 sr-1 um-1",) * 4
        for band in range(1, 5):
            assert file.tags(band)["absCalFactor"] == str(band)
            assert not any(key.startswith("STATISTICS") for key in file.tags(band))
            found = float(file.tags(band, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"])
            assert found == pytest.approx(0.4 + 0.1 * band)


def test_metadata_follow_bands_that_are_chosen(described, tmp_path):
    fuse(*described, tmp_path / "fused.tif", method="EXP", bands=(3, 1))
    with rasterio.open(tmp_path / "fused.tif") as file:
        assert [file.tags(band)["absCalFactor"] for band in (1, 2)] == ["3", "1"]
        assert file.scales == (2, 0.5)


def test_a_scaled_result_states_how_to_undo_it(described, run):
    plain = run(described, shift="none", dtype="float32")
    scaled = run(described, shift="none", name="s.tif", dtype="uint8", scale=(200, 1800))
    with rasterio.open(plain.output) as one, rasterio.open(scaled.output) as other:
        values, bytes_ = one.read(), other.read()
        expected = np.rint((values - 200) / 1600 * 255).clip(0, 255)
        np.testing.assert_allclose(bytes_, expected, atol=1)  # one of two where it is a half
        assert (bytes_ != expected).mean() < 1e-4
        for band in range(4):
            physical = one.scales[band] * values[band] + one.offsets[band]
            found = other.scales[band] * bytes_[band] + other.offsets[band]
            inside = (bytes_[band] > 0) & (bytes_[band] < 255)
            step = other.scales[band] / 2
            assert np.abs(physical - found)[inside].max() <= step * 1.001
    assert scaled.counts.clipped < plain.plan.size[0]


def test_arrays_are_scaled_too(bundle4):
    pan, ms = smooth((1, 160, 192))[0], smooth((4, 40, 48))
    options = {"bundle": bundle4, "backend": StandIn()}
    image = pansharpen(pan, ms, dtype="uint8", scale=(0, 2047), **options)
    plain = pansharpen(pan, ms, dtype="float32", **options)
    np.testing.assert_array_equal(image, np.rint(plain / 2047 * 255))


@pytest.mark.parametrize("scale", [(5, 5), (7, 3), (0, float("inf")), (1,)])
def test_an_interval_that_is_none_is_refused(make_pair, run, scale):
    with pytest.raises(SSDiffError, match="interval"):
        run(make_pair(), scale=scale)


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_overviews_and_statistics_on_request(make_pair, run, driver):
    pair = make_pair(800, 1040, ms={"pixels": smooth((4, 200, 260)), "nodata": 65535})
    plain = run(pair, shift="none", driver=driver)
    result = run(pair, name="o.tif", shift="none", driver=driver, overviews=True)
    with rasterio.open(plain.output) as file:
        assert driver == "COG" or not file.overviews(1)
        assert "STATISTICS_MEAN" not in file.tags(1)
        values = file.read()
    with rasterio.open(result.output) as file:
        assert 2 in file.overviews(1)
        np.testing.assert_array_equal(file.read(), values)
        for band in range(1, 5):
            assert float(file.tags(band)["STATISTICS_MEAN"]) == pytest.approx(
                values[band - 1].mean()
            )
    assert leftovers(result.output.parent) == ["o.tif", "out.tif"]


def test_files_beside_the_result_arrive_beside_it(make_pair, run):
    result = run(make_pair(), creation_options={"TFW": "YES"})
    assert leftovers(result.output.parent) == ["out.tfw", "out.tif"]
    first = float(result.output.with_suffix(".tfw").read_text().split()[0])
    assert first == 0.5


@pytest.mark.parametrize("profile", ["BASELINE", "GeoTIFF"])
def test_a_profile_without_gdals_tags_keeps_them_beside_the_file(described, run, profile):
    pair = described
    with rasterio.open(pair[1], "r+") as file:
        file.nodata = 65535
    result = run(pair, creation_options={"PROFILE": profile}, shift="none")
    with rasterio.open(result.output) as file:
        assert file.transform == PAN_GRID
        assert file.crs.to_epsg() == 32631
        assert file.nodata == 65535
        assert file.tags()["ACQUISITIONDATETIME"] == "2026-01-02"
        assert file.scales == (0.5, 0.25, 2, 1)
    assert "out.tif.aux.xml" in leftovers(result.output.parent)


def test_files_beside_an_earlier_result_are_not_replaced_unasked(make_pair, run):
    pair = make_pair()
    beside = pair[0].parent / "out.tif.aux.xml"
    beside.write_text("<PAMDataset/>")
    with pytest.raises(SSDiffError, match=r"out.tif.aux.xml .*exists"):
        run(pair)
    assert beside.read_text() == "<PAMDataset/>"
    run(pair, overwrite=True)
    assert not beside.exists()


@pytest.mark.parametrize("role", ["pan", "ms"])
def test_a_palette_is_refused(make_pair, run, role):
    pair = make_pair(**{role: {"pixels": np.ones((1, 160, 192), np.uint8)}})
    path = pair[0] if role == "pan" else pair[1]
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {value: (value, 0, 0, 255) for value in range(256)})
        assert file.colorinterp[0] == ColorInterp.palette
    with pytest.raises(SSDiffError, match=rf"{role}.tif are indices of a palette.*-expand"):
        run(pair)


def test_a_nodata_value_that_the_type_does_not_hold_becomes_a_mask(make_pair, run):
    pixels = smooth((4, 40, 48)).astype(np.float64)
    pixels[:, 10:12, 10:12] = -1.7976931348623157e308
    ms = {"pixels": pixels, "nodata": -1.7976931348623157e308}
    result = run(make_pair(ms=ms), dtype="float32", full_scale=2047, shift="none")
    with rasterio.open(result.output) as file:
        assert file.nodata is None
        assert (file.dataset_mask() == 0).sum() == 64
    assert np.abs(read_raster(result.output)).max() < 3000
