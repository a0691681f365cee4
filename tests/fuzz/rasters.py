"""Pairs of rasters, one of whose files is damaged or states something that no sensor delivers."""

from __future__ import annotations

import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.transform import Affine

from ssdiff_trt.runtime.raster.affine import product
from ssdiff_trt.runtime.raster.gdal import without_georeferencing_warnings
from tests.fuzz.mutation import INTEGERS, NUMBERS, changed_element, damaged
from tests.support.rasters import PAN_GRID, UTM, smooth, write_raster

SIDE = 64
LAYOUTS = (
    {},
    {"tiled": True, "blockxsize": 16, "blockysize": 16},
    {"compress": "deflate", "predictor": 2},
    {"compress": "lzw", "interleave": "pixel"},
    {"compress": "packbits", "interleave": "band"},
    {"bigtiff": "YES", "endianness": "BIG"},
    {"nbits": 11},
    {"nodata": 0},
)
RPC_TEXTS = {
    **{"LINE_OFF": "32", "SAMP_OFF": "32", "LAT_OFF": "51.4", "LONG_OFF": "3.0"},
    **{"HEIGHT_OFF": "0", "LINE_SCALE": "32", "SAMP_SCALE": "32", "LAT_SCALE": "0.001"},
    **{"LONG_SCALE": "0.001", "HEIGHT_SCALE": "100"},
    "LINE_NUM_COEFF": " ".join(["0", "0", "-1", *["0"] * 17]),
    "SAMP_NUM_COEFF": " ".join(["0", "1", *["0"] * 18]),
    **{f"{axis}_DEN_COEFF": " ".join(["1", *["0"] * 19]) for axis in ("LINE", "SAMP")},
}
COMMANDS = (
    ("ssdiff-ref", "fuse", "{pan}", "{ms}", "-o", "out.tif", "--method", "EXP"),
    ("ssdiff-ref", "simulate", "{pan}", "{ms}", "-o", "out"),
    ("ssdiff-ref", "fuse", "{pan}", "{ms}", "-o", "out.tif", "--method", "GSA", "--shift", "auto"),
    ("ssdiff-ref", "evaluate", "{ms}", "--reference", "{ms}", "--sensor", "wv3", "--crop", "1"),
    ("ssdiff-trt", "run", "{pan}", "{ms}", "-o", "out.tif", "--full-scale", "2047"),
    ("ssdiff-calibrate", "collect", "{pan}", "{ms}", "--no-picture", "-o", "out.npz"),
)
Change = Callable[[random.Random, Path], None]


def make(seed: int, folder: Path) -> list[str]:
    """A pair with one file changed, and a command that reads it; see the harness."""
    chance = random.Random(seed)
    _write_pair(chance, folder)
    changes = []
    for _ in range(chance.choice((1, 1, 2))):
        changes.append(change := chance.choice(_CHANGES))
        change(chance, folder)
        if change is _link:  # what it puts there is nothing to change further
            break
    names = {role: _existing(folder, role) for role in ("pan", "ms")}
    chosen = chance.choices(COMMANDS, (6, 3, 2, 3, 2, 1))[0]
    if _huge in changes and chosen[1] == "collect":  # which chooses among all tiles, for a minute
        chosen = COMMANDS[0]
    words = [word.format(**names) for word in chosen]
    if words[1] in ("fuse", "run") and chance.random() < 0.2:
        words += ["--georeferencing", "corners"]
    return words


def _existing(folder: Path, role: str) -> str:
    """The raster of a role: a virtual one where a change made it."""
    return f"{role}.vrt" if (folder / f"{role}.vrt").exists() else f"{role}.tif"


def _write_pair(chance: random.Random, folder: Path) -> None:
    layout = chance.choice(LAYOUTS)
    placed = chance.choice(("map", "map", "map", "local", "rpc", "gcp", "none"))
    mask = np.ones((SIDE // 4, SIDE // 4), bool)
    mask[4:6, 4:6] = False
    kinds: list[dict[str, object]] = [{}, {"mask": mask}, {"descriptions": ["b", "g", "r", "n"]}]
    kinds.append({"colorinterp": [ColorInterp.red, ColorInterp.green, ColorInterp.blue] * 2})
    kind = chance.choice(kinds)
    grids = PAN_GRID, product(PAN_GRID, Affine.scale(4))
    bands = 3 if "colorinterp" in kind else 4
    if "colorinterp" in kind:
        kind = {"colorinterp": [ColorInterp.red, ColorInterp.green, ColorInterp.blue]}
    for name, count, side, grid in (("pan", 1, SIDE, grids[0]), ("ms", bands, SIDE // 4, grids[1])):
        given = {} if placed in ("rpc", "gcp", "none") else {"transform": grid}
        given |= {"crs": UTM if placed == "map" else None} if given else {}
        own = kind if name == "ms" else {}
        internal = chance.random() < 0.5
        with without_georeferencing_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
            path = write_raster(
                folder / f"{name}.tif", smooth((count, side, side), 1), **layout, **given, **own
            )
        _describe(chance, path, placed, side)


def _describe(chance: random.Random, path: Path, placed: str, side: int) -> None:
    """Give a raster RPCs or GCPs, and now and then tags, scales and overviews."""
    with without_georeferencing_warnings(), rasterio.open(path, "r+") as file:
        if placed == "gcp":
            corners = ((0, 0), (0, side), (side, 0), (side, side))
            points = [
                GroundControlPoint(row, col, 3 + col / side / 1e3, 51 - row / side / 1e3, 0)
                for row, col in corners
            ]
            file.gcps = points, "EPSG:4326"
        if placed == "rpc":
            off, scale = str(side / 2), str(side / 2)
            texts = dict.fromkeys(("LINE_OFF", "SAMP_OFF"), off)
            texts |= dict.fromkeys(("LINE_SCALE", "SAMP_SCALE"), scale)
            file.rpcs = RPC.from_gdal(RPC_TEXTS | texts)
        if chance.random() < 0.3:
            file.update_tags(PLACE="harbour", TIFFTAG_IMAGEDESCRIPTION="a scene")
            file.update_tags(1, wavelength="450 nm")
        if chance.random() < 0.2:
            file.scales = [0.5] * file.count
            file.units = ["W"] * file.count
        if chance.random() < 0.2:
            file.build_overviews([2, 4])


def _one(chance: random.Random, folder: Path, suffix: str = ".tif") -> Path:
    return folder / f"{chance.choice(('pan', 'ms'))}{suffix}"


def _damage_file(chance: random.Random, folder: Path) -> None:
    """Bytes of any file of the pair, sidecars included."""
    path = chance.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    path.write_bytes(damaged(path.read_bytes(), chance))


def _change_entry(chance: random.Random, folder: Path) -> None:
    """An entry of a TIFF's directory: its tag, type, count or value."""
    path = _one(chance, folder)
    content = bytearray(path.read_bytes())
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack(f"{order}H", content[2:4])[0] == 43
    place = struct.unpack_from(f"{order}{'Q' if big else 'I'}", content, 8 if big else 4)[0]
    count_format, size = ("Q", 20) if big else ("H", 12)
    if place + 8 > len(content):
        return
    count = struct.unpack_from(order + count_format, content, place)[0]
    if not count:
        return
    entry = place + struct.calcsize(count_format) + size * chance.randrange(min(count, 40))
    field, width = chance.choice(
        ((0, 2), (2, 2), (4, 8 if big else 4)) + (((12 if big else 8), 8 if big else 4),) * 4
    )
    value = chance.choice((*INTEGERS, 51712, 5, 65535, 2_000_000_000, 100_000_000))
    content[entry + field : entry + field + width] = (value % 2 ** (8 * width)).to_bytes(
        width, "little" if order == "<" else "big"
    )
    path.write_bytes(content)


def _change_doubles(chance: random.Random, folder: Path) -> None:
    """Numbers of the geotransform, RPCs or GCPs in a TIFF, where they are found by value."""
    path = _one(chance, folder)
    content = path.read_bytes()
    order = "<" if content[:2] == b"II" else ">"
    known = (0.5, 2.0, 500_000.0, 5_700_000.0, 32.0, 8.0, 51.4, 3.0, 0.001, 1.0, -1.0, 51.0)
    present = [value for value in known if struct.pack(f"{order}d", value) in content]
    if present:
        old, new = chance.choice(present), float(chance.choice(NUMBERS))
        found, put = (struct.pack(f"{order}d", value) for value in (old, new))
        path.write_bytes(content.replace(found, put, chance.choice((1, -1))))


def _change_text(chance: random.Random, folder: Path) -> None:
    """Texts of the tags in a TIFF, of the same length."""
    path = _one(chance, folder)
    content = path.read_bytes()
    for word in (b"harbour", b"a scene", b"450 nm", b"nir", b"UTM", b'"TYPE"', b"Item", b'role="'):
        if word in content and chance.random() < 0.5:
            put = chance.choice((b"\xff\xfe\x80", b"\0", b"<", b"&", b"9", b"\n=", b"-"))
            content = content.replace(word, (put * 8)[: len(word)])
    path.write_bytes(content)


def _virtual(chance: random.Random, folder: Path) -> None:
    """A virtual dataset over a raster, with an attribute or a text changed."""
    path = _one(chance, folder)
    target = path.with_suffix(".vrt")
    try:
        with without_georeferencing_warnings(), rasterio.open(path) as source:
            rasterio.shutil.copy(source, target, driver="VRT")
    except rasterio.errors.RasterioError:
        target.unlink(missing_ok=True)
        return
    root = ElementTree.fromstring(target.read_bytes())
    for _ in range(chance.choice((1, 1, 3))):
        changed_element(
            chance.choice(list(root.iter())), chance, (51712, 2_000_000_000, 100_000_000)
        )
    target.write_bytes(ElementTree.tostring(root))


def _side_metadata(chance: random.Random, folder: Path) -> None:
    """Metadata in ``.aux.xml`` that contradict the file."""
    root = ElementTree.Element("PAMDataset")
    domain = chance.choice(("", "IMAGE_STRUCTURE", "RPC", "IMAGERY", "GEOLOCATION", "xml:a", "é"))
    keys = {
        "IMAGE_STRUCTURE": ("NBITS", "INTERLEAVE", "COMPRESSION"),
        "RPC": tuple(RPC_TEXTS),
        "IMAGERY": ("CENTRAL_WAVELENGTH_UM", "CLOUDCOVER"),
        "": ("AREA_OR_POINT", "wavelength", "A=B", ""),
    }.get(domain, ("X_DATASET", "A"))
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    values = ["5000", "1.5", "abc", "0", "-3", *map(str, NUMBERS), "a\nb", "é", "x" * 3000]
    for place in (root, band):
        metadata = ElementTree.SubElement(place, "Metadata", domain=domain)
        stated = dict(RPC_TEXTS) if domain == "RPC" else {}
        stated[chance.choice(keys)] = chance.choice(values)
        for key, value in stated.items():
            ElementTree.SubElement(metadata, "MDI", key=key).text = value
    if chance.random() < 0.5:
        stated = ", ".join(str(chance.choice((*NUMBERS, 0.5))) for _ in range(6))
        ElementTree.SubElement(root, "GeoTransform").text = stated
    if chance.random() < 0.3:
        ElementTree.SubElement(root, "SRS").text = chance.choice(("EPSG:99999", "", "GEOGCS[", "é"))
    if chance.random() < 0.3:
        chosen = str(chance.choice(NUMBERS))
        for name in ("NoDataValue", "Scale", "Offset", "Description", "ColorInterp", "UnitType"):
            if chance.random() < 0.4:
                ElementTree.SubElement(band, name).text = chosen
    _one(chance, folder, ".tif.aux.xml").write_bytes(ElementTree.tostring(root))


def _other_sidecar(chance: random.Random, folder: Path) -> None:
    """A mask, overviews or a world file that belong to another raster, or are none."""
    path = _one(chance, folder)
    suffix = chance.choice((".tif.msk", ".tif.ovr", ".tfw", ".tif.aux.xml", ".prj", "_RPC.TXT"))
    target = path.with_name(path.stem + suffix)
    way = chance.randrange(5)
    if way == 0:
        shutil.copy(_one(chance, folder), target)
    elif way == 1:
        with without_georeferencing_warnings():
            write_raster(target, smooth((chance.choice((1, 3)), 5, 7)))
    elif way == 2:
        target.write_bytes(damaged(path.read_bytes(), chance))
    elif way == 3:
        target.write_text("\n".join(str(chance.choice(NUMBERS)) for _ in range(6)))
    else:
        target.write_bytes(chance.choice((b"", b"\xff" * 100, b"<PAMDataset>", b"II*\0")))


def _huge(chance: random.Random, folder: Path) -> None:
    """An empty raster of a size or a number of bands that no sensor delivers."""
    role = chance.choice(("pan", "ms"))
    width, height, count = chance.choice(
        ((2_000_000_000, 64, 1), (100_000_000, 64, 4), (64, 2_000_000_000, 1), (64, 64, 51712))
    )
    tiled = chance.random() < 0.5
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{band + 1}"/>' for band in range(count)
    )
    tile = 'blockXSize="256" blockYSize="256"' if tiled else f'blockXSize="{width}" blockYSize="1"'
    (folder / f"{role}.vrt").write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">'
        f"<GeoTransform>500000, {2 if role == 'ms' else 0.5}, 0, 5700000, 0, "
        f"-{2 if role == 'ms' else 0.5}</GeoTransform><SRS>{UTM}</SRS>"
        + bands.replace("/>", f" {tile}/>")
        + "</VRTDataset>"
    )
    if chance.random() < 0.7 and count < 5 and width > height:  # a tall one can be run, for weeks
        other = "ms" if role == "pan" else "pan"
        factor = 0.25 if role == "pan" else 4
        wide, high = (max(1, int(side * factor)) for side in (width, height))
        if max(wide, high) < 2**31:
            number = 4 if other == "ms" else 1
            bands = "".join(
                f'<VRTRasterBand dataType="UInt16" band="{band + 1}"/>' for band in range(number)
            )
            pixel = 2 if other == "ms" else 0.5
            (folder / f"{other}.vrt").write_text(
                f'<VRTDataset rasterXSize="{wide}" rasterYSize="{high}"><GeoTransform>500000, '
                f"{pixel}, 0, 5700000, 0, -{pixel}</GeoTransform><SRS>{UTM}</SRS>{bands}"
                "</VRTDataset>"
            )


def _link(chance: random.Random, folder: Path) -> None:
    """A pipe, a folder or a link that leads nowhere in place of a file of the pair."""
    path = _one(chance, folder, chance.choice((".tif", ".tif.msk", ".tif.aux.xml", ".tif.ovr")))
    path.unlink(missing_ok=True)
    way = chance.randrange(3)
    if way == 0:
        os.mkfifo(path)
    elif way == 1:
        path.mkdir()
    else:
        path.symlink_to(path.name)


_CHANGES: tuple[Change, ...] = (
    *[_damage_file] * 4,
    *[_change_entry] * 5,
    *[_change_doubles] * 4,
    *[_virtual] * 4,
    *[_side_metadata] * 4,
    _change_text,
    _change_text,
    _other_sidecar,
    _other_sidecar,
    _huge,
    _link,
)
"""Each as often as it is worth."""
