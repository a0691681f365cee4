"""From weights to graphs: what is in them, and who takes them."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
import torch

from export.bundle import export_bundle
from export.graph import OPSET
from export.parity import deviation, random_tiles, real_tiles, refuse_beyond_tolerance
from runtime.backends.onnxruntime import OnnxRuntime
from runtime.bundle import Parity, StepParity, Trajectory, open_bundle
from runtime.errors import SSDiffError
from ssdiff_ref.checkpoint import load_checkpoint
from ssdiff_ref.network import SSNet
from tests.golden_weights import golden_arrays, golden_state

FORBIDDEN = {"DFT", "ScatterND", "If", "Loop", "Scan", "RandomNormal", "Resize"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "golden8.pt"
    torch.save(golden_state(8), path)
    return path


@pytest.fixture(scope="module")
def bundle8(weights, tmp_path_factory):
    """An export of the golden weights, which the whole parity was part of."""
    output = tmp_path_factory.mktemp("bundles") / "golden8.ssdiff"
    return export_bundle(weights, "wv3", output, timesteps=(900, 500, 0))


def test_the_manifest_tells_what_was_exported(bundle8):
    manifest = open_bundle(bundle8.path).manifest
    assert (manifest.name, manifest.model.bands, manifest.model.tile) == ("golden8", 8, 64)
    assert manifest.sensor.name == "wv3"
    assert manifest.sensor.full_scale == 2047
    assert manifest.sampler.timesteps == (900, 500, 0)
    assert [(g.form, g.opset) for g in manifest.graphs] == [("portable", 18), ("fused", 23)]
    assert manifest.provenance.weights == "golden8.pt"


def test_parity_was_measured_at_every_step_of_both_kinds_of_tiles(bundle8):
    parity = bundle8.manifest.parity
    assert [t.inputs for t in parity.trajectories] == ["random", "real"]
    for trajectory in parity.trajectories:
        assert [step.t for step in trajectory.steps] == list(range(900, -1, -100))
        for step in trajectory.steps:
            assert set(step.deviations) == {
                f"{engine} {form}" for engine in ("torch", "onnxruntime") for form in OPSET
            }
            for found in step.deviations.values():
                assert 0 < found.rmse <= found.max <= 2e-5
                assert found.psnr == pytest.approx(-20 * np.log10(found.rmse))


@pytest.mark.parametrize("form", OPSET)
def test_graphs_give_the_released_outputs(bundle8, form):
    golden = golden_arrays(8)
    backend = OnnxRuntime(bundle8, form=form)
    for t in (0, 7, 500, 999):
        inputs = (golden[name] for name in ("x_T", "pan", "lms", "ms"))
        x0 = backend.denoise(*inputs, np.array([t], np.float32))
        np.testing.assert_allclose(x0, golden[f"forward_t{t}"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("form", OPSET)
def test_graphs_hold_only_what_engines_take(bundle8, form):
    model = onnx.load(bundle8.path / f"denoiser.fp32.{form}.onnx")
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET[form])]
    operators = [node.op_type for node in model.graph.node]
    assert not FORBIDDEN & set(operators)
    assert operators.count("Attention") == (5 if form == "fused" else 0)
    batch = [value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.input]
    assert batch == ["batch"] * 5
    assert "/" not in "".join(p.value for n in model.graph.node for p in n.metadata_props)


def test_both_graphs_share_one_file_of_weights(bundle8):
    assert {path.name for path in bundle8.path.iterdir()} == {
        "manifest.json",
        "denoiser.fp32.safetensors",
        "denoiser.fp32.portable.onnx",
        "denoiser.fp32.fused.onnx",
    }
    parameters = sum(p.numel() for p in SSNet(8).parameters())
    assert (bundle8.path / "denoiser.fp32.safetensors").stat().st_size < 4.3 * parameters


def test_graphs_take_batches_of_any_size_and_a_timestep_per_item(bundle8):
    tiles = random_tiles(8, 64, count=3)
    backend = OnnxRuntime(bundle8)
    t = np.array([999, 400, 0], np.float32)
    together = backend.denoise(**tiles, t=t)
    for i in range(3):
        alone = backend.denoise(**{k: a[i : i + 1] for k, a in tiles.items()}, t=t[i : i + 1])
        np.testing.assert_array_equal(together[i : i + 1], alone)


def test_another_tile_size(weights, tmp_path):
    bundle = export_bundle(weights, "wv3", tmp_path / "small.ssdiff", tile=32)
    assert bundle.manifest.model.tile == 32
    x0 = OnnxRuntime(bundle).denoise(**random_tiles(8, 32), t=np.zeros(2, np.float32))
    assert x0.shape == (2, 8, 32, 32)


@pytest.mark.parametrize("form", OPSET)
def test_tensorrt_parses_and_builds_the_graphs(bundle8, form):
    """TensorRT-RTX needs no GPU to build for one; only running does."""
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel for this platform")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    path = bundle8.path / f"denoiser.fp32.{form}.onnx"
    assert parser.parse_from_file(str(path)), [
        str(parser.get_error(i)) for i in range(parser.num_errors)
    ]
    for layer in (network.get_layer(i) for i in range(network.num_layers)):
        if layer.type == trt.LayerType.ATTENTION_INPUT:
            # No fused kernel takes FP32 with a dynamic batch; by default that is an error.
            layer.__class__ = trt.IAttentionInputLayer
            layer.attention.decomposable = True
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        shapes = [(batch, *tuple(tensor.shape)[1:]) for batch in (1, 4, 16)]
        profile.set_shape(tensor.name, *shapes)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    assert len(memoryview(engine)) > 4_000_000


def test_real_tiles_are_what_they_say(bundle8):
    tiles = real_tiles(8, 64)
    assert tiles["pan"].shape == (2, 1, 64, 64)
    assert tiles["ms"].shape == (2, 8, 16, 16)
    assert 0 < tiles["ms"].min() < tiles["ms"].max() < 1
    # PAN and the visible bands of one place go together.
    visible = tiles["lms"][:, :4].mean(axis=1)
    assert np.corrcoef(tiles["pan"][:, 0].ravel(), visible.ravel())[0, 1] > 0.8
    assert real_tiles(4, 144)["lms"].shape == (2, 4, 144, 144)


def parity_of(x0, image):
    zero = np.zeros((1, 4, 8, 8), np.float32)
    step = StepParity(t=7, deviations={"torch": deviation(zero + x0, zero)})
    walk = Trajectory(inputs="real", steps=(step,), image={"torch": deviation(zero + image, zero)})
    return Parity(tolerance=2e-5, reference="zero", trajectories=(walk,))


def test_parity_refuses_what_is_off_and_says_where():
    refuse_beyond_tolerance(parity_of(1.9e-5, 1.9e-5))
    with pytest.raises(SSDiffError, match=r"on real tiles at t = 7: torch is off by 3.00e-05"):
        refuse_beyond_tolerance(parity_of(3e-5, 0))
    with pytest.raises(SSDiffError, match="in the image"):
        refuse_beyond_tolerance(parity_of(0, 3e-5))
    with pytest.raises(SSDiffError, match="off by nan"):
        refuse_beyond_tolerance(parity_of(np.nan, 0))


def test_an_export_that_fails_parity_leaves_no_bundle(weights, tmp_path, monkeypatch):
    monkeypatch.setattr("export.parity.TOLERANCE", 1e-9)
    with pytest.raises(SSDiffError, match="Parity fails on random tiles at t = 999"):
        export_bundle(weights, "wv3", tmp_path / "off.ssdiff", tile=16)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tile": 40}, "A tile of 40 pixels does not work; give a multiple of 16"),
        ({"sensor": "qb"}, "QuickBird has 4 bands and the weights have 8"),
        ({"sensor": "hubble"}, "The sensor 'hubble' is unknown; choose one of wv2, "),
        ({"timesteps": ()}, "not a schedule"),
        ({"weights": "nothing.pt"}, "There is no weights file nothing.pt"),
        ({"full_scale": -1.0}, "A full scale of -1 does not work"),
    ],
)
def test_exports_that_make_no_sense_are_refused(weights, tmp_path, options, sentence):
    given = {"weights": weights, "sensor": "wv3", "output": tmp_path / "b.ssdiff"} | options
    with pytest.raises(SSDiffError, match=sentence):
        export_bundle(**given)
    assert not os.listdir(tmp_path)


def test_existing_things_are_not_overwritten(weights, tmp_path):
    existing = tmp_path / "b.ssdiff"
    existing.mkdir()
    (existing / "thesis.txt").write_text("precious")
    with pytest.raises(SSDiffError, match="exists; choose another name or pass --overwrite"):
        export_bundle(weights, "wv3", existing)
    with pytest.raises(SSDiffError, match="is not a bundle; it will not be overwritten"):
        export_bundle(weights, "wv3", existing, overwrite=True)
    assert (existing / "thesis.txt").read_text() == "precious"


def test_a_bundle_is_the_checkpoint_that_it_was_made_from(bundle8, weights):
    again = load_checkpoint(bundle8.path).net.state_dict()
    first = load_checkpoint(weights).net.state_dict()
    assert all(torch.equal(again[name], first[name]) for name in first)
