"""Sensitivity studies of a bundle whose graph, of two small layers, is damaged."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from safetensors.numpy import save

from ssdiff_trt.calibration.samples import digest
from ssdiff_trt.runtime.bundle.manifest import Model, graph_io
from ssdiff_trt.runtime.bundle.store import CHECKPOINT, MANIFEST
from ssdiff_trt.runtime.files import sha256_of
from tests.fuzz.bundles import change, manifest
from tests.fuzz.mutation import damaged
from tests.fuzz.samples import about, arrays
from tests.support.rasters import PairMaker

GRAPH, TILE = "denoiser.fp32.fused.onnx", 16
WEIGHTS = {
    "conv": np.random.default_rng(0).normal(size=(4, 4, 1, 1)).astype(np.float32),
    "matrix": np.eye(TILE, dtype=np.float32),
}


@cache
def graph() -> bytes:
    """A graph with the inputs and outputs of a denoiser, and constants in the weights file."""
    stated = graph_io("denoiser", Model(bands=4, tile=TILE))
    inputs, outputs = (
        [helper.make_tensor_value_info(one.name, onnx.TensorProto.FLOAT, one.shape) for one in side]
        for side in stated
    )
    nodes = [
        helper.make_node("Conv", ["x_t", "conv"], ["a"], name="spatial.0.conv1/Conv"),
        helper.make_node("MatMul", ["a", "matrix"], ["b"], name="fusions.0.apfm.out/MatMul"),
        helper.make_node("Sub", ["b", "lms"], ["x0"], name="head/Sub"),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in WEIGHTS.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "denoiser", inputs, outputs, constants),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    content = save(WEIGHTS)
    for tensor in model.graph.initializer:
        offset = content.index(tensor.raw_data)
        onnx.external_data_helper.set_external_data(
            tensor, CHECKPOINT, offset, len(tensor.raw_data)
        )
        tensor.ClearField("raw_data")
    return bytes(model.SerializeToString())


def bundle(folder: Path, serialised: bytes) -> None:
    """A bundle with one graph."""
    folder.mkdir()
    (folder / GRAPH).write_bytes(serialised)
    (folder / CHECKPOINT).write_bytes(save(WEIGHTS))
    document = json.loads(json.dumps(manifest()))
    document["model"]["tile"] = TILE
    document["parity"] = []
    text = json.dumps(document["graphs"][0]).replace("contrib", "fused")
    sides = graph_io("denoiser", Model(bands=4, tile=TILE))
    graph = json.loads(text)
    graph["inputs"], graph["outputs"] = ([one.model_dump() for one in side] for side in sides)
    document["graphs"] = [graph]
    document["files"] = {name: sha256_of(folder / name) for name in (GRAPH, CHECKPOINT)}
    (folder / MANIFEST).write_text(json.dumps(document))


def samples(path: Path) -> None:
    """Calibration samples that fit the bundle."""
    members = {
        name: np.full((*array.shape[:-2], array.shape[-2] // 4, array.shape[-1] // 4), 0.25)
        for name, array in arrays().items()
    }
    members["states"] = members["states"][:1]
    document = about() | {"tile": TILE, "weights": digest(WEIGHTS), "timesteps": [999]}
    with path.open("wb") as file:
        np.savez(file, about=np.array(json.dumps(document)), **members)


def make(seed: int, folder: Path) -> list[str]:
    chance = random.Random(seed)
    model: Any = onnx.ModelProto.FromString(graph())
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
        change(model.graph if chance.random() < 0.8 else model, chance)
    content = model.SerializeToString()
    bundle(folder / "b.ssdiff", damaged(content, chance) if chance.random() < 0.2 else content)
    if chance.random() < 0.1:
        PairMaker(folder)(64, 64)
        return ["ssdiff-trt", "run", "pan.tif", "ms.tif", "--bundle", "b.ssdiff", "-o", "out.tif"]
    samples(folder / "s.npz")
    words = ["ssdiff-calibrate", "sensitivity", "s.npz", "--bundle", "b.ssdiff"]
    words += ["--max-ergas-loss", chance.choice(("90%", "1%"))]
    return [*words, *chance.choice(((), ("--ranges", "entropy"), ("--ranges", "percentile")))]
