"""INT8: which layers are quantised, what it costs, and which bundles are accepted."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import to_array

from ssdiff_trt import pansharpen
from ssdiff_trt.calibration.quantisation import group_name, quantisable, quantise
from ssdiff_trt.calibration.ranges import METHODS, measure_ranges
from ssdiff_trt.calibration.samples import load
from ssdiff_trt.calibration.sensitivity import Evaluator, Study, choose_plan, measure_costs
from ssdiff_trt.export.int8 import add_int8
from ssdiff_trt.runtime.backends.registry import open_backend
from ssdiff_trt.runtime.backends.tensorrt.engine import Plan
from ssdiff_trt.runtime.bundle.measured import Budget, Verdict
from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.parity.ladder import deviation
from ssdiff_trt.runtime.parity.verification import verify
from ssdiff_trt.runtime.progress import Progress
from tests.support.progress import RecordingProgress
from tests.support.rasters import EXAMPLE


@pytest.fixture(scope="module")
def fp32_graph(low4):
    return onnx.load(low4.path / low4.graph("denoiser", "fp32", "fused").file)


@pytest.fixture(scope="module")
def samples(low4, samples4):
    return load(samples4, low4)


@pytest.fixture(scope="module")
def ranges(fp32_graph, samples):
    return measure_ranges(fp32_graph, samples, "minmax", Progress())


def test_only_inner_layers_of_the_network_are_quantisable(fp32_graph):
    groups = quantisable(fp32_graph)
    assert {name: len(nodes) for name, nodes in groups.items()} == {
        **{f"spatial.{k}": 3 for k in range(4)},
        **{f"downs.{k}": 6 for k in range(2)},  # both branches
        **{f"ups.{k}": 4 for k in range(2)},
        **{f"fusions.{k}.projections": 4 for k in range(5)},
        **{f"fusions.{k}.mlp": 3 for k in range(5)},
    }
    others = {n.name for n in fp32_graph.graph.node if n.op_type in ("Conv", "MatMul", "Gemm")}
    others -= {node.name for nodes in groups.values() for node in nodes}
    modules = ("stem_", "head.", "ms_skip.", "time.", "fmim/", "apfm/", ".time.")
    assert all(any(module in name for module in modules) for name in others)
    assert {"stem_spatial.conv/Conv", "head.2/Conv", "fusions.0.fmim/MatMul"} <= others


@pytest.mark.parametrize(
    ("node", "group"),
    [
        ("spatial.1.conv0/Conv", "spatial.1"),
        ("ups.0.conv0/Conv_2", "ups.0"),
        ("fusions.3.apfm.se2/MatMul", "fusions.3.projections"),
        ("fusions.3.apfm.mlp.2/MatMul", "fusions.3.mlp"),
        ("fusions.3.apfm/MatMul_2", None),
        ("spatial.1.time.linear/Gemm", None),
        ("fusions.0.fmim/MatMul", None),
        ("fusions.3.apfm.mlp.2/Add", None),
    ],
)
def test_the_group_of_a_node_follows_from_its_name(node, group):
    assert group_name(node) == group


def test_weights_are_quantised_per_channel_and_inputs_per_tensor(fp32_graph, ranges):
    quantised = quantise(fp32_graph, ranges.largest, ["spatial.0"])
    scales = {t.name: to_array(t) for t in quantised.graph.initializer if "scale" in t.name}
    zero_points = [to_array(t) for t in quantised.graph.initializer if "zero_point" in t.name]
    assert all(point.dtype == np.int8 and not point.any() for point in zero_points)
    weights = {t.name: to_array(t) for t in fp32_graph.graph.initializer}
    (conv,) = (n for n in fp32_graph.graph.node if n.name == "spatial.0.conv1/Conv")
    largest = np.abs(weights[conv.input[1]]).max(axis=(1, 2, 3))
    assert scales[f"{conv.input[1]}_scale"] == pytest.approx(largest / 127, rel=1e-3)
    assert scales[f"{conv.input[0]}_scale"] == pytest.approx(
        ranges.largest[conv.name] / 127, rel=1e-3
    )
    assert len(scales) == 6  # input and weights of three layers; no biases, no outputs


def test_ranges_are_measured_by_timestep(fp32_graph, samples, ranges):
    """Range of the first projection of the spatial branch, against its input tensor."""
    from onnxruntime import InferenceSession

    name = "fusions.0.apfm.sa1/MatMul"
    (node,) = (n for n in fp32_graph.graph.node if n.name == name)
    copy = onnx.ModelProto()
    copy.CopyFrom(fp32_graph)
    copy.graph.output.append(
        onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, None)
    )
    session = InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    for step, state in enumerate(samples.states):
        t = np.full(len(state), samples.about.schedule.steps[step].t, np.float32)
        _, pan, lms, ms = samples.tiles
        inputs = {"x_t": state, "pan": pan, "lms": lms, "ms": ms, "t": t}
        largest = np.abs(session.run([node.input[0]], inputs)[0]).max()
        assert ranges.by_timestep[name][step] == pytest.approx(largest, rel=1e-4)
    assert ranges.largest[name] == max(ranges.by_timestep[name])


def test_the_ranges_of_every_method_are_below_the_largest_magnitude(fp32_graph, samples, ranges):
    few = type(samples)(
        samples.about, samples.tiles.part(slice(0, 3)), samples.states[:, :3], samples.judged
    )
    bound = measure_ranges(fp32_graph, few, "minmax", Progress()).largest
    for method in METHODS[1:]:
        largest = measure_ranges(fp32_graph, few, method, Progress()).largest
        assert largest.keys() == bound.keys()
        # The last bin of a histogram ends slightly above the largest magnitude.
        ratios = np.array([largest[name] / bound[name] for name in bound])
        assert (ratios > 0.02).all()
        assert (ratios < 1.02).all()
        assert ratios.mean() < 0.99


def test_groups_are_ranked_and_the_most_expensive_excluded(fp32_graph, samples, ranges):
    evaluator = Evaluator(samples.for_selection, samples.about.schedule, fp32_graph)
    costs = measure_costs(fp32_graph, ranges, evaluator, Progress())
    assert len(costs) == 18
    levels = [cost.verdict.psnr for cost in costs]
    assert levels == sorted(levels)
    assert 45 < levels[0] < levels[-1] - 15
    everything = evaluator(quantise(fp32_graph, ranges.largest, list(quantisable(fp32_graph))))
    assert everything.psnr < levels[0]
    # A budget that INT8 in all groups slightly exceeds, so that only the most expensive groups are
    # excluded.
    budget = Budget(loss=0.5, psnr=everything.psnr + 1)
    plan = choose_plan(fp32_graph, ranges, evaluator, costs, budget, Progress())
    excluded = len(costs) - len(plan)
    assert 0 < excluded < 10
    assert set(plan) == {cost.group for cost in costs[excluded:]}
    assert evaluator(quantise(fp32_graph, ranges.largest, plan)).psnr > budget.psnr
    unreachable = Budget(loss=0.5, psnr=150)
    assert choose_plan(fp32_graph, ranges, evaluator, costs, unreachable, Progress()) == ()


def test_an_export_scores_its_graphs_on_held_out_tiles(int8):
    manifest = int8.manifest
    quantisation = manifest.quantisation
    verdict = quantisation.verdict
    assert verdict.tiles == 2
    assert verdict.psnr > 45
    assert verdict.ergas <= verdict.ergas_fp32 * 1.01
    assert set(quantisation.groups) | set(quantisation.excluded) == {
        name for name in map(group_name, _node_names(int8)) if name
    }
    assert int8.precisions == ("fp32", "fp16", "int8")
    (parity,) = (p for p in manifest.parity if p.precision == "int8")
    assert [t.inputs for t in parity.trajectories] == ["real"]
    deviations = parity.trajectories[0].steps[-1].deviations
    assert len(deviations) == 5  # two forms in two roles, and the graph for the CPU
    assert all(measured.psnr > 45 for measured in deviations.values())


def _node_names(bundle):
    graph = bundle.graph("denoiser", "int8", "fused")
    return [
        n.name for n in onnx.load(bundle.path / graph.file, load_external_data=False).graph.node
    ]


def test_int8_graphs_share_the_weights_files_of_other_precisions(int8):
    graphs = [graph for graph in int8.manifest.graphs if graph.precision == "int8"]
    assert {(graph.form, graph.weights) for graph in graphs} == {
        ("portable", "weights.fp16.safetensors"),
        ("fused", "weights.fp16.safetensors"),
        ("contrib", "weights.fp32.safetensors"),
    }
    assert all((int8.path / graph.file).stat().st_size < 300_000 for graph in graphs)
    assert Counter(n.rpartition("_")[2] for n in _node_names(int8))["QuantizeLinear"] > 60


def test_the_int8_image_is_close_to_the_fp32_image_and_not_equal(int8, tmp_path):
    images = {}
    for precision in ("fp32", "int8"):
        result = pansharpen(
            EXAMPLE / "pan.tif",
            EXAMPLE / "ms.tif",
            tmp_path / f"{precision}.tif",
            bundle=int8,
            backend="onnxruntime",
            precision=precision,
            full_scale=10000,
            tile_overlap=0,
            dtype="float32",
        )
        images[precision] = _read(result.output) / 10000
    assert 45 < deviation(images["int8"], images["fp32"]).psnr < 75


def _read(path):
    import rasterio

    with rasterio.open(path) as file:
        return file.read()


def test_timesteps_that_are_not_calibrated_give_a_warning(int8, make_pair, tmp_path):
    pair, progress = make_pair(64, 64), RecordingProgress()
    options = {"bundle": int8, "backend": "onnxruntime", "precision": "int8", "progress": progress}
    pansharpen(*pair, tmp_path / "a.tif", **options)
    assert not [text for text in progress.warnings if "calibrated" in text]
    pansharpen(*pair, tmp_path / "b.tif", timesteps=(500,), **options)
    (warning,) = (text for text in progress.warnings if "calibrated" in text)
    assert warning.startswith("int8 is calibrated for t = 999, 68")


def test_verify_checks_int8_on_real_tiles_only(int8):
    result = verify(str(int8.path), "onnxruntime", "int8")
    assert result.passed
    assert result.parity.limits.psnr == 40
    assert [t.inputs for t in result.parity.trajectories] == ["real"]


@pytest.mark.parametrize("form", ["fused", "portable"])
def test_tensorrt_rtx_builds_int8(int8, form, monkeypatch):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel for this platform")
    monkeypatch.setattr(
        "ssdiff_trt.runtime.backends.tensorrt.engine.form_for", lambda flavour, trt: form
    )
    progress = RecordingProgress()
    engine, layers = Plan(int8, "tensorrt-rtx", "int8", "sm86", 8).build(progress)
    assert len(engine) > 1_000_000
    assert layers["QUANTIZE INT8"] == layers["DEQUANTIZE HALF"] > 60
    assert not progress.warnings


def test_graphs_that_exceed_the_budget_are_refused(int8, samples4, ranges, tmp_path, monkeypatch):
    copy = tmp_path / "copy.ssdiff"
    shutil.copytree(int8.path, copy)
    over_budget = Verdict(tiles=2, ergas_fp32=1, ergas=1.02, sam_fp32=1, sam=1, psnr=50)
    monkeypatch.setattr(
        "ssdiff_trt.export.int8.Evaluator.__call__", lambda self, model: over_budget
    )
    one_group = {"costs": (), "plan": ("spatial.1",), "ranges": ranges}
    monkeypatch.setattr(
        "ssdiff_trt.export.int8.study",
        lambda model, samples, method, budget, progress: Study(budget=budget, **one_group),
    )
    with pytest.raises(
        SSDiffError, match=r"held-out tiles: ERGAS is 1.0200 and 1.0000 in FP32, 1.00"
    ):
        add_int8(open_bundle(copy), samples4, "minmax", Budget(loss=0.01), Progress())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precisions": ("int8",)}, "`int8` needs calibration samples; create them"),
        ({"calibration": "s.npz"}, "`calibration=s.npz` is used for INT8 only; add `int8`"),
        (
            {"precisions": ("int8",), "calibration": "s.npz", "max_ergas_loss": 1.5},
            "A loss of 150% does not work",
        ),
    ],
)
def test_invalid_options_of_int8_are_refused(low4, tmp_path, options, message):
    from ssdiff_trt.export.bundle import export_bundle

    with pytest.raises(SSDiffError, match=message):
        export_bundle(low4.path, "generic", tmp_path / "o.ssdiff", **options)


def test_samples_of_other_bundles_are_refused_before_any_export(samples4, tmp_path):
    from ssdiff_trt.export.bundle import export_bundle

    options = {"precisions": ("int8",), "calibration": samples4, "tile": 32}
    with pytest.raises(SSDiffError, match="has samples of 4 bands, expected the 8 of o"):
        export_bundle("generic8", "wv3", tmp_path / "o.ssdiff", **options)
    with pytest.raises(SSDiffError, match="has tiles of 32 pixels, expected the 64 of o"):
        export_bundle("generic4", "generic", tmp_path / "o.ssdiff", **options | {"tile": 64})
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_exceeds_its_budget_is_not_opened(int8, tmp_path):
    copy = tmp_path / "copy.ssdiff"
    shutil.copytree(int8.path, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["quantisation"]["verdict"]["psnr"] = 44.0
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SSDiffError, match=r"over budget: PSNR to FP32 is 44.0 dB, 45 dB are need"):
        open_bundle(copy)
    manifest["quantisation"] = None
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SSDiffError, match="it has graphs in INT8 and no verdict on them"):
        open_bundle(copy)


def test_info_prints_the_int8_scores(int8, capsys):
    from ssdiff_trt.cli.info import describe

    describe(int8)
    printed = " ".join(capsys.readouterr().out.split())
    verdict = int8.manifest.quantisation.verdict
    assert f"On 2 tiles held out: {verdict}; allowed: 1.0% of ERGAS and SAM, 45 dB." in printed
    assert "In int8: " in printed


def test_int8_is_used_only_on_request(int8):
    assert open_backend("onnxruntime", int8).precision == "fp32"
    with pytest.raises(SSDiffError, match=r"has no graph of a denoiser in int8.*--int8"):
        open_backend("onnxruntime", open_bundle("generic4"), precision="int8")
