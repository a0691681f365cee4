"""Weights in .safetensors, .pt and pickles, and the state of a training."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from tests.fuzz.bundles import content
from tests.fuzz.mutation import INTEGERS, TEXTS, damaged, hostile, replaced

RECIPE = """
bands = 4
validation_patches = 1
[[sources]]
name = "a"
scenes = 1
size = 64
[[stages]]
iterations = 1
patch = 16
batch = 1
"""


@cache
def weights() -> dict[str, torch.Tensor]:
    return load(content("weights.fp32.safetensors"))


def few() -> dict[str, torch.Tensor]:
    """Weights by the right names, the first of them only, which keeps files small."""
    return dict(list(weights().items())[:12])


def make(seed: int, folder: Path) -> list[str]:
    chance = random.Random(seed)
    torch.manual_seed(seed)
    way = chance.choice((safetensors, zipped, zipped, legacy, pickled, misnamed))
    written = way(chance)
    if chance.random() < 0.1:
        written = chance.choice((b"", b"\x80", b"PK\x03\x04", b"\x80\x02.", b"\x00" * 9, b"\n" * 9))
    name = chance.choice(("w.safetensors", "w.pt", "w.pth", "w.ckpt"))
    if chance.random() < 0.25:
        (folder / "run").mkdir()
        (folder / "run" / "state.pt").write_bytes(written)
        (folder / "recipe.toml").write_text(RECIPE)
        return ["ssdiff-ref", "train", "recipe.toml", "-o", "run"]
    (folder / name).write_bytes(written)
    key = ("--weights-key", chance.choice(("ema", *TEXTS[3:9]))) if chance.random() < 0.2 else ()
    # Whole weights are of 4 bands, which stops the export.
    return ["ssdiff-export", "--weights", name, "--sensor", "wv3", "-o", "out.ssdiff", *key]


def safetensors(chance: random.Random) -> bytes:
    written = content("weights.fp32.safetensors") if chance.random() < 0.2 else save(few())
    if chance.random() < 0.5:
        return damaged(written, chance)
    size = struct.unpack("<Q", written[:8])[0]
    header = json.loads(written[8 : 8 + size])
    changed = json.dumps(replaced(header, chance)).encode("utf-8", "surrogatepass")
    stated = len(changed) if chance.random() < 0.8 else chance.choice(INTEGERS) % 2**64
    return struct.pack("<Q", stated) + changed + written[8 + size :]


def odd_state(chance: random.Random) -> Any:
    """A state dict with something that does not belong there."""
    state: dict[Any, Any] = {**(weights() if chance.random() < 0.3 else few())}
    name = chance.choice(list(state))
    odd = chance.choice(
        (
            torch.zeros(0),
            torch.zeros(3, 0, 2),
            torch.tensor(1.0),
            torch.full(state[name].shape, torch.nan),
            state[name].to(torch.complex64),
            state[name].to(torch.int8),
            state[name].to(torch.bool),
            state[name].to(torch.float8_e4m3fn),
            state[name].to_sparse(),
            torch.zeros(1).expand(1 << 20, 1 << 20),
            torch.zeros(2, device="meta"),
            torch.nn.Parameter(torch.zeros(3)),
            np.zeros(3),
            hostile(chance),
        )
    )
    state[name] = odd
    if chance.random() < 0.2:
        state[chance.choice((0, None, b"x", ("a", 1), *TEXTS))] = odd
    for _ in range(chance.choice((0, 0, 1, 2, 30))):
        state = {chance.choice(("state_dict", "ema", "a.b", *TEXTS[:4])): state}
    if chance.random() < 0.1:
        state["self"] = state
    return state


def zipped(chance: random.Random) -> bytes:
    file = io.BytesIO()
    torch.save(odd_state(chance), file)
    if chance.random() < 0.4:
        return damaged(file.getvalue(), chance)
    if chance.random() < 0.5:
        return file.getvalue()
    # The archive is written again, with one member damaged past its checksum.
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = chance.choice([n for n in members if n.endswith(".pkl")] * 3 + list(members))
    members[name] = damaged(members[name], chance)
    if chance.random() < 0.1:
        del members[name]
    again = io.BytesIO()
    method = chance.choice((0, 0, 8))
    with zipfile.ZipFile(again, "w") as archive:
        for member, data in members.items():
            archive.writestr(zipfile.ZipInfo(member), data, method)  # not of the time of day
    return again.getvalue()


def legacy(chance: random.Random) -> bytes:
    file = io.BytesIO()
    torch.save(odd_state(chance), file, _use_new_zipfile_serialization=False)
    return damaged(file.getvalue(), chance) if chance.random() < 0.6 else file.getvalue()


class Elsewhere:
    """Unpickled by a call that must not happen."""

    def __reduce__(self) -> Any:
        return open, ("../executed", "w")


def pickled(chance: random.Random) -> bytes:
    value = chance.choice(
        ({"a": Elsewhere()}, [1] * 3, hostile(chance), {"a": np.arange(3)}, object(), 2**70)
    )
    written = pickle.dumps(value, protocol=chance.choice((2, 4)))
    if chance.random() < 0.3:
        return b"\x80\x02" + chance.choice((b"(", b"]", b"}", b"\x8e" + b"\xff" * 8, b"h\xff."))
    if chance.random() < 0.2:
        return b"\x80\x02" + b"(" * 50_000 + b"t" * 50_000 + b"."
    return damaged(written, chance) if chance.random() < 0.5 else written


def misnamed(chance: random.Random) -> bytes:
    """Something else altogether."""
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3))
    return chance.choice((file.getvalue(), b"MZ" + bytes(99), b"<html>", chance.randbytes(300)))
