"""Has the workers of a scheduler compute the blocks of a plan."""

from __future__ import annotations

from collections.abc import Sequence

from ssdiff_trt.runtime.blocks import Wanted
from ssdiff_trt.runtime.cluster.assignments import Assignments, Task
from ssdiff_trt.runtime.cluster.job import pixels_of
from ssdiff_trt.runtime.cluster.workers import Workers
from ssdiff_trt.runtime.errors import counted
from ssdiff_trt.runtime.options import Precision
from ssdiff_trt.runtime.plan.result import Worker

MIXED = "; workers may differ, so pixels depend on which computed them"
"""What follows the description of the backend where they may."""
_SHOWN = 20
"""Workers whose throughput is shown."""


class ClusterExecutor:
    """Computes the blocks of a plan on workers, one at a time on each.

    A block whose worker is lost, hangs or fails is computed again, on another worker if there is
    one, up to :data:`~ssdiff_trt.runtime.cluster.assignments.TRIES` times.

    Args:
        workers: those that take part.
        mixed: whether they may differ.
    """

    def __init__(self, workers: Workers, mixed: bool) -> None:
        self._workers, self._mixed = workers, mixed

    @property
    def workers(self) -> Sequence[Worker]:
        """What each worker has done."""
        return list(self._workers.shares.values())

    @property
    def precision(self) -> Precision:
        return self._workers.agreed.precision

    def describe(self) -> str:
        return self._workers.agreed.fingerprint["backend"] + (MIXED if self._mixed else "")

    def compute(self, wanted: Wanted) -> None:
        """See :class:`ssdiff_trt.runtime.blocks.Executor`."""
        plan, progress = wanted.plan, wanted.progress
        numbers = {plan.place(block): number for number, block in enumerate(plan.blocks)}
        places = ((plan.place(block), block) for block in wanted.blocks)
        tasks = [Task(numbers[place], block, place) for place, block in places]
        with Assignments(self._workers, tasks, wanted.check, progress) as assignments:
            for task, answer in assignments:
                try:
                    pixels = pixels_of(plan, task.block, answer)
                except ValueError as error:
                    assignments.fail(task, f"it returned no valid block: {error}")
                    continue
                wanted.check()
                assignments.complete(task, answer, pixels.tally.counts.tiles)
                wanted.finish(pixels)
                progress.advance(task.block.tiles)
        for share in self.workers[:_SHOWN]:
            progress.note(f"Worker {share.name}: {counted(share.blocks, 'block')}{share.rate}")
