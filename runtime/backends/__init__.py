"""Backends: what runs the network. A new one is a file here and a row in :data:`BACKENDS`."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle
from runtime.errors import SSDiffError
from runtime.schedule import Schedule

Batch = NDArray[np.float32]
BACKENDS = ("auto", "onnxruntime")


class Backend(Protocol):
    """Runs the sampling loop over a batch of tiles."""

    batch: int
    """How many tiles at a time suit it."""

    def sample(
        self, noise: Batch, pan: Batch, lms: Batch, ms: Batch, schedule: Schedule
    ) -> NDArray[np.float32]:
        """From unit noise to images.

        Args:
            noise: ``[N, C, tile, tile]``, any N.
            pan: ``[N, 1, tile, tile]``, 0..1 of full scale, like ``lms`` and ``ms``.
            lms: ``[N, C, tile, tile]``.
            ms: ``[N, C, tile / 4, tile / 4]``.
            schedule: the sampler's table.

        Returns:
            Images ``[N, C, tile, tile]`` in 0..1. Each depends on its own inputs alone, to the bit.
        """
        ...

    def describe(self) -> str:
        """One line: what runs, and on what."""
        ...


def open_backend(name: str, bundle: Bundle, threads: int | None = None) -> Backend:
    """Make a backend ready to run a bundle.

    Args:
        name: one of :data:`BACKENDS`; ``auto`` is the best one present.
        bundle: what to run.
        threads: of the CPU; all cores by default.
    """
    if name not in BACKENDS:
        raise SSDiffError(f"The backend {name!r} is unknown; choose one of {', '.join(BACKENDS)}.")
    from runtime.backends.onnxruntime import OnnxRuntime

    return OnnxRuntime(bundle, threads)
