"""Which workers of a scheduler take part: those that compute the same pixels."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ssdiff_trt.runtime.cluster.job import Job, reason_of
from ssdiff_trt.runtime.cluster.worker import Inspection, inspect
from ssdiff_trt.runtime.errors import BackendError
from ssdiff_trt.runtime.plan.result import Worker
from ssdiff_trt.runtime.progress import Progress

WAIT = 60.0
"""Seconds to wait for a worker where there is none."""
INSPECTION = 1800.0
"""Seconds that a worker may take to open the network, which can build an engine first."""
POLL = 0.2
"""Seconds between two looks at which workers there are."""
_SHOWN = 60
"""Characters of a value that is shown."""


@dataclass
class Member:
    """A worker that takes part."""

    address: str
    inspection: Inspection
    done: Worker
    task: Any = None
    """Block that it computes; None while it is idle."""
    failures: int = 0
    """Blocks in a row that it could not compute."""


@dataclass
class Workers:
    """The workers of a scheduler, each inspected once.

    Args:
        client: of dask.
        job: what they are to compute.
        mixed: whether workers may differ.
        progress: receives which are left out, and why.
    """

    client: Any
    job: Job
    mixed: bool
    progress: Progress
    members: dict[str, Member] = field(default_factory=dict)
    """Those that take part, by address."""
    shares: dict[str, Worker] = field(default_factory=dict)
    """What each has done, by name."""
    _agreed: Inspection | None = None
    _inspected: dict[str, Any] = field(default_factory=dict)
    """Futures of inspections by address; None once they are over."""
    _looked: float = 0.0

    @property
    def agreed(self) -> Inspection:
        """What they have in common."""
        assert self._agreed, "wait() comes first"
        return self._agreed

    def wait(self, expected: int = 1) -> None:
        """Wait until there are workers, and let those take part that most agree with.

        Args:
            expected: number of them, of processes that were just started.

        Raises:
            BackendError: if there is none, or none can open what it needs.
        """
        began, first = time.monotonic(), 0.0
        results: dict[str, Inspection] = {}
        reasons: list[str] = []
        while True:
            for address, result in self._new_results():
                if isinstance(result, Inspection):
                    results[address] = result
                else:
                    reasons.append(result)
            spent, waiting = time.monotonic() - began, any(self._inspected.values())
            if results and not first:
                first = spent
            there = len(self._inspected) >= expected or spent > WAIT
            if there and not waiting:
                break
            if spent > (max(WAIT, 10 * first) if results else INSPECTION):
                break  # those that are still at it may take part later
            time.sleep(POLL)
        if not results:
            reason = reasons[0] if reasons else f"none was there after {WAIT:.0f} s"
            raise BackendError(
                f"No worker can be used ({reason}); start workers where package, bundle and "
                "inputs can be opened under the same names."
            )
        kinds = Counter(tuple(result.fingerprint.items()) for result in results.values())
        ((most, _),) = kinds.most_common(1)
        self._agreed = next(
            result for result in results.values() if tuple(result.fingerprint.items()) == most
        )
        for warning in self._agreed.warnings:
            self.progress.warn(warning)
        for address, result in results.items():
            self._judge(address, result)

    def look(self) -> None:
        """Forget workers that are lost, and let new ones take part if they agree."""
        if time.monotonic() - self._looked < POLL:
            return
        for address, result in self._new_results():
            if isinstance(result, Inspection):
                self._judge(address, result)
        self._looked = time.monotonic()

    @property
    def hopeless(self) -> bool:
        """Whether no worker takes part, and none is being inspected."""
        return not self.members and not any(self._inspected.values())

    def leave_out(self, member: Member, reason: str) -> None:
        """Give a worker no more blocks."""
        self.members.pop(member.address, None)
        self.progress.warn(f"The worker {member.done.name} is left out: {reason}")

    def _new_results(self) -> list[tuple[str, Inspection | str]]:
        """Inspections that are over, or why one failed; others are started."""
        try:
            there = self.client.nthreads()
        except (OSError, TimeoutError) as error:
            raise BackendError(
                f"The scheduler no longer answers ({error}); start it again and run the same "
                "command, which continues with the finished blocks."
            ) from error
        for address in [*self._inspected, *self.members]:
            if address not in there:
                self._inspected.pop(address, None)
                self.members.pop(address, None)
        for address in there:
            if address not in self._inspected:
                self._inspected[address] = self.client.submit(
                    inspect, self.job, workers=[address], pure=False
                )
        over = []
        for address, future in self._inspected.items():
            if future is None or not future.done():
                continue
            try:
                result = future.result(timeout=WAIT)
            except Exception as error:  # whatever is wrong there, other workers may do
                result = reason_of(error)
                self.progress.warn(f"The worker {address} is left out: {result}")
            self._inspected[address] = None
            over.append((address, result))
        return over

    def _judge(self, address: str, found: Inspection) -> None:
        """Let a worker take part, unless its pixels may differ."""
        ours = self.agreed.fingerprint
        names = [name for name in ours if found.fingerprint.get(name) != ours[name]]
        differences = "; ".join(_words(name, found.fingerprint[name], ours[name]) for name in names)
        if names and not self.mixed:
            self.progress.warn(
                f"The worker {found.name} is left out, as it differs from the others in "
                f"{differences}; `mixed` would allow it"
            )
            return
        if names:
            self.progress.note(f"The worker {found.name} differs from the others in {differences}")
        done = self.shares.setdefault(found.name, Worker(found.name))
        self.members[address] = Member(address, found, done)


def _words(name: str, found: str, expected: str) -> str:
    """A difference in words: both values, or what only one of them has, if that is short."""
    for text in (
        f"{found}, not {expected}",
        " ".join(sorted(set(found.split()) ^ set(expected.split()))),
    ):
        if len(text) <= _SHOWN:
            return f"{name} ({text})"
    return name
