"""TensorRT-RTX engines built for GPUs that are not in this machine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ssdiff_trt.runtime.backends.tensorrt.cuda import Device
from ssdiff_trt.runtime.backends.tensorrt.engine import (
    Plan,
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
    built, layers = Plan(low4, "tensorrt-rtx", precision, "sm86", 8).build(progress)
    assert len(built) > 2_000_000
    name = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16"}[precision]
    assert layers[f"CONVOLUTION {name}"] >= 35
    assert layers[f"ATTENTION_INPUT {name}"] == 5
    assert layers["NORMALIZATION FLOAT"] == 19  # always in FP32
    assert progress.total == progress.done > 0
    assert not progress.warnings  # a fused attention kernel was available


def test_the_key_distinguishes_engines(low4):
    keys = [
        Plan(low4, "tensorrt-rtx", precision, gpu, batch).key
        for precision in ("fp32", "fp16")
        for gpu in ("sm86", "sm89")
        for batch in (8, 32)
    ]
    assert len({key.digest for key in keys}) == 8
    assert keys[0].gpu == "sm86"
    assert keys[0].version == trt.__version__
    assert keys[0] == Plan(low4, "tensorrt-rtx", "fp32", "sm86", 8).key


@pytest.mark.parametrize(
    ("flavour", "target", "sentence"),
    [
        ("tensorrt-rtx", "sm90", r"`gpu` is 'sm90', expected .* choose `gpu` from sm80, sm86"),
        ("tensorrt-rtx", "sm75", r"`gpu` is 'sm75', expected .* choose `gpu` from sm80, sm86"),
        (
            "tensorrt-rtx",
            Device("NVIDIA H100", (9, 0), 13000),
            r"for sm90 \(NVIDIA H100\), only for sm80, ",
        ),
        (
            "tensorrt-rtx",
            Device("Tesla T4", (7, 5), 13000),
            r"for sm75 \(Tesla T4\), only for sm80, ",
        ),
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
        Plan(broken, "tensorrt-rtx", "fp16", "sm86", 8).build(Progress())


def test_the_form_of_the_graph_depends_on_the_version():
    forms = {v: form_for("tensorrt", SimpleNamespace(__version__=v)) for v in ("10.3.0", "11.4.1")}
    assert forms == {"10.3.0": "portable", "11.4.1": "fused"}
