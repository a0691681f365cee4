"""Products of Airbus and Maxar with damaged metadata, as a folder, a list of images or a ZIP."""

from __future__ import annotations

import random
import re
import shutil
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from tests.fuzz.mutation import NUMBERS, TEXTS, changed_element, damaged
from tests.support.products import geoeye, pleiades, pleiades_neo, worldview, zip_files

WORDS = ("P", "MS", "PAN", "MS-FS", "B0", "NODATA", "REFLECTANCE", "WV03", "16", "1", "10000")


def make(seed: int, folder: Path) -> list[str]:
    chance = random.Random(seed)
    product = folder / "product"
    chance.choice((pleiades, pleiades_neo, geoeye, worldview))(product)
    described = sorted(file for file in product.rglob("*") if file.suffix != ".TIF")
    described = [file for file in described if file.is_file()]
    for _ in range(chance.choice((1, 1, 2, 4))):
        _change(chance.choice(described), chance)
    if chance.random() < 0.1:
        tile = chance.choice(sorted(product.rglob("*.TIF")))
        tile.write_bytes(damaged(tile.read_bytes(), chance))
    given = "product"
    lists = [file for file in described if file.name.startswith("VOL")]
    if chance.random() < (0.3 if lists else 0.1):
        given = chance.choice(lists or described).relative_to(folder).as_posix()
    elif chance.random() < 0.4:
        path = zip_files(product, folder / "order.zip", chance.choice((0, zipfile.ZIP_DEFLATED)))
        if chance.random() < 0.5:
            path.write_bytes(damaged(path.read_bytes(), chance))
        shutil.rmtree(product)
        given = path.name
    # Refused after the plan, which has read both images: there is no GPU.
    return ["ssdiff-trt", "run", given, "-o", "out.tif", "--backend", "tensorrt"]


def _change(file: Path, chance: random.Random) -> None:
    """Change a value of the metadata, or any bytes."""
    content = file.read_bytes()
    way = chance.random()
    if way < 0.25:
        content = damaged(content, chance)
    elif file.suffix == ".XML":
        try:
            root = ElementTree.fromstring(content)
        except (ElementTree.ParseError, ValueError, LookupError):  # changed before
            return
        changed_element(chance.choice(list(root.iter())), chance, WORDS)
        content = ElementTree.tostring(root)
    else:
        lines = content.decode("latin-1").splitlines()
        place = chance.randrange(len(lines) or 1)
        value = str(chance.choice((*NUMBERS, *TEXTS, *WORDS, "(", '"', "Multi")))
        lines[place : place + 1] = chance.choice(
            (
                [re.sub(r"= .*", lambda _: f"= {value};", lines[place])] if lines else [],
                [re.sub(r"= .*", lambda _: f'= "{value}";', lines[place])] if lines else [],
                [],
                lines[place : place + 1] * 200,
            )
        )
        content = "\n".join(lines).encode("utf-8", "surrogatepass")
    file.write_bytes(content)
