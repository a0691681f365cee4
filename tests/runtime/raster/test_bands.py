"""Which band is which, and in what order they are read and written."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio.enums import ColorInterp

from ssdiff_ref.classical.fusion import fuse
from ssdiff_ref.protocol.wald import simulate
from ssdiff_ref.quality.checks import fit_sensor
from ssdiff_trt.cli import trt
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.options import ReadOptions
from ssdiff_trt.runtime.raster.bands import _known
from ssdiff_trt.runtime.raster.header import descriptions_of
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.sensors import WV8
from tests.support.backends import StandIn
from tests.support.progress import RecordingProgress
from tests.support.rasters import read_raster, smooth

RGB = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]


def told(path, how):
    """Add to MS what identifies its bands as red, green, blue and near infrared."""
    with rasterio.open(path, "r+") as file:
        if how == "names":
            file.descriptions = ("Red", "GREEN", "blue", "Near-Infrared")
        elif how == "colours":
            file.colorinterp = [*RGB, ColorInterp.undefined]
        elif how == "nir":
            file.colorinterp = [*RGB, ColorInterp.nir]
        elif how == "gdal":
            for band, value in enumerate((0.655, 0.545, 0.48, 0.83), start=1):
                file.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=value)
        elif how == "envi":
            for band, value in enumerate((655, 545, 480, 830), start=1):
                file.update_tags(band, wavelength=value, wavelength_units="Nanometers")


HOWS = {
    "names": "as they are named",
    "colours": "by colour interpretation",
    "nir": "by colour interpretation",
    "gdal": "by wavelength",
    "envi": "by wavelength",
}


class Order(StandIn):
    """Remembers the mean of each band that the network sees."""

    def images(self, noise, pan, lms, ms):
        self.seen = lms.mean(axis=(0, 2, 3))
        return super().images(noise, pan, lms, ms)


@pytest.mark.parametrize("how", HOWS)
def test_bands_go_to_the_network_in_its_order_and_come_back_in_that_of_the_file(
    make_pair, run, how
):
    levels = np.array([300, 600, 900, 1200], np.uint16)
    pixels = np.broadcast_to(levels[:, None, None], (4, 40, 48)).copy()
    pan, ms = make_pair(ms={"pixels": pixels})
    told(ms, how)
    with Scene(pan, ms) as scene:
        assert scene.bands == (3, 2, 1, 4)
        assert f"bands 3,2,1,4 (blue, green, red, nir, {HOWS[how]})" in scene.describe()
    backend = Order()
    result = run((pan, ms), backend, shift="none")
    np.testing.assert_allclose(backend.seen * 2047, [900, 600, 300, 1200], rtol=1e-3)
    np.testing.assert_allclose(read_raster(result.output).mean(axis=(1, 2)), levels, rtol=1e-3)
    backend = Order()
    stated = run((pan, ms), backend, name="stated.tif", shift="none", bands=(4, 1, 2, 3))
    np.testing.assert_allclose(backend.seen * 2047, [1200, 300, 600, 900], rtol=1e-3)
    means = read_raster(stated.output).mean(axis=(1, 2))
    np.testing.assert_allclose(means, [1200, 300, 600, 900], rtol=1e-3)


@pytest.mark.parametrize("how", HOWS)
def test_bands_that_are_stated_against_what_the_file_says_are_warned_of(make_pair, run, how):
    pan, ms = make_pair()
    told(ms, how)
    progress = RecordingProgress()
    run((pan, ms), bands=(1, 2, 3, 4), progress=progress)
    assert progress.warnings == [
        f"bands 1, 3 of MS are red, blue ({HOWS[how]}) and taken as blue, red; if that is wrong, "
        "pass `bands=3,2,1,4`"
    ]
    progress = RecordingProgress()
    run((pan, ms), bands=(3, 2, 1, 4), name="right.tif", progress=progress)
    assert progress.warnings == []


@pytest.mark.parametrize(
    ("names", "warning"),
    [
        (WV8[::-1], "bands 1, 2, 3, 4, 5, 6, 7, 8 of MS are nir2, nir1, red edge"),
        (("x", *WV8[1:4], "x", "x", *WV8[:1], "x"), "band 7 of MS is coastal (as they are named)"),
    ],
)
def test_bands_are_warned_of_where_a_few_of_eight_have_names(make_pair, run, names, warning):
    progress = RecordingProgress()
    pair = make_pair(bands=8, ms={"descriptions": names})
    run(pair, bundle=None, bands=tuple(range(1, 9)), progress=progress)
    assert progress.warnings[0].startswith(warning)


@pytest.mark.parametrize(
    ("chosen", "taken"),
    [((5, 3, 2, 7), ("red, blue", "blue, red")), ((1, 3, 5, 7), ("coastal", "blue"))],
)
def test_four_of_eight_named_bands_in_a_wrong_order_are_warned_of(make_pair, run, chosen, taken):
    pair, progress = make_pair(bands=8, ms={"descriptions": WV8}), RecordingProgress()
    run(pair, bands=chosen, shift="none", progress=progress)
    (warning,) = progress.warnings
    assert "{} (as they are named) and taken as {};".format(*taken) in warning
    progress = RecordingProgress()
    run(pair, bands=(2, 3, 5, 7), name="right.tif", shift="none", progress=progress)
    assert progress.warnings == []


def test_the_colours_that_gdal_gives_four_bands_of_8_bits_do_not_count(make_pair, run):
    pixels = (smooth((4, 40, 48)) // 8).astype(np.uint8)
    pair, progress = make_pair(ms={"pixels": pixels}), RecordingProgress()
    with rasterio.open(pair[1]) as file:
        assert file.colorinterp[:3] == tuple(RGB)
    run(pair, bands=(1, 2, 3, 4), full_scale=255, pan_full_scale=2047, progress=progress)
    assert not [warning for warning in progress.warnings if "taken as" in warning]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *[("ms_red", "red"), ("Band 4 (Red)", "red"), ("scene_b", "blue"), ("N", "nir")],
        *[("Red Edge 1", "red edge"), ("nir-1", "nir"), ("NIR1", "nir1"), ("b2", ""), ("", "")],
        *[("Coastal_Aerosol", "coastal"), ("red and blue", ""), ("Near Infrared 2", "nir2")],
    ],
)
def test_a_name_is_what_it_says_in_any_spelling(text, name):
    assert _known(text) == name


def test_a_word_that_the_names_of_all_bands_share_says_nothing(make_pair):
    names = [f"blue mountain {number}" for number in range(1, 5)]
    with Scene(*make_pair(ms={"descriptions": names})) as scene:
        assert scene.identified is None
        assert scene.bands == (1, 2, 3, 4)


def test_files_of_bands_are_identified_by_their_names(make_pair, tmp_path):
    pan, ms = make_pair()
    with rasterio.open(ms) as file:
        kept, pixels = {**file.profile, "count": 1}, file.read()
    files = [tmp_path / f"scene_{name}.tif" for name in ("red", "green", "blue", "nir")]
    for path, band in zip(files, pixels, strict=True):
        with rasterio.open(path, "w", **kept) as file:
            file.write(band, 1)
    with Scene(pan, files) as scene:
        assert scene.bands == (3, 2, 1, 4)
    for bands in (("blue", "green", "red", "nir"), ("scene_blue", "scene_green", "scene_red", 4)):
        with Scene(pan, files, ReadOptions(bands=bands)) as scene:
            assert scene.bands == (3, 2, 1, 4)


@pytest.mark.parametrize("how", HOWS)
def test_bands_can_be_chosen_by_what_they_are(make_pair, how):
    pan, ms = make_pair()
    told(ms, how)
    with Scene(pan, ms, ReadOptions(bands=("NIR", "red", "green", "blue"))) as scene:
        assert scene.bands == (4, 1, 2, 3)


def test_a_run_prints_how_bands_are_taken_that_nothing_identifies(make_pair, tmp_path):
    words = ["run", *map(str, make_pair()), "-o", str(tmp_path / "o.tif"), "--dry-run"]
    taken = "Bands 1, 2, 3, 4 are taken as blue, green, red, nir"
    unknown = f"{taken}, in this order; the file does not identify them"
    assert unknown in CliRunner().invoke(trt.cli, words).output
    stated = CliRunner().invoke(trt.cli, [*words, "--bands", "4,3,2,1"]).output
    assert "Bands 4, 3, 2, 1 are taken as blue, green, red, nir, as stated" in stated


@pytest.mark.parametrize("how", ["names", "colours"])
def test_fuse_and_simulate_keep_the_order_of_the_file(make_pair, tmp_path, how):
    pan, ms = make_pair(240, 320)
    told(ms, how)
    fuse(pan, ms, tmp_path / "fused.tif", method="EXP")
    simulate(pan, ms, tmp_path / "reduced")
    known = read_raster(ms)
    np.testing.assert_array_equal(read_raster(tmp_path / "reduced" / "reference.tif"), known)
    expected = known.mean(axis=(1, 2))
    for path in (tmp_path / "fused.tif", tmp_path / "reduced" / "ms.tif"):
        np.testing.assert_allclose(read_raster(path).mean(axis=(1, 2)), expected, rtol=0.02)


@pytest.mark.parametrize(
    "names",
    [("a", "b2", "c", "d"), ("red", "green", "blue", "red"), ("red", "green", "blue", "swir")],
)
def test_bands_that_nothing_identifies_stay_in_order(make_pair, names):
    with Scene(*make_pair(ms={"descriptions": names})) as scene:
        assert scene.bands == (1, 2, 3, 4)
        assert scene.describe().endswith("bands 1,2,3,4")


def test_eight_bands_are_ordered_too(make_pair):
    names = ("nir2", "nir1", "red edge", "red", "yellow", "green", "blue", "coastal")
    pan, ms = make_pair(bands=8, ms={"descriptions": names})
    with Scene(pan, ms) as scene:
        assert scene.bands == (8, 7, 6, 5, 4, 3, 2, 1)
        assert scene.output_bands == (1, 2, 3, 4, 5, 6, 7, 8)
    with Scene(pan, ms, ReadOptions(bands=(1, 2))) as scene:
        assert scene.bands == scene.output_bands == (1, 2)


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_named_bands_have_their_colours_in_the_result(make_pair, run, driver):
    pair = make_pair(ms={"descriptions": ("blue", "green", "red", "nir")})
    result = run(pair, driver=driver, shift="none")
    with rasterio.open(result.output) as file:
        assert file.colorinterp == (*RGB[::-1], ColorInterp.nir)
        assert file.descriptions == ("blue", "green", "red", "nir")


def test_a_sensor_of_eight_bands_has_the_four_of_a_product_with_four():
    sensor, whole = fit_sensor("wv2", 4), fit_sensor("wv2", 8)
    assert sensor.bands == ("blue", "green", "red", "nir1")
    assert sensor.mtf_ms == tuple(whole.mtf_ms[band] for band in (1, 2, 4, 6))


def test_the_quicklook_shows_the_colours_of_bands_in_any_order(make_pair, run, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "ssdiff_trt.runtime.quicklook.show", lambda panel, image, title: shown.append(image)
    )
    pan, ms = make_pair(ms={"pixels": smooth((4, 40, 48), seed=2)})
    told(ms, "names")
    run((pan, ms), shift="none", quicklook=True, progress=RecordingProgress())
    _, lms, result = shown
    assert np.abs(lms - result).mean() < 0.01


def test_the_quicklook_of_eight_bands_is_in_colour(make_pair, run):
    pair = make_pair(bands=8)
    result = run(pair, bundle=None, shift="none", quicklook=True, backend=StandIn())
    pixels = read_raster(result.quicklook)[:3].astype(int)
    assert np.abs(pixels - pixels.mean(axis=0)).max() > 20


def test_the_quicklook_is_not_empty_beside_a_hole(make_pair, run, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "ssdiff_trt.runtime.quicklook.show", lambda panel, image, title: shown.append(image)
    )
    pixels = smooth((4, 40, 48), seed=2).astype(np.float32)
    pixels[:, :10] = np.nan
    run(make_pair(ms={"pixels": pixels}), shift="none", quicklook=True, full_scale=2047)
    _, lms, _ = shown
    assert np.isfinite(lms).all()


def test_names_of_bands_that_are_not_utf_8_are_none(make_pair):
    _, path = make_pair()
    names = "".join(
        f'<PAMRasterBand band="{band}"><Description>{name}</Description></PAMRasterBand>'
        for band, name in enumerate(("red", "green", "blue", "proche-infrarouge \xe9"), start=1)
    )
    beside = path.with_name(f"{path.name}.aux.xml")
    beside.write_text(f"<PAMDataset>{names}</PAMDataset>", encoding="latin-1")
    with rasterio.open(path) as image:
        assert descriptions_of(image) == (None,) * 4


def test_metadata_of_any_band_is_refused_where_it_is_not_utf_8(make_pair):
    pan, path = make_pair()
    band = '<PAMRasterBand band="4"><Metadata domain="\xe9"/></PAMRasterBand>'
    beside = path.with_name(f"{path.name}.aux.xml")
    beside.write_text(f"<PAMDataset>{band}</PAMDataset>", encoding="latin-1")
    with pytest.raises(InputError, match=r"The header of .*ms\.tif cannot be read"):
        Scene(pan, path)
