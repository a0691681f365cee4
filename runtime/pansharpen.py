"""The run: read the windows of a block, sample their tiles, blend the images, write the block."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

import numpy as np

from ssdiff_trt.runtime.backends.guard import Guarded
from ssdiff_trt.runtime.backends.protocol import Backend
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.pipeline import read_ahead, write_behind
from ssdiff_trt.runtime.plan.plan import WINDOW, Plan
from ssdiff_trt.runtime.plan.result import Counts, Result, Tally
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.sources import Output
from ssdiff_trt.runtime.tiles.assembly import Assembly
from ssdiff_trt.runtime.tiles.canvas import Canvas
from ssdiff_trt.runtime.tiles.inputs import WindowInputs, prepare
from ssdiff_trt.runtime.tiles.tiling import Window


def run(
    plan: Plan,
    backend: Backend,
    fallback: Callable[[], Backend],
    progress: Progress,
    batch: int | None = None,
) -> Result:
    """Carry out a plan.

    The pixels depend on the plan and the backend; not on ``batch`` or the plan's blocks.

    Args:
        plan: what to do.
        backend: runs the network.
        fallback: opens a backend in FP32, for tiles that are not finite in low precision.
        progress: receives progress updates.
        batch: tiles at a time; the backend's by default.

    Raises:
        SSDiffError: if an image is damaged, the network gives non-finite values, or the result
            cannot be written. Then there is no output; blocks that are finished can be kept, see
            ``plan.sink.left``.
    """
    began, total, gains = time.monotonic(), Tally(), plan.optics.mtf_ms
    ms_scale, pan_scale = plan.assumptions.ms_scale.value, plan.assumptions.pan_scale.value
    network, work = Guarded(backend, fallback), plan.work(backend.describe())
    before = work["inputs"] if work else None

    def check_unchanged(output: Output) -> None:
        if (now := plan.source.fingerprint()) == before:
            return
        if now is None:
            raise InputError(
                f"PAN or MS ({plan.source.name}) was removed while it was read; put it back and "
                "run the same command again."
            )
        output.forget()
        raise InputError(
            f"PAN or MS ({plan.source.name}) changed while it was read, so the result would mix "
            "two states and was not written; run again."
        )

    def write(output: Output, windows: list[WindowInputs], canvas: Canvas, redone: int) -> None:
        tally, block = Tally(Counts(redone=redone)), output.begin(plan.place(canvas.block))
        for inputs in windows:
            image = canvas.image(inputs.window.write)
            image *= np.float32(ms_scale)
            places = inputs.valid, inputs.ms, inputs.ms_valid, inputs.axes
            tally.consistency.add(image[: len(gains)], *places, gains)
            tally.counts.add_window(inputs)
            block.write(*inputs.place, image, inputs.valid)
        tally.counts.clipped = block.clipped
        block.finish(tally.record())
        total.add(tally.record())

    places = [plan.place(block) for block in plan.blocks]
    with plan.sink.open(places, plan.tags(backend.describe()), work) as output, progress:
        if output.message:
            progress.note(output.message)
        left = []
        for block, place in zip(plan.blocks, places, strict=True):
            if record := output.finished(place):
                total.add(record)
            else:
                left.append(block)
        before_this = total.counts.tiles

        def read(window: Window) -> WindowInputs:
            inputs = prepare(plan.source, window, plan.seeds[0], pan_scale, ms_scale)
            if window.last and plan.output:  # blocks of files may be kept for a later run
                check_unchanged(output)
            return inputs

        windows = (window for block in left for window in block.windows(WINDOW))
        progress.start("Tiles", sum(block.tiles for block in left))
        with closing(read_ahead(read, windows)) as inputs, write_behind(write) as write_later:
            redone = 0

            def finish(windows: list[WindowInputs], canvas: Canvas) -> None:
                nonlocal redone
                write_later(output, windows, canvas, network.redone - redone)
                redone = network.redone
                progress.advance(sum(window.empty for window in windows))

            with_uncertainty, seeds = plan.sink.with_uncertainty, plan.seeds[1:]
            assembly = Assembly(gains, plan.back_projection, finish, with_uncertainty, seeds)
            batches = assembly.batches(inputs, batch or backend.batch)
            for images in network.sample(batches, plan.schedule):
                progress.advance(assembly.add(images))
        check_unchanged(output)
    seconds = time.monotonic() - began
    return Result(
        plan,
        total.counts,
        total.consistency,
        backend.describe(),
        backend.precision,
        seconds,
        before_this,
    )
