"""Graphs that ONNX Runtime refuses, or that are not what the manifest states, in one sentence."""

from __future__ import annotations

import json
import shutil

import pytest

from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime
from ssdiff_trt.runtime.backends.openvino import OpenVino
from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.errors import BackendError, BundleError
from ssdiff_trt.runtime.files import sha256_of
from ssdiff_trt.runtime.parity.ladder import random_tiles

onnx = pytest.importorskip("onnx")
FILE, WEIGHTS = "denoiser.fp32.contrib.onnx", "weights.fp32.safetensors"


@pytest.fixture
def damaged(bundle4, tmp_path):
    """A bundle with a graph that was changed, and with it its hash."""

    def damaged(change, of=FILE):
        folder = tmp_path / "b.ssdiff"
        shutil.copytree(bundle4.path, folder)
        file = folder / of
        if file.suffix == ".onnx":
            model = onnx.load(file, load_external_data=False)
            content = change(model)
            file.write_bytes(content if isinstance(content, bytes) else model.SerializeToString())
        else:
            file.write_bytes(change(file.read_bytes()))
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"][of] = sha256_of(file)
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return open_bundle(folder)

    return damaged


def a_node(model, kind):
    return next(node for node in model.graph.node if node.op_type == kind)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: b"",
        lambda model: b"no graph",
        lambda model: model.SerializeToString()[:-100],
        lambda model: model.ClearField("graph"),
        lambda model: model.ClearField("opset_import"),
        lambda model: model.graph.node.pop(),
        lambda model: a_node(model, "Conv").input.pop(0),
        lambda model: setattr(a_node(model, "Conv"), "op_type", "Unknown"),
        lambda model: setattr(a_node(model, "Conv"), "domain", "elsewhere"),
        lambda model: setattr(model.graph.initializer[0], "data_type", 99),
        lambda model: model.graph.initializer[0].dims.append(2**40),
    ],
)
def test_a_graph_that_cannot_be_opened_is_refused(damaged, change):
    opening = f"ONNX Runtime cannot open the graph .*b.ssdiff/{FILE} .*export it again"
    reading = rf"b.ssdiff/{FILE} is not an ONNX file \(.*export it again"
    with pytest.raises((BackendError, BundleError), match=f"{opening}|{reading}"):
        OnnxRuntime(damaged(change), form="contrib")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda model: b"no graph", "is not an ONNX file .*export it again"),
        (lambda model: model.graph.node.pop(), "OpenVINO cannot open the graph"),
        (lambda model: setattr(a_node(model, "Conv"), "op_type", "Unknown"), "cannot open the"),
        (lambda model: setattr(model.graph.input[0], "name", "y"), "OpenVINO cannot open|inputs y"),
    ],
)
def test_openvino_refuses_it_too(damaged, change, sentence):
    pytest.importorskip("openvino")
    with pytest.raises((BackendError, BundleError), match=sentence):
        OpenVino(damaged(change, of="denoiser.fp32.portable.onnx"))


def test_weights_that_end_early_are_refused(damaged):
    bundle = damaged(lambda content: content[: len(content) // 2], of=WEIGHTS)
    with pytest.raises(BackendError, match="ONNX Runtime cannot open the graph"):
        OnnxRuntime(bundle, form="contrib")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda graph: graph.input.add().CopyFrom(renamed(graph.input[0], "more")), "inputs"),
        (lambda graph: set_size(graph.input[1], 3, 64), "inputs"),
        (lambda graph: graph.output.add().CopyFrom(graph.output[0]), "outputs"),
    ],
)
def test_a_graph_with_other_inputs_or_outputs_is_refused(damaged, change, kind):
    def changed(model):
        change(model.graph)

    with pytest.raises((BundleError, BackendError), match=f"has the {kind} |cannot open"):
        OnnxRuntime(damaged(changed), form="contrib")


def renamed(value, name):
    copy = type(value)()
    copy.CopyFrom(value)
    copy.name = name
    return copy


def set_size(value, axis, size):
    value.type.tensor_type.shape.dim[axis].dim_value = size


def test_a_graph_that_fails_at_a_run_is_refused(bundle4):
    backend, tiles = OnnxRuntime(bundle4), random_tiles(4, 32, count=1)
    with pytest.raises(BackendError, match=r"ONNX Runtime cannot run the graph .*onnx .*export"):
        backend.denoise(tiles, tiles.noise[:, :, :16], 5)

    class Session:
        def run(self, names, inputs):
            return [inputs["x_t"][..., :16]]

    backend._session = Session()
    with pytest.raises(BackendError, match=r"it gives \[1, 4, 32, 16\], expected \[1, 4, 32, 32\]"):
        backend.denoise(tiles, tiles.noise, 5)
