"""The user's folders: the cache, which nobody else can write to, and the configuration."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from ssdiff_trt.runtime.errors import OutputError


def cache_folder() -> Path:
    """The user's cache folder: ``SSDIFF_CACHE``, or the default of the operating system.

    It need not be there, and may be a place where nothing can be.
    """
    if folder := os.environ.get("SSDIFF_CACHE"):
        return Path(folder).absolute()
    return user_folder("XDG_CACHE_HOME", "~/.cache", "LOCALAPPDATA")


def make_cache(folder: Path) -> None:
    """Make a folder of the user's cache; it, and folders above it that are missing, with mode 0700.

    Raises:
        OutputError: if nothing can be written there.
    """
    try:
        for part in (*reversed(folder.parents), folder):
            if not part.is_dir():
                with suppress(FileExistsError):  # another process has made it
                    part.mkdir(mode=0o700)
                    part.chmod(0o700)  # of which the umask may have taken something
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"The cache {folder} cannot be written to ({error.strerror}); set SSDIFF_CACHE to a "
            "folder that can."
        ) from None


def user_folder(variable: str, default: str, windows: str) -> Path:
    """The project's folder in a folder of the user.

    Args:
        variable: names the user's folder (XDG Base Directory Specification); ignored if relative.
        default: the user's folder without it.
        windows: variable that names it on Windows.

    Returns:
        Of users without a home, a place where nothing is or can be made.
    """
    if sys.platform == "win32":
        base = os.environ.get(windows, "~/AppData/Local")
    else:
        base = os.environ.get(variable, "")
        base = base if os.path.isabs(base) else default
    try:
        return Path(base).expanduser() / "ssdiff-trt"
    except RuntimeError:  # HOME is not set, and the system does not know the user
        return Path(os.devnull, "ssdiff-trt")
