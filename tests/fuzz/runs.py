"""Areas in GeoJSON, tables of scenes, and folders of finished blocks, for a small scene."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from ssdiff_trt.runtime.raster.affine import product
from ssdiff_trt.runtime.scratch import JOURNAL, LOCK, work_folder_of
from tests.fuzz.mutation import damaged, replaced
from tests.support.rasters import PAN_GRID, Affine, write_raster

AREA = {
    "type": "Feature",
    "properties": {"name": "field"},
    "geometry": {
        "type": "Polygon",
        "coordinates": [[[500_000, 5_699_990], [500_008, 5_699_990], [500_008, 5_700_000]]],
    },
    "crs": {"type": "name", "properties": {"name": "EPSG:32631"}},
}
TABLE = [["pan", "ms", "output", "steps", "nodata"], ["pan.tif", "ms.tif", "a.tif", "1", "0"]]
PART = {"file": "0-16_0-16.tif", "size": 100, "sha256": "0" * 64, "counts": {"tiles": 1}}
JOURNALED = [{"inputs": "0" * 64, "version": "ssdiff-trt 0.1.0", "seed": "0"}, PART]


def make(seed: int, folder: Path) -> list[str]:
    chance = random.Random(seed)
    pixels = np.random.default_rng(seed).integers(100, 900, (5, 16, 16), np.uint16)
    write_raster(folder / "pan.tif", pixels[:1], PAN_GRID)
    write_raster(folder / "ms.tif", pixels[1:, :4, :4], product(PAN_GRID, Affine.scale(4)))
    words = ["ssdiff-trt", "run", "pan.tif", "ms.tif", "-o", "out.tif", "--steps", "1", "-q"]
    document: Any = chance.choice((AREA, TABLE, JOURNALED))
    changed = document
    for _ in range(chance.choice((1, 1, 2, 4))):
        changed = replaced(changed, chance)
    content = written(document, changed)
    if chance.random() < 0.4:
        content = damaged(content, chance)
    if document is AREA:
        (folder / "area.json").write_bytes(content)
        return [*words, "--area", "area.json"]
    if document is TABLE:
        (folder / "scenes.csv").write_bytes(content)
        return ["ssdiff-trt", "run", "--scenes", "scenes.csv", "-q", "--dry-run"]
    found = work_folder_of(folder / "out.tif")
    found.mkdir(mode=0o700)
    (found / LOCK).touch()
    (found / JOURNAL).write_bytes(content)
    for name in ("0-16_0-16.tif", "result.tif", "other"):
        if chance.random() < 0.5:
            (found / name).write_bytes(chance.randbytes(100))
    return words


def written(document: Any, changed: Any) -> bytes:
    """A changed document in the format of its file."""
    if document is AREA:
        text = json.dumps(changed)
    elif not isinstance(changed, list):
        text = str(changed)[:9999]
    elif document is TABLE:
        rows = [row if isinstance(row, list) else [row] for row in changed]
        text = "\n".join(",".join(map(str, row))[:9999] for row in rows)
    else:
        text = "".join(json.dumps(line) + "\n" for line in changed)
    return text.encode("utf-8", "surrogatepass")
