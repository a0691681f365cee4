"""Backends: what runs the network. A new one is a file here and a row in :data:`BACKENDS`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle, Precision
from runtime.errors import SSDiffError
from runtime.progress import Progress
from runtime.schedule import Schedule

Array = NDArray[np.float32]
BackendName = Literal["auto", "tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime"]
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)
Device = Literal["cpu", "gpu"]
CLAMPED_RESIDUAL = np.array([1, 0, -1], np.float32)
"""The coefficients with which a step gives its image less ``lms``."""
PrecisionChoice = Literal["auto", "fp32", "fp16", "bf16", "int8"]


class Tiles(NamedTuple):
    """A batch of tiles, 0..1 of full scale, in the shapes of the graphs."""

    noise: Array
    """``[N, C, tile, tile]``, unit normal."""
    pan: Array
    """``[N, 1, tile, tile]``."""
    lms: Array
    """``[N, C, tile, tile]``."""
    ms: Array
    """``[N, C, tile / 4, tile / 4]``."""

    def part(self, which: slice | NDArray[np.bool_]) -> Tiles:
        """Some of them."""
        return Tiles(*(array[which] for array in self))


class Backend(Protocol):
    """Runs the sampling loop over batches of tiles."""

    batch: int
    """How many tiles at a time suit it."""
    precision: Precision
    device: Device
    """What it runs on."""

    def sample(self, batches: Iterable[Tiles], schedule: Schedule) -> Iterator[Array]:
        """From unit noise to images.

        Args:
            batches: of any number of tiles up to ``batch``, or more where memory allows. The next
                one may be taken before the images of this one are given.
            schedule: the sampler's table.

        Yields:
            Images ``[N, C, tile, tile]`` in 0..1, batch by batch. Each depends on its own inputs
            alone, to the bit. What the network could not compute is not finite.
        """
        ...

    def denoise(self, tiles: Tiles, x: Array, t: float) -> Array:
        """One call of the network: the residual ``[N, C, tile, tile]``.

        Args:
            tiles: what surrounds the state.
            x: the state ``[N, C, tile, tile]``.
            t: what the network is told, 0..999.

        Returns:
            The residual; by whole-step graphs, after the clamp of the image.
        """
        ...

    def describe(self) -> str:
        """One line: what runs, and on what."""
        ...


@runtime_checkable
class TimedByDevice(Protocol):
    """A backend whose device has a clock of its own."""

    def milliseconds(self, tiles: Tiles, schedule: Schedule, repeats: int) -> list[float]:
        """How long the device takes to sample a batch, copies aside, run by run."""
        ...


def open_backend(
    name: str,
    bundle: Bundle,
    *,
    precision: PrecisionChoice = "auto",
    threads: int | None = None,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Backend:
    """Make a backend ready to run a bundle.

    Args:
        name: one of :data:`BACKENDS`; ``auto`` is the best one that works here.
        bundle: what to run.
        precision: of the network; ``auto`` is fp16 on a GPU where the bundle has it, else fp32.
        threads: of the CPU; all cores by default.
        batch: most tiles at a time, on a GPU.
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
        from runtime.backends.onnxruntime import OnnxRuntime

        return OnnxRuntime(bundle, threads=threads, precision=precision)
    if name == "onnxruntime-cuda":
        from runtime.backends.onnxruntime_cuda import OnnxRuntimeCuda

        return OnnxRuntimeCuda(bundle, precision=precision, batch=batch)
    from runtime.backends.tensorrt import open_tensorrt

    return open_tensorrt(name, bundle, precision=precision, batch=batch, progress=progress)


def best_backend(progress: Progress) -> str:
    """The fastest kind that works here; ``auto``."""
    from runtime.cuda import why_no_cuda
    from runtime.engine import FLAVOURS, installed

    if lack := why_no_cuda():
        progress.detail(f"Backend onnxruntime, on the CPU: {lack}")
        return "onnxruntime"
    for flavour in FLAVOURS:
        if installed(flavour):
            progress.note(f"Backend {flavour}: it is installed, and there is a GPU")
            return flavour
    from runtime.backends.onnxruntime_cuda import why_not

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
