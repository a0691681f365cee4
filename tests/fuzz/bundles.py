"""Bundles whose manifest, graph or weights are damaged, with hashes that fit the damage."""

from __future__ import annotations

import json
import os
import random
from functools import cache
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor

from ssdiff_trt.runtime.bundle.store import CHECKPOINT, MANIFEST, SHIPPED
from ssdiff_trt.runtime.files import sha256_of
from tests.fuzz.mutation import INTEGERS, NUMBERS, TEXTS, damaged, replaced
from tests.support.rasters import PairMaker

GRAPH = "denoiser.fp32.contrib.onnx"
ORIGIN = SHIPPED / "generic4.ssdiff"


@cache
def content(name: str) -> bytes:
    return (ORIGIN / name).read_bytes()


@cache
def manifest() -> Any:
    """The manifest of a bundle with one graph, short."""
    full = json.loads(content(MANIFEST))
    full["graphs"] = [graph for graph in full["graphs"] if graph["file"] == GRAPH]
    full["files"] = {name: full["files"][name] for name in (GRAPH, CHECKPOINT)}
    full["sampler"]["timesteps"] = [999]
    for parity in full["parity"]:
        del parity["trajectories"][1:]
    return full


def make(seed: int, folder: Path) -> list[str]:
    chance = random.Random(seed)
    bundle = folder / "b.ssdiff"
    bundle.mkdir()
    document = json.loads(json.dumps(manifest()))
    graph, weights = content(GRAPH), content(CHECKPOINT)
    target = chance.choice(("manifest", "manifest", "bytes", "graph", "graph", "weights", "files"))
    if target == "graph":
        graph = odd_graph(graph, chance)
    elif target == "bytes":
        graph = damaged(graph, chance)
    elif target == "weights":
        weights = chance.choice((b"", b"{", damaged(weights, chance), weights[: len(weights) // 2]))
    (bundle / GRAPH).write_bytes(graph)
    (bundle / CHECKPOINT).write_bytes(weights)
    if target == "files":
        odd_files(bundle, document, chance)
    for name in (GRAPH, CHECKPOINT):
        if (bundle / name).is_file():
            document["files"][name] = sha256_of(bundle / name)
    text = json.dumps(replaced(document, chance) if target == "manifest" else document)
    if target == "manifest" and chance.random() < 0.3:
        text = chance.choice((text[:-20], "[" * 100_000, "", "1e999", f"[{text}]", "\ufeff" + text))
    if not os.path.lexists(bundle / MANIFEST):
        (bundle / MANIFEST).write_bytes(text.encode("utf-8", "surrogatepass"))
    if target in ("manifest", "files") and chance.random() < 0.7:
        return ["ssdiff-trt", "info", "b.ssdiff", *chance.choice(((), ("--json", "info.json")))]
    PairMaker(folder)(64, 64)
    if target == "weights" and chance.random() < 0.5:
        return ["ssdiff-export", "--weights", "b.ssdiff", "--sensor", "wv3", "-o", "out.ssdiff"]
    return ["ssdiff-trt", "run", "pan.tif", "ms.tif", "--bundle", "b.ssdiff", "-o", "out.tif"]


def odd_files(bundle: Path, document: Any, chance: random.Random) -> None:
    """Files that are none, are elsewhere, or are named oddly."""
    way = chance.randrange(6)
    name = chance.choice((GRAPH, CHECKPOINT))
    if way == 0:
        (bundle / name).unlink()
        (bundle / name).mkdir()
    elif way == 1:
        (bundle / name).unlink()
        (bundle / name).symlink_to(chance.choice((name, "/dev/null", "/nowhere", "..")))
    elif way == 2:
        (bundle / MANIFEST).mkdir()
    elif way == 3:
        (bundle / MANIFEST).symlink_to(MANIFEST)
    else:
        document["files"][chance.choice(TEXTS)] = "0" * 64


def odd_graph(serialised: bytes, chance: random.Random) -> bytes:
    """A graph with one to three fields of its messages changed."""
    model = onnx.ModelProto.FromString(serialised)
    for _ in range(chance.choice((1, 1, 2, 3))):
        change(model, chance)
    return model.SerializeToString()


def change(message: Any, chance: random.Random) -> None:
    """Change one field somewhere in a message of protobuf."""
    fields = [field for field, _ in message.ListFields()]
    field = chance.choice(
        fields if fields and chance.random() < 0.95 else message.DESCRIPTOR.fields
    )
    value = getattr(message, field.name)
    if repeated(field):
        place = chance.randrange(len(value)) if len(value) else 0
        way = chance.random()
        if not len(value) or way < 0.1:
            del value[:]
        elif way < 0.25:
            del value[place]
        elif field.type != FieldDescriptor.TYPE_MESSAGE:
            value[place] = scalar(field, chance)
        elif way < 0.35:
            value.add().CopyFrom(value[place])
        else:
            change(value[place], chance)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        if chance.random() < 0.1:
            message.ClearField(field.name)
        else:
            change(value, chance)
    elif chance.random() < 0.2:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, scalar(field, chance))


def repeated(field: Any) -> bool:
    if hasattr(field, "is_repeated"):
        return bool(field.is_repeated)
    return bool(field.label == FieldDescriptor.LABEL_REPEATED)


def scalar(field: Any, chance: random.Random) -> Any:
    """A value of a field's type."""
    kind = field.type
    if kind in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return float(chance.choice([n for n in NUMBERS if abs(n) < 1e38 or n != n]))
    text = chance.choice((*TEXTS, "Conv", "Add", "weights.fp32.safetensors", "/etc/passwd", "x0"))
    if kind == FieldDescriptor.TYPE_STRING:
        return text.encode("utf-8", "replace").decode()
    if kind == FieldDescriptor.TYPE_BYTES:
        return text.encode("utf-8", "replace")
    if kind == FieldDescriptor.TYPE_ENUM:
        return chance.choice(field.enum_type.values).number
    wide = kind in (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64)
    number = chance.choice(INTEGERS) % (2**63 if wide else 2**31)
    return number if chance.random() < 0.8 or "U" in str(kind) else -number
