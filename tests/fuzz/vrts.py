"""Virtual rasters: of themselves, of each other, of thousands of sources, of what is no file."""

from __future__ import annotations

import os
import random
from pathlib import Path
from xml.sax.saxutils import escape

from tests.fuzz.rasters import COMMANDS
from tests.support.rasters import UTM, PairMaker

SIDES = {"pan": 64, "ms": 16}
SOURCES = (
    *(
        "{own}.vrt",
        "{own}.vrt",
        "{other}.vrt",
        "{own}.tif",
        "/vsistdin/",
        "/vsistdin/?buffer_limit=-1",
    ),
    *("/dev/stdin", "/proc/self/fd/0", "/dev/zero", "pipe", "folder", "", "missing.tif"),
    *("/vsigzip//dev/zero", "/vsizip/{own}.vrt", "/vsisubfile/0_-1,{own}.vrt", "/vsimem/a"),
    *("/vsisparse/{own}.vrt", "/vsicrypt/{own}.tif", "/vsicached?file={own}.vrt", "/vsitar/pipe"),
    *("vrt://{own}.vrt", "vrt://{own}.tif?bands=9", "GTIFF_DIR:1:{own}.tif", "<VRTDataset/>"),
)
KINDS = ("SimpleSource", "SimpleSource", "ComplexSource", "AveragedSource", "KernelFilteredSource")


def make(seed: int, folder: Path) -> list[str]:
    chance = random.Random(seed)
    PairMaker(folder)(64, 64)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    roles = chance.choice((("pan",), ("ms",), ("pan", "ms")))
    for role in roles:
        _write(role, chance, folder)
    names = {role: f"{role}.{'vrt' if role in roles else 'tif'}" for role in SIDES}
    if chance.random() < 0.1:
        names[roles[0]] = chance.choice(SOURCES[4:]).format(own=roles[0], other=roles[-1])
    return [word.format(**names) for word in chance.choice(COMMANDS[:5])]


def _write(role: str, chance: random.Random, folder: Path) -> None:
    """A virtual raster on the grid of the real one."""
    other = "ms" if role == "pan" else "pan"
    count = 1 if role == "pan" else 4
    named = chance.choice((f"{role}.tif", *SOURCES)).format(own=role, other=other)
    if chance.random() < 0.15:  # one below the other, the last of them real
        depth = chance.choice((3, 40, 300))
        for number in range(depth):
            below = f"{role}{number + 1}.vrt" if number + 1 < depth else named
            (folder / f"{role}{number}.vrt").write_text(
                _vrt(role, count, _source(below, role, "1"))
            )
        named = f"{role}0.vrt"
    kind, times = chance.choice(KINDS), chance.choice((1, 1, 1, 50, 1000, 5000))
    source = _source(named, role, "{band}", kind, chance)
    if times > 1:
        row = '<DstRect xOff="0" yOff="{row}" xSize="99" ySize="1"/>'
        source = source.replace("</SourceBand>", f"</SourceBand>{row}")
    parts = (source.replace("{row}", str(number % 64)) for number in range(times))
    (folder / f"{role}.vrt").write_text(_vrt(role, count, "".join(parts), chance, named))


def _source(
    named: str,
    role: str,
    band: str,
    kind: str = "SimpleSource",
    chance: random.Random | None = None,
) -> str:
    more = ""
    if chance and chance.random() < 0.5:  # with these it is not opened before it is read
        side = SIDES[role]
        more = (
            f'<SourceProperties RasterXSize="{side}" RasterYSize="{side}" DataType="UInt16" '
            'BlockXSize="64" BlockYSize="1"/>'
        )
    if chance and kind == "ComplexSource":
        more += "<LUT>" + ",".join(f"{k}:{k}" for k in range(chance.choice((2, 30)))) + "</LUT>"
    if kind == "KernelFilteredSource":
        more += '<Kernel normalized="1"><Size>3</Size><Coefs>1 1 1 1 1 1 1 1 1</Coefs></Kernel>'
    return (
        f'<{kind}><SourceFilename relativeToVRT="{int(named.endswith((".vrt", ".tif")))}">'
        f"{escape(named)}</SourceFilename><SourceBand>{band}</SourceBand>{more}</{kind}>"
    )


def _vrt(
    role: str, count: int, sources: str, chance: random.Random | None = None, named: str = ""
) -> str:
    """The document of a virtual raster, with masks, overviews and raw bands now and then."""
    side, pixel, file = (
        SIDES[role],
        32 / SIDES[role],
        f"<SourceFilename>{escape(named)}</SourceFilename>",
    )
    way = chance.random() if chance else 1
    kind, end = "", ""
    if way < 0.1:
        kind = ' subClass="VRTRawRasterBand"'
        sources = f"{file}<PixelOffset>2</PixelOffset><LineOffset>128</LineOffset>"
    elif way < 0.2:
        sources += f"<Overview>{file}<SourceBand>1</SourceBand></Overview>"
    elif way < 0.3:
        mask = sources.replace("{band}", "mask,1")
        end = f'<MaskBand><VRTRasterBand dataType="Byte">{mask}</VRTRasterBand></MaskBand>'
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{band}"{kind}>'
        f"{sources.replace('{band}', str(band))}</VRTRasterBand>"
        for band in range(1, count + 1)
    )
    return (
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>{UTM}</SRS><GeoTransform>'
        f"500000, {pixel}, 0, 5700000, 0, -{pixel}</GeoTransform>{bands}{end}</VRTDataset>"
    )
