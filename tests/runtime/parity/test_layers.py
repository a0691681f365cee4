"""Layers of a graph compared with those in FP32, and inputs saved to reproduce a deviation."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssdiff_trt.cli.trt import cli
from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime, open_session
from ssdiff_trt.runtime.errors import BackendError, OutputError
from ssdiff_trt.runtime.parity import layers as module
from ssdiff_trt.runtime.parity.ladder import random_tiles, real_tiles
from ssdiff_trt.runtime.parity.layers import Layer, Layers, compare_layers
from ssdiff_trt.runtime.parity.verification import verify
from ssdiff_trt.runtime.schedule import make_schedule
from tests.support.progress import RecordingProgress

GUIDE = Path(__file__).parents[3] / "docs/gpu.md"


@pytest.fixture
def inputs(bundle4):
    pytest.importorskip("polygraphy")
    model = bundle4.manifest.model
    noise, pan, lms, ms = real_tiles(model.bands, model.tile)
    times, coefficients = np.array([900], np.float32), np.array([1, 0, -1], np.float32)
    inputs = {"x_t": noise, "pan": pan, "lms": lms, "ms": ms}
    return inputs | {"t": times, "coefficients": coefficients}


def test_no_layer_of_a_sound_graph_differs(bundle4, inputs, capfd):
    found = compare_layers(bundle4, "onnxruntime", "fp16", inputs)
    assert (found.first, found.t) == (None, 900)
    assert len(found.layers) > 300
    differences = {layer.name: layer.difference for layer in found.layers}
    assert 1e-3 < max(differences.values()) < 1e-2
    assert 1e-5 < differences["x_next"] < 1e-2
    assert capfd.readouterr().out == ""  # of Polygraphy, which prints what it does


def scale_constant(bundle, name, output, factor):
    """Multiply the second input of the layer that gives ``output``, a constant in FP16."""
    import onnx

    model = onnx.load(bundle.path / name, load_external_data=False)
    (node,) = (node for node in model.graph.node if output in node.output)
    (constant,) = (one for one in model.graph.initializer if one.name == node.input[1])
    place = {entry.key: entry.value for entry in constant.external_data}
    content = bytearray((bundle.path / place["location"]).read_bytes())
    part = slice(int(place["offset"]), int(place["offset"]) + int(place["length"]))
    values = np.frombuffer(content[part], np.float16) * np.float16(factor)
    content[part] = values.tobytes()
    (bundle.path / place["location"]).write_bytes(content)


def test_the_first_layer_that_differs_is_the_one_that_was_damaged(bundle4, inputs, tmp_path):
    damaged = replace(bundle4, path=tmp_path / "damaged.ssdiff")
    shutil.copytree(bundle4.path, damaged.path)
    scale_constant(damaged, "step.fp16.portable.onnx", "conv2d_6", 1.5)
    found = compare_layers(damaged, "onnxruntime", "fp16", inputs)
    first = found.layers[found.first]
    assert (first.name, first.operator) == ("conv2d_6", "Conv")
    assert 0.1 < first.difference < 0.6


def test_a_layer_with_nan_differs():
    layers = (
        Layer(name="a", operator="Add", difference=0.0),
        Layer(name="b", operator="Add", difference=float("nan")),
        Layer(name="c", operator="Add", difference=1.0),
    )
    assert Layers(t=0, limit=0.1, layers=layers).first == 1
    assert Layers(t=0, limit=0.1, layers=layers[:1]).first is None


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_tensorrt_builds_the_graph_with_all_layers_as_outputs(bundle4, inputs, precision):
    trt = pytest.importorskip("tensorrt_rtx")
    content, shared = module.graphs(bundle4, precision)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(content[1]), parser.get_error(0)
    assert network.num_outputs == len(shared) > 300
    assert -1 not in network.get_input(0).shape
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    assert builder.build_serialized_network(network, config) is not None


def test_saved_inputs_are_those_of_each_step_of_the_reference(bundle4, tmp_path, monkeypatch):
    path = tmp_path / "inputs.npz"
    found = verify("generic4", "onnxruntime", "fp16", save_inputs=path)
    with np.load(path) as saved:
        inputs = dict(saved)
    schedule = make_schedule((999, *range(900, -1, -100)))
    steps = len(schedule.steps)
    assert inputs["t"].ravel().tolist() == 2 * [step.t for step in schedule.steps]
    assert {len(array) for array in inputs.values()} == {2 * steps}
    model = bundle4.manifest.model
    assert np.array_equal(inputs["x_t"][0], random_tiles(model.bands, model.tile).noise)
    assert np.array_equal(inputs["x_t"][steps], real_tiles(model.bands, model.tile).noise)
    reference = OnnxRuntime(bundle4, form="portable")
    tiles, x = random_tiles(model.bands, model.tile), inputs["x_t"][0]
    t, c0, c1 = schedule.steps[0]
    image = (reference.denoise(tiles, x, t) + tiles.lms).clip(0, 1)
    assert np.array_equal(inputs["x_t"][1], c0 * (image - tiles.lms) + c1 * x)
    assert found.layers is None
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    exec(code, names)
    feeds = list(names["load_data"]())
    assert len(feeds) == 2 * steps
    session = open_session(bundle4.path / "step.fp32.portable.onnx")
    (state,) = session.run(None, feeds[1])
    image = (reference.denoise(tiles, inputs["x_t"][1], schedule.steps[1].t) + tiles.lms).clip(0, 1)
    assert np.abs(state - (image - tiles.lms)).max() < 1e-5
    with pytest.raises(OutputError, match="exists; give another `save_inputs` or pass `overwrite`"):
        verify("generic4", "onnxruntime", "fp16", save_inputs=path)


def test_the_command_prints_and_writes_the_layers(inputs, capsys, tmp_path):
    words = ["verify", "generic4", "--backend", "onnxruntime", "--precision", "fp16", "--layers"]
    path = tmp_path / "found.json"
    assert cli.main([*words, "--json", str(path)], standalone_mode=False) == 0
    assert "324 layers compared at t = " in (printed := capsys.readouterr().out)
    assert "none differs by more than 0.03 of its own size in fp32; most by" in printed
    layers = json.loads(path.read_text())["layers"]["layers"]
    assert layers[-1]["name"] == "x_next"


def test_the_command_names_the_first_layer_that_differs(inputs, capsys, monkeypatch):
    monkeypatch.setitem(module.LIMITS, "fp16", 1e-3)
    words = ["verify", "generic4", "--backend", "onnxruntime", "--precision", "fp16", "--layers"]
    assert cli.main(words, standalone_mode=False) == 0
    *_, title, head, _, _, _, _, last, passed = capsys.readouterr().out.splitlines()
    name = last.split()[0]
    assert f"{name} is the first that differs by more than 0.001 of its own size" in title
    assert (head.split(), passed) == (["layer", "operator", "difference"], "passed")


@pytest.mark.parametrize("missing", ["onnx", "polygraphy"])
def test_layers_need_polygraphy(monkeypatch, missing):
    found = importlib.util.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == missing else found(name))
    progress = RecordingProgress()
    with pytest.raises(BackendError, match=rf"{missing} is not installed; .*\[debug\]"):
        verify("generic4", "onnxruntime", "fp16", layers=True, progress=progress)
    assert progress.total == 0
