"""Selection of backend and precision, and the messages about it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import ssdiff_trt.runtime.backends.onnxruntime_cuda
import ssdiff_trt.runtime.backends.tensorrt.cuda
import ssdiff_trt.runtime.backends.tensorrt.engine
import ssdiff_trt.runtime.backends.tensorrt.opening
from ssdiff_trt.runtime.backends.registry import open_backend
from ssdiff_trt.runtime.backends.tensorrt.cuda import Device
from tests.support.progress import RecordingProgress


@pytest.fixture
def machine(monkeypatch):
    """Simulates a machine with or without GPU and packages; returns the list of opened backends."""

    def machine(gpu=True, installed=(), cuda_provider=False, capability=(8, 6)):
        opened = []
        device = Device("Simulated GPU", capability, 13000)
        monkeypatch.setattr(
            ssdiff_trt.runtime.backends.tensorrt.cuda,
            "open_cuda",
            lambda index: SimpleNamespace(device=device),
        )
        members = dict.fromkeys(("NONE", "CURRENT", "SM75", "SM80", "SM86"))
        package = SimpleNamespace(ComputeCapability=SimpleNamespace(__members__=members))
        monkeypatch.setattr(
            ssdiff_trt.runtime.backends.tensorrt.engine, "import_tensorrt", lambda flavour: package
        )
        monkeypatch.setattr(
            ssdiff_trt.runtime.backends.tensorrt.cuda,
            "why_no_cuda",
            lambda: None if gpu else "no driver",
        )
        monkeypatch.setattr(
            ssdiff_trt.runtime.backends.tensorrt.engine,
            "installed",
            lambda flavour: flavour in installed,
        )
        monkeypatch.setattr(
            ssdiff_trt.runtime.backends.onnxruntime_cuda,
            "unavailable_reason",
            lambda: None if cuda_provider else "this ONNX Runtime has no CUDA",
        )

        def tensorrt(name, bundle, *, precision, batch, index, trust_engines, progress):
            opened.append((name, precision, batch))

        def onnxruntime(bundle, *, precision, batch, index):
            opened.append(("onnxruntime-cuda", precision, batch))

        monkeypatch.setattr(ssdiff_trt.runtime.backends.tensorrt.opening, "open_tensorrt", tensorrt)
        monkeypatch.setattr(
            ssdiff_trt.runtime.backends.onnxruntime_cuda, "OnnxRuntimeCuda", onnxruntime
        )
        return opened

    return machine


@pytest.mark.parametrize(
    ("installed", "selected", "reason"),
    [
        (("tensorrt", "tensorrt-rtx"), "tensorrt", "it is installed, and there is a GPU"),
        (("tensorrt-rtx",), "tensorrt-rtx", "it is installed, and there is a GPU"),
        ((), "onnxruntime-cuda", "there is a GPU, but TensorRT is not installed"),
    ],
)
def test_auto_selects_the_fastest_backend_and_notes_why(machine, low4, installed, selected, reason):
    opened, progress = machine(installed=installed, cuda_provider=True), RecordingProgress()
    open_backend("auto", low4, batch=16, progress=progress)
    assert opened == [(selected, "fp16", 16)]
    assert progress.notes == [f"Backend {selected}: {reason}"]


def test_auto_passes_over_tensorrt_rtx_on_a_gpu_that_it_does_not_support(machine, low4):
    options = {"installed": ("tensorrt-rtx",), "cuda_provider": True, "capability": (9, 0)}
    opened, progress = machine(**options), RecordingProgress()
    open_backend("auto", low4, progress=progress)
    assert opened == [("onnxruntime-cuda", "fp16", None)]
    passed, selected = progress.notes
    assert passed == (
        "Backend tensorrt-rtx is passed over: it has no engines for sm90 (Simulated GPU), only for "
        "sm80, sm86"
    )
    assert selected == "Backend onnxruntime-cuda: there is a GPU, but TensorRT cannot be used"


def test_a_gpu_without_a_package_for_it_falls_back_to_the_cpu_with_a_note(machine, bundle4):
    progress = RecordingProgress()
    machine()
    backend = open_backend("auto", bundle4, progress=progress)
    assert "on the CPU, fp32" in backend.describe()
    assert progress.notes == [
        "Backend onnxruntime (CPU): TensorRT is not installed, and this ONNX Runtime has no CUDA"
    ]


def test_without_a_gpu_the_cpu_is_used_without_a_note(machine, bundle4):
    progress = RecordingProgress()
    machine(gpu=False, installed=("tensorrt",))
    assert "on the CPU, fp32" in open_backend("auto", bundle4, progress=progress).describe()
    assert not progress.notes


def test_a_bundle_without_fp16_runs_in_fp32_with_a_note_how_to_get_it(machine, bundle4):
    opened, progress = machine(), RecordingProgress()
    open_backend("tensorrt", bundle4, progress=progress)
    assert opened == [("tensorrt", "fp32", None)]
    assert "no graphs in fp16; create them with ssdiff-export --fp16" in progress.notes[0]
