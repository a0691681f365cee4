"""Products as Airbus and Maxar deliver them, synthetic ones made from the formats' descriptions."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.raster.affine import product
from ssdiff_trt.runtime.raster.products import read_product
from tests.support.backends import StandIn
from tests.support.progress import RecordingProgress
from tests.support.rasters import PAN_GRID, UTM, interpolated, read_raster, smooth, write_raster
from tests.support.scenes import MS_GRID

PAN = smooth((1, 160, 192), seed=1)
MS = smooth((8, 40, 48), seed=2)
MS[:, 10:14, 20:24] = 0


def tiles(pixels, grid, folder, stem):
    """Write an image as 2 x 2 tiles, the first of them 28 of 48 columns and 24 of 40 rows; returns
    name, row, column, top, left, height and width of each."""
    _, height, width = pixels.shape
    size = height * 3 // 5, width * 7 // 12
    written = []
    for row in range(2):
        for col in range(2):
            top, left = row * size[0], col * size[1]
            part = pixels[:, top : top + size[0], left : left + size[1]]
            name = f"{stem}_R{row + 1}C{col + 1}.TIF"
            write_raster(folder / name, part, product(grid, Affine.translation(left, top)))
            written.append((name, row, col, top, left, *part.shape[1:]))
    return written


def index_list(bands):
    """Which band is which, not listed in order."""
    items = [
        f"<Raster_Index><BAND_ID>{band}</BAND_ID><BAND_INDEX>{index}</BAND_INDEX></Raster_Index>"
        for index, band in enumerate(bands, start=1)
    ]
    return f"<Raster_Index_List>{''.join(reversed(items))}</Raster_Index_List>"


def write_dimap(folder, name, kind, pixels, grid, parts, mission, encoding, listed=True):
    """An image with its DIM file; ``parts`` has the band identifiers of each set of files."""
    folder.mkdir(parents=True)
    files, first = [], 0
    for number, bands in enumerate(parts):
        part = pixels[first : first + len(bands)]
        first += len(bands)
        written = tiles(part, grid, folder, f"IMG_{name}_{number}")
        listing = index_list(bands) if listed else ""
        files.append(
            "<Data_Files>"
            + "".join(
                f'<Data_File tile_R="{row + 1}" tile_C="{col + 1}">'
                f'<DATA_FILE_PATH href="{file}"/></Data_File>'
                for file, row, col, *_ in written
            )
            + f"<Raster_Display>{listing}</Raster_Display></Data_Files>"
        )
        tile = written[0][-2:]
    _, height, width = pixels.shape
    path = folder / f"DIM_{name}.XML"
    path.write_text(
        f"""<?xml version="1.0" encoding="UTF-8"?>
<Dimap_Document>
<Metadata_Identification><METADATA_FORMAT version="2.15">DIMAP</METADATA_FORMAT>
</Metadata_Identification>
<Coordinate_Reference_System><Projected_CRS>
<PROJECTED_CRS_CODE>urn:ogc:def:crs:{UTM.replace(":", "::")}</PROJECTED_CRS_CODE>
</Projected_CRS></Coordinate_Reference_System>
<Geoposition><Geoposition_Insert><ULXMAP>{grid.c}</ULXMAP><ULYMAP>{grid.f}</ULYMAP>
<XDIM>{grid.a}</XDIM><YDIM>{-grid.e}</YDIM></Geoposition_Insert></Geoposition>
<Processing_Information><Product_Settings>
<SPECTRAL_PROCESSING>{kind}</SPECTRAL_PROCESSING>
</Product_Settings></Processing_Information>
<Raster_Data>
<Data_Access>{"".join(files)}</Data_Access>
<Raster_Dimensions><NROWS>{height}</NROWS><NCOLS>{width}</NCOLS><NBANDS>{len(pixels)}</NBANDS>
<Tile_Set><NTILES>4</NTILES><Regular_Tiling><NTILES_SIZE nrows="{tile[0]}" ncols="{tile[1]}"/>
<NTILES_COUNT ntiles_R="2" ntiles_C="2"/><OVERLAP_ROW>0</OVERLAP_ROW><OVERLAP_COL>0</OVERLAP_COL>
</Regular_Tiling></Tile_Set></Raster_Dimensions>
<Raster_Display>
<Special_Value><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>
<SPECIAL_VALUE_COUNT>0</SPECIAL_VALUE_COUNT></Special_Value>
<Special_Value><SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT>
<SPECIAL_VALUE_COUNT>4095</SPECIAL_VALUE_COUNT></Special_Value></Raster_Display>
</Raster_Data>
{encoding}
<Dataset_Sources><Source_Identification><Strip_Source><MISSION>{mission[0]}</MISSION>
<MISSION_INDEX>{mission[1]}</MISSION_INDEX></Strip_Source></Source_Identification></Dataset_Sources>
</Dimap_Document>
""",
        encoding="utf-8",
    )
    return path


TWELVE_BITS = (
    "<Raster_Encoding><NBITS>16</NBITS></Raster_Encoding>"
    "<Dynamic_Range><PRODUCT_RANGE>12</PRODUCT_RANGE></Dynamic_Range>"
)
REFLECTANCE = (
    "<RADIOMETRIC_PROCESSING>REFLECTANCE</RADIOMETRIC_PROCESSING>"
    "<Raster_Encoding><NBITS>16</NBITS></Raster_Encoding>"
    "<Band_Reflectance><GAIN>10000</GAIN></Band_Reflectance>"
)


def pleiades(root, ms="B2 B1 B0 B3", **changes):
    """Pleiades with MS in the order red, green, blue, near infrared."""
    common = {"mission": ("PHR", "1A"), "encoding": TWELVE_BITS} | changes
    folders = root / "IMG_PHR1A_P_001", root / "IMG_PHR1A_MS_002"
    write_dimap(folders[0], "PHR1A_P_1", "PAN", PAN, PAN_GRID, [["P"]], **common)
    write_dimap(folders[1], "PHR1A_MS_1", "MS", MS[:4], MS_GRID, [ms.split()], **common)
    links = "".join(
        f'<Component><COMPONENT_TYPE>DIMAP</COMPONENT_TYPE><COMPONENT_PATH href="{path}"/>'
        "</Component>"
        for path in ("IMG_PHR1A_P_001/DIM_PHR1A_P_1.XML", "IMG_PHR1A_MS_002/DIM_PHR1A_MS_1.XML")
    )
    content = f"<Dataset_Components>{links}</Dataset_Components>"
    (root / "VOL_PHR.XML").write_text(
        f"<Dimap_Document><Dataset_Content>{content}</Dataset_Content></Dimap_Document>"
    )
    return root


def pleiades_neo(root):
    """Pleiades Neo: six bands in two sets of files, as reflectance."""
    common = {"mission": ("PNEO", "3"), "encoding": REFLECTANCE}
    write_dimap(root / "P", "PNEO3_P", "PAN", PAN, PAN_GRID, [["PAN"]], **common)
    parts = [["R", "G", "B"], ["NIR", "RE", "DB"]]
    write_dimap(root / "MS", "PNEO3_MS-FS", "MS-FS", MS[:6], MS_GRID, parts, **common)
    return root


def write_maxar(folder, stem, band_id, pixels, grid, bands, satellite, **changes):
    folder.mkdir(parents=True)
    written = tiles(pixels, grid, folder, stem)
    groups = "".join(
        f'BEGIN_GROUP = TILE_{number}\n\tfilename = "{name}";\n\tULColOffset = {left};\n'
        f"\tULRowOffset = {top};\n\tLRColOffset = {left + width - 1};\n"
        f"\tLRRowOffset = {top + height - 1};\nEND_GROUP = TILE_{number}\n"
        for number, (name, _, _, top, left, height, width) in enumerate(written, start=1)
    )
    (folder / f"{stem}.TIL").write_text(
        f'bandId = "{band_id}";\nnumTiles = 4;\ntileSizeX = 0;\ntileSizeY = 0;\n'
        f'tileUnits = "Pixels";\ntileOverlap = 0;\n{groups}END;\n'
    )
    stated = {
        "bandId": f'"{band_id}"',
        "panSharpenAlgorithm": '"None"',
        "numRows": pixels.shape[1],
        "numColumns": pixels.shape[2],
        "radiometricLevel": '"Corrected"',
        "radiometricEnhancement": '"Off"',
        "bitsPerPixel": 16,
    } | changes
    (folder / f"{stem}.IMD").write_text(
        'version = "28.4";\n'
        + "".join(f"{key} = {value};\n" for key, value in stated.items())
        + "".join(
            f"BEGIN_GROUP = BAND_{band}\n\tabsCalFactor = 9.3e-03;\nEND_GROUP = BAND_{band}\n"
            for band in bands
        )
        + f'BEGIN_GROUP = IMAGE_1\n\tsatId = "{satellite}";\n\tTLCList = (\n\t(0, 0.000000),\n'
        "\t(9, 1.0)\t);\nEND_GROUP = IMAGE_1\n"
        f"BEGIN_GROUP = MAP_PROJECTED_PRODUCT\n\tULX = {grid.c + grid.a / 2};\n"
        f"\tULY = {grid.f + grid.e / 2};\n\tcolSpacing = {grid.a};\n\trowSpacing = {-grid.e};\n"
        "END_GROUP = MAP_PROJECTED_PRODUCT\nEND;\n"
    )


def maxar(root, bands, satellite):
    write_maxar(root / "01_P001_PAN", "P001_PAN", "P", PAN, PAN_GRID, ["P"], satellite)
    ms = MS[: len(bands)]
    write_maxar(root / "01_P001_MUL", "P001_MUL", "Multi", ms, MS_GRID, bands, satellite)
    return root


def geoeye(root):
    return maxar(root, ["B", "G", "R", "N"], "GE01")


def worldview(root):
    """Eight bands in an order that is not the network's."""
    return maxar(root, ["N2", "N", "RE", "R", "Y", "G", "B", "C"], "WV02")


def zipped(make):
    def make_zip(root):
        make(root / "files")
        path = root / "order.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in (root / "files").rglob("*"):
                archive.write(file, Path("058201") / file.relative_to(root / "files"))
        return path

    return make_zip


def volume(root):
    return pleiades(root) / "VOL_PHR.XML"


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
    plain = run((product, None), StandIn(), name="plain.tif", **given).output
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
