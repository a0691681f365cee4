"""The scheduler that a run uses: one that runs, or one that is started with processes here."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from ssdiff_trt.runtime.cluster.executor import ClusterExecutor
from ssdiff_trt.runtime.cluster.job import job_of
from ssdiff_trt.runtime.cluster.workers import Workers
from ssdiff_trt.runtime.cpus import usable_cpus
from ssdiff_trt.runtime.errors import InputError, counted
from ssdiff_trt.runtime.files import json_of, reading
from ssdiff_trt.runtime.memory import check_memory, usable_memory
from ssdiff_trt.runtime.options import ClusterOptions, ExecutionOptions
from ssdiff_trt.runtime.plan.plan import Plan
from ssdiff_trt.runtime.progress import Progress

CONNECT = 20.0
"""Seconds to wait for a scheduler to answer."""
_MOST = 4
"""Processes for each CPU that are started here at most."""


class Cluster:
    """The scheduler and workers of runs, found or started at the first one.

    Args:
        options: which.
        execution: what runs the network on each worker.
        progress: receives which workers are left out.
    """

    def __init__(
        self, options: ClusterOptions, execution: ExecutionOptions, progress: Progress
    ) -> None:
        import distributed  # fails now, if it is not installed

        if options.workers and getattr(multiprocessing.current_process(), "_inheriting", False):
            raise SystemExit(1)  # a worker runs the script that starts it; _start() says so there

        self._options, self._execution, self._progress = options, execution, progress
        self._distributed: Any = distributed
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._client: Any = None
        self._last: tuple[Plan, ClusterExecutor] | None = None

    def close(self) -> None:
        """End the processes that were started, or leave the scheduler."""
        with self._lock:
            self._client = self._last = None
            self._stack.close()

    def executor(self, plan: Plan, progress: Progress) -> ClusterExecutor:
        """What computes the blocks of a plan, once its workers are inspected.

        Raises:
            SSDiffError: if there is no scheduler or worker, or none can open what the plan needs.
        """
        with self._lock:
            if self._last and self._last[0] is plan:
                return self._last[1]
            local = self._options.workers
            job = job_of(plan, self._execution, numbered=bool(local))
            if local:
                check_memory(
                    (local + 1) * plan.memory,
                    f"A run of {local} workers",
                    "give fewer `workers`, or a smaller `block`",
                )
            if self._client is None:
                self._client = self._start(local) if local else self._connect()
            if local and (blocks := len(plan.blocks)) < local:
                progress.warn(
                    f"The result is {counted(blocks, 'block')}, so {blocks} of {local} workers "
                    f"{'computes' if blocks == 1 else 'compute'}; a smaller `block` makes more"
                )
            workers = Workers(self._client, job, self._options.mixed, progress)
            workers.wait(local or 1)
            executor = ClusterExecutor(workers, self._options.mixed)
            self._last = plan, executor
            return executor

    def _start(self, workers: int) -> Any:
        """Start processes on this machine, which share its CPUs and memory."""
        import dask

        if workers > (most := _MOST * usable_cpus()):
            raise InputError(
                f"{workers} processes were asked for, and this one may use "
                f"{counted(usable_cpus(), 'CPU')}; give {most} at most.",
                parameter="workers",
            )
        # Where a process that ended takes longer to start again, dask would not wait for it.
        self._stack.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"}))
        try:
            with _no_interruption():
                cluster = self._distributed.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=self._execution.threads or max(1, usable_cpus() // workers),
                    memory_limit=int(usable_memory() / workers),
                    processes=True,
                    dashboard_address="127.0.0.1:0",  # without one it takes a fixed port
                    scheduler_kwargs={"dashboard": False},
                    silence_logs=logging.CRITICAL,
                )
                self._stack.enter_context(cluster)
        except RuntimeError:
            raise InputError(
                "The processes of `workers` did not start; a script needs "
                '`if __name__ == "__main__":` around the call.',
                parameter="workers",
            ) from None
        return self._stack.enter_context(self._distributed.Client(cluster, set_as_default=False))

    def _connect(self) -> Any:
        """Connect to the scheduler that is named."""
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # errors are raised here
        address = self._address(str(self._options.scheduler))
        try:
            client = self._distributed.Client(address, timeout=CONNECT, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise InputError(
                f"No scheduler of dask answers at {address} ({error}); start one, or check the "
                "address.",
                parameter="scheduler",
            ) from error
        return self._stack.enter_context(client)

    def _address(self, name: str) -> str:
        """Address of a scheduler, given by that or by its file. Of one that it cannot use, dask's
        client is not closed."""
        address = name
        if os.path.exists(name):
            with reading(f"The scheduler file {name} cannot be read", "give that of a scheduler"):
                address = str(json_of(Path(name).read_bytes())["address"])
        elif name.endswith(".json"):
            raise InputError(
                f"The scheduler file {name} does not exist; check the path, or give an address "
                "such as tcp://10.0.0.1:8786.",
                parameter="scheduler",
            )
        if not re.fullmatch(r"(\w+://)?[^/]+:\d+", address):
            raise InputError(
                f"{address!r} is no address such as tcp://10.0.0.1:8786, and no scheduler file; "
                "give one of them.",
                parameter="scheduler",
            )
        context = self._distributed.Security().get_connection_args("client").get("ssl_context")
        if address.startswith("tls://") and context is None:
            raise InputError(
                f"{address} needs TLS, which dask is not configured for; set its "
                "distributed.comm.tls.",
                parameter="scheduler",
            )
        return address


@contextmanager
def _no_interruption() -> Iterator[None]:
    """Keep Ctrl-C, which a terminal sends to all of a command's processes, from the threads and
    processes that are started meanwhile, and from those that they start."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # its start would let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
