"""What a program without this package needs to run a step graph, and one that does."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from ssdiff_trt.cli.trt import cli
from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime
from ssdiff_trt.runtime.bundle.contract import contract_of
from ssdiff_trt.runtime.bundle.manifest import graph_io
from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.parity.ladder import real_tiles
from ssdiff_trt.runtime.schedule import make_schedule, sample
from tests.support.engines import engine_tiles, residual, step
from tests.support.fake_gpu import FakeEngine, fake_tensorrt
from tests.support.rasters import EXAMPLE

LOOP = EXAMPLE.parent / "loop_onnxruntime.py"


def module_of(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def loop():
    return module_of(LOOP)


def with_two_steps():
    """The shipped bundle with two sampling steps."""
    bundle = open_bundle("generic4")
    changed = bundle.manifest.sampler.model_copy(update={"timesteps": (999, 68)})
    manifest = bundle.manifest.model_copy(update={"sampler": changed})
    return type(bundle)(bundle.path, manifest, bundle.sha256)


def written(path, *more):
    done = CliRunner().invoke(cli, ["contract", "generic4", "-o", str(path), *more])
    assert done.exit_code == 0, done.output
    return json.loads(path.read_text())


def test_the_loop_of_the_example_gives_the_images_of_a_run(loop, tmp_path):
    bundle, tiles = open_bundle("generic4"), real_tiles(4, 32)
    count = len(tiles.pan)
    contract = written(tmp_path / "step.json", "--batch", str(count))
    noise = np.random.default_rng(7).standard_normal(tiles.lms.shape, np.float32)
    schedule = make_schedule([int(step["t"]) for step in contract["steps"]])
    (expected,) = OnnxRuntime(bundle).sample([tiles._replace(noise=noise)], schedule)
    images = loop.sample(contract, bundle.path, tiles._asdict(), seed=7)
    np.testing.assert_allclose(images, expected, atol=2e-5)
    assert np.abs(images - tiles.lms).max() > 0.01


def test_the_example_is_a_program(tmp_path):
    tiles = real_tiles(4, 32)._asdict()
    count = len(tiles.pop("noise"))
    contract = written(tmp_path / "step.json", "--batch", str(count))
    np.savez(tmp_path / "tiles.npz", **tiles)
    arguments = [tmp_path / "step.json", open_bundle("generic4").path, tmp_path / "tiles.npz"]
    words = [sys.executable, LOOP, *arguments, tmp_path / "image.npy"]
    subprocess.run([str(word) for word in words], check=True)
    image = np.load(tmp_path / "image.npy")
    assert image.shape == tuple(contract["outputs"][0]["shape"]) == (count, 4, 32, 32)
    assert image.min() >= 0
    assert 0.05 < image.max() <= 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"version": 2}, "contract of version 2"), ({}, r"pan is \(1, 1, 32, 32\), expected \(2,")],
)
def test_the_example_refuses_what_it_does_not_know(loop, tmp_path, change, sentence):
    contract = written(tmp_path / "step.json", "--batch", "2") | change
    tiles = real_tiles(4, 32).part(slice(1))._asdict()
    with pytest.raises(ValueError, match=sentence):
        loop.sample(contract, open_bundle("generic4").path, tiles)


def test_the_loop_with_pycuda_gives_the_images_of_the_loop_in_numpy(driver, monkeypatch):
    cuda = pytest.importorskip("pycuda.driver", reason="pycuda is missing; see make test-bindings")
    two = with_two_steps()
    contract = contract_of(two, two.graph("step", "fp16", "portable"), 4).model_dump(mode="json")
    inputs, outputs = graph_io("step", two.manifest.model)
    specs = {spec.name: spec for spec in (*inputs, *outputs)}
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(FakeEngine(driver, specs, step, 4)))
    loop = module_of(LOOP.with_name("loop_tensorrt.py"))
    tiles = engine_tiles(4)
    noise = np.random.default_rng(7).standard_normal(tiles.noise.shape, np.float32)
    cuda.init()
    primary = cuda.Device(0).retain_primary_context()
    primary.push()
    try:
        images = loop.sample(contract, b"engine", tiles._asdict(), seed=7)
    finally:
        primary.pop()
    expected = sample(
        lambda x, t: residual(x, tiles.pan, tiles.lms, tiles.ms, np.full(4, t, np.float32)),
        *(tiles.lms, noise, make_schedule((999, 68))),
    )
    np.testing.assert_allclose(images, expected, rtol=0, atol=2e-6)


def test_a_contract_has_the_steps_of_the_bundle_and_the_shapes_of_the_graph():
    two = with_two_steps()
    contract = contract_of(two, two.graph("step", "fp32", "portable"), 4)
    schedule = make_schedule((999, 68))
    assert [step.t for step in contract.steps] == [999, 68]
    table = [step.coefficients for step in contract.steps]
    np.testing.assert_array_equal(np.float32(table), schedule.updates)
    shapes = {tensor.name: tensor.shape for tensor in contract.inputs}
    assert shapes["ms"] == (4, 4, 8, 8)
    assert shapes["t"] == (4,)
    assert contract.outputs[0].shape == (4, 4, 32, 32)
    assert "--shapes=x_t:4x4x32x32,pan:4x1x32x32,lms:4x4x32x32,ms:4x4x8x8,t:4" in contract.trtexec
    assert contract.engine is None


def test_mistakes_are_one_sentence(tmp_path):
    for words, sentence in (
        (["nothing", "-o", "x.json"], "nothing"),
        (["generic4", "-o", str(tmp_path / "x.json"), "--batch", "0"], "1 or more"),
        (["generic4", "-o", str(tmp_path / "x.json"), "--precision", "int8"], "no .*int8"),
    ):
        done = CliRunner().invoke(cli, ["contract", *words])
        assert done.exit_code != 0
        assert re.search(sentence, str(done.exception) + done.output), done.output
    assert not list(tmp_path.iterdir())
