"""The run: what an executor computes of a plan's blocks goes to the plan's sink."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

from ssdiff_trt.runtime.blocks import BlockPixels, Executor, Wanted
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.pipeline import write_behind
from ssdiff_trt.runtime.plan.plan import Plan
from ssdiff_trt.runtime.plan.result import Result, Tally
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.sources import Output, Rectangle


def run(plan: Plan, executor: Executor, progress: Progress) -> Result:
    """Carry out a plan.

    The pixels depend on the plan and the network's backend; not on the plan's blocks, nor on where
    and in what order they are computed.

    Args:
        plan: what to do.
        executor: computes blocks.
        progress: receives progress updates.

    Raises:
        SSDiffError: if an image is damaged, the network gives non-finite values, or the result
            cannot be written. Then there is no output; blocks that are finished can be kept, see
            ``plan.sink.left``.
    """
    began, backend = time.monotonic(), executor.describe()
    work = plan.work(backend)
    before = work["inputs"] if work else None
    records: dict[Rectangle, Mapping[str, float]] = {}

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

    def write(output: Output, pixels: BlockPixels) -> None:
        block = output.begin(pixels.place)
        for part in pixels.parts:
            block.write(*part)
        pixels.tally.counts.clipped = block.clipped
        records[pixels.place] = pixels.tally.record()
        block.finish(records[pixels.place])

    blocks = {plan.place(block): block for block in plan.blocks}
    with plan.sink.open(list(blocks), plan.tags(backend), work) as output, progress:
        if output.message:
            progress.note(output.message)
        for place in blocks:
            if record := output.finished(place):
                records[place] = record
        before_this = sum(int(record["tiles"]) for record in records.values())
        left = [block for place, block in blocks.items() if place not in records]

        def check() -> None:
            if plan.output:  # blocks of files may be kept for a later run
                check_unchanged(output)

        progress.start("Tiles", sum(block.tiles for block in left))
        with write_behind(write) as write_later:
            executor.compute(Wanted(plan, left, check, partial(write_later, output), progress))
        check_unchanged(output)
    total = Tally()
    for place in blocks:
        total.add(records[place])
    return Result(
        plan,
        total.counts,
        total.consistency,
        backend,
        executor.precision,
        time.monotonic() - began,
        before_this,
        tuple(executor.workers),
    )
