"""Products as Airbus and Maxar deliver them, synthetic ones made from the formats' descriptions."""

import zipfile

from rasterio.transform import Affine

from ssdiff_trt.runtime.raster.affine import product
from tests.support.rasters import PAN_GRID, UTM, smooth, write_raster
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


def zip_files(folder, path, method=zipfile.ZIP_STORED):
    """All files of a folder in a ZIP, which is the same every time."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                name = zipfile.ZipInfo(f"058201/{file.relative_to(folder).as_posix()}")
                archive.writestr(name, file.read_bytes(), method)
    return path


def zipped(make):
    return lambda root: zip_files(make(root / "files"), root / "order.zip")


def volume(root):
    return pleiades(root) / "VOL_PHR.XML"
