"""Has the workers of a scheduler compute the blocks of a plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ssdiff_trt.runtime.blocks import BlockPixels
from ssdiff_trt.runtime.cluster.assignments import Assignments, Task
from ssdiff_trt.runtime.cluster.job import pixels_of
from ssdiff_trt.runtime.cluster.workers import Workers
from ssdiff_trt.runtime.errors import counted
from ssdiff_trt.runtime.options import Precision
from ssdiff_trt.runtime.plan.plan import Plan
from ssdiff_trt.runtime.plan.result import Worker
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.tiles.tiling import Block

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

    def compute(
        self,
        plan: Plan,
        blocks: Sequence[Block],
        check: Callable[[], None],
        finish: Callable[[BlockPixels], None],
        progress: Progress,
    ) -> None:
        """See :class:`ssdiff_trt.runtime.blocks.Executor`."""
        numbers = {plan.place(block): number for number, block in enumerate(plan.blocks)}
        tasks = [Task(numbers[plan.place(block)], block, plan.place(block)) for block in blocks]
        with Assignments(self._workers, tasks, check, progress) as assignments:
            for task, answer in assignments:
                try:
                    pixels = pixels_of(plan, task.block, answer)
                except ValueError as error:
                    assignments.fail(task, f"it returned no valid block: {error}")
                    continue
                check()
                assignments.complete(task, answer, pixels.tally.counts.tiles)
                finish(pixels)
                progress.advance(task.block.tiles)
        for share in self.workers[:_SHOWN]:
            progress.note(f"Worker {share.name}: {counted(share.blocks, 'block')}{share.rate}")
