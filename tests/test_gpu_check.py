"""The GPU check's own steps, on a CPU: that they call what is there."""

from __future__ import annotations

from tests.gpu_check import check_backend, open_variant


def test_the_check_of_a_backend_runs(low4):
    result = check_backend(low4, "onnxruntime", "fp16")
    assert result["passed"], result["faults"]
    assert result["image psnr"] > 60


def test_variants_of_the_reference_open(bundle4):
    assert "eager, matmul, fused attention" in open_variant("eager fused", bundle4).describe()
