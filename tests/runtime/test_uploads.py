"""Results at URLs, in a store in memory and in one that fails."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from ssdiff_trt.runtime.errors import InputError, OutputError
from ssdiff_trt.runtime.uploads import Upload, is_url
from tests.support.progress import RecordingProgress
from tests.support.rasters import read_raster

fsspec = pytest.importorskip("fsspec")
OPTIONS = {"shift": "none", "seed": 2}


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("SSDIFF_CACHE", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    store.store.clear()
    return store


def left(tmp_path):
    """What is left of uploads in the cache."""
    return list((tmp_path / "cache" / "uploads").glob("*/*"))


@pytest.mark.parametrize("quicklook", [False, True])
def test_the_result_appears_at_its_url_and_nothing_stays_here(
    make_pair, sharpen, store, tmp_path, quicklook
):
    pair, progress = make_pair(64, 64), RecordingProgress()
    sharpen(*pair, tmp_path / "here.tif", **OPTIONS)
    url = "memory://bucket/sharp.tif"
    result = sharpen(*pair, url, quicklook=quicklook, progress=progress, **OPTIONS)
    store.get("/bucket/sharp.tif", str(tmp_path / "there.tif"))
    images = [read_raster(tmp_path / f"{name}.tif") for name in ("here", "there")]
    np.testing.assert_array_equal(*images)
    names = {"/bucket/sharp.tif"} | ({"/bucket/sharp.png"} if quicklook else set())
    assert set(store.find("/bucket")) == names
    assert result.output is None
    assert result.summary()["output"] == url
    assert "Uploading memory://bucket/sharp.tif" in progress.notes
    assert not list((tmp_path / "cache" / "uploads").iterdir())


@pytest.mark.parametrize("option", ["uncertainty", "live"])
def test_only_the_result_can_be_at_a_url(make_pair, sharpen, option):
    with pytest.raises(InputError, match="is a URL, and only `output` can be one; give a file"):
        sharpen(*make_pair(64, 64), "memory://bucket/o.tif", **{option: "memory://bucket/e.tif"})


def test_what_is_there_is_replaced_only_if_asked(make_pair, sharpen, store):
    pair = make_pair(64, 64)
    store.pipe("/bucket/sharp.tif", b"older")
    with pytest.raises(OutputError, match="exists; give another `output` or pass `overwrite`"):
        sharpen(*pair, "memory://bucket/sharp.tif", **OPTIONS)
    assert store.cat("/bucket/sharp.tif") == b"older"
    sharpen(*pair, "memory://bucket/sharp.tif", overwrite=True, **OPTIONS)
    assert len(store.cat("/bucket/sharp.tif")) > 1000


def test_a_result_that_cannot_be_uploaded_stays_here(
    make_pair, sharpen, store, tmp_path, monkeypatch
):
    def refuse(*arguments, **options):
        raise PermissionError("no credentials")

    monkeypatch.setattr(type(store), "put_file", refuse)
    with pytest.raises(OutputError, match=r"cannot be written \(.*no credentials.*upload it your"):
        sharpen(*make_pair(64, 64), "memory://bucket/sharp.tif", **OPTIONS)
    (kept,) = left(tmp_path)
    assert read_raster(kept).shape == (4, 64, 64)
    assert not store.find("/bucket")


def test_in_a_folder_it_appears_at_its_name_when_it_is_complete(make_pair, sharpen, tmp_path):
    (tmp_path / "there").mkdir()
    sharpen(*make_pair(64, 64), f"file://{tmp_path}/there/sharp.tif", **OPTIONS)
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["sharp.tif"]


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nosuch://bucket/o.tif", "cannot be written to .*install what its protocol needs"),
        ("file:///nowhere/at/all/o.tif", "cannot be written"),
    ],
)
def test_places_that_cannot_be_written_to_are_told(make_pair, sharpen, url, sentence):
    with pytest.raises(OutputError, match=sentence):
        sharpen(*make_pair(64, 64), url, **OPTIONS)


def test_without_fsspec_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(OutputError, match=r"pip install 'ssdiff-trt\[cloud\]'"):
        Upload("s3://bucket/o.tif", False)


def test_what_is_a_url():
    assert all(map(is_url, ["s3://b/o.tif", "/vsis3/b/o.tif", "memory://o.tif", "file:///o.tif"]))
    assert not any(map(is_url, ["o.tif", "/data/o.tif", "C:\\data\\o.tif", "a:b/o.tif", None]))


@pytest.fixture
def sharpen():
    from ssdiff_trt import pansharpen

    return pansharpen
