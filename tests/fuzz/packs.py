"""Imagery for training: packed (.npz) and of numpy (.npy)."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.mutation import damaged, replaced
from tests.fuzz.samples import npz, odd_array, odd_header

RECIPE = """
bands = 4
validation_patches = 1
{sources}
[[stages]]
iterations = 1
patch = 512
"""
"""Whatever the imagery, its patches are too large, so that no training begins."""
SOURCE = {"name": "a", "files": ["a.npy"], "decimations": [1, 2], "held_out": 0.15}


def make(seed: int, folder: Path) -> list[str]:
    chance = random.Random(seed)
    pixels = np.random.default_rng(seed).integers(0, 2000, (4, 40, 48)).astype(np.uint16)
    if chance.random() < 0.3:
        (folder / "recipe.toml").write_text(
            RECIPE.format(sources='[[sources]]\nname = "a"\nfiles = ["a.npy"]')
        )
        (folder / "a.npy").write_bytes(npy(pixels, chance))
        return ["ssdiff-ref", "pack", "recipe.toml", "-o", "p.npz"]
    (folder / "recipe.toml").write_text(RECIPE.format(sources=""))
    told: Any = [{"source": SOURCE, "with_pan": chance.random() < 0.3}]
    if chance.random() < 0.4:
        told = replaced(told, chance)
    members: dict[str, Any] = {"told": np.array(json.dumps(told)), "picture0": pixels}
    (folder / "p.npz").write_bytes(npz(members, chance))
    return ["ssdiff-ref", "train", "recipe.toml", "--packed", "p.npz", "-o", "run"]


def npy(pixels: np.ndarray[Any, Any], chance: random.Random) -> bytes:
    way = chance.randrange(5)
    if way == 0:
        return odd_header(chance)
    if way == 1:
        return chance.choice((b"", b"\x93", b"\x93NUMPY", b"PK\x03\x04", b"\x80\x04.", bytes(9)))
    file = io.BytesIO()
    np.save(file, odd_array(chance) if way == 2 else pixels)
    return damaged(file.getvalue(), chance) if chance.random() < 0.7 else file.getvalue()
