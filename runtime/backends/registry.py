"""Selection and opening of backends by name."""

from __future__ import annotations

from importlib.util import find_spec

from ssdiff_trt.runtime.backends.protocol import Backend
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import BackendError
from ssdiff_trt.runtime.options import BACKENDS, Precision, PrecisionChoice
from ssdiff_trt.runtime.progress import Progress

GPU_BACKENDS = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda")
"""Backends on a GPU, fastest first."""


def open_backend(
    name: str,
    bundle: Bundle,
    *,
    precision: PrecisionChoice = "auto",
    threads: int | None = None,
    batch: int | None = None,
    device: int | None = None,
    trust_engines: bool = False,
    progress: Progress | None = None,
) -> Backend:
    """Open a backend for a bundle.

    Args:
        name: one of :data:`BACKENDS`; ``auto`` selects the fastest that works on this machine.
        bundle: bundle to run.
        precision: precision of the network; ``auto`` selects fp16 on a GPU if the bundle has it,
            else fp32.
        threads: CPU threads; default: all cores.
        batch: largest batch on a GPU, tiles; default: the backend's own.
        device: GPU to use, counted from 0; default: the first.
        trust_engines: whether to load TensorRT engines, native code, that the bundle lists.
        progress: receives what was selected and why, and the progress of an engine build.

    Raises:
        SSDiffError: if the backend is unknown or not available, or the bundle has no graph in the
            precision.
    """
    progress = progress or Progress()
    if name not in BACKENDS:
        raise BackendError(f"The backend {name!r} is unknown; choose one of {', '.join(BACKENDS)}.")
    if name == "auto":
        name = best_backend(progress, device or 0, precision)
    if precision == "auto":
        precision = _precision_for(name, bundle, progress)
    if name == "onnxruntime":
        from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime

        return OnnxRuntime(bundle, threads=threads, precision=precision)
    if name == "openvino":
        from ssdiff_trt.runtime.backends.openvino import OpenVino

        return OpenVino(bundle, threads=threads, precision=precision)
    if name == "onnxruntime-cuda":
        from ssdiff_trt.runtime.backends.onnxruntime_cuda import OnnxRuntimeCuda

        return OnnxRuntimeCuda(bundle, precision=precision, batch=batch, index=device or 0)
    from ssdiff_trt.runtime.backends.tensorrt.opening import open_tensorrt

    return open_tensorrt(
        name,
        bundle,
        precision=precision,
        batch=batch,
        index=device or 0,
        trust_engines=trust_engines,
        progress=progress,
    )


def best_backend(progress: Progress, device: int = 0, precision: PrecisionChoice = "auto") -> str:
    """Name of the fastest backend that works on this machine, which ``auto`` stands for.

    Args:
        progress: receives its name, and why each faster one is passed over.
        device: GPU to use, counted from 0.
        precision: of the network.
    """
    from ssdiff_trt.runtime.backends.tensorrt.cuda import why_no_cuda

    on_cpu = _best_on_cpu(precision)
    if no_cuda := why_no_cuda():
        progress.detail(f"Backend {on_cpu} (CPU): {no_cuda}")
        return on_cpu
    passed_over: list[str] = []
    for name in GPU_BACKENDS:
        if not (reason := why_not(name, device)):
            break
        passed_over.append(f"{name}: {reason}")
    else:
        name = on_cpu
    because = f", because {'; '.join(passed_over)}" if passed_over else ": it works on the GPU"
    progress.note(f"Backend {name}{' (CPU)' if name == on_cpu else ''}{because}")
    return name


def _best_on_cpu(precision: PrecisionChoice) -> str:
    """ONNX Runtime, which is faster in FP32, unless it has not what is needed and OpenVINO has."""
    if find_spec("openvino") and (precision == "bf16" or not find_spec("onnxruntime")):
        return "openvino"
    return "onnxruntime"


def why_not(name: str, device: int = 0) -> str | None:
    """Why a backend cannot be used although there is a GPU, as a clause; None if it can.

    Args:
        name: one of :data:`GPU_BACKENDS`.
        device: GPU to use, counted from 0.
    """
    from ssdiff_trt.runtime.backends.onnxruntime_cuda import unavailable_reason
    from ssdiff_trt.runtime.backends.tensorrt.cuda import open_cuda, why_no_package
    from ssdiff_trt.runtime.backends.tensorrt.engine import (
        Flavour,
        import_tensorrt,
        installed,
        why_unsupported,
    )

    if name == "onnxruntime-cuda":
        return unavailable_reason()
    flavour: Flavour = "tensorrt" if name == "tensorrt" else "tensorrt-rtx"
    if not installed(flavour):
        return "it is not installed"
    try:
        import_tensorrt(flavour)
    except BackendError as error:
        return f"it cannot be imported ({error.__cause__})"
    return why_no_package() or why_unsupported(flavour, open_cuda(device).device)


def _precision_for(name: str, bundle: Bundle, progress: Progress) -> Precision:
    """Precision that ``auto`` stands for."""
    if name in ("onnxruntime", "openvino"):
        return "fp32"
    if "fp16" in bundle.precisions:
        return "fp16"
    progress.note(
        f"Precision fp32: the bundle {bundle.manifest.name} has no graphs in fp16; "
        "create them with ssdiff-export --fp16"
    )
    return "fp32"
