"""Files that appear when they are complete, or not at all."""

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
    """Where to write the file for now; it gets its name when the block ends well.

    Raises:
        SSDiffError: if nothing can be written beside it.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise SSDiffError(
            f"{path.parent} cannot be written to ({error.strerror}); give another place for "
            f"{path.name}."
        ) from error
    with folder as scratch:
        unfinished = Path(scratch) / path.name
        yield unfinished
        os.replace(unfinished, path)


def cache_folder() -> Path:
    """Where this user keeps what can be made again: ``SSDIFF_CACHE``, or the system's place."""
    if given := os.environ.get("SSDIFF_CACHE"):
        return Path(given)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return base.expanduser() / "ssdiff-trt"
