"""Atomic writing of files, and the user's cache folder."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssdiff_trt.runtime.errors import SSDiffError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Context manager that gives a temporary path; it is renamed to ``path`` after the block.

    If the block raises, ``path`` is left as it was.

    Raises:
        SSDiffError: if the folder of ``path`` cannot be written to.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise SSDiffError(
            f"{path.parent} cannot be written to ({error.strerror}); choose another folder for "
            f"{path.name}."
        ) from error
    with folder as scratch:
        unfinished = Path(scratch) / path.name
        yield unfinished
        os.replace(unfinished, path)


def cache_folder() -> Path:
    """The user's cache folder: ``SSDIFF_CACHE``, or the default of the operating system."""
    if folder := os.environ.get("SSDIFF_CACHE"):
        return Path(folder)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return base.expanduser() / "ssdiff-trt"
