"""Calibration samples (.npz)."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ssdiff_trt.calibration.samples import weights_digest
from ssdiff_trt.runtime.bundle.store import open_bundle
from tests.fuzz.mutation import INTEGERS, TEXTS, damaged, hostile, replaced


@cache
def about() -> Any:
    bundle = open_bundle("generic4")
    return {
        "format": 1,
        "bundle": "generic4",
        "weights": weights_digest(bundle),
        "bands": 4,
        "tile": 64,
        "sampler": "consistent",
        "timesteps": [999, 68],
        "seed": 0,
        "sources": ["pan.tif, ms.tif"],
        "places": [[0, 0, 64 * index] for index in range(8)],
    }


def arrays() -> dict[str, np.ndarray[Any, Any]]:
    found = {
        name: np.full((count, bands, size, size), 0.25, np.float16)
        for start, count in (("", 8), ("judged_", 4))
        for name, bands, size in (
            (f"{start}pan", 1, 64),
            (f"{start}lms", 4, 64),
            (f"{start}ms", 4, 16),
        )
    }
    found["states"] = np.zeros((2, 8, 4, 64, 64), np.float16)
    # This alone is wrong in samples that are whole otherwise, so that no study begins.
    found["judged_truth"] = np.full((4, 4, 64, 64), np.nan, np.float16)
    return found


def make(seed: int, folder: Path) -> list[str]:
    chance = random.Random(seed)
    members: dict[str, Any] = arrays()
    document = about()
    if chance.random() < 0.4:
        document = replaced(document, chance)
    members["about"] = np.array(json.dumps(document))
    (folder / "s.npz").write_bytes(npz(members, chance))
    if chance.random() < 0.2:
        return ["ssdiff-export", "--int8", "--calibration", "s.npz", "--tile", "17"]
    return ["ssdiff-calibrate", "sensitivity", "s.npz"]


def npz(members: dict[str, Any], chance: random.Random) -> bytes:
    """Arrays as a file of numpy, damaged outside or inside of its archive, or not at all."""
    members = dict(members)
    if chance.random() < 0.3:
        members[chance.choice(list(members))] = odd_array(chance)
    if chance.random() < 0.05:
        del members[chance.choice(list(members))]
    file = io.BytesIO()
    way = chance.randrange(5)
    write: Callable[..., None] = np.savez if chance.random() < 0.5 else np.savez_compressed
    write(file, **members)
    if way == 0:
        return damaged(file.getvalue(), chance)
    if way == 1:
        return chance.choice((b"", b"PK\x05\x06" + bytes(18), b"\x93NUMPY", chance.randbytes(99)))
    if way == 2:
        return file.getvalue()
    with zipfile.ZipFile(file) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = chance.choice(list(files))
    files[name] = odd_header(chance) if way == 3 else damaged(files[name], chance)
    again = io.BytesIO()
    method = chance.choice((0, 8))
    with zipfile.ZipFile(again, "w") as archive:
        for member, data in files.items():
            archive.writestr(zipfile.ZipInfo(member), data, method)  # not of the time of day
    return again.getvalue()


def odd_array(chance: random.Random) -> np.ndarray[Any, Any]:
    return chance.choice(
        (
            np.array(None, dtype=object),
            np.array([{}, 1], dtype=object),
            np.zeros(0),
            np.zeros((0, 4, 64, 64)),
            np.array("text"),
            np.array(["a", "b"]),
            np.array(b"bytes"),
            np.zeros(3, "datetime64[s]"),
            np.zeros(3, [("a", "f4"), ("b", "i2")]),
            np.zeros((8, 4, 64, 64), complex),
            np.zeros((8, 4, 64, 64), bool),
            np.full((8, 4, 64, 64), 1e308),
            np.array(float("nan")),
            np.zeros((1,) * 30),
            np.array(json.dumps(hostile(chance))),
        )
    )


def odd_header(chance: random.Random) -> bytes:
    """A file of numpy whose header states something else than it holds."""
    shape = tuple(chance.choice(INTEGERS) for _ in range(chance.choice((0, 1, 2, 4, 40))))
    kind = chance.choice(("<f4", "<f8", "|O", "<U9999999", "V0", "|S0", ">c16", "<M8[s]", *TEXTS))
    stated: Any = {"descr": kind, "fortran_order": False, "shape": shape}
    header = repr(replaced(stated, chance) if chance.random() < 0.3 else stated).encode(
        "latin-1", "replace"
    )
    size = chance.choice((min(len(header), 65535), min(len(header), 65535), 0, 65535))
    version = chance.choice((b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"))
    length = size.to_bytes(2 if version[0] == 1 else 4, "little")
    return b"\x93NUMPY" + version + length + header + bytes(chance.choice((0, 64, 5000)))
