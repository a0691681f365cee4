"""TODO."""

from __future__ import annotations

from ssdiff_trt.runtime.backends.protocol import BACKENDS, Backend, PrecisionChoice
from ssdiff_trt.runtime.bundle.manifest import Precision
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.progress import Progress


def open_backend(
    name: str,
    bundle: Bundle,
    *,
    precision: PrecisionChoice = "auto",
    threads: int | None = None,
    batch: int | None = None,
    device: int | None = None,
    progress: Progress | None = None,
) -> Backend:
    """Make a backend ready to run a bundle.

    Args:
        name: one of :data:`BACKENDS`; ``auto`` is the best one that works here.
        bundle: what to run.
        precision: of the network; ``auto`` is fp16 on a GPU where the bundle has it, else fp32.
        threads: of the CPU; all cores by default.
        batch: most tiles at a time, on a GPU.
        device: GPU to use, counted from 0; the first by default.
        progress: told what was chosen and why, and how building goes.

    Raises:
        SSDiffError: if it is not there, or the bundle has no such graph.
    """
    progress = progress or Progress()
    if name not in BACKENDS:
        raise SSDiffError(f"The backend {name!r} is unknown; choose one of {', '.join(BACKENDS)}.")
    if name == "auto":
        name = best_backend(progress)
    if precision == "auto":
        precision = _precision_for(name, bundle, progress)
    if name == "onnxruntime":
        from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime

        return OnnxRuntime(bundle, threads=threads, precision=precision)
    if name == "onnxruntime-cuda":
        from ssdiff_trt.runtime.backends.onnxruntime_cuda import OnnxRuntimeCuda

        return OnnxRuntimeCuda(bundle, precision=precision, batch=batch)
    from ssdiff_trt.runtime.backends.tensorrt.backend import open_tensorrt

    return open_tensorrt(name, bundle, precision=precision, batch=batch, progress=progress)


def best_backend(progress: Progress) -> str:
    """The fastest kind that works here; ``auto``."""
    from ssdiff_trt.runtime.backends.tensorrt.cuda import why_no_cuda
    from ssdiff_trt.runtime.backends.tensorrt.engine import FLAVOURS, installed

    if lack := why_no_cuda():
        progress.detail(f"Backend onnxruntime, on the CPU: {lack}")
        return "onnxruntime"
    for flavour in FLAVOURS:
        if installed(flavour):
            progress.note(f"Backend {flavour}: it is installed, and there is a GPU")
            return flavour
    from ssdiff_trt.runtime.backends.onnxruntime_cuda import why_not

    if not (lack := why_not()):
        progress.note("Backend onnxruntime-cuda: there is a GPU, and no TensorRT is installed")
        return "onnxruntime-cuda"
    progress.note(f"Backend onnxruntime, on the CPU: no TensorRT is installed, and {lack}")
    return "onnxruntime"


def _precision_for(name: str, bundle: Bundle, progress: Progress) -> Precision:
    if name == "onnxruntime":
        return "fp32"
    if "fp16" in bundle.precisions:
        return "fp16"
    progress.note(
        f"Precision fp32: the bundle {bundle.manifest.name} has no graphs in fp16; "
        "ssdiff-export --fp16 makes them"
    )
    return "fp32"
