"""The interface of inference backends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from ssdiff_trt.runtime.options import Precision
from ssdiff_trt.runtime.schedule import Schedule
from ssdiff_trt.runtime.tiles.batch import Array, Tiles

Device = Literal["cpu", "gpu"]
CLAMPED_RESIDUAL = np.array([1, 0, -1], np.float32)
"""Coefficients of a step graph that make it return the clamped image minus ``lms``."""


class Backend(Protocol):
    """Runs the network and the sampling loop on batches of tiles."""

    batch: int
    """Preferred batch size, tiles."""
    precision: Precision
    """Precision of the network."""
    device: Device
    """Device that runs the network."""

    def sample(self, batches: Iterable[Tiles], schedule: Schedule) -> Iterator[Array]:
        """Run the sampling loop from unit normal noise to images.

        Args:
            batches: batches of 1 to ``batch`` tiles, or more where memory allows. The next batch
                may be taken before the images of the current one are returned.
            schedule: sampling schedule.

        Yields:
            Images ``[N, C, tile, tile]`` in 0..1, batch by batch. Each image depends on its own
            inputs alone, bit for bit. Overflow of the network gives non-finite values.
        """
        ...

    def denoise(self, tiles: Tiles, x: Array, t: float) -> Array:
        """Run the network once.

        Args:
            tiles: conditions (PAN, LMS, MS); their noise is not used.
            x: state ``[N, C, tile, tile]``.
            t: time input of the network, 0..999.

        Returns:
            The residual ``[N, C, tile, tile]``; from step graphs after clamping the image to 0..1.
        """
        ...

    def describe(self) -> str:
        """Describe software, device and precision in one line."""
        ...


@runtime_checkable
class Closable(Protocol):
    """A backend that holds memory of a device, or threads, until it is closed."""

    def close(self) -> None:
        """Free it; the backend cannot be used afterwards. Closing again does nothing."""
        ...


def close(backend: Backend) -> None:
    """Free what a backend holds, if it holds anything."""
    if isinstance(backend, Closable):
        backend.close()


@runtime_checkable
class TimedByDevice(Protocol):
    """A backend that can measure time on the device."""

    def milliseconds(self, tiles: Tiles, schedule: Schedule, repeats: int) -> list[float]:
        """Time on the device to sample a batch, without copies, for each of ``repeats`` runs."""
        ...
