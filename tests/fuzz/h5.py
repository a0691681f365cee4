"""HDF5 files of PanCollection."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.fuzz.mutation import TEXTS, damaged

RECIPE = """
bands = 4
validation_patches = 1
[[sources]]
name = "a"
files = ["a.h5"]
held_out = 0.5
[[stages]]
iterations = 1
patch = 512
"""
"""Whatever the file, its patches are too small, so that no training begins."""
EVALUATED = ("--method", "EXP", "--crop", "1")
SIDE = 160
"""Pixels of PAN at an edge, as few as can be evaluated."""
ROLES = {"gt": (4, SIDE), "lms": (4, SIDE), "ms": (4, SIDE // 4), "pan": (1, SIDE)}


def make(seed: int, folder: Path) -> list[str]:
    chance = random.Random(seed)
    trains = chance.random() < 0.2
    (folder / "a.h5").write_bytes(hdf5(chance, 2 if trains else 1))
    if trains:
        (folder / "recipe.toml").write_text(RECIPE)
        return ["ssdiff-ref", "train", "recipe.toml", "-o", "run"]
    return ["ssdiff-ref", "evaluate", "a.h5", *EVALUATED, "--sensor", "qb", "--json", "o"]


def hdf5(chance: random.Random, count: int) -> bytes:
    """A file with so many scenes."""
    roles = dict(ROLES)
    if count == 1 and chance.random() < 0.3:
        del roles["gt"]
    odd = chance.choice(list(roles)) if chance.random() < 0.5 else ""
    memory = io.BytesIO()
    settings = {"libver": chance.choice(("earliest", "latest"))}
    with h5py.File(memory, "w", track_order=False, **settings) as file:
        for role, (bands, side) in roles.items():
            values = np.full((count, bands, side, side), 500.0) + np.arange(side) % 7
            if role == odd:
                odd_dataset(file, role, values, chance)
            else:
                packed = {"compression": "gzip"} if chance.random() < 0.3 else {}
                file.create_dataset(role, data=values, **packed, track_times=False)
    written = memory.getvalue()
    if chance.random() < 0.6:
        return damaged(written, chance)
    return b"" if chance.random() < 0.05 else written


def odd_dataset(file: Any, role: str, values: np.ndarray[Any, Any], chance: random.Random) -> None:
    """Something of this name that is not pixels."""
    way = chance.randrange(14)
    given: dict[str, Any] = {"track_times": False}
    if way == 0:
        file.create_group(role)
    elif way == 1:
        file[role] = h5py.SoftLink("/nowhere")
    elif way == 2:
        file[role] = h5py.SoftLink(f"/{role}")
    elif way == 3:
        file[role] = h5py.ExternalLink("elsewhere.h5", "/a")
    elif way == 4:
        file[role] = np.dtype("f4")
    elif way == 5:
        file.create_dataset(role, data=h5py.Empty("f4"), **given)
    elif way == 6:
        file.create_dataset(role, data=["text"], **given)
    elif way == 7:
        file.create_dataset(role, data=np.zeros(values.shape, [("a", "f4")]), **given)
    elif way == 8:
        # Terabytes that no file holds: chunks that were never written.
        shape = chance.choice(
            ((2**40, 4, 16, 16), (1, 4, 2**24, 2**24), (2**62,), (1, 2**50, 1, 1))
        )
        file.create_dataset(role, shape, "f4", chunks=tuple(min(s, 16) for s in shape), **given)
    elif way == 9:
        kind = chance.choice(("c8", "?", "i8", "f2", "S4", "u1"))
        file.create_dataset(role, data=values.astype(kind), **given)
    elif way == 10:
        shape = chance.choice(((), (0,), (1,), (0, 4, 16, 16), (4, 16, 16), (1, 1, 1, 1)))
        file.create_dataset(role, shape, "f4", **given)
    elif way == 11:
        layout = h5py.VirtualLayout(values.shape, "f8")
        layout[:] = h5py.VirtualSource("missing.h5", "a", values.shape)
        file.create_virtual_dataset(role, layout)
    elif way == 12:
        value = chance.choice((np.nan, np.inf, -1e308, 1e308, 0))
        file.create_dataset(role, data=np.full(values.shape, value), **given)
    else:
        for text in TEXTS[:4]:
            if text.strip() and "\0" not in text:
                file.create_dataset(text, data=values, **given)
