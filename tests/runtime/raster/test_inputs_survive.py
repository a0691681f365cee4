"""No name of an input lets a result replace it."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import pytest
import rasterio
import rasterio.shutil

from ssdiff_ref.protocol.wald import simulate
from ssdiff_trt import OutputError
from ssdiff_trt.runtime.raster.fingerprint import every_file
from tests.support.rasters import read_raster

NAMES = {
    "path": "{path}",
    "relative": "{relative}",
    "link": "link.tif",
    "hard link": "hard.tif",
    "VRT": "ms.vrt",
    "VRT of a VRT": "outer.vrt",
    "VRT under another name": "ms.data",
    "file URL": "file://{path}",
    "vrt URL": "vrt://{path}?bands=1,2,3,4",
    "directory of a TIFF": "GTIFF_DIR:1:{path}",
    "raw TIFF": "GTIFF_RAW:{path}",
    "derived": "DERIVED_SUBDATASET:LOGAMPLITUDE:{path}",
    "part of a file": "/vsisubfile/0_{size},{path}",
    "cached": "/vsicached?file={path}",
}


@pytest.fixture
def ms(make_pair, tmp_path, monkeypatch):
    """Paths of PAN and MS, with links and virtual datasets of MS beside them."""
    pan, ms = make_pair()
    monkeypatch.chdir(ms.parent)
    os.symlink(ms.name, "link.tif")
    os.link(ms.name, "hard.tif")
    rasterio.shutil.copy(ms.name, "ms.vrt", driver="VRT")
    rasterio.shutil.copy(ms.name, "ms.data", driver="VRT")
    Path("outer.vrt").write_text(Path("ms.vrt").read_text().replace("ms.tif", "ms.vrt"))
    return pan, ms


@pytest.mark.parametrize("kind", NAMES)
def test_a_result_never_replaces_an_input(ms, run, kind):
    pan, path = ms
    before = path.read_bytes()
    name = NAMES[kind].format(path=path, relative=f"./{path.name}", size=len(before))
    files = [file for file in every_file(name) if os.path.exists(file)]
    assert any(path.samefile(file) for file in files)
    with pytest.raises(OutputError, match="is one of the inputs"):
        run((pan, name), name=path.name, overwrite=True)
    assert path.read_bytes() == before


def test_an_archive_is_an_input(ms, run, tmp_path):
    pan, path = ms
    with zipfile.ZipFile("ms.zip", "w") as archive:
        archive.write(path.name)
    place = path.parent / "ms.zip"
    for name in ("/vsizip/ms.zip/ms.tif", f"/vsizip/{place}/ms.tif", f"/vsizip/{{{place}}}/ms.tif"):
        assert str(place) in [os.path.realpath(file) for file in every_file(name)]
    shutil.move("ms.zip", "zipped.tif")
    before = (path.parent / "zipped.tif").read_bytes()
    with pytest.raises(OutputError, match="is one of the inputs"):
        run((pan, "/vsizip/{zipped.tif}/ms.tif"), name="zipped.tif", overwrite=True)
    assert (path.parent / "zipped.tif").read_bytes() == before


def test_files_beside_an_input_are_kept(ms, run):
    """The world file of ``ms.tif`` would be that of a result ``ms.tiff``."""
    pan, path = ms
    world = path.with_suffix(".tfw")
    world.write_text("2\n0\n0\n-2\n500001\n4999999\n")
    with rasterio.open(path) as file:
        listed = world.name in [os.path.basename(name) for name in file.files]
    before = world.read_text()
    with pytest.raises(OutputError, match="is one of the inputs" if listed else "exists"):
        run((pan, path), name="ms.tiff", creation_options={"TFW": "YES"}, overwrite=listed)
    assert world.read_text() == before
    assert not path.with_suffix(".tiff").exists()


def test_simulated_files_never_replace_an_input(ms):
    pan, path = ms
    before = path.read_bytes()
    with pytest.raises(OutputError, match="is one of the inputs"):
        simulate(pan, f"GTIFF_DIR:1:{path}", path.parent, overwrite=True)
    assert path.read_bytes() == before
    assert read_raster(path).shape[0] == 4
