"""What is asked of a server that has PAN and MS."""

from __future__ import annotations

import pytest
import rasterio

from benchmarks.requests import make_pair, serving
from ssdiff_trt.runtime.options import PairOptions
from ssdiff_trt.runtime.raster.gdal import open_dataset
from ssdiff_trt.runtime.raster.scene import Scene

ASKED = {
    f"/{name}.tif{more}" for name in ("pan", "ms") for more in ("", ".aux.xml", ".msk", ".MSK")
}


@pytest.fixture
def server(tmp_path, monkeypatch):
    for name in ("GDAL_DISABLE_READDIR_ON_OPEN", "CPL_VSIL_CURL_ALLOWED_EXTENSIONS"):
        monkeypatch.delenv(name, raising=False)
    make_pair(tmp_path, 2048)
    with serving(tmp_path) as server:
        yield server


def scene_of(server):
    return Scene(f"{server.url}/pan.tif", f"{server.url}/ms.tif", PairOptions())


def test_only_files_with_values_are_asked_for(server):
    with scene_of(server) as scene:
        pixels = scene.read(range(256), range(256))
    assert pixels.pan.max() > 0
    answered = server.answered()
    asked = {path for path, _ in answered}
    assert {"/pan.tif", "/ms.tif"} < asked <= ASKED
    size = sum((server.folder / name).stat().st_size for name in ("pan.tif", "ms.tif"))
    assert sum(sent for _, sent in answered) < size / 2


def test_nodata_beside_a_raster_counts_there_too(server):
    with rasterio.open(server.folder / "ms.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        value = int(file.read(1)[0, 0])
    (server.folder / "ms.tif.aux.xml").write_text(
        "<PAMDataset>"
        + "".join(
            f'<PAMRasterBand band="{band}"><NoDataValue>{value}</NoDataValue></PAMRasterBand>'
            for band in (1, 2, 3, 4)
        )
        + "</PAMDataset>"
    )
    with open_dataset(f"{server.url}/ms.tif") as dataset:
        assert dataset.nodata == value


def test_the_environment_decides_otherwise(server, monkeypatch):
    monkeypatch.setenv("CPL_VSIL_CURL_ALLOWED_EXTENSIONS", ".tif")
    with scene_of(server):
        pass
    assert {path for path, _ in server.answered()} == {"/pan.tif", "/ms.tif"}


def test_other_names_are_asked_for_as_ever(server):
    (server.folder / "pan.tif").rename(server.folder / "pan")
    with open_dataset(f"{server.url}/pan") as dataset:
        assert dataset.count == 1
    assert "/pan.aux.xml" in {path for path, _ in server.answered()}
