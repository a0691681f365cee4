"""CPUs that this process may use."""

from __future__ import annotations

import math
import os
import platform
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from ssdiff_trt.runtime.arguments import positive
from ssdiff_trt.runtime.errors import SSDiffWarning, counted

_CPUINFO = Path("/proc/cpuinfo")
_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_VECTORS = re.compile("avx|amx|sse|ssse|fma|f16c|asimd|sve|sme|bf16|i8mm|fphp")


def usable_cpus() -> int:
    """Number of CPUs that this process may use: by its affinity, and by a container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.ceil(min(cpus, *map(_quota, control_groups("cpu")))))


def choose_threads(stated: int | None) -> int:
    """Number of threads to compute with.

    Args:
        stated: by the user; None for ``OMP_NUM_THREADS``, or all usable CPUs without it.

    Returns:
        At most the usable CPUs: more threads would only wait for each other.

    Warns:
        SSDiffWarning: if more were stated.

    Raises:
        InputError: if fewer than 1 were stated.
    """
    cpus = usable_cpus()
    if stated is None:
        return min(_openmp_threads() or cpus, cpus)
    if (stated := positive("threads", stated)) > cpus:
        warnings.warn(
            f"`threads` is {stated}, and this process may use {counted(cpus, 'CPU')}; as many "
            "threads are used",
            SSDiffWarning,
            stacklevel=2,
        )
    return min(stated, cpus)


def _openmp_threads() -> int | None:
    """The first number of ``OMP_NUM_THREADS``, if it is one that can be used."""
    try:
        first = int(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0])
    except ValueError:
        return None
    return first if first > 0 else None


def instruction_sets() -> str:
    """Kind of CPU and the vector instructions that it has, which rounding may depend on."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # not on every system
        return f"{platform.machine()} {platform.processor()}"
    listed = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    flags = listed[1].split() if listed else []
    return " ".join((platform.machine(), *(flag for flag in flags if _VECTORS.match(flag))))


def control_groups(kind: str) -> Iterator[Path]:
    """Folders of the control groups that this process may be in, with those above them.

    In a container they may be named as the host sees them; the folder of the container is then the
    root.

    Args:
        kind: what they control, ``cpu`` or ``memory``.
    """
    yield from (_CGROUP, _CGROUP / kind)
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and kind not in controllers.split(","):
            continue
        group = Path(name.lstrip("/"))
        for mount in (kind, controllers) if controllers else ("", "unified"):
            yield from (_CGROUP / mount / above for above in (group, *group.parents))


def _quota(group: Path) -> float:
    """CPUs that a control group grants (cgroup 2, then 1); infinite without a limit."""
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            words = " ".join((group / name).read_text() for name in files).split()
            quota, period = int(words[0]), int(words[1])
        except (OSError, ValueError, IndexError):  # not there, or "max"
            continue
        if quota > 0 and period > 0:
            return quota / period
    return math.inf


def computes_in_bf16() -> bool:
    """Whether the processor has instructions for BF16; False where the system does not say."""
    try:
        flags = _CPUINFO.read_text()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags.split())
