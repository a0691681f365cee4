"""Verification of a bundle on the machine that runs it."""

from __future__ import annotations

import json

import numpy as np
import pytest

import ssdiff_trt.runtime.parity.verification
from ssdiff_trt.cli.trt import cli
from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime
from ssdiff_trt.runtime.backends.registry import open_backend
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.parity.verification import verify
from tests.support.commands import call


def test_half_precision_is_verified_on_the_cpu(low4):
    verification = verify(str(low4.path), "onnxruntime", "fp16")
    assert verification.passed
    assert verification.parity.precision == "fp16"
    deviations = [
        step.deviations["fp16"]
        for trajectory in verification.parity.trajectories
        for step in trajectory.steps
    ]
    assert len(deviations) == 2 * 12
    assert all(1e-7 < deviation.rmse < 2e-4 for deviation in deviations)


class Biased(OnnxRuntime):
    """A backend that is wrong in the second half of the trajectory."""

    def denoise(self, tiles, x, t):
        return super().denoise(tiles, x, t) + np.float32(0.005 if t < 500 else 0)


def test_deviations_beyond_the_limits_fail_and_are_listed(low4, monkeypatch):
    monkeypatch.setattr(
        ssdiff_trt.runtime.parity.verification,
        "open_backend",
        lambda name, bundle, **options: Biased(bundle, precision="fp16"),
    )
    verification = verify(str(low4.path), "onnxruntime", "fp16")
    assert not verification.passed
    assert verification.faults[0].startswith("fp16 on random tiles at t = 400 has an RMSE of")
    assert any("60 dB are needed" in fault for fault in verification.faults)


def test_the_command_exits_with_0_if_the_verification_passes(low4):
    done = call("verify", low4.path, "--precision", "fp16", "--json", "-", "-q")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert set(content) == {"bundle", "backend", "parity", "faults", "layers", "passed"}
    assert content["faults"] == []
    assert content["passed"] is True
    done = call("verify", "generic4", "--precision", "fp32", "--backend", "onnxruntime")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("passed")


@pytest.mark.parametrize(
    ("backend", "precision", "sentence"),
    [
        (
            "onnxruntime",
            "fp16",
            "has no graph of a denoiser in fp16, only graphs in fp32; export",
        ),
        ("onnxruntime", "bf16", "ONNX Runtime has no bf16 on the CPU"),
        (
            "onnxruntime-cuda",
            "auto",
            "onnxruntime-cuda is not available: this ONNX Runtime has no",
        ),
        ("tensorrt-rtx", "auto", "No GPU can be used: .*; choose `backend=onnxruntime`"),
        ("nonsense", "auto", "The backend 'nonsense' is unknown; choose one of auto, tensorrt"),
    ],
)
def test_backends_that_are_not_available_are_errors(
    fp32_only, without_cuda_provider, backend, precision, sentence
):
    with pytest.raises(SSDiffError, match=sentence):
        open_backend(backend, fp32_only, precision=precision)


def test_the_command_exits_with_1_if_the_verification_fails(low4, monkeypatch, capsys):
    monkeypatch.setattr(
        ssdiff_trt.runtime.parity.verification,
        "open_backend",
        lambda name, bundle, **options: Biased(bundle, precision="fp16"),
    )
    words = ["verify", str(low4.path), "--precision", "fp16", "-q"]
    assert cli.main(words, standalone_mode=False) == 1
    words.remove("-q")
    assert cli.main(words, standalone_mode=False) == 1
    printed = capsys.readouterr().out
    assert "FAILED: fp16 on random tiles at t = 400" in printed
    assert printed.rstrip().endswith("failed")
