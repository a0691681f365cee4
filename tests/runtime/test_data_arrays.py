"""PAN and MS of xarray: the same pixels as of files, with what rioxarray knows of them."""

from __future__ import annotations

import numpy as np
import pytest

from ssdiff_trt import Pansharpener, pansharpen
from ssdiff_trt.runtime.errors import BackendError, InputError
from tests.support.imagery import pair
from tests.support.rasters import PAN_GRID, read_raster, write_raster
from tests.support.scenes import MS_GRID, shifted

rioxarray = pytest.importorskip("rioxarray")
xarray = pytest.importorskip("xarray")
OPTIONS = {"full_scale": 2047, "shift": "none", "seed": 3}


@pytest.fixture
def files(tmp_path):
    pan, ms = pair(1, 4, 32, 24)
    ms[:, :4, :5] = 0
    return (
        write_raster(tmp_path / "pan.tif", pan[None], PAN_GRID),
        write_raster(tmp_path / "ms.tif", ms, MS_GRID, nodata=0),
    )


def opened(files, **options):
    return tuple(rioxarray.open_rasterio(path, **options) for path in files)


@pytest.fixture
def expected(files, tmp_path):
    pansharpen(*files, tmp_path / "expected.tif", **OPTIONS)
    return read_raster(tmp_path / "expected.tif")


def test_the_result_has_the_pixels_of_a_file_and_what_belongs_to_them(files, expected):
    pan, ms = opened(files)
    ms.attrs["platform"] = "made up"
    result = pansharpen(pan, ms, **OPTIONS)
    np.testing.assert_array_equal(result.data, expected)
    assert result.dims == ("band", "y", "x")
    np.testing.assert_array_equal(result.x, pan.x)
    np.testing.assert_array_equal(result.y, pan.y)
    np.testing.assert_array_equal(result.band, ms.band)
    assert result.rio.crs == pan.rio.crs
    assert result.rio.transform() == pan.rio.transform()
    assert result.rio.nodata == 0
    assert result.attrs["platform"] == "made up"
    assert (result.data[:, :16, :20] == 0).all()


@pytest.mark.parametrize("chunks", [{"x": 16, "y": 16}, {"x": 50, "y": 7, "band": 1}])
def test_arrays_of_dask_are_computed_when_asked_and_give_the_same_pixels(files, expected, chunks):
    pytest.importorskip("dask")
    pan, ms = opened(files, chunks=chunks)
    result = pansharpen(pan, ms, block=48, **OPTIONS)
    assert result.chunks is not None
    assert len(result.data.chunks[1]) > 1
    part = result[:, 40:90, 30:70].compute(scheduler="threads")
    np.testing.assert_array_equal(part.data, expected[:, 40:90, 30:70])
    np.testing.assert_array_equal(result.compute(scheduler="sync").data, expected)


def test_they_are_computed_by_other_processes_too(files, expected):
    distributed = pytest.importorskip("distributed")
    pan, ms = opened(files, chunks={"x": 64, "y": 64})
    result = pansharpen(pan, ms, block=48, **OPTIONS)
    with (
        distributed.LocalCluster(
            1, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster),
    ):
        np.testing.assert_array_equal(result.compute().data, expected)


def test_masked_arrays_of_floats_stay_so(files, expected):
    result = pansharpen(*opened(files, masked=True), **OPTIONS)
    assert result.dtype == np.float32
    holes = (expected == 0).all(0)
    assert np.isnan(result.data[:, holes]).all()
    assert np.abs(result.data[:, ~holes] - expected[:, ~holes]).max() <= 0.5


def test_an_ms_grid_that_begins_elsewhere_is_cut_to_what_both_cover(tmp_path):
    pan, ms = pair(2, 4, 32, 32)
    paths = (
        write_raster(tmp_path / "pan.tif", pan[None], PAN_GRID),
        write_raster(tmp_path / "ms.tif", ms, shifted(-6, 9)),
    )
    pansharpen(*paths, tmp_path / "o.tif", **OPTIONS)
    result = pansharpen(*opened(paths), **OPTIONS)
    with rioxarray.open_rasterio(tmp_path / "o.tif") as of_files:
        assert result.shape == of_files.shape == (4, 122, 119)
        np.testing.assert_allclose(result.x, of_files.x)
        np.testing.assert_allclose(result.y, of_files.y)
        # Tiles begin elsewhere, and so does the noise.
        difference = np.abs(result.data.astype(float) - of_files.data)
        assert 0 < difference.mean() < 10


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda pan, ms: (pan, ms[0]), "expected PAN with y and x and MS with band"),
        (lambda pan, ms: (pan, ms.rio.write_crs("EPSG:32632")), "expected one CRS; reproject MS"),
        (lambda pan, ms: (pan, ms[:, ::2, ::2]), "A pixel of MS is 8 pixels of PAN, expected 4"),
        (lambda pan, ms: (pan, ms.assign_coords(x=ms.x + 1e4)), "do not overlap"),
        (lambda pan, ms: (pan, ms.data), "an array and a raster|two of one kind"),
    ],
)
def test_what_is_no_pair_is_refused_in_a_sentence(files, change, sentence):
    pan, ms = change(*opened(files))
    if hasattr(ms, "x"):
        ms = ms.rio.write_transform(ms.rio.transform(recalc=True)) if ms.ndim == 3 else ms
    with pytest.raises(InputError, match=sentence):
        pansharpen(pan, ms, **OPTIONS)


def test_without_rioxarray_a_sentence_says_what_to_install(files, monkeypatch):
    pan, ms = opened(files)
    monkeypatch.setitem(__import__("sys").modules, "rioxarray", None)
    with pytest.raises(BackendError, match=r"need rioxarray; pip install 'ssdiff-trt\[xarray\]'"):
        Pansharpener()(pan, ms, **OPTIONS)
