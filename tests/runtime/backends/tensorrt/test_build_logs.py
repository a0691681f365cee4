"""What TensorRT-RTX makes of the graphs for SM 8.6, as its verbose build logs show."""

from __future__ import annotations

import json

import pytest

from ssdiff_trt.runtime.backends.tensorrt import engine
from ssdiff_trt.runtime.backends.tensorrt.audit import audit_engine
from ssdiff_trt.runtime.backends.tensorrt.engine import Plan
from ssdiff_trt.runtime.errors import SSDiffError
from tests.support.build_logs import build_log

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel for this platform")


@pytest.fixture(scope="module")
def log_of(request, low4):
    """Gives the log of a build, each of which is made once."""
    logs = {}

    def log(precision, form="portable", batch=8):
        if (precision, form, batch) not in logs:
            bundle = request.getfixturevalue("int8") if precision == "int8" else low4
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(engine, "form_for", lambda flavour, trt: form)
                plan = Plan(bundle, "tensorrt-rtx", precision, "sm86", batch)
                logs[precision, form, batch] = build_log(plan)
        return logs[precision, form, batch]

    return log


@pytest.mark.parametrize(
    ("precision", "types"),
    [
        ("fp32", {"FLOAT"}),
        ("fp16", {"FLOAT", "HALF"}),
        ("bf16", {"FLOAT", "BF16"}),
        ("int8", {"FLOAT", "HALF", "INT8"}),
    ],
)
def test_the_types_of_the_layers_are_those_of_the_precision(log_of, precision, types):
    report = json.dumps({"Layers": log_of(precision).layers})
    counts = audit_engine(report, precision)
    assert set(counts) == types | {"fused attention"}
    for other, name in (("fp16", "HALF"), ("bf16", "BF16"), ("int8", "INT8")):
        if name not in types:
            with pytest.raises(SSDiffError, match=f"no layer in {other}, only in"):
                audit_engine(report, other)


@pytest.mark.parametrize(
    ("precision", "form", "fused"),
    [("fp16", "portable", 5), ("fp16", "fused", 5), ("fp32", "portable", 0)],
)
def test_attention_is_one_kernel_in_half_precision_in_both_forms(log_of, precision, form, fused):
    names = [layer["Name"] for layer in log_of(precision, form).layers]
    assert sum(name.startswith("_gemm_mha_v2") for name in names) == fused


@pytest.mark.parametrize(("precision", "large", "small"), [("fp32", 8, 2), ("fp16", 32, 8)])
def test_the_memory_of_an_engine_falls_with_its_batch(log_of, precision, large, small):
    memory = [log_of(precision, batch=batch).scratch for batch in (large, small)]
    assert memory[1] < memory[0] / 2


def test_fused_attention_needs_less_memory(log_of):
    assert log_of("fp16").scratch < log_of("fp32").scratch / 4


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_check_of_finite_values_survives_into_the_kernels(log_of, precision):
    """TensorRT names a kernel after the operations that it fused into it."""
    (last,) = (
        layer["Name"]
        for layer in log_of(precision).layers
        if layer["LayerType"] == "kgen"
        and "x_next" in {output["Name"] for output in layer["Outputs"]}
    )
    for operation in ("Isin", "Isna", "Or", "Not", "Sele"):
        assert operation in last
