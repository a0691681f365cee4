"""The run: read a window, prepare its tiles, sample them, blend their images, write."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.backends.guard import Guarded
from ssdiff_trt.runtime.backends.protocol import Backend
from ssdiff_trt.runtime.consistency import Consistency
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.pipeline import read_ahead, write_behind
from ssdiff_trt.runtime.plan.plan import Plan
from ssdiff_trt.runtime.plan.result import Counts, Result
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.tiles.assembly import Assembly
from ssdiff_trt.runtime.tiles.canvas import Canvas
from ssdiff_trt.runtime.tiles.inputs import WindowInputs, prepare
from ssdiff_trt.runtime.tiles.tiling import Window

Array = NDArray[np.float32]


def run(
    plan: Plan,
    backend: Backend,
    fallback: Callable[[], Backend],
    progress: Progress,
    batch: int | None = None,
) -> Result:
    """Carry out a plan.

    The pixels depend on the plan and the backend; not on ``batch`` or the plan's window.

    Args:
        plan: what to do.
        backend: runs the network.
        fallback: opens a backend in FP32, for tiles that are not finite in low precision.
        progress: receives progress updates.
        batch: tiles at a time; the backend's by default.

    Raises:
        SSDiffError: if an image is damaged, the network gives non-finite values, or the result
            cannot be written; nothing is left then.
    """
    began, counts, consistency = time.monotonic(), Counts(), Consistency()
    gains = plan.optics.mtf_ms
    network, before = Guarded(backend, fallback), plan.source.fingerprint()

    def read(window: Window) -> WindowInputs:
        scales = plan.assumptions.pan_scale.value, plan.assumptions.ms_scale.value
        return prepare(plan.source, window, plan.seed, *scales)

    with plan.sink.open(plan.source.output, plan.tags(backend.describe())) as output:

        def write(inputs: WindowInputs, image: Array) -> None:
            valid = inputs.valid[inputs.part]
            image *= np.float32(plan.assumptions.ms_scale.value)
            consistency.add(image, inputs.valid, inputs.ms, inputs.ms_valid, inputs.axes, gains)
            output.write(*inputs.place, image[(..., *inputs.part)], valid)
            counts.invalid_pixels += int(valid.size - valid.sum())

        with (
            progress,
            closing(read_ahead(read, plan.windows())) as windows,
            write_behind(write) as write_later,
        ):

            def finish(inputs: WindowInputs, image: Array) -> None:
                write_later(inputs, image)
                counts.add(inputs)
                progress.advance(len(inputs.window.tiles) - len(inputs.places))

            progress.start("Tiles", plan.tiles)
            canvas = Canvas(len(plan.source.bands), plan.rows, plan.cols)
            assembly = Assembly(canvas, finish)
            batches = assembly.batches(windows, batch or backend.batch)
            for images in network.sample(batches, plan.schedule):
                assembly.add(images)
                progress.advance(len(images))
        if plan.source.fingerprint() != before:
            raise InputError(
                f"PAN or MS ({plan.source.name}) changed while it was read, so the result would "
                "mix two states and was not written; run again."
            )
    counts.redone, counts.clipped = network.redone, output.clipped
    seconds = time.monotonic() - began
    return Result(plan, counts, consistency, backend.describe(), backend.precision, seconds)
