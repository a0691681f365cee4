"""CPUs that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cpus() -> int:
    """Number of CPUs that this process may use: by its affinity, and by a container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.ceil(min(cpus, _quota())))


def choose_threads(stated: int | None) -> int:
    """Number of threads to compute with.

    Args:
        stated: by the user; None for ``OMP_NUM_THREADS``, or all usable CPUs without it.

    Returns:
        At most the usable CPUs: more threads would only wait for each other.
    """
    cpus = usable_cpus()
    if stated is None:
        first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
        stated = int(first) if first.isdecimal() and int(first) else cpus
    return min(stated, cpus)


def _quota() -> float:
    """CPUs that the control group grants (cgroup 2, then 1); infinite without a limit."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            words = " ".join((_CGROUP / name).read_text() for name in files).split()
            quota, period = int(words[0]), int(words[1])
        except (OSError, ValueError, IndexError):  # not there, or "max"
            continue
        if quota > 0 and period > 0:
            return quota / period
    return math.inf
