"""Graphs in INT8: what is quantised, what it costs, and what may be used."""

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
from ssdiff_trt.calibration.report import study_bundle
from ssdiff_trt.calibration.samples import load
from ssdiff_trt.calibration.sensitivity import Judge, choose_plan, measure_costs
from ssdiff_trt.export.int8 import add_int8
from ssdiff_trt.runtime.backends.registry import open_backend
from ssdiff_trt.runtime.backends.tensorrt.engine import Plan
from ssdiff_trt.runtime.bundle.manifest import Budget, Verdict
from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.parity.ladder import deviation
from ssdiff_trt.runtime.parity.verification import verify
from ssdiff_trt.runtime.progress import Progress
from tests.support.progress import RecordingProgress
from tests.support.rasters import EXAMPLE


@pytest.fixture(scope="module")
def plain(low4):
    return onnx.load(low4.path / low4.graph("denoiser", "fp32", "fused").file)


@pytest.fixture(scope="module")
def samples(low4, samples4):
    return load(samples4, low4)


@pytest.fixture(scope="module")
def ranges(plain, samples):
    return measure_ranges(plain, samples, "minmax", Progress())


def test_what_may_be_quantised_is_the_inside_of_the_network(plain):
    groups = quantisable(plain)
    assert {name: len(nodes) for name, nodes in groups.items()} == {
        **{f"spatial.{k}": 3 for k in range(4)},
        **{f"downs.{k}": 6 for k in range(2)},  # both branches
        **{f"ups.{k}": 4 for k in range(2)},
        **{f"fusions.{k}.projections": 4 for k in range(5)},
        **{f"fusions.{k}.mlp": 3 for k in range(5)},
    }
    kept = {n.name for n in plain.graph.node if n.op_type in ("Conv", "MatMul", "Gemm")}
    kept -= {node.name for nodes in groups.values() for node in nodes}
    parts = ("stem_", "head.", "ms_skip.", "time.", "fmim/", "apfm/", ".time.")
    assert all(any(part in name for part in parts) for name in kept)
    assert {"stem_spatial.conv/Conv", "head.2/Conv", "fusions.0.fmim/MatMul"} <= kept


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
def test_nodes_tell_their_group_by_their_name(node, group):
    assert group_name(node) == group


def test_weights_are_quantised_by_channel_and_inputs_by_their_range(plain, ranges):
    quantised = quantise(plain, ranges.largest, ["spatial.0"])
    scales = {t.name: to_array(t) for t in quantised.graph.initializer if "scale" in t.name}
    points = [to_array(t) for t in quantised.graph.initializer if "zero_point" in t.name]
    assert all(point.dtype == np.int8 and not point.any() for point in points)
    weights = {t.name: to_array(t) for t in plain.graph.initializer}
    (conv,) = (n for n in plain.graph.node if n.name == "spatial.0.conv1/Conv")
    found = scales[f"{conv.input[1]}_scale"]
    largest = np.abs(weights[conv.input[1]]).max(axis=(1, 2, 3))
    assert found == pytest.approx(largest / 127, rel=1e-3)
    assert scales[f"{conv.input[0]}_scale"] == pytest.approx(
        ranges.largest[conv.name] / 127, rel=1e-3
    )
    assert len(scales) == 6  # three layers, each its input and its weights; no bias, no output


def test_ranges_are_found_by_timestep(plain, samples, ranges):
    """The first projection of the spatial branch, against the network's own normalised input."""
    from onnxruntime import InferenceSession

    name = "fusions.0.apfm.sa1/MatMul"
    (node,) = (n for n in plain.graph.node if n.name == name)
    copy = onnx.ModelProto()
    copy.CopyFrom(plain)
    copy.graph.output.append(
        onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, None)
    )
    session = InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    for step, state in enumerate(samples.states):
        told = np.full(len(state), samples.about.schedule.steps[step].t, np.float32)
        _, pan, lms, ms = samples.tiles
        inputs = {"x_t": state, "pan": pan, "lms": lms, "ms": ms, "t": told}
        seen = np.abs(session.run([node.input[0]], inputs)[0]).max()
        assert ranges.by_timestep[name][step] == pytest.approx(seen, rel=1e-4)
    assert ranges.largest[name] == max(ranges.by_timestep[name])


def test_every_method_finds_ranges_within_the_largest(plain, samples, ranges):
    few = type(samples)(
        samples.about, samples.tiles.part(slice(0, 3)), samples.states[:, :3], samples.judged
    )
    bound = measure_ranges(plain, few, "minmax", Progress()).largest
    for method in METHODS[1:]:
        found = measure_ranges(plain, few, method, Progress()).largest
        assert found.keys() == bound.keys()
        # The bins of a histogram end a little past the largest value.
        share = np.array([found[name] / bound[name] for name in bound])
        assert (share > 0.02).all()
        assert (share < 1.02).all()
        assert share.mean() < 0.99


def test_groups_are_ranked_and_the_dearest_left_out(plain, samples, ranges):
    judge = Judge(samples.for_choice, samples.about.schedule, plain)
    costs = measure_costs(plain, ranges, judge, Progress())
    assert len(costs) == 18
    levels = [cost.verdict.psnr for cost in costs]
    assert levels == sorted(levels)
    assert 45 < levels[0] < levels[-1] - 15
    everything = judge(quantise(plain, ranges.largest, list(quantisable(plain))))
    assert everything.psnr < levels[0]
    # A budget that everything misses by a little: the dearest have to go, and no others.
    budget = Budget(loss=0.5, psnr=everything.psnr + 1)
    plan = choose_plan(plain, ranges, judge, costs, budget, Progress())
    out = len(costs) - len(plan)
    assert 0 < out < 10
    assert set(plan) == {cost.group for cost in costs[out:]}
    assert judge(quantise(plain, ranges.largest, plan)).psnr > budget.psnr
    hopeless = Budget(loss=0.5, psnr=150)
    assert choose_plan(plain, ranges, judge, costs, hopeless, Progress()) == ()


def test_an_export_judges_its_graphs_on_tiles_that_were_held_out(int8):
    manifest = int8.manifest
    found = manifest.quantisation
    assert found.verdict.tiles == 2
    assert found.verdict.psnr > 45
    assert found.verdict.ergas <= found.verdict.ergas_fp32 * 1.01
    assert set(found.groups) | set(found.excluded) == {
        name for name in map(group_name, _nodes(int8)) if name
    }
    assert int8.precisions == ("fp32", "fp16", "int8")
    (parity,) = (p for p in manifest.parity if p.precision == "int8")
    assert [t.inputs for t in parity.trajectories] == ["real"]
    images = parity.trajectories[0].steps[-1].deviations
    assert len(images) == 5  # two forms in two roles, and the one for the CPU
    assert all(found.psnr > 45 for found in images.values())


def _nodes(bundle):
    graph = bundle.graph("denoiser", "int8", "fused")
    return [
        n.name for n in onnx.load(bundle.path / graph.file, load_external_data=False).graph.node
    ]


def test_int8_brings_no_weights_of_its_own(int8):
    graphs = [graph for graph in int8.manifest.graphs if graph.precision == "int8"]
    assert {(graph.form, graph.weights) for graph in graphs} == {
        ("portable", "weights.fp16.safetensors"),
        ("fused", "weights.fp16.safetensors"),
        ("contrib", "weights.fp32.safetensors"),
    }
    assert all((int8.path / graph.file).stat().st_size < 300_000 for graph in graphs)
    assert Counter(n.rpartition("_")[2] for n in _nodes(int8))["QuantizeLinear"] > 60


def test_the_image_in_int8_is_near_that_in_fp32_and_not_the_same(int8, tmp_path):
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
    found = deviation(images["int8"], images["fp32"])
    assert 45 < found.psnr < 75


def _read(path):
    import rasterio

    with rasterio.open(path) as file:
        return file.read()


def test_other_timesteps_than_the_calibrated_are_doubted(int8, make_pair, tmp_path):
    pair, progress = make_pair(64, 64), RecordingProgress()
    given = {"bundle": int8, "backend": "onnxruntime", "precision": "int8", "progress": progress}
    pansharpen(*pair, tmp_path / "a.tif", **given)
    assert not [text for text in progress.warnings if "calibrated" in text]
    pansharpen(*pair, tmp_path / "b.tif", timesteps=(500,), **given)
    (warning,) = (text for text in progress.warnings if "calibrated" in text)
    assert warning.startswith("int8 is calibrated for t = 999, 68")


def test_verify_knows_int8(int8):
    proof = verify(str(int8.path), "onnxruntime", "int8")
    assert proof.passed
    assert proof.parity.limits.psnr == 40
    assert [t.inputs for t in proof.parity.trajectories] == ["real"]


@pytest.mark.parametrize("form", ["fused", "portable"])
def test_tensorrt_rtx_builds_int8(int8, form, monkeypatch):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel for this platform")
    monkeypatch.setattr(
        "ssdiff_trt.runtime.backends.tensorrt.engine.form_for", lambda flavour, trt: form
    )
    progress = RecordingProgress()
    engine, layers = Plan(int8, "tensorrt-rtx", "int8", "sm86").build(progress)
    assert len(engine) > 1_000_000
    assert layers["QUANTIZE INT8"] == layers["DEQUANTIZE HALF"] > 60
    assert not progress.warnings


def test_graphs_over_budget_are_refused(int8, samples4, tmp_path, monkeypatch):
    copy = tmp_path / "copy.ssdiff"
    shutil.copytree(int8.path, copy)
    bad = Verdict(tiles=2, ergas_fp32=1, ergas=1.02, sam_fp32=1, sam=1, psnr=50)
    monkeypatch.setattr("ssdiff_trt.export.int8.Judge.__call__", lambda self, model: bad)
    monkeypatch.setattr("ssdiff_trt.export.int8.study", _plan_of)
    with pytest.raises(SSDiffError, match=r"held out: ERGAS is 1.0200 and 1.0000 in FP32, 1.00"):
        add_int8(open_bundle(copy), samples4, "minmax", Budget(loss=0.01), Progress())


def _plan_of(model, samples, method, budget, progress):
    from ssdiff_trt.calibration.sensitivity import Study

    return Study(
        ranges=measure_ranges(model, samples, method, progress),
        costs=(),
        budget=budget,
        plan=("spatial.1",),
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"precisions": ("int8",)}, "--int8 needs --calibration, samples of what"),
        ({"calibration": "s.npz"}, "--calibration s.npz is for INT8; add --int8"),
        (
            {"precisions": ("int8",), "calibration": "s.npz", "max_ergas_loss": 1.5},
            "A loss of 150% does not work",
        ),
    ],
)
def test_options_of_int8_that_do_not_fit(low4, tmp_path, options, sentence):
    from ssdiff_trt.export.bundle import export_bundle

    with pytest.raises(SSDiffError, match=sentence):
        export_bundle(low4.path, "generic", tmp_path / "o.ssdiff", **options)


def test_samples_of_other_weights_are_refused_before_any_graph_is_made(samples4, tmp_path):
    from ssdiff_trt.export.bundle import export_bundle

    given = {"precisions": ("int8",), "calibration": samples4, "tile": 32}
    with pytest.raises(SSDiffError, match="has samples of 4 bands, expected the 8 of o"):
        export_bundle("generic8", "wv3", tmp_path / "o.ssdiff", **given)
    with pytest.raises(SSDiffError, match="has tiles of 32 pixels, expected the 64 of o"):
        export_bundle("generic4", "generic", tmp_path / "o.ssdiff", **given | {"tile": 64})
    assert not list(tmp_path.iterdir())


def test_a_bundle_whose_verdict_is_over_budget_is_not_opened(int8, tmp_path):
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


def test_info_tells_the_verdict(int8, capsys):
    from ssdiff_trt.cli.info import describe

    describe(int8)
    told = " ".join(capsys.readouterr().out.split())
    found = int8.manifest.quantisation
    assert f"On 2 tiles held out: {found.verdict}; allowed: 1.0% of ERGAS and SAM, 45 dB." in told
    assert "In int8: " in told


def test_int8_is_never_taken_unasked(int8):
    assert open_backend("onnxruntime", int8).precision == "fp32"
    with pytest.raises(SSDiffError, match=r"has no graph of a denoiser in int8.*--int8"):
        open_backend("onnxruntime", open_bundle("generic4"), precision="int8")


def test_a_study_is_a_table_a_picture_and_a_file(low4, samples4, tmp_path):
    progress = RecordingProgress()
    found = study_bundle(
        samples4,
        bundle=str(low4.path),
        json=str(tmp_path / "s.json"),
        picture=str(tmp_path / "s.png"),
        progress=progress,
    )
    written = json.loads((tmp_path / "s.json").read_text())
    assert written["plan"] == list(found.plan)
    assert len(written["ranges"]["by_timestep"]["spatial.0.conv0/Conv"]) == 2
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"
    assert progress.total == progress.done > 18
    with pytest.raises(SSDiffError, match=r"s.json exists; give another --json"):
        study_bundle(samples4, bundle=str(low4.path), json=str(tmp_path / "s.json"))
    with pytest.raises(SSDiffError, match=r"cannot be drawn as s.foo, expected a name that ends"):
        study_bundle(samples4, bundle=str(low4.path), picture=str(tmp_path / "s.foo"))
