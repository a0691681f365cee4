"""Which backend and precision a run takes, and what it says of them."""

from __future__ import annotations

import pytest

import ssdiff_trt.runtime.backends.onnxruntime_cuda
import ssdiff_trt.runtime.backends.tensorrt.backend
import ssdiff_trt.runtime.backends.tensorrt.cuda
import ssdiff_trt.runtime.backends.tensorrt.engine
from ssdiff_trt.runtime.backends.registry import open_backend
from tests.support.progress import RecordingProgress


@pytest.fixture
def machine(monkeypatch):
    """A machine with a GPU or not, and what is installed there; what is opened is recorded."""

    def machine(gpu=True, installed=(), cuda_provider=False):
        opened = []
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
            "why_not",
            lambda: None if cuda_provider else "this ONNX Runtime has no CUDA",
        )

        def tensorrt(name, bundle, *, precision, batch, progress):
            opened.append((name, precision, batch))

        def onnxruntime(bundle, *, precision, batch):
            opened.append(("onnxruntime-cuda", precision, batch))

        monkeypatch.setattr(ssdiff_trt.runtime.backends.tensorrt.backend, "open_tensorrt", tensorrt)
        monkeypatch.setattr(
            ssdiff_trt.runtime.backends.onnxruntime_cuda, "OnnxRuntimeCuda", onnxruntime
        )
        return opened

    return machine


@pytest.mark.parametrize(
    ("there", "taken", "why"),
    [
        (("tensorrt", "tensorrt-rtx"), "tensorrt", "it is installed, and there is a GPU"),
        (("tensorrt-rtx",), "tensorrt-rtx", "it is installed, and there is a GPU"),
        ((), "onnxruntime-cuda", "there is a GPU, and no TensorRT is installed"),
    ],
)
def test_auto_takes_the_best_that_is_there_and_says_why(machine, low4, there, taken, why):
    opened, progress = machine(installed=there, cuda_provider=True), RecordingProgress()
    open_backend("auto", low4, batch=16, progress=progress)
    assert opened == [(taken, "fp16", 16)]
    assert progress.notes == [f"Backend {taken}: {why}"]


def test_a_gpu_that_nothing_drives_leaves_the_cpu_and_is_told(machine, bundle4):
    progress = RecordingProgress()
    machine()
    backend = open_backend("auto", bundle4, progress=progress)
    assert "on the CPU, fp32" in backend.describe()
    assert progress.notes == [
        "Backend onnxruntime, on the CPU: no TensorRT is installed, and this ONNX Runtime has no "
        "CUDA"
    ]


def test_without_a_gpu_nobody_is_bothered(machine, bundle4):
    progress = RecordingProgress()
    machine(gpu=False, installed=("tensorrt",))
    assert "on the CPU, fp32" in open_backend("auto", bundle4, progress=progress).describe()
    assert not progress.notes


def test_a_bundle_without_fp16_runs_in_fp32_and_says_how_to_get_it(machine, bundle4):
    opened, progress = machine(), RecordingProgress()
    open_backend("tensorrt", bundle4, progress=progress)
    assert opened == [("tensorrt", "fp32", None)]
    assert "has no graphs in fp16; ssdiff-export --fp16 makes them" in progress.notes[0]
