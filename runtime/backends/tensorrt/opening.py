"""Opening the TensorRT backend with the engine that a bundle, a GPU and a batch call for."""

from __future__ import annotations

from ssdiff_trt.runtime.backends.tensorrt.backend import TensorRT
from ssdiff_trt.runtime.backends.tensorrt.building import batch_on, cached_engine
from ssdiff_trt.runtime.backends.tensorrt.context import Kernels
from ssdiff_trt.runtime.backends.tensorrt.cuda import Cuda, OutOfMemoryError, open_cuda
from ssdiff_trt.runtime.backends.tensorrt.engine import (
    EngineKey,
    Flavour,
    Plan,
)
from ssdiff_trt.runtime.backends.tensorrt.engine_cache import EngineCache, engine_file
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.options import Precision
from ssdiff_trt.runtime.progress import Progress


def open_tensorrt(
    name: str,
    bundle: Bundle,
    *,
    precision: Precision,
    batch: int | None,
    progress: Progress,
    index: int = 0,
    trust_engines: bool = False,
) -> TensorRT:
    """Open the backend on a GPU of this machine, with an engine from the cache or built now.

    Args:
        name: flavour of TensorRT.
        bundle: bundle to run.
        precision: precision of the graph.
        batch: largest batch, tiles; default: that of the precision and the GPU. The engine's is the
            next power of two, or, if device memory is short, the largest one that fits.
        progress: receives what is built and why.
        index: GPU, counted from 0.
        trust_engines: whether to load engines that the bundle lists.

    Raises:
        SSDiffError: if there is no GPU, no TensorRT or no graph for it, or the bundle's engine is
            trusted and not the one that its manifest lists.
    """
    flavour: Flavour = "tensorrt" if name == "tensorrt" else "tensorrt-rtx"
    cuda = open_cuda(index)
    size = batch_on(cuda, precision, batch)
    while True:
        plan = Plan(bundle, flavour, precision, cuda.device, size)
        try:
            return _open(plan, cuda, trust_engines, progress)
        except OutOfMemoryError as error:
            if size == 1:
                raise
            shortage = str(error)  # the error keeps what was opened alive until this block ends
        progress.warn(f"{shortage} The batch is reduced from {size} to {size // 2} tiles")
        size //= 2


def _open(plan: Plan, cuda: Cuda, trust_engines: bool, progress: Progress) -> TensorRT:
    """Open the backend with the engine of a plan."""
    cache, seconds = EngineCache(), None
    engine = _bundled(plan.bundle, plan.key, trust_engines, progress)
    if engine is None:
        engine = cached_engine(plan, cuda, progress)
        seconds = cache.build_seconds(plan.key)
    kernels = Kernels(cache, plan.key) if plan.flavour == "tensorrt-rtx" else None
    backend = TensorRT(
        engine, plan.trt, cuda, plan.bundle, plan.precision, plan.batch, progress, kernels=kernels
    )
    backend.build_seconds = seconds
    return backend


def _bundled(bundle: Bundle, key: EngineKey, trust: bool, progress: Progress) -> bytes | None:
    """The bundle's engine with a key, if it has one and its engines are trusted."""
    if not (listed := bundle.manifest.engines):
        return None
    if not trust:
        progress.note(
            f"The engines of the bundle {bundle.path} are native code and not used; if you trust "
            "where it is from, pass `trust_engines`"
        )
        return None
    if (name := engine_file(key)) in listed:
        return bundle.engine(name)
    progress.note(
        f"The bundle {bundle.path} has no engine in {key.precision} for batches of {key.batch} on "
        f"{key.gpu}"
    )
    return None
