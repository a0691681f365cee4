"""What backends on the CPU have in common: the sampling loop in numpy around a denoiser graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np

from ssdiff_trt.runtime.backends.protocol import Device
from ssdiff_trt.runtime.options import Precision
from ssdiff_trt.runtime.schedule import Schedule, sample
from ssdiff_trt.runtime.tiles.batch import Array, Tiles


class Refusals(Protocol):
    """Makes a context manager that turns what an engine raises into one sentence."""

    def __call__(self, graph: Path, doing: str) -> AbstractContextManager[None]: ...


class OnCpu:
    """Backend whose engine evaluates the denoiser graph and nothing else.

    Attributes:
        file: of the graph.
        refusals: context manager around an evaluation.
    """

    device: Device = "cpu"
    batch: int
    precision: Precision
    file: Path
    refusals: Refusals

    def evaluate(self, inputs: Mapping[str, Array]) -> Array:
        """Output of the graph for its inputs by name."""
        raise NotImplementedError

    def denoise(self, tiles: Tiles, x: Array, t: float) -> Array:
        times = np.full(len(x), t, np.float32)
        inputs = {"x_t": x, "pan": tiles.pan, "lms": tiles.lms, "ms": tiles.ms, "t": times}
        with self.refusals(self.file, "run"):
            residual = self.evaluate(inputs)
            if residual.shape != x.shape:
                raise ValueError(f"it gives {list(residual.shape)}, expected {list(x.shape)}")
        if self.precision != "fp32":
            # The clamp to 0..1 would turn infinity into 1.
            residual[~np.isfinite(residual)] = np.nan
        return residual

    def sample(self, batches: Iterable[Tiles], schedule: Schedule) -> Iterator[Array]:
        for tiles in batches:

            def denoise(x: Array, t: float, tiles: Tiles = tiles) -> Array:
                return self.denoise(tiles, x, t)

            yield sample(denoise, tiles.lms, tiles.noise, schedule)
