"""What a command sets for its process, before anything heavy is imported."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ssdiff_trt.runtime.cpus import choose_threads
from ssdiff_trt.runtime.progress import keep_streams

_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3  # of mallopt(3)
_LARGE = 1 << 20
"""Bytes from which on memory goes back to the system when it is freed."""
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


@contextmanager
def process() -> Iterator[None]:
    """The surroundings of a command: streams that may be lost, and signals that end it once.

    A signal ends the command like an exception, so that unfinished files are removed. Those that
    follow are ignored, or they would interrupt that.
    """
    product = keep_streams()
    known = [number for name in _SIGNALS if (number := getattr(signal, name, None))]
    # nohup ignores SIGHUP, a shell SIGINT in what it runs in the background.
    ending = [number for number in known if signal.getsignal(number) != signal.SIG_IGN]

    def handle(handler: Any) -> None:
        for number in ending:
            signal.signal(number, handler)

    def end(received: int, frame: FrameType | None) -> None:
        handle(lambda *_: None)  # SIG_IGN makes Python complain of one that has arrived already
        if received == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + received)

    def lost(exception: sys.UnraisableHookArgs) -> None:
        """Python drops what is raised in a destructor: the next signal has to do."""
        if isinstance(exception.exc_value, KeyboardInterrupt | SystemExit):
            handle(end)
        else:
            show_unraisable(exception)

    sys.unraisablehook = lost
    handle(end)
    try:
        yield
    finally:
        handle(lambda *_: None)
        handle(signal.SIG_IGN)  # which lasts until the interpreter is gone
        sys.stdout.flush()
        if product and product.error and not isinstance(product.error, BrokenPipeError):
            print(
                f"Error: Standard output cannot be written to ({product.error.strerror}).",
                file=sys.stderr,
            )
            sys.exit(2)


def show_unraisable(raised: sys.UnraisableHookArgs) -> None:
    """Show what Python cannot raise, but not that a message of GDAL's quotes a file that is not
    UTF-8: rasterio cannot log it, and raises the error that it is about by itself."""
    if not isinstance(raised.exc_value, UnicodeDecodeError):
        sys.__unraisablehook__(raised)


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
