"""Proving a bundle where it runs."""

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


def test_half_precision_is_proven_on_the_cpu(low4):
    proof = verify(str(low4.path), "onnxruntime", "fp16")
    assert proof.passed
    assert proof.parity.precision == "fp16"
    found = [s.deviations["fp16"] for t in proof.parity.trajectories for s in t.steps]
    assert len(found) == 2 * 12
    assert all(1e-7 < deviation.rmse < 2e-4 for deviation in found)


class Off(OnnxRuntime):
    """A backend that is wrong from the middle of the trajectory on."""

    def denoise(self, tiles, x, t):
        return super().denoise(tiles, x, t) + np.float32(0.005 if t < 500 else 0)


def test_what_is_off_fails_and_is_told(low4, monkeypatch):
    monkeypatch.setattr(
        ssdiff_trt.runtime.parity.verification,
        "open_backend",
        lambda name, bundle, **options: Off(bundle, precision="fp16"),
    )
    proof = verify(str(low4.path), "onnxruntime", "fp16")
    assert not proof.passed
    assert proof.faults[0].startswith("fp16 on random tiles at t = 400 has an RMSE of")
    assert any("60 dB are needed" in fault for fault in proof.faults)


def test_the_command_tells_by_its_exit_status(low4):
    told = call("verify", low4.path, "--precision", "fp16", "--json", "-q")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["faults"] == []
    told = call("verify", "generic4", "--precision", "fp32", "--backend", "onnxruntime")
    assert told.returncode == 0, told.stderr
    assert told.stdout.rstrip().endswith("passed")
    assert max(map(len, told.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("backend", "precision", "sentence"),
    [
        (
            "onnxruntime",
            "fp16",
            "has no graph of a denoiser in fp16, only graphs in fp32; export",
        ),
        ("onnxruntime", "bf16", "ONNX Runtime has no bf16 convolutions on the CPU"),
        (
            "onnxruntime-cuda",
            "auto",
            "onnxruntime-cuda does not work here: this ONNX Runtime has no",
        ),
        ("tensorrt-rtx", "auto", "No GPU can be used: .*; choose --backend onnxruntime"),
        ("nonsense", "auto", "The backend 'nonsense' is unknown; choose one of auto, tensorrt"),
    ],
)
def test_backends_that_cannot_be_had_are_told(bundle4, backend, precision, sentence):
    with pytest.raises(SSDiffError, match=sentence):
        open_backend(backend, bundle4, precision=precision)


def test_a_failed_proof_is_exit_status_1(low4, monkeypatch, capsys):
    monkeypatch.setattr(
        ssdiff_trt.runtime.parity.verification,
        "open_backend",
        lambda name, bundle, **options: Off(bundle, precision="fp16"),
    )
    words = ["verify", str(low4.path), "--precision", "fp16", "-q"]
    assert cli.main(words, standalone_mode=False) == 1
    words.remove("-q")
    assert cli.main(words, standalone_mode=False) == 1
    told = capsys.readouterr().out
    assert "FAILED: fp16 on random tiles at t = 400" in told
    assert told.rstrip().endswith("failed")
