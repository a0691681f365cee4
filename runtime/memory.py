"""Memory that this process may use, space on a disk, and whether what is planned fits into them."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from ssdiff_trt.runtime.cpus import control_groups
from ssdiff_trt.runtime.errors import InputError

_WHERE_UNKNOWN = 64e9
"""Bytes that are taken to be usable on a system that does not say how many it has."""


def check_memory(needed: float, what: str, remedy: str) -> None:
    """That so much memory can be had.

    Args:
        needed: bytes, at least.
        what: takes them; the subject of a sentence.
        remedy: what to do where they cannot be had.

    Raises:
        InputError: if they cannot be had.
    """
    if needed > (limit := usable_memory()):
        raise InputError(
            f"{what} takes {in_words(needed)} of memory or more, and this process may use "
            f"{in_words(limit)}; {remedy}."
        )


def check_space(path: Path, size: float, more: float = 0) -> tuple[str, ...]:
    """A warning where a file could become larger than its disk has room for.

    Args:
        path: of the file; folders above it may be missing.
        size: bytes of the file, if it is not compressed.
        more: bytes of further files there, until it is complete.
    """
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if size + more <= (free := shutil.disk_usage(folder).free):
        return ()
    beside = f", finished blocks up to {in_words(more)} until it is complete" if more else ""
    return (
        f"the result takes up to {in_words(size)} where it cannot be compressed{beside}, and "
        f"{folder} has {in_words(free)} left; the disk may become full",
    )


def usable_memory() -> float:
    """Bytes that this process may use: by the machine, a container's limit, and ``ulimit -v``."""
    return min((_of_the_machine(), *map(_of_the_group, control_groups("memory")), *_stated()))


def resident_memory() -> int:
    """Most bytes of memory that this process has used so far; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # not on every system
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def in_words(size: float) -> str:
    """A number of bytes with its unit: 12.3 GB."""
    power = max(1, min(int(math.log10(max(size, 1)) // 3), 6))
    return f"{size / 1000**power:.3g} {'kMGTPE'[power - 1]}B"


def _of_the_machine() -> float:
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):  # not on every system
        return _WHERE_UNKNOWN


def _of_the_group(group: Path) -> float:
    """Bytes that a control group grants (cgroup 2, then 1); infinite without a limit."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            return float((group / name).read_text()) or math.inf
        except (OSError, ValueError):  # not there, or "max"
            continue
    return math.inf


def _stated() -> Iterator[float]:
    """The limit on the address space, where there is one."""
    try:
        import resource
    except ImportError:  # not on every system
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        yield float(limit)
