"""Fingerprints of rasters: they change with any file that a dataset consists of."""

from __future__ import annotations

import http.server
import os
import threading

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy

from ssdiff_trt.runtime.raster.fingerprint import dataset_files, fingerprint
from ssdiff_trt.runtime.raster.scene import Scene
from tests.support.rasters import smooth, write_raster


def of(path):
    with rasterio.open(path) as file:
        return fingerprint(file)


@pytest.fixture
def raster(tmp_path):
    return write_raster(tmp_path / "a.tif", smooth((1, 32, 32)))


def test_it_repeats_and_changes_with_size_or_time(raster):
    first = of(raster)
    assert first == of(raster)
    assert len(first) == 64
    os.utime(raster, ns=(5, 6))
    assert of(raster) != first


def test_files_of_a_virtual_raster_count_however_deep(raster, tmp_path):
    copy(raster, tmp_path / "b.vrt", driver="VRT")
    text = (tmp_path / "b.vrt").read_text()
    (tmp_path / "c.vrt").write_text(text.replace("a.tif", "b.vrt"))
    with rasterio.open(tmp_path / "c.vrt") as file:
        names = {os.path.basename(path) for path in dataset_files(file)}
    assert names == {"a.tif", "b.vrt", "c.vrt"}
    first = of(tmp_path / "c.vrt")
    os.utime(raster, ns=(5, 6))
    assert of(tmp_path / "c.vrt") != first


def test_sidecars_count(raster):
    first = of(raster)
    with rasterio.open(raster, "r+") as file:
        file.write_mask(np.ones((32, 32), bool))  # an external mask
    assert of(raster) != first


def test_an_archive_counts_for_what_is_in_it(raster, tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(raster, "inside/a.tif")
    path = f"/vsizip/{tmp_path}/a.zip/inside/a.tif"
    first = of(path)
    assert first is not None
    os.utime(tmp_path / "a.zip", ns=(5, 6))
    assert of(path) != first


def test_a_file_in_memory_has_none(raster):
    with rasterio.MemoryFile(raster.read_bytes()) as memory, memory.open() as file:
        assert fingerprint(file) is None


def test_a_url_counts_by_its_etag(raster):
    tag, content = ['"one"'], raster.read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", tag[0])
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(content)

        def log_message(self, *words):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        path = f"/vsicurl/http://127.0.0.1:{server.server_port}/a.tif"
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            first = of(path)
            assert first is not None
            assert of(path) == first
            tag[0] = '"two"'
            assert of(path) != first
    finally:
        server.shutdown()
        server.server_close()


def test_that_of_a_scene_is_of_both_rasters(make_pair):
    pan, ms = make_pair()
    with Scene(pan, ms) as scene:
        first = scene.fingerprint()
        os.utime(ms, ns=(5, 6))
        second = scene.fingerprint()
        os.utime(pan, ns=(5, 6))
        assert len({first, second, scene.fingerprint()}) == 3
