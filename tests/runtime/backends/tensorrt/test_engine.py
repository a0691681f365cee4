"""TensorRT-RTX engines built for GPUs that are not in this machine, and the precision checks."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from ssdiff_trt.runtime.backends.tensorrt import engine
from ssdiff_trt.runtime.backends.tensorrt.engine import (
    Plan,
    audit_engine,
    audit_network,
    check_target,
    form_for,
)
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.progress import Progress
from tests.support.progress import RecordingProgress

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel for this platform")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_engines_build_in_every_precision(low4, precision):
    progress = RecordingProgress()
    built, layers = Plan(low4, "tensorrt-rtx", precision, "sm86").build(progress)
    assert len(built) > 2_000_000
    name = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16"}[precision]
    assert layers[f"CONVOLUTION {name}"] >= 35
    assert layers[f"ATTENTION_INPUT {name}"] == 5
    assert layers["NORMALIZATION FLOAT"] == 19  # always in FP32
    assert progress.total == progress.done > 0
    assert not progress.warnings  # a fused attention kernel was available


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_check_of_finite_values_survives_into_the_kernels(low4, precision, monkeypatch):
    """TensorRT names a kernel after the operations that it fused into it, in its build log."""
    lines = []

    class Logger(trt.ILogger):
        last = ""

        def log(self, severity, message):
            lines.extend(message.splitlines())

    monkeypatch.setattr(engine, "_logger", lambda trt, progress: Logger())
    Plan(low4, "tensorrt-rtx", precision, "sm86").build(Progress())
    kernels = [line for line in lines if line.startswith("Name: ") and "LayerType: kgen" in line]
    (last,) = (line for line in kernels if "Name: x_next" in line.partition("Outputs:")[2])
    name = last.split(",")[0]
    for operation in ("Isin", "Isna", "Or", "Not", "Sele"):
        assert operation in name


def test_the_key_distinguishes_engines(low4):
    keys = [
        Plan(low4, "tensorrt-rtx", precision, gpu, max_batch=max_batch).key
        for precision in ("fp32", "fp16")
        for gpu in ("sm86", "sm89")
        for max_batch in (8, 32)
    ]
    assert len({key.digest for key in keys}) == 8
    assert keys[0].gpu == "sm86"
    assert keys[0].version == trt.__version__
    assert keys[0] == Plan(low4, "tensorrt-rtx", "fp32", "sm86", max_batch=8).key


@pytest.mark.parametrize(
    ("flavour", "target", "sentence"),
    [
        ("tensorrt-rtx", "sm90", r"`gpu` is 'sm90', expected .* choose `gpu` from sm75, sm80"),
        ("tensorrt-rtx", "rtx3060", "`gpu` is 'rtx3060'"),
        ("tensorrt-rtx", None, "This machine has no GPU and `gpu` is not given"),
        ("tensorrt", "sm86", "TensorRT builds engines on the GPU that runs them"),
    ],
)
def test_targets_that_cannot_be_built_for_are_refused(flavour, target, sentence):
    with pytest.raises(SSDiffError, match=sentence):
        check_target(flavour, target)


def test_a_graph_that_is_not_onnx_is_refused(low4, tmp_path):
    broken = type(low4)(tmp_path, low4.manifest, low4.sha256)
    for graph in low4.manifest.graphs:
        (tmp_path / graph.file).write_bytes(b"no ONNX")
    with pytest.raises(SSDiffError, match=r"tensorrt-rtx .* cannot parse step.fp16.fused.onnx"):
        Plan(broken, "tensorrt-rtx", "fp16", "sm86").build(Progress())


def test_the_form_of_the_graph_depends_on_the_version():
    forms = {v: form_for("tensorrt", SimpleNamespace(__version__=v)) for v in ("10.3.0", "11.4.1")}
    assert forms == {"10.3.0": "portable", "11.4.1": "fused"}


def network(*layers, inputs=()):
    """Fake of a parsed network with layers given as (kind, type) pairs."""

    def tensor(dtype, name="x"):
        return SimpleNamespace(dtype=SimpleNamespace(name=dtype), name=name)

    listed = [
        SimpleNamespace(
            name=f"layer {i}",
            type=SimpleNamespace(name=kind),
            num_outputs=1,
            get_output=lambda j, dtype=dtype: tensor(dtype),
        )
        for i, (kind, dtype) in enumerate(layers)
    ]
    return SimpleNamespace(
        num_layers=len(listed),
        get_layer=lambda i: listed[i],
        num_inputs=len(inputs),
        get_input=lambda i: tensor(inputs[i], "pan"),
        num_outputs=0,
    )


def test_a_network_with_a_heavy_layer_in_another_precision_is_refused():
    sound = network(("CONVOLUTION", "HALF"), ("NORMALIZATION", "FLOAT"), inputs=("FLOAT",))
    assert audit_network(sound, "fp16") == {"CONVOLUTION HALF": 1, "NORMALIZATION FLOAT": 1}
    with pytest.raises(SSDiffError, match=r"layer 1 \(CONVOLUTION\) is in FLOAT, expected HALF"):
        audit_network(network(("SOFTMAX", "HALF"), ("CONVOLUTION", "FLOAT")), "fp16")
    with pytest.raises(SSDiffError, match="pan is in HALF, expected FLOAT"):
        audit_network(network(inputs=("HALF",)), "fp16")


def report(*types):
    return json.dumps({"Layers": [{"Outputs": [{"Format/Datatype": t}]} for t in types]})


def test_an_engine_without_a_layer_in_its_precision_is_refused():
    sound = {"HALF": 1, "FLOAT": 1, "fused attention": 0}
    assert audit_engine(report("Row major Half", "FP32"), "fp16") == sound
    with pytest.raises(SSDiffError, match=r"no layer in fp16, only in FLOAT; build"):
        audit_engine(report("Row major linear FP32", "Float"), "fp16")
    assert audit_engine('{"Layers": ["_gemm_mha_v2_0x1f"]}', "fp16") == {"fused attention": 1}
