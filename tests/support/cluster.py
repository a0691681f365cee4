"""Workers of dask with a stand-in for the network, which fail as a test asks for."""

from __future__ import annotations

import logging
import os
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
from distributed import Client, LocalCluster, WorkerPlugin

from ssdiff_trt.runtime import networks
from ssdiff_trt.runtime.cluster import worker as module
from ssdiff_trt.runtime.errors import InputError
from tests.support.backends import StandIn
from tests.support.progress import RecordingProgress

GIVEN = {"block": 48, "shift": "none"}
BLOCKS = 16
"""Of a pair of the usual size with these options."""
SECONDS = 0.1
"""Time that a block takes there at least."""


def stand_in():
    """A backend that computes what that of the workers does."""
    return StandIn(pan=0.2, noise=0.01)


class Faulty(WorkerPlugin):
    """Workers look into a folder for a file with their name, which says how they fail.

    Args:
        folder: of these files.
    """

    def __init__(self, folder):
        self.folder = folder

    def setup(self, worker):
        plain_compute, plain_sets = module.compute, module.instruction_sets

        class Slower(StandIn):
            def images(self, *tiles):
                time.sleep(0.5 if fault() == "slow" else 0)
                return super().images(*tiles)

        def open_backend(name, bundle, *, precision, **options):
            if precision == "int8":
                raise InputError("The backend is not there")
            return Slower(pan=0.2, noise=0.01)

        networks.open_backend = open_backend

        def fault():
            file = Path(self.folder) / str(worker.name)
            return file.read_text() if file.exists() else ""

        def compute(job, number):
            time.sleep(SECONDS)
            answer = plain_compute(job, number)
            return FAULTS.get(fault(), lambda good: good)(answer)

        def instruction_sets():
            return plain_sets() + (" avx9" if fault() == "processor" else "")

        module.compute, module.instruction_sets = compute, instruction_sets


def _raise(answer):
    raise RuntimeError("the disk of this worker is full")


def _takes_memory(answer):
    taken = []
    for _ in range(100):
        taken.append(np.ones(4 << 20))
        time.sleep(0.01)
    time.sleep(60)


def changed(**changes):
    """Changes the first part of a block."""

    def change(answer):
        part = answer.parts[0]
        fresh = {name: function(getattr(part, name)) for name, function in changes.items()}
        return replace(answer, parts=[part._replace(**fresh), *answer.parts[1:]])

    return change


def other_values(values):
    values = values.copy()
    values[0, 0, 0] += 1
    return values


FAULTS = {
    "raises": _raise,
    "dies": lambda answer: os.kill(os.getpid(), 9),
    "takes memory": _takes_memory,
    "other values": changed(values=other_values),
}
"""What a worker does to a block that it has computed."""


class Two:
    """A scheduler with two workers, 0 and 1, each a process with a nanny.

    Args:
        client: of the scheduler.
        folder: see :class:`Faulty`.
    """

    def __init__(self, client, folder):
        self.client, self.folder = client, folder
        self.address = client.scheduler.address

    def set(self, worker, fault):
        (self.folder / str(worker)).write_text(fault)

    def process(self, worker):
        """Process id of a worker."""
        names = self.client.run(lambda dask_worker: dask_worker.name)
        ids = self.client.run(os.getpid)
        (found,) = (ids[address] for address, name in names.items() if name == worker)
        return found


@contextmanager
def started(folder, **sizes):
    """A scheduler and workers, which fail as a folder says.

    Args:
        folder: see :class:`Faulty`.
        sizes: number, threads and memory of the workers, as dask has them.
    """
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"}),
        LocalCluster(
            dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL, **sizes
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(Faulty(folder))
        yield client


class Once(RecordingProgress):
    """Does something once so many tiles are there."""

    def __init__(self, action, tiles=1):
        super().__init__(verbose=True)
        self.action, self.tiles = action, tiles

    def advance(self, pieces):
        super().advance(pieces)
        if self.done >= self.tiles:
            action, self.action = self.action, lambda: None
            action()
