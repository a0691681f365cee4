"""Opening networks: warnings where the backend does not suit what was asked for."""

from __future__ import annotations

import pytest

from ssdiff_trt.runtime.networks import Networks
from ssdiff_trt.runtime.options import ExecutionOptions
from tests.support.backends import StandIn
from tests.support.progress import RecordingProgress


@pytest.mark.parametrize(
    ("on", "precision", "device", "expected"),
    [
        ("cpu", "fp32", None, []),
        ("gpu", "fp16", 1, []),
        ("cpu", "fp16", None, ["fp16 is slower than fp32 on a CPU; choose `precision=fp32`"]),
        ("cpu", "fp32", 1, ["`device=1` has no effect, as the network runs on the CPU; ssdiff"]),
        ("cpu", "fp16", 0, ["`device=0` has no effect", "fp16 is slower"]),
    ],
)
def test_what_does_not_suit_the_backend_is_said_once(
    bundle4, monkeypatch, on, precision, device, expected
):
    backend, progress = StandIn(), RecordingProgress()
    monkeypatch.setattr(backend, "device", on, raising=False)
    monkeypatch.setattr(backend, "precision", precision, raising=False)
    monkeypatch.setattr(
        "ssdiff_trt.runtime.networks.open_backend", lambda name, bundle, **options: backend
    )
    networks = Networks(ExecutionOptions(precision=precision, device=device), None, progress)
    for _ in range(2):
        networks.network(bundle4)
    assert len(progress.warnings) == len(expected)
    assert all(map(str.startswith, progress.warnings, expected))


def test_the_fallback_of_a_gpu_does_not_warn_of_the_device(bundle4, monkeypatch):
    opened, progress = [], RecordingProgress()

    def open_backend(name, bundle, **options):
        backend = StandIn()
        backend.device = "cpu" if opened else "gpu"
        opened.append(name)
        return backend

    monkeypatch.setattr("ssdiff_trt.runtime.networks.open_backend", open_backend)
    networks = Networks(ExecutionOptions(backend="tensorrt", device=1), None, progress)
    with networks.executor(bundle4) as executor:
        executor._network._open_fallback()
    assert opened == ["tensorrt", "onnxruntime"]
    assert progress.warnings == []
