"""MATLAB files of the DLPan-Toolbox."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.io import savemat
from scipy.sparse import csc_array

from tests.fuzz.h5 import EVALUATED, SIDE, odd_dataset
from tests.fuzz.mutation import NUMBERS, damaged


def make(seed: int, folder: Path) -> list[str]:
    chance = random.Random(seed)
    names = chance.choice((("I_MS_LR", "I_MS", "I_PAN"), ("ms", "lms", "pan"), ("I_MS", "I_PAN")))
    variables: dict[str, Any] = {
        name: np.full((SIDE, SIDE), 500.0) + np.arange(SIDE) % 7
        if name.lower().endswith("pan")
        else np.full(
            (SIDE // 4 if name in ("ms", "I_MS_LR", names[-2]) else SIDE,) * 2 + (4,), 400.0
        )
        for name in names
    }
    if chance.random() < 0.3:
        variables["L"] = chance.choice((11, *(float(n) for n in NUMBERS), "11", [], [1, 2], {}))
    if chance.random() < 0.5:
        variables[chance.choice(list(variables))] = odd_variable(chance)
    (folder / "a.mat").write_bytes(written(variables, chance))
    return ["ssdiff-ref", "evaluate", "a.mat", *EVALUATED, "--sensor", "ge1"]


def written(variables: dict[str, Any], chance: random.Random) -> bytes:
    way = chance.randrange(8)
    memory = io.BytesIO()
    if way == 0:  # version 7.3 is HDF5 behind 512 bytes
        with h5py.File(memory, "w", userblock_size=512) as file:
            odd = chance.choice(list(variables))
            for name, value in variables.items():
                if name == odd:
                    odd_dataset(file, name, np.zeros((1, 4, 16, 16)), chance)
                elif isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
                    file.create_dataset(name, data=value.T, track_times=False)
        content = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
        whole = content + memory.getvalue()[len(content) :]
        return damaged(whole, chance) if chance.random() < 0.4 else whole
    if way == 1:
        return chance.choice((b"", b"\0" * 20, b"MATLAB 5.0", chance.randbytes(300)))
    try:
        savemat(
            memory,
            variables,
            do_compression=way > 3 and chance.random() < 0.5,
            format="4" if way == 2 else "5",
        )
    except (TypeError, ValueError):  # version 4 has no structures
        memory = io.BytesIO()
        savemat(memory, variables)
    whole = memory.getvalue()
    # The time of writing is in the header.
    whole = b"MATLAB 5.0 MAT-file".ljust(116) + whole[116:] if way != 2 else whole
    if way == 3:  # damaged past the checksum of what is compressed
        packed = zlib.compress(damaged(whole[128:], chance))
        return whole[:128] + struct.pack("<II", 15, len(packed)) + packed
    return damaged(whole, chance) if chance.random() < 0.6 else whole


def odd_variable(chance: random.Random) -> Any:
    cell = np.empty((2, 2), dtype=object)
    cell[:] = [[1, "a"], [np.zeros(3), 2]]
    return chance.choice(
        (
            "text",
            cell,
            {"a": 1, "b": {"c": "d"}},
            np.zeros((0, 0)),
            np.zeros((16, 16, 0)),
            np.zeros((16, 16, 4), complex),
            np.zeros((16, 16, 4), bool),
            csc_array((16, 16)),
            np.zeros((2, 2, 2, 2)),
            1,
            np.full((16, 16, 4), np.nan),
            np.full((16, 16, 4), 1e308),
            np.zeros((16, 16, 4), np.int8),
            np.array(["a", "bc"]),
        )
    )
