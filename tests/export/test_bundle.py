"""Export of weights: the content of the graphs, their parity and their precision."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from ssdiff_ref.network.checkpoint import load_checkpoint
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_trt.cli.export import cli
from ssdiff_trt.export.bundle import export_bundle
from ssdiff_trt.export.graph import network_for_export, opset
from ssdiff_trt.export.parity import check_limits, measure_lowering, without_inexact
from ssdiff_trt.export.precision import Lowered, MagnitudeRecorder, ShuffledConvolution, Step
from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime
from ssdiff_trt.runtime.bundle.manifest import FORMS, ROLES, kinds
from ssdiff_trt.runtime.bundle.measured import Judgement, Limits, Parity, StepParity, Trajectory
from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.parity.ladder import LIMITS, deviation, faults, random_tiles, real_tiles
from ssdiff_trt.runtime.schedule import make_schedule
from tests.support.golden import golden_arrays
from tests.support.progress import RecordingProgress

FORBIDDEN = {"DFT", "ScatterND", "If", "Loop", "Scan", "RandomNormal", "Resize"}
PRECISIONS = ("fp32", "fp16", "bf16")


def test_the_manifest_records_what_was_exported(bundle8):
    manifest = open_bundle(bundle8.path).manifest
    assert (manifest.name, manifest.model.bands, manifest.model.tile) == ("golden8", 8, 64)
    assert manifest.sensor.name == "wv3"
    assert manifest.sensor.full_scale == 2047
    assert manifest.sampler.timesteps == (900, 500, 0)
    assert [(g.role, g.form, g.opset) for g in manifest.graphs] == [
        ("denoiser", "portable", 18),
        ("denoiser", "fused", 23),
        ("step", "portable", 18),
        ("step", "fused", 23),
        ("denoiser", "contrib", 18),
    ]
    assert manifest.provenance.weights == "golden8.pt"


def test_parity_is_measured_at_every_step_on_random_and_on_real_tiles(bundle8):
    (parity,) = bundle8.manifest.parity
    assert (parity.precision, parity.limits) == ("fp32", LIMITS["fp32"])
    assert [t.inputs for t in parity.trajectories] == ["random", "real"]
    for trajectory in parity.trajectories:
        assert [step.t for step in trajectory.steps] == list(range(900, -1, -100))
        for step in trajectory.steps:
            assert set(step.deviations) == {
                "torch portable",
                "torch fused",
                *(f"onnxruntime {form} {role}" for role, form in kinds("fp32")),
            }
            assert 0 < step.rounding.rmse < step.rounding.max < 4e-6
            for measured in step.deviations.values():
                assert 0 < measured.rmse <= measured.max <= 4 * max(step.rounding.max, 2**-23)
                assert measured.psnr == pytest.approx(-20 * np.log10(measured.rmse))


def test_low_precision_is_within_its_limits_with_a_margin(low4):
    """The limits are an RMSE of 1e-3 at every step and a PSNR of 60 dB at the last."""
    assert [parity.precision for parity in low4.manifest.parity] == list(PRECISIONS)
    margins = zip(low4.manifest.parity[1:], (2e-4, 9e-4), (78, 61), strict=True)
    for parity, max_rmse, min_psnr in margins:
        assert parity.limits == LIMITS[parity.precision]
        steps = [s.deviations for t in parity.trajectories for s in t.steps]
        names = {name.split()[0] for step in steps for name in step}
        assert names == ({"torch"} if parity.precision == "bf16" else {"torch", "onnxruntime"})
        assert 1e-6 < max(d.rmse for step in steps for d in step.values()) < max_rmse
        assert (
            min(d.psnr for t in parity.trajectories for d in t.steps[-1].deviations.values())
            > min_psnr
        )


@pytest.mark.parametrize("form", FORMS)
def test_graphs_reproduce_the_outputs_of_the_released_network(bundle8, form):
    golden = golden_arrays(8)
    tiles = random_tiles(8, 64)._replace(**{n: golden[n] for n in ("pan", "lms", "ms")})
    backend = OnnxRuntime(bundle8, form=form)
    for t in (0, 7, 500, 999):
        x0 = backend.denoise(tiles, golden["x_T"], t)
        np.testing.assert_allclose(x0, golden[f"forward_t{t}"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("form", ["portable", "fused"])
@pytest.mark.parametrize("role", ROLES)
def test_graphs_have_only_operators_that_engines_support(low4, role, form, precision):
    graph = low4.graph(role, precision, form)
    model = onnx.load(low4.path / graph.file)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", opset(form, precision))]
    operators = [node.op_type for node in model.graph.node]
    assert not FORBIDDEN & set(operators)
    assert operators.count("Attention") == (5 if form == "fused" else 0)
    shapes = {v.name: v.type.tensor_type.shape.dim for v in model.graph.input}
    assert shapes.pop("coefficients", [None])[0] is None or role == "step"
    assert [dims[0].dim_param for dims in shapes.values()] == ["batch"] * 5
    assert "/" not in "".join(p.value for n in model.graph.node for p in n.metadata_props)


def test_the_graph_for_the_cpu_has_the_attention_operator_of_onnx_runtime(bundle8):
    model = onnx.load(bundle8.path / bundle8.graph("denoiser", "fp32", "contrib").file)
    domains = {o.domain: o.version for o in model.opset_import}
    assert domains == {"": 18, "com.microsoft": 1}
    contrib = [node for node in model.graph.node if node.domain == "com.microsoft"]
    assert [node.op_type for node in contrib] == ["MultiHeadAttention"] * 5
    assert [node.attribute[0].i for node in contrib] == [2, 4, 8, 4, 2]  # heads of 16 channels


def test_nodes_are_named_by_their_layers(bundle8):
    names_by_graph = [
        {node.name for node in onnx.load(bundle8.path / g.file).graph.node}
        for g in bundle8.manifest.graphs
    ]
    modules = dict(SSNet(8).named_modules())
    for names in names_by_graph:
        assert {name.partition("/")[0] for name in names} <= {*modules, "step"}
        assert {"spatial.2.conv1/Conv", "fusions.4.apfm.sa2/MatMul", "head.2/Conv"} <= names


@pytest.mark.parametrize(("precision", "code"), [("fp16", 10), ("bf16", 16)])
@pytest.mark.parametrize("form", ["portable", "fused"])
def test_heavy_operators_are_in_low_precision_and_norms_in_fp32(low4, form, precision, code):
    """In a strongly typed build, TensorRT takes these types from the graph."""
    path = low4.path / low4.graph("denoiser", precision, form).file
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    operator_types = {}
    for node in graph.node:
        operator_types.setdefault(node.op_type, set()).add(types.get(node.output[0]))
    for operator in ("Conv", "Softmax", "LeakyRelu"):
        assert operator_types[operator] == {code}
    for operator in ("LayerNormalization", "BatchNormalization", "Cos"):
        assert operator_types[operator] == {1}
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.elem_type == 1


def test_the_graphs_of_a_precision_share_one_weights_file(low4):
    files = {path.name: path.stat().st_size for path in low4.path.iterdir()}
    assert set(files) == {
        "manifest.json",
        *(f"weights.{p}.safetensors" for p in PRECISIONS),
        *(f"{r}.{p}.{f}.onnx" for p in PRECISIONS for r, f in kinds(p)),
    }
    parameters = sum(p.numel() for p in SSNet(4).parameters())
    assert files["weights.fp32.safetensors"] < 4.3 * parameters
    assert files["weights.fp16.safetensors"] < 3 * parameters


def test_graphs_accept_batches_of_any_size(bundle8):
    tiles = random_tiles(8, 64, count=3)
    backend = OnnxRuntime(bundle8)
    batched = backend.denoise(tiles, tiles.noise, 400)
    for i in range(3):
        one = slice(i, i + 1)
        single = backend.denoise(tiles.part(one), tiles.noise[one], 400)
        np.testing.assert_array_equal(batched[one], single)


def test_the_step_graph_computes_the_updates_of_the_schedule(bundle8):
    """The step graph with the coefficients of the schedule, against the sampling loop in numpy."""
    tiles = random_tiles(8, 64)
    for sampler in ("consistent", "released"):
        schedule = make_schedule((900, 400, 30), sampler)
        (expected,) = OnnxRuntime(bundle8).sample([tiles], schedule)
        session = OnnxRuntime(bundle8, role="step")._session
        x = tiles.noise
        for step, update in zip(schedule.steps, schedule.updates, strict=True):
            feed = {"x_t": x, "t": np.full(1, step.t, np.float32), "coefficients": update}
            feed |= {"pan": tiles.pan, "lms": tiles.lms, "ms": tiles.ms}
            (x,) = session.run(["x_next"], feed)
        np.testing.assert_allclose(x, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("where", ["pan", "lms"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_step_keeps_non_finite_values(low4, value, where):
    """A clamp alone would turn them into 0 or 1, and they could not be detected."""
    tiles = random_tiles(4, 32)
    getattr(tiles, where)[0, 0, 10, 10] = value
    for precision in ("fp32", "fp16"):
        session = OnnxRuntime(low4, role="step", precision=precision)._session
        feed = {"x_t": tiles.noise, "t": np.full(1, 500, np.float32), "pan": tiles.pan}
        feed |= {"lms": tiles.lms, "ms": tiles.ms, "coefficients": np.float32([1, 0, 0])}
        (image,) = session.run(["x_next"], feed)
        if precision == "fp32" and np.isfinite(value) and where == "pan":
            continue  # whether the network overflows is its own affair
        representable = np.isfinite(value) and not (precision == "fp16" and value > 65504)
        assert np.isfinite(image).all() == representable


def test_lowering_records_the_modules_in_fp32_and_the_largest_magnitude(low4):
    fp16, bf16 = low4.manifest.lowering
    assert (fp16.precision, bf16.precision) == ("fp16", "bf16")
    assert [line.split(":")[0] for line in fp16.kept] == [
        "1 TimeEmbedding",
        "6 TimeBias",
        "2 BatchNorm2d",
        "5 FMIM",
        "10 LayerNorm",
        "4 GroupNorm",
    ]
    assert 1 < fp16.largest < 65504 / 8
    assert fp16.where.split(": ")[0] in dict(network_for_export(SSNet(4), "fused").named_modules())


def test_weights_that_overflow_half_precision_are_refused(bundle8):
    net = load_checkpoint(bundle8.path).net
    with torch.no_grad():
        net.stem_spectral.out.weight *= 1e6
    with pytest.raises(
        SSDiffError, match=r"The largest value on real tiles is .* expected less than 8188"
    ):
        measure_lowering(net, bundle8, "fp16")


def test_magnitudes_are_recorded_inside_modules_and_not_in_fp32_modules():
    recorder, net = MagnitudeRecorder(), network_for_export(SSNet(4), "portable")
    tiles = [torch.ones(1, n, 16, 16) for n in (4, 1, 4)]
    with torch.no_grad(), recorder.attached(net):
        net(*tiles, torch.ones(1, 4, 4, 4), torch.tensor([999.0]))
    assert any(name.startswith("fusions.0.apfm: ") for name in recorder.largest)
    assert not any(name.startswith(("time", "fusions.0.apfm.norm1")) for name in recorder.largest)
    assert max(recorder.largest.values()) < 999  # the timestep itself is read in FP32 only


def test_a_transposed_convolution_is_a_convolution_and_a_pixel_shuffle():
    torch.manual_seed(0)
    transposed = torch.nn.ConvTranspose2d(6, 3, 2, stride=2)
    x = torch.randn(2, 6, 5, 7)
    torch.testing.assert_close(ShuffledConvolution(transposed)(x), transposed(x))


def test_lowering_to_fp32_changes_roundings_alone():
    """Other layers sum in another order, which depends on the number of threads."""
    torch.manual_seed(0)
    net = network_for_export(SSNet(4), "fused")
    torch.nn.init.normal_(net.stem_spectral.out.weight, std=0.1)
    inputs = [torch.rand(2, n, 16, 16) for n in (4, 1, 4)]
    inputs += [torch.rand(2, 4, 4, 4), torch.tensor([10.0, 500.0])]
    with torch.no_grad():
        lowered, original = Lowered(net, "fp32")(*inputs), net(*inputs)
        torch.testing.assert_close(lowered, original, rtol=0, atol=8 * 2**-23)
        image = (net(*inputs) + inputs[2]).clamp(0, 1)
        step = Step(net)(*inputs, torch.tensor([0.5, 2.0, -0.25]))
        expected = 0.5 * image + 2 * inputs[0] - 0.25 * inputs[2]
    torch.testing.assert_close(step, expected)


def test_a_bundle_with_another_tile_size_runs(low4):
    assert low4.manifest.model.tile == 32
    tiles = random_tiles(4, 32, count=2)
    assert OnnxRuntime(low4).denoise(tiles, tiles.noise, 0).shape == (2, 4, 32, 32)


def test_real_tiles_have_the_shapes_and_the_structure_of_imagery(bundle8):
    tiles = real_tiles(8, 64, count=2)
    assert tiles.pan.shape == (2, 1, 64, 64)
    assert tiles.ms.shape == (2, 8, 16, 16)
    assert 0 < tiles.ms.min() < tiles.ms.max() < 1
    # PAN correlates with the visible bands of the same area.
    visible = tiles.lms[:, :4].mean(axis=1)
    assert np.corrcoef(tiles.pan[:, 0].ravel(), visible.ravel())[0, 1] > 0.8
    assert real_tiles(4, 144, count=2).lms.shape == (2, 4, 144, 144)


def parity_of(error, limits, rounding=None, name="torch"):
    """Parity of one step whose image differs from the reference by ``error`` in every pixel."""
    zero = np.zeros((1, 4, 8, 8), np.float32)
    deviations = {"torch": deviation(zero, zero), name: deviation(zero + error, zero)}
    own = None if rounding is None else deviation(zero + np.float32(rounding), zero)
    step = StepParity(t=7, deviations=deviations, rounding=own)
    walk = Trajectory(inputs="real", steps=(step,))
    return Parity(precision="fp32", limits=limits, reference="zero", trajectories=(walk,))


@pytest.mark.parametrize(
    ("limits", "rounding", "small", "large", "message"),
    [
        (Limits(max=2e-5), None, 1.9e-5, 3e-5, "is off by 3.00e-05, 2.0e-05 is allowed"),
        (Limits(rounding=8), 1e-6, 7e-6, 9e-6, "is off by 9.00e-06, 8.0e-06 is allowed"),
        (Limits(rounding=8), 0, 9e-7, 1e-6, "is off by 1.00e-06, 9.5e-07 is allowed"),
        (Limits(rmse=1e-3), None, 9e-4, 2e-3, "has an RMSE of 2.00e-03, 1e-03 is allowed"),
        (Limits(psnr=60), None, 9e-4, 2e-3, "has 54.0 dB, 60 dB are needed"),
        (Limits(max=2e-5), None, 0, np.nan, "gives NaN"),
        (Limits(rounding=8), 1e-6, 0, np.nan, "gives NaN"),
        (Limits(rmse=1e-3), None, 0, np.nan, "gives NaN"),
        (Limits(psnr=60), None, 0, np.nan, "gives NaN"),
    ],
)
def test_deviations_beyond_the_limits_are_refused_by_name_and_timestep(
    limits, rounding, small, large, message
):
    check_limits(parity_of(np.float32(small), limits, rounding))
    with pytest.raises(SSDiffError, match=f"torch on real tiles at t = 7 {message}"):
        check_limits(parity_of(np.float32(large), limits, rounding))


def test_a_graph_that_rounds_too_much_is_left_out_by_name_if_a_portable_one_is_there(bundle8):
    for form, left_out in (("fused", True), ("contrib", True), ("portable", False)):
        graph, progress = bundle8.graph("denoiser", "fp32", form), RecordingProgress()
        parity = parity_of(1e-3, Limits(rounding=8), 1e-6, name=f"onnxruntime {form} denoiser")
        graphs = {f"onnxruntime {form} denoiser": graph}
        kept, inexact = without_inexact(parity, graphs, progress)
        assert (inexact == [graph]) == left_out == (not list(faults(kept)))
        assert set(kept.trajectories[0].steps[0].deviations) == {"torch"} or not left_out
        expected = [f"the bundle goes without {graph.file}: onnxruntime {form} denoiser on real "]
        assert [w[: len(expected[0])] for w in progress.warnings] == expected * left_out


@pytest.fixture(scope="module")
def stranger(golden8_weights, tmp_path_factory):
    """A checkpoint exported over an old bundle, by a link, where fused attention is inexact."""

    class Inexact(OnnxRuntime):
        def denoise(self, tiles, x, t):
            return super().denoise(tiles, x, t) + np.float32(1e-4 * (self._form == "fused"))

    folder = tmp_path_factory.mktemp("stranger")
    old, link, progress = folder / "old.ssdiff", folder / "mine.ssdiff", RecordingProgress()
    old.mkdir()
    (old / "manifest.json").write_text("of the old bundle")
    link.symlink_to(old)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssdiff_trt.export.parity.OnnxRuntime", Inexact)
        export_bundle(golden8_weights, "wv3", link, tile=16, overwrite=True, progress=progress)
    return open_bundle(link), progress


@pytest.mark.slow  # a whole export
def test_a_bundle_replaces_what_a_link_leads_to(stranger):
    bundle, _ = stranger
    assert bundle.path.is_symlink()
    assert bundle.manifest.name == "mine"
    assert sorted(os.listdir(bundle.path.parent)) == ["mine.ssdiff", "old.ssdiff"]


@pytest.mark.slow  # a whole export
def test_a_bundle_goes_without_inexact_graphs_and_works(stranger):
    bundle, progress = stranger
    forms = [(g.role, g.form) for g in bundle.manifest.graphs]
    assert forms == [("denoiser", "portable"), ("step", "portable"), ("denoiser", "contrib")]
    files = {path.name for path in bundle.path.iterdir()}
    assert files == {*bundle.manifest.files, "manifest.json"}
    assert sum("goes without" in warning for warning in progress.warnings) == 2
    image = OnnxRuntime(bundle).denoise(random_tiles(8, 16), random_tiles(8, 16).noise, 500.0)
    assert np.isfinite(image).all()


@pytest.mark.slow  # a whole export
def test_weights_that_nothing_is_known_of_sample_as_the_authors_do(stranger):
    bundle, progress = stranger
    assert bundle.manifest.sampler.timesteps == tuple(range(900, -1, -100))
    note = "consistent sampler, 10 steps at t = 900, 800, 700, 600, 500, 400, 300, 200, 100, 0 (as"
    assert any(note in text for text in progress.notes)


@pytest.mark.slow  # a whole export
def test_weights_are_judged_on_real_tiles_and_whoever_uses_bad_ones_is_warned(stranger, low4):
    bundle, progress = stranger
    judged = bundle.manifest.judged
    assert judged.ergas > 2 * judged.interpolation > 2
    assert progress.warnings[-1].startswith("the weights of mine were worse than interpolation")
    assert [*bundle.manifest.warnings()] == [progress.warnings[-1]]
    good = low4.manifest.judged
    assert 0.5 < good.ergas < 0.6 * good.interpolation
    assert not [*low4.manifest.warnings()]
    assert Judgement(ergas=np.nan, interpolation=2).worse


def test_strict_shape_inference_passes_on_every_graph(low4, bundle8):
    """Tools run it; what it does not know it has to read from the graph."""
    for bundle in (low4, bundle8):
        for graph in bundle.manifest.graphs:
            model = onnx.load(bundle.path / graph.file)
            known = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
            named = {value.name for value in (*known.graph.value_info, *known.graph.output)}
            outputs = {o for node in known.graph.node for o in node.output}
            assert graph.form == "contrib" or outputs <= named


def test_no_graph_normalises_groups_by_a_difference_of_squares(low4):
    """As ONNX's GroupNormalization does: off by 5e-5 where the mean is 5 times the deviation."""
    for graph in low4.manifest.graphs:
        operators = [n.op_type for n in onnx.load(low4.path / graph.file).graph.node]
        assert operators.count("InstanceNormalization") == 4
        assert "GroupNormalization" not in operators


def test_an_export_that_fails_the_parity_check_writes_no_bundle(
    golden8_weights, tmp_path, monkeypatch
):
    def fails(net, written, precisions, progress):
        assert os.listdir(written.path) == ["step.onnx"]
        check_limits(parity_of(1e-3, Limits(rounding=8)))

    def write(net, precision, tile, directory, progress):
        (directory / "step.onnx").touch()
        return ()

    monkeypatch.setattr("ssdiff_trt.export.bundle._write_graphs", write)
    monkeypatch.setattr("ssdiff_trt.export.bundle.measure_parity", fails)
    with pytest.raises(SSDiffError, match=r"Parity in fp32 fails: torch on real tiles at t = 7"):
        export_bundle(golden8_weights, "wv3", tmp_path / "off.ssdiff", tile=16)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 40}, "The tile size is 40 pixels, expected a multiple of 16 from 16 to 512"),
        ({"tile": 1600}, "The tile size is 1600 pixels, expected"),
        ({"tile": np.int64(40)}, "The tile size is 40 pixels, expected"),
        ({"tile": 64.0}, "64.0 does not work; give a whole number"),
        ({"timesteps": np.array([5.5])}, "5.5.* does not work; give a whole number"),
        ({"sensor": "qb"}, "QuickBird has 4 bands and the weights have 8"),
        ({"sensor": "hubble"}, "The sensor 'hubble' is unknown; choose one of wv2, "),
        ({"timesteps": ()}, "not a schedule"),
        ({"weights": "nothing.pt"}, "There is no weights file nothing.pt"),
        ({"full_scale": -1.0}, "A full scale of -1 does not work; give a number above 0"),
    ],
)
def test_invalid_export_options_are_refused(golden8_weights, tmp_path, options, message):
    defaults = {"weights": golden8_weights, "sensor": "wv3", "output": tmp_path / "b.ssdiff"}
    with pytest.raises(SSDiffError, match=message):
        export_bundle(**defaults | options)
    assert not os.listdir(tmp_path)


def test_where_weights_were_found_is_told_and_a_choice_is_asked_for(golden8_weights, tmp_path):
    state = torch.load(golden8_weights)
    state = {f"module.{name}": tensor for name, tensor in state.items()}
    weights = tmp_path / "w.ckpt"
    torch.save({"model": state, "ema": dict(state), "epoch": 3}, weights)
    words = ["--weights", weights, "--sensor", "qb", "-o", tmp_path / "b.ssdiff", "--weights-key"]
    for key, message in (
        ("ema", "QuickBird has 4 bands and the weights have 8"),
        ("emo", "no weights under emo, expected model.module and ema.module; change `weights_key`"),
    ):
        result = CliRunner().invoke(cli, [*map(str, words), key])
        assert isinstance(result.exception, SSDiffError)
        assert message in str(result.exception)
        told = f"{weights}: the weights are those under ema.module" in result.stderr
        assert told == (key == "ema")
    assert os.listdir(tmp_path) == ["w.ckpt"]


def test_existing_bundles_and_directories_are_not_overwritten(golden8_weights, tmp_path):
    existing = tmp_path / "b.ssdiff"
    existing.mkdir()
    (existing / "thesis.txt").write_text("precious")
    with pytest.raises(SSDiffError, match="exists; choose another name or pass `overwrite`"):
        export_bundle(golden8_weights, "wv3", existing)
    with pytest.raises(SSDiffError, match="is not a bundle; it will not be overwritten"):
        export_bundle(golden8_weights, "wv3", existing, overwrite=True)
    (existing / "manifest.json").write_text("{}")  # web applications have one too
    with pytest.raises(SSDiffError, match=r"holds thesis\.txt, which is no part of a bundle; move"):
        export_bundle(golden8_weights, "wv3", existing, overwrite=True)
    assert (existing / "thesis.txt").read_text() == "precious"


def test_a_bundle_is_a_checkpoint_of_its_own_weights(bundle8, golden8_weights):
    exported = load_checkpoint(bundle8.path).net.state_dict()
    original = load_checkpoint(golden8_weights).net.state_dict()
    assert all(torch.equal(exported[name], original[name]) for name in original)
