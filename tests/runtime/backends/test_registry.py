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
from ssdiff_trt.runtime.backends.tensorrt.engine import FLAVOURS
from ssdiff_trt.runtime.errors import BackendError
from tests.support.progress import RecordingProgress


@pytest.fixture
def machine(monkeypatch):
    """Simulates a machine with or without GPU and packages; returns the list of opened backends."""

    def machine(
        gpu=True,
        installed=(),
        broken=(),
        package=True,
        cuda_provider=False,
        capability=(8, 6),
    ):
        opened = []
        device = Device("Simulated GPU", capability, 13000)
        monkeypatch.setattr(
            ssdiff_trt.runtime.backends.tensorrt.cuda,
            "open_cuda",
            lambda index: SimpleNamespace(device=device),
        )
        members = dict.fromkeys(("NONE", "CURRENT", "SM75", "SM80", "SM86"))
        module = SimpleNamespace(ComputeCapability=SimpleNamespace(__members__=members))
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

        def import_tensorrt(flavour):
            if flavour in broken:
                raise BackendError("broken") from ImportError("libnvinfer.so.10 is missing")
            return module

        monkeypatch.setattr(
            ssdiff_trt.runtime.backends.tensorrt.engine, "import_tensorrt", import_tensorrt
        )
        monkeypatch.setattr(
            ssdiff_trt.runtime.backends.tensorrt.cuda,
            "why_no_package",
            lambda: None if package else "there is no CUDA package",
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
    ("has", "note"),
    [
        ({"installed": FLAVOURS}, "tensorrt: it works on the GPU"),
        (
            {"installed": ("tensorrt-rtx",)},
            "tensorrt-rtx, because tensorrt: it is not installed",
        ),
        (
            {"installed": FLAVOURS, "broken": ("tensorrt",)},
            "tensorrt-rtx, because tensorrt: it cannot be imported (libnvinfer.so.10 is missing)",
        ),
        (
            {},
            "onnxruntime-cuda, because tensorrt: it is not installed; tensorrt-rtx: it is not "
            "installed",
        ),
        (
            {"installed": ("tensorrt-rtx",), "capability": (9, 0)},
            "onnxruntime-cuda, because tensorrt: it is not installed; tensorrt-rtx: it has no "
            "engines for sm90 (Simulated GPU), only for sm80, sm86",
        ),
        (
            {"installed": ("tensorrt",), "package": False},
            "onnxruntime-cuda, because tensorrt: there is no CUDA package; tensorrt-rtx: it is not "
            "installed",
        ),
    ],
)
def test_auto_selects_the_fastest_backend_and_says_why_others_are_passed_over(
    machine, bundle4, has, note
):
    opened, progress = machine(**has, cuda_provider=True), RecordingProgress()
    open_backend("auto", bundle4, precision="bf16", batch=16, progress=progress)
    assert opened == [(note.partition(",")[0].partition(":")[0], "bf16", 16)]
    assert progress.notes == [f"Backend {note}"]


def test_auto_is_fp16_on_a_gpu_where_the_bundle_has_it(machine, low4):
    opened = machine(installed=FLAVOURS)
    open_backend("auto", low4, progress=RecordingProgress())
    assert opened == [("tensorrt", "fp16", None)]


def test_a_gpu_that_nothing_can_use_falls_back_to_the_cpu_with_every_reason(machine, bundle4):
    """As on a Jetson, where TensorRT comes with the system and the CUDA packages do not."""
    progress = RecordingProgress()
    machine(installed=("tensorrt",), package=False)
    backend = open_backend("auto", bundle4, progress=progress)
    assert "on the CPU, fp32" in backend.describe()
    assert progress.notes == [
        "Backend onnxruntime (CPU), because tensorrt: there is no CUDA package; tensorrt-rtx: it "
        "is not installed; onnxruntime-cuda: this ONNX Runtime has no CUDA"
    ]


def test_without_a_gpu_the_cpu_is_used_without_a_note(machine, bundle4):
    progress = RecordingProgress()
    machine(gpu=False, installed=("tensorrt",))
    assert "on the CPU, fp32" in open_backend("auto", bundle4, progress=progress).describe()
    assert not progress.notes


def test_a_bundle_without_fp16_runs_in_fp32_with_a_note_how_to_get_it(machine, fp32_only):
    opened, progress = machine(), RecordingProgress()
    open_backend("tensorrt", fp32_only, progress=progress)
    assert opened == [("tensorrt", "fp32", None)]
    assert "no graphs in fp16; create them with ssdiff-export --fp16" in progress.notes[0]
