"""What is read of products, and what a run makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.raster.products import read_product
from tests.support.backends import StandIn
from tests.support.products import (
    MS,
    PAN,
    geoeye,
    pleiades,
    pleiades_neo,
    volume,
    worldview,
    write_maxar,
    zipped,
)
from tests.support.progress import RecordingProgress
from tests.support.rasters import PAN_GRID, interpolated, read_raster, write_raster
from tests.support.scenes import MS_GRID

AIRBUS = {"bands": (3, 2, 1, 4), "nodata": 0, "full_scale": 4095}
NEO = {"bands": (3, 2, 1, 4), "nodata": 0, "full_scale": 10000}
PRODUCTS = {
    "Pleiades": (pleiades, 4, AIRBUS),
    "VOL": (volume, 4, AIRBUS),
    "Pleiades in a ZIP": (zipped(pleiades), 4, AIRBUS),
    "Pleiades Neo": (pleiades_neo, 6, NEO),
    "GeoEye-1": (geoeye, 4, {"bands": (1, 2, 3, 4), "full_scale": 2047}),
    "WorldView-2": (worldview, 8, {"bands": (8, 7, 6, 5, 4, 3, 2, 1), "full_scale": 2047}),
    "WorldView-2 in a ZIP": (
        zipped(worldview),
        8,
        {"bands": (8, 7, 6, 5, 4, 3, 2, 1), "full_scale": 2047},
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_gives_what_its_two_images_give_with_the_right_options(name, run, tmp_path):
    make, count, options = PRODUCTS[name]
    pair = (
        write_raster(tmp_path / "pan.tif", PAN, PAN_GRID),
        write_raster(tmp_path / "ms.tif", MS[:count], MS_GRID),
    )
    product = make(tmp_path / "product")
    given = {"bundle": "default", "shift": "none"}
    outputs = []
    for source, stated in ((pair, options), ((product, None), {})):
        backend = StandIn(pan=0.2, noise=0.01)
        name = f"{len(outputs)}.tif"
        outputs.append(run(source, backend, name=name, **given, **stated).output)
    with rasterio.open(outputs[0]) as first, rasterio.open(outputs[1]) as second:
        assert second.transform == first.transform == PAN_GRID
        assert second.crs == first.crs
        assert second.nodata == first.nodata == options.get("nodata")
        np.testing.assert_array_equal(second.read(), first.read())
    plain = run((product, None), StandIn(), name="plain.tif", back_projection=0, **given).output
    image = read_raster(plain)
    whole = np.s_[:, :, 128:]  # beyond the reach of the hole
    ordered = MS[[band - 1 for band in options["bands"]]]
    np.testing.assert_allclose(image[whole], interpolated(ordered)[whole], atol=1)
    assert (image[:, 40:56, 80:96] == 0).all() == ("nodata" in options)


def test_what_was_read_is_one_line_and_an_option_overrules_it(run, tmp_path):
    product = pleiades(tmp_path / "product")
    progress = RecordingProgress()
    options = {"bands": (1, 2, 3, 4), "full_scale": 5000, "nodata": 7, "shift": "none"}
    result = run((product, None), StandIn(), progress=progress, **options)
    taken = result.plan.assumptions
    assert taken.source.bands == (1, 2, 3, 4)
    with rasterio.open(result.output) as file:
        assert file.nodata == 7
    assert taken.pan_scale.value == taken.ms_scale.value == 5000
    assert (
        "PHR 1A, as DIM_PHR1A_P_1.XML and DIM_PHR1A_MS_1.XML state: bands 3,2,1,4 (blue, green, "
        "red, nir), nodata of PAN 0, full scale of PAN 4095, nodata of MS 0, full scale of MS 4095"
    ) in progress.notes


def test_an_option_of_one_image_overrules_what_is_stated_of_that_image_alone(tmp_path):
    product = read_product(pleiades(tmp_path / "product"))
    given = {"pan_full_scale": 1000, "ms_nodata": 9, "seed": 3}
    stated = {"bands": (3, 2, 1, 4), "pan_nodata": 0, "full_scale": 4095}
    assert product.options(given) == stated | given


@pytest.mark.parametrize(
    ("changes", "full_scale"),
    [
        ({}, 2047),
        ({"bitsPerPixel": 8}, 255),
        ({"radiometricEnhancement": '"DRA"'}, None),
        ({"radiometricLevel": '"Surface Reflectance"'}, None),
    ],
)
def test_the_bits_of_a_sensor_hold_for_values_as_they_were_acquired(tmp_path, changes, full_scale):
    write_maxar(tmp_path / "P", "a", "P", PAN, PAN_GRID, ["P"], "QB02")
    write_maxar(tmp_path / "M", "b", "Multi", MS[:4], MS_GRID, "BGRN", "QB02", **changes)
    product = read_product(tmp_path)
    assert product.ms.full_scale == full_scale
    assert product.pan.full_scale == 2047


def test_an_order_of_bands_that_is_not_stated_is_asked_for(tmp_path):
    product = read_product(pleiades(tmp_path / "product", listed=False))
    with pytest.raises(InputError, match=r"does not state the order of the bands .* `bands`"):
        product.options({"bands": None})
    assert product.options({"bands": (3, 2, 1, 4)})["bands"] == (3, 2, 1, 4)


def test_a_band_of_unknown_name_keeps_it(tmp_path):
    product = read_product(pleiades(tmp_path, ms="B2 B1 B0 SWIR"))
    assert product.ms.bands == ("red", "green", "blue", "SWIR")


def only_pan(root):
    pleiades(root)
    return root / "IMG_PHR1A_P_001"


def two_parts(root):
    geoeye(root / "a")
    geoeye(root / "b")
    return root


def sharpened(root):
    write_maxar(root / "P", "p", "P", PAN, PAN_GRID, ["P"], "GE01")
    changes = {"panSharpenAlgorithm": '"Gram-Schmidt"'}
    write_maxar(root / "S", "s", "Multi", MS[:4], MS_GRID, "BGRN", "GE01", **changes)
    return root


def with_entities(root):
    path = pleiades(root) / "IMG_PHR1A_P_001" / "DIM_PHR1A_P_1.XML"
    text = path.read_text().replace("<Dimap", '<!DOCTYPE d [<!ENTITY e "PAN">]><Dimap', 1)
    path.write_text(text)
    return root


def cut_off(root):
    path = pleiades(root) / "VOL_PHR.XML"
    path.write_text(path.read_text()[:60])
    return path


def wrong_number(root):
    return pleiades(root, encoding="<NBITS>many</NBITS>")


def without_tiles(root):
    geoeye(root)
    for file in (*root.rglob("*.TIL"), *root.rglob("*.TIF")):
        file.unlink()
    return root


def broken_zip(root):
    root.mkdir()
    path = root / "a.zip"
    path.write_bytes(b"PK")
    return path


def nothing(root):
    root.mkdir()
    return root


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (only_pan, r"describes DIM_PHR1A_P_1.XML \(PAN\), expected one PAN and one MS"),
        (two_parts, r"P001_MUL.IMD \(MS\), P001_PAN.IMD \(PAN\), P001_MUL.IMD \(MS\), P001_PAN.IM"),
        (sharpened, r"p.IMD \(PAN\), s.IMD \(pansharpened\), expected one PAN and one MS"),
        (with_entities, "DIM_PHR1A_P_1.XML is not plain XML .it declares a document type, d."),
        (cut_off, "VOL_PHR.XML is not plain XML"),
        (wrong_number, "has a wrong value .*'many'"),
        (without_tiles, "has no .TIL, .TIF or .NTF file beside it"),
        (broken_zip, "a.zip cannot be read .File is not a zip file"),
        (nothing, "MS is missing, and product is not a product"),
    ],
)
def test_what_is_no_pair_is_one_sentence(make, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        read_product(make(tmp_path / "product"))
