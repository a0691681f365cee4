"""Which worker computes which block, and what becomes of blocks that fail."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

from ssdiff_trt.runtime.cluster.job import Answer, reason_of
from ssdiff_trt.runtime.cluster.worker import compute
from ssdiff_trt.runtime.cluster.workers import POLL, WAIT, Member, Workers
from ssdiff_trt.runtime.errors import BackendError
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.sources import Rectangle
from ssdiff_trt.runtime.tiles.tiling import Block

TRIES = 4
"""Times that a block is computed before the scene fails."""
FAILURES = 3
"""Blocks in a row that a worker may fail to compute before it is left out, if there are others."""
LEAST = 60.0
"""Seconds that any block may take."""
SLOWER = 10.0
"""Times the median time of a tile, of the blocks so far, that the tiles of a block may take."""
_REMEMBERED = 1000
"""Blocks whose times count."""
_AHEAD = 2
"""Answers that are fetched at a time while others are written."""
_THREADS = 16
"""Threads for that; one waits longer where a worker stops in the middle of it."""
_RESTART = 30.0
"""Seconds to wait for a worker to be restarted."""


@dataclass(eq=False)
class Task:
    """A block that is to be computed."""

    number: int
    """That it has in the plan."""
    block: Block
    place: Rectangle
    """Rows and columns of PAN."""
    failures: list[str] = field(default_factory=list)
    """Addresses of workers that did not compute it."""
    member: Member | None = None
    """Worker that computes it now."""
    future: Any = None
    """Its answer, there."""
    fetched: Future[Any] | None = None
    """Its answer, here."""
    began: float = 0.0
    """Time when its computation began, or its answer began to be fetched."""

    def __str__(self) -> str:
        rows, cols = self.place
        return (
            f"block of rows {rows.start} to {rows.stop} and columns {cols.start} to {cols.stop} "
            "of PAN"
        )


class Assignments:
    """Gives blocks to idle workers, in order; iterating gives the answers as they come.

    A worker has one block at a time, and the next one once its answer is fetched. That waits while
    two answers are not written yet, so slow writing holds up the workers and not the memory.

    Args:
        workers: those that take part.
        tasks: blocks to compute, in this order.
        check: raises if the inputs have changed, which is why workers may fail.
        progress: receives why a block is computed again.
    """

    def __init__(
        self,
        workers: Workers,
        tasks: Sequence[Task],
        check: Callable[[], None],
        progress: Progress,
    ) -> None:
        self._workers, self._waiting = workers, deque(tasks)
        self._check, self._progress = check, progress
        self._running: list[Task] = []
        self._computed: deque[Task] = deque()  # whose answers are to be fetched
        self._events: queue.SimpleQueue[tuple[Task, Any]] = queue.SimpleQueue()
        self._fetching, self._restarting = ThreadPoolExecutor(_THREADS), ThreadPoolExecutor(1)
        self._seconds = deque([workers.agreed.seconds], _REMEMBERED)  # of a tile
        self._last_seen = time.monotonic()

    def __enter__(self) -> Assignments:
        return self

    def __exit__(self, *exception: object) -> None:
        for task in list(self._running):
            self._free(task)
        self._fetching.shutdown(wait=False, cancel_futures=True)
        self._restarting.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[tuple[Task, Any]]:
        while self._waiting or self._running:
            self._workers.look()
            self._give_up()
            self._go_on()
            try:
                task, future = self._events.get(timeout=POLL)
            except queue.Empty:
                continue
            if task.future is not future:  # it was given up meanwhile
                continue
            if task.fetched is None:
                self._computed.append(task)
            elif error := task.fetched.exception():
                self.fail(task, reason_of(error))
            else:
                yield task, task.fetched.result()

    def complete(self, task: Task, answer: Answer, sampled: int) -> None:
        """A block is there, and its worker gets the next one.

        Args:
            task: the block.
            answer: what the worker gave.
            sampled: number of its tiles that are not empty.
        """
        member = self._free(task)
        if sampled:
            self._seconds.append(answer.seconds / sampled)
        member.failures, done = 0, member.done
        done.blocks += 1
        done.tiles += task.block.tiles
        done.seconds += answer.seconds
        self._progress.detail(f"The {task}: worker {done.name}, {answer.seconds:.1f} s{done.rate}")
        self._go_on()

    def fail(self, task: Task, reason: str) -> None:
        """A block is not there; it is computed again.

        Raises:
            BackendError: if it was tried often enough.
        """
        self._check()
        member = self._free(task)
        task.failures.append(member.address)
        worker = f"worker {member.done.name}: {reason}"
        if len(task.failures) == TRIES:
            raise BackendError(
                f"The {task} could not be computed in {TRIES} tries, the last one by {worker}; "
                "correct that, and run the same command again, which continues with the finished "
                "blocks."
            )
        self._progress.note(f"The {task} is computed again ({worker})")
        self._waiting.appendleft(task)
        member.failures += 1
        if member.failures == FAILURES and len(self._workers.members) > 1:
            self._workers.leave_out(member, f"it did not compute {FAILURES} blocks in a row")

    def _free(self, task: Task) -> Member:
        """Take a block from its worker, whether it is computed or not."""
        member, future = task.member, task.future
        assert member
        task.member = task.future = task.fetched = member.task = None
        self._running.remove(task)
        if task in self._computed:
            self._computed.remove(task)
        with suppress(OSError, TimeoutError):  # of a scheduler that is gone
            future.cancel()
        return member

    def _go_on(self) -> None:
        """Fetch answers, and give a block to each idle worker, but none that it failed to compute
        while others can."""
        while self._computed and sum(task.fetched is not None for task in self._running) < _AHEAD:
            task = self._computed.popleft()
            task.began, task.fetched = time.monotonic(), self._fetching.submit(task.future.result)
            task.fetched.add_done_callback(partial(self._notify, task, task.future))
        members = self._workers.members
        for member in members.values():
            if member.task:
                continue
            for task in self._waiting:
                if member.address not in task.failures or members.keys() <= set(task.failures):
                    self._waiting.remove(task)
                    self._start(task, member)
                    break

    def _start(self, task: Task, member: Member) -> None:
        task.member, member.task, task.began = member, task, time.monotonic()
        task.future = self._workers.client.submit(
            compute,
            self._workers.job,
            task.number,
            workers=[member.address],
            resources=member.inspection.resources or None,
            pure=False,
        )
        self._running.append(task)
        task.future.add_done_callback(partial(self._notify, task, task.future))

    def _notify(self, task: Task, future: Any, done: Any) -> None:
        """Called by other threads once an answer is there, or here."""
        self._events.put((task, future))

    def _give_up(self) -> None:
        """Take blocks from workers that are lost, or take too long."""
        now, members = time.monotonic(), self._workers.members
        if not self._workers.hopeless:
            self._last_seen = now
        elif now - self._last_seen > WAIT:
            raise BackendError(
                f"No worker has been there for {WAIT:.0f} s; start some, and run the same command "
                "again, which continues with the finished blocks."
            )
        for task in list(self._running):
            member = task.member
            assert member
            limit = max(LEAST, SLOWER * median(self._seconds) * task.block.tiles)
            here = (task.fetched or task.future).done()
            if members.get(member.address) is not member:
                self.fail(task, "it was lost")
            elif now - task.began > limit and not here:
                self._workers.leave_out(member, f"it did not compute a block in {limit:.0f} s")
                self._restarting.submit(self._restart, member.address)
                self.fail(task, "it took too long")

    def _restart(self, address: str) -> None:
        with suppress(ValueError, OSError, TimeoutError):  # where nothing can restart it
            self._workers.client.restart_workers([address], _RESTART, raise_for_error=False)
