"""A benchmark whose processes fail, and backends that leave the memory to the next."""

from __future__ import annotations

import os
from typing import ClassVar

import pytest

from ssdiff_trt.runtime.benchmark import rounds, worker
from ssdiff_trt.runtime.benchmark.rounds import bench
from ssdiff_trt.runtime.errors import SSDiffError
from tests.support.backends import StandIn
from tests.support.progress import RecordingProgress

QUICK = {"batches": (1, 2), "rounds": 2, "repeats": 2, "seconds": 0}


class Fake(StandIn):
    """A backend without a network that the benchmark can open by its path."""

    device, build_seconds = "cpu", 12.5


def open_killed_by_batches(name, bundle, *, batch, **options):
    """A backend whose process is killed when it samples batches of two tiles."""
    fake = Fake()
    if batch == 2:
        fake.sample = lambda batches, schedule: os.kill(os.getpid(), 9)
    return fake


def open_faulty(name, bundle, **options):
    raise ZeroDivisionError("a defect")


def test_a_process_that_is_killed_loses_its_case_alone(monkeypatch):
    monkeypatch.setattr(rounds, "_IDLE_CHECK", 0.05)
    progress = RecordingProgress()
    openers = {"half": f"{__name__}:open_killed_by_batches", "faulty": f"{__name__}:open_faulty"}
    benchmark = bench(backends=(), openers=openers, steps=(1,), progress=progress, **QUICK)
    assert [(case.batch, len(case.processes)) for case in benchmark.cases] == [(1, 2)]
    (killed,) = (text for text in progress.warnings if "half" in text)
    assert killed.startswith("left out: half fp32 in batches of 2: The process that measured half ")
    assert "left out: faulty in auto: its process ended with the error above" in progress.warnings
    assert progress.done == progress.total == 2 * 2
    with pytest.raises(SSDiffError, match=r"was killed \(signal 9\)"):
        bench(
            backends=(), openers=openers, steps=(1,), progress=progress, **QUICK | {"batches": (2,)}
        )


class Held(Fake):
    """A backend that holds memory of a device, which others can see."""

    alive: ClassVar[list[int]] = []

    def __init__(self, batch):
        super().__init__()
        self.batch = batch
        self.alive.append(batch)

    def close(self):
        self.alive.remove(self.batch)


def open_held(name, bundle, *, batch, **options):
    assert not Held.alive, f"{Held.alive} is open still"
    return Held(batch)


@pytest.mark.parametrize(("task", "batches"), [("open", (1, 2, 4)), ("tiles", (2,))])
def test_a_backend_is_closed_before_the_next_is_opened(monkeypatch, task, batches):
    job = worker.Job(
        task=task,
        bundle="generic4",
        opener=f"{__name__}:open_held",
        backend="held",
        precision="auto",
        batches=batches,
        threads=None,
        steps=(1,),
    )
    result = worker.TASKS[task](job)
    assert Held.alive == []
    if task == "open":
        assert (result.batches, result.build_seconds) == (batches, 12.5)
