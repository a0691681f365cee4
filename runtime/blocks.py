"""Blocks of a scene: from what is read to the pixels of the result.

An executor computes blocks; the one here does in this process, that of
:mod:`ssdiff_trt.runtime.cluster` has others do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.backends.guard import Guarded
from ssdiff_trt.runtime.backends.protocol import Backend
from ssdiff_trt.runtime.options import Precision
from ssdiff_trt.runtime.pipeline import read_ahead
from ssdiff_trt.runtime.plan.plan import WINDOW, Plan
from ssdiff_trt.runtime.plan.result import Counts, Tally, Worker
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.sources import Rectangle
from ssdiff_trt.runtime.tiles.assembly import Assembly
from ssdiff_trt.runtime.tiles.canvas import Canvas
from ssdiff_trt.runtime.tiles.inputs import WindowInputs, prepare
from ssdiff_trt.runtime.tiles.tiling import Block, Window


class Part(NamedTuple):
    """A rectangle of the result, as :class:`ssdiff_trt.runtime.sources.BlockWriter` takes it."""

    rows: range
    """Rows of PAN."""
    cols: range
    """Columns, likewise."""
    values: NDArray[np.float32]
    """Digital numbers ``[C, rows, cols]``, or ``[2 C, rows, cols]`` with the uncertainty."""
    valid: NDArray[np.bool_]
    """``[rows, cols]``."""


@dataclass
class BlockPixels:
    """A block that is computed."""

    place: Rectangle
    """Rows and columns of PAN."""
    parts: Iterable[Part]
    """Its windows, to be taken once."""
    tally: Tally
    """What was counted, complete once the parts are taken."""


@dataclass(frozen=True)
class Wanted:
    """Blocks that are to be computed."""

    plan: Plan
    """Its pair is open."""
    blocks: Sequence[Block]
    """Of the plan, row by row."""
    check: Callable[[], None]
    """Called once a block is read and before it is finished; raises if the inputs are no longer
    those of the plan."""
    finish: Callable[[BlockPixels], None]
    """Takes each block, in any order."""
    progress: Progress
    """Receives the tiles that are done."""


class Executor(Protocol):
    """Computes blocks of plans."""

    @property
    def workers(self) -> Sequence[Worker]:
        """What each process has done; empty if this one did everything."""
        ...

    @property
    def precision(self) -> Precision:
        """Precision of the network."""
        ...

    def describe(self) -> str:
        """Describe what runs the network in one line, as
        :meth:`ssdiff_trt.runtime.backends.protocol.Backend.describe`."""
        ...

    def compute(self, wanted: Wanted) -> None:
        """Compute blocks.

        Raises:
            SSDiffError: if an image is damaged, or the network gives non-finite values.
        """
        ...


class LocalExecutor:
    """Computes blocks in this process, one after the other.

    Args:
        backend: runs the network.
        fallback: opens a backend in FP32, for tiles that are not finite in low precision.
        batch: tiles at a time; the backend's by default.
    """

    workers: Sequence[Worker] = ()

    def __init__(
        self, backend: Backend, fallback: Callable[[], Backend], batch: int | None = None
    ) -> None:
        self._backend, self._network = backend, Guarded(backend, fallback)
        self._batch = batch or backend.batch

    @property
    def precision(self) -> Precision:
        return self._backend.precision

    def describe(self) -> str:
        return self._backend.describe()

    def compute(self, wanted: Wanted) -> None:
        """See :class:`Executor`."""
        plan, progress = wanted.plan, wanted.progress
        network, gains, redone = self._network, plan.optics.mtf_ms, self._network.redone
        ms_scale, pan_scale = plan.assumptions.ms_scale.value, plan.assumptions.pan_scale.value

        def read(window: Window) -> WindowInputs:
            inputs = prepare(plan.source, window, plan.seeds[0], pan_scale, ms_scale)
            if window.last:
                wanted.check()
            return inputs

        def parts(windows: list[WindowInputs], canvas: Canvas, tally: Tally) -> Iterator[Part]:
            for inputs in windows:
                image = canvas.image(inputs.window.write)
                image *= np.float32(ms_scale)
                places = inputs.valid, inputs.ms, inputs.ms_valid, inputs.axes
                tally.consistency.add(image[: len(gains)], *places, gains)
                tally.counts.add_window(inputs)
                yield Part(*inputs.place, image, inputs.valid)

        def finish_block(windows: list[WindowInputs], canvas: Canvas) -> None:
            nonlocal redone
            tally = Tally(Counts(redone=network.redone - redone))
            redone = network.redone
            pixels = parts(windows, canvas, tally)
            wanted.finish(BlockPixels(plan.place(canvas.block), pixels, tally))
            progress.advance(sum(window.empty for window in windows))

        windows = (window for block in wanted.blocks for window in block.windows(WINDOW))
        with closing(read_ahead(read, windows)) as inputs:
            with_uncertainty, seeds = plan.sink.with_uncertainty, plan.seeds[1:]
            assembly = Assembly(gains, plan.back_projection, finish_block, with_uncertainty, seeds)
            for images in network.sample(assembly.batches(inputs, self._batch), plan.schedule):
                progress.advance(assembly.add(images))
