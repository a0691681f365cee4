"""What a command sets for its process, before anything heavy is imported."""

from __future__ import annotations

import ctypes
import os
import sys

from ssdiff_trt.runtime.cpus import choose_threads

_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3  # of mallopt(3)
_LARGE = 1 << 20
"""Bytes from which on memory goes back to the system when it is freed."""


def share_cores_and_memory() -> None:
    """Keep libraries from taking a share of cores and memory for each thread.

    OpenBLAS, below numpy, would start a thread for every core, and they wait for each other where
    the network keeps the cores busy. The C library of Linux would keep what each thread frees for
    that thread alone.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if sys.platform == "linux":
        # Not every C library has it (musl).
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt:
            mallopt(_M_ARENA_MAX, 1)
            mallopt(_M_MMAP_THRESHOLD, _LARGE)


def limit_threads(threads: int | None) -> None:
    """Let PyTorch and ONNX Runtime take so many threads, before they are imported."""
    os.environ["OMP_NUM_THREADS"] = str(choose_threads(threads))
