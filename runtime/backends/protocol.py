"""Backends: what runs the network. A new one is a file here and a row in :data:`BACKENDS`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np

from ssdiff_trt.runtime.bundle.manifest import Precision
from ssdiff_trt.runtime.schedule import Schedule
from ssdiff_trt.runtime.tiles.batch import Array, Tiles

BackendName = Literal["auto", "tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime"]
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)
Device = Literal["cpu", "gpu"]
CLAMPED_RESIDUAL = np.array([1, 0, -1], np.float32)
"""The coefficients with which a step gives its image less ``lms``."""
PrecisionChoice = Literal["auto", "fp32", "fp16", "bf16", "int8"]


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
