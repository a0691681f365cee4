"""Rasters that are damaged, or state what no sensor delivers: refused in a sentence, or read."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from ssdiff_trt.runtime import memory
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.raster.gdal import without_georeferencing_warnings
from ssdiff_trt.runtime.raster.header import colours_of
from ssdiff_trt.runtime.raster.scene import Scene
from tests.support.rasters import read_raster, smooth


def beside(text):
    """Metadata in a file beside MS."""

    def change(pan, ms):
        ms.with_name("ms.tif.aux.xml").write_text(f"<PAMDataset>{text}</PAMDataset>")
        return pan, ms

    return change


def virtual(**changes):
    """MS as a virtual dataset with texts replaced."""

    def change(pan, ms):
        target = ms.with_suffix(".vrt")
        with rasterio.open(ms) as source:
            rasterio.shutil.copy(source, target, driver="VRT")
        text = target.read_text()
        transform = text.partition("<GeoTransform>")[2].partition("<")[0]
        text = text.replace(transform, changes.get("transform", transform))
        target.write_text(text)
        return pan, target

    return change


def empty(width, height, bands, block=""):
    """MS as a virtual dataset without sources."""
    listed = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{band + 1}" {block}/>' for band in range(bands)
    )

    def change(pan, ms):
        target = ms.with_suffix(".vrt")
        target.write_text(
            f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">{listed}</VRTDataset>'
        )
        return pan, target

    return change


def damaged_mask(pan, ms):
    content = ms.read_bytes()
    pan.with_name("ms.tif.msk").write_bytes(content[:4] + b"\xff" * 4 + content[8:])
    return pan, ms


def one_long_block(pan, ms):
    size = {"width": 600_000_000, "height": 1, "count": 1, "dtype": "uint16"}
    with rasterio.open(ms, "w", driver="GTiff", sparse_ok=True, **size):
        pass
    return pan, ms


def pipe(name):
    def change(pan, ms):
        os.mkfifo(ms.with_name(name))
        return pan, ms

    return change


def pipe_in_a_virtual_one(*suffixes):
    """Virtual rasters, each of the next, the last of them of a pipe."""

    def change(pan, ms):
        source = ms
        for suffix in suffixes:
            target = ms.with_suffix(suffix)
            with rasterio.open(source) as dataset:
                rasterio.shutil.copy(dataset, target, driver="VRT")
            source = target
        ms.unlink()
        os.mkfifo(ms)
        return pan, source

    return change


def pipe_of_a_raw_band(pan, ms):
    pipe = pan.with_name("pipe")
    os.mkfifo(pipe)
    with rasterio.open(pan) as dataset:
        rasterio.shutil.copy(dataset, pan.with_suffix(".vrt"), driver="VRT")
    text = (
        pan.with_suffix(".vrt")
        .read_text()
        .replace('band="1"', 'band="1" subClass="VRTRawRasterBand"')
    )
    source = text[text.index("    <SimpleSource>") : text.index("  </VRTRasterBand>")]
    pan.with_suffix(".vrt").write_text(
        text.replace(source, f"<SourceFilename>{pipe}</SourceFilename><PixelOffset>2</PixelOffset>")
    )
    return pan.with_suffix(".vrt"), ms


def standard_input(pan, ms):
    return pan, "/vsistdin/"


def points(places):
    """Both with GCPs, those of MS at these places."""

    def change(pan, ms):
        corners = ((0, 0), (0, 192), (160, 0), (160, 192))
        for path, scale, own in ((pan, 1, corners), (ms, 4, places)):
            with without_georeferencing_warnings(), rasterio.open(path, "r+") as file:
                file.gcps = (
                    [
                        GroundControlPoint(row / scale, col / scale, x, y)
                        for (row, col), (x, y) in zip(corners, own, strict=True)
                    ],
                    "EPSG:32631",
                )
        return pan, ms

    return change


REFUSALS = [
    (virtual(transform="500000, 0, 0, 5700000, 0, 0"), "geotransform of .*ms.vrt is 500000, 0, 0,"),
    (virtual(transform="500000, nan, 0, 5700000, 0, -2"), "is 500000, nan, 0, .* places no pixel"),
    (virtual(transform="inf, 2, 0, 5700000, 0, -2"), "is inf, 2, 0, .* places no pixel"),
    (virtual(transform="0, 1e200, 0, 0, 0, -1e200"), "places no pixel; correct it with gdal_edit"),
    (virtual(transform="5e5, 1e-300, 0, 5e6, 0, -1e-300"), "places no pixel"),
    (virtual(transform="1e300, 2, 0, 5700000, 0, -2"), "PAN|pan.tif"),
    (empty(48, 40, 1001), "has 1001 bands, expected 1000 at most; extract"),
    (one_long_block, "One block of .*, 600000000 x 1 pixels, takes 1.2 GB of .* may use 1 GB"),
    (damaged_mask, "The header of .*ms.tif cannot be read .*; get the MS image again"),
    (
        beside('<Metadata domain="RPC"><MDI key="LINE_OFF">1</MDI></Metadata>'),
        "The header of .*ms.tif cannot be read",
    ),
    (pipe("ms.tif.msk"), "ms.tif.msk of the MS image is a pipe or a device, expected a file"),
    (pipe("ms.tif.aux.xml"), "ms.tif.aux.xml of the MS image is a pipe"),
    (pipe_in_a_virtual_one(".vrt"), "ms.tif of the MS image is a pipe"),
    (pipe_in_a_virtual_one(".a.vrt", ".b.vrt", ".c.vrt"), "ms.tif of the MS image is a pipe"),
    # GDAL 3.12 refuses it by itself.
    (pipe_of_a_raw_band, "pipe of the PAN image is a pipe|pipe' is invalid"),
    (standard_input, "MS image cannot be read ./vsistdin/ disabled"),
    (points([(0, 0)] * 4), "cannot be evaluated|expected 4 x 4"),
    (points([(1e300, 0), (0, 1e300), (1e300, 1), (0, 0)]), "cannot be evaluated|expected 4 x 4"),
]


@pytest.mark.parametrize(("change", "sentence"), REFUSALS)
def test_what_places_nothing_or_does_not_end_is_refused(make_pair, change, sentence, monkeypatch):
    monkeypatch.setattr(memory, "usable_memory", lambda: 1e9)
    georeferencing = {"transform": None} if "points" in change.__qualname__ else {}
    pair = make_pair(pan={**georeferencing}, ms={**georeferencing})
    with pytest.raises(InputError, match=sentence):
        Scene(*change(*pair))


def test_colours_are_read_whatever_gdal_has_found_wrong_before(make_pair):
    pan, ms = make_pair()
    target = ms.with_suffix(".vrt")
    with rasterio.open(ms) as dataset:
        rasterio.shutil.copy(dataset, target, driver="VRT")
    overview = "<Overview><SourceFilename>/vsicrypt/a.tif</SourceFilename></Overview>"
    target.write_text(target.read_text().replace("</VRTRasterBand>", f"{overview}</VRTRasterBand>"))
    with rasterio.open(pan) as dataset, rasterio.open(target) as other:
        assert other.files  # it keeps an error to itself
        assert colours_of(dataset) == (ColorInterp.gray,)


@pytest.mark.parametrize("bits", ["5000", "1.5", "abc", "0", "-3", "17", "٣"])
def test_bits_that_a_type_does_not_have_are_not_in_use(make_pair, bits):
    metadata = f'<Metadata domain="IMAGE_STRUCTURE"><MDI key="NBITS">{bits}</MDI></Metadata>'
    band = f'<PAMRasterBand band="1">{metadata}</PAMRasterBand>'
    with Scene(*beside(band)(*make_pair())) as scene:
        assert scene.ms.tags(1, ns="IMAGE_STRUCTURE")["NBITS"] == bits
        assert scene.ms_values.bits is None


def test_names_and_tags_that_are_not_utf8_are_none(make_pair, run):
    pan, ms = make_pair(ms={"descriptions": ["blue", "green", "red", "nir"]})
    with rasterio.open(ms, "r+") as file:
        file.units = ["watts"] * 4
        file.update_tags(OWNER="someone")
    content = ms.read_bytes()
    for word, other in (
        (b"green", b"gr\xfcn "),
        (b"watts", b"\xb5W/m2"),
        (b"someone", b"\xa9 Someo"),
    ):
        assert word in content
        content = content.replace(word, other)
    ms.write_bytes(content)
    with Scene(pan, ms) as scene:
        assert scene.band_names == ("",) * 4
        assert scene.bands == (1, 2, 3, 4)
    assert read_raster(run((pan, ms)).output).shape == (4, 160, 192)


def test_gcps_without_a_crs_are_carried_over(make_pair, run):
    pan, ms = make_pair(pan={"transform": None}, ms={"transform": None})
    for path, scale in ((pan, 1), (ms, 4)):
        with without_georeferencing_warnings(), rasterio.open(path, "r+") as file:
            places = [(row, col) for row in (0, 160) for col in (0, 192)]
            points = [GroundControlPoint(r / scale, c / scale, c, -r) for r, c in places]
            file.gcps = points, CRS()
    with rasterio.open(run((pan, ms)).output) as file:
        points, crs = file.gcps
    assert len(points) == 4
    assert not crs


def test_a_mask_of_another_size_is_none(make_pair):
    pan, ms = make_pair()
    shutil.copy(pan, ms.with_name("ms.tif.msk"))
    with Scene(pan, ms) as scene:
        assert scene.read(scene.rows, scene.cols).ms_valid.all()


def test_a_rectangle_that_no_memory_holds_is_not_read(make_pair, monkeypatch):
    with Scene(*make_pair()) as scene:
        monkeypatch.setattr(memory, "usable_memory", lambda: 100_000)
        scene.read(range(64), range(64))
        with pytest.raises(InputError, match=r"Reading 192 x 160 pixels of pan\.tif takes 184 kB"):
            scene.read(scene.rows, scene.cols)


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (100_000_000, r"4,166,668 tiles, and 25.6 GB of disk or more; at most 10,000,000 rows and"),
        (2_000_000_000, r"83,333,334 tiles, and 512 GB of disk or more; at most 10,000,000 rows"),
        (9_000_000, r"16.3 MB of memory or more, and this process may use 10 MB; cut out a sma"),
    ],
)
def test_a_run_says_what_a_scene_of_absurd_width_needs(make_pair, run, width, words, monkeypatch):
    monkeypatch.setattr(memory, "usable_memory", lambda: 1e7)
    pan, ms = make_pair()
    block = 'blockXSize="256" blockYSize="256"'
    _, wide = empty(width, 64, 1, block)(pan, pan)
    _, low = empty(width // 4, 16, 4, block)(pan, ms)
    sentence = f"to {width} x 64 pixels takes {words}"
    with pytest.raises(InputError, match=sentence):
        run((wide, low), full_scale=2047)


def test_the_values_of_many_bands_are_read(make_pair):
    pixels = np.concatenate([smooth((1, 40, 48))] * 300)
    with Scene(*make_pair(ms={"pixels": pixels})) as scene:
        assert scene.read(range(64), range(64)).ms.shape[0] == 300
