"""What backends on the CPU have in common: the sampling loop in numpy around a denoiser graph."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
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


def graph_inputs(tiles: Tiles, x: Array, t: float) -> dict[str, Array]:
    """Inputs of a denoiser graph by name."""
    times = np.full(len(x), t, np.float32)
    return {"x_t": x, "pan": tiles.pan, "lms": tiles.lms, "ms": tiles.ms, "t": times}


class OnCpu:
    """Backend whose engine evaluates the denoiser graph and nothing else.

    Each thread computes tiles of its own. Threads that share a tile wait for each other after every
    operator, and read what the other wrote.

    Args:
        precision: of the network.
        file: of the graph.
        refusals: context manager around an evaluation.
        part: tiles that a thread computes at a time.
        threads: their number.
    """

    device: Device = "cpu"

    def __init__(
        self, precision: Precision, file: Path, refusals: Refusals, part: int, threads: int
    ) -> None:
        self.precision: Precision = precision
        self.batch = part * threads
        self._file, self._refusals = file, refusals
        self._part, self._threads = part, threads
        self._pool = ThreadPoolExecutor(threads)

    def evaluate(self, inputs: Mapping[str, Array]) -> Array:
        """Output of the graph for its inputs by name, on the thread that calls."""
        raise NotImplementedError

    def denoise(self, tiles: Tiles, x: Array, t: float) -> Array:
        parts = self._parts(tiles)
        done = [self._pool.submit(self._denoise, tiles.part(part), x[part], t) for part in parts]
        return _joined(done)

    def sample(self, batches: Iterable[Tiles], schedule: Schedule) -> Iterator[Array]:
        def image(tiles: Tiles) -> Array:
            return sample(partial(self._denoise, tiles), tiles.lms, tiles.noise, schedule)

        running: deque[list[Future[Array]]] = deque()
        for tiles in batches:
            parts = map(tiles.part, self._parts(tiles))
            running.append([self._pool.submit(image, part) for part in parts])
            if len(running) > 1:  # threads have work while the images of a batch are used
                yield _joined(running.popleft())
        for last in running:
            yield _joined(last)

    def close(self) -> None:
        """End the threads. The backend cannot be used afterwards."""
        self._pool.shutdown(cancel_futures=True)

    def _parts(self, tiles: Tiles) -> list[slice]:
        """The tiles that a thread computes at a time."""
        count = len(tiles.pan)
        size = min(self._part, -(-count // self._threads))
        return [slice(first, first + size) for first in range(0, count, size)]

    def _denoise(self, tiles: Tiles, x: Array, t: float) -> Array:
        with self._refusals(self._file, "run"):
            residual = self.evaluate(graph_inputs(tiles, x, t))
            if residual.shape != x.shape:
                raise ValueError(f"it gives {list(residual.shape)}, expected {list(x.shape)}")
        if self.precision != "fp32":
            # The clamp to 0..1 would turn infinity into 1.
            residual[~np.isfinite(residual)] = np.nan
        return residual


def _joined(parts: list[Future[Array]]) -> Array:
    return np.concatenate([part.result() for part in parts])
