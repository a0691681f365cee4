"""Folders of unfinished work, beside the file that it is for."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ssdiff_trt.runtime.errors import OutputError

LONGEST_NAME = 255
"""Bytes of the longest name of a file or folder, on all common file systems."""
_SHOWN = 40
"""Characters of a file's name in that of its temporary folder."""
_UNFINISHED = ".unfinished"
"""Ending of the names of folders of unfinished work, which begin with a dot."""
LOCK = "lock"
"""File in such a folder that a living process holds."""
JOURNAL = "journal.jsonl"
"""File in such a folder whose work can be continued."""
_YOUNG = 60.0
"""Seconds after which a folder that nobody holds is one of a dead process."""


def foreign(path: Path) -> str | None:
    """Why others than this user could have written a file or folder; None if they could not.

    A link counts as what others wrote, whatever it leads to. Windows is not asked.

    Returns:
        The end of a sentence that begins with the path.

    Raises:
        OSError: if there is nothing at the path.
    """
    if sys.platform == "win32":
        return None
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return "is a link"
    if status.st_uid != os.geteuid():
        return f"belongs to another user (uid {status.st_uid})"
    if status.st_mode & 0o022:
        return f"can be written to by others (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


@contextmanager
def scratch_folder(path: Path, parameter: str | None = None) -> Iterator[Path]:
    """A temporary folder beside a file, so that moving a result to its name is one step.

    Missing folders above the file are made, and removed again where the block ends in an exception.
    What killed processes have left there is removed.

    Args:
        path: of the file.
        parameter: that names the file, for the message.

    Raises:
        OutputError: if nothing can be written there.
    """
    with _parents(path, parameter) as refusal:
        prefix = f".{path.name[:_SHOWN]}."  # with its end it must not be longer than names may be
        try:
            folder = Path(tempfile.mkdtemp(_UNFINISHED, prefix, path.parent))
        except OSError as error:
            raise refusal(error) from None
        with _locked(folder):
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def work_folder(path: Path, keep: Callable[[], bool], parameter: str) -> Iterator[Path]:
    """The folder beside a file in which work on it is kept until it is complete.

    Its name depends on that of the file alone, so a later process finds what a dead one has left.
    It is removed at the end, but not where the block ends in an exception and ``keep`` says so.

    Args:
        path: of the file.
        keep: whether what is in the folder can be continued.
        parameter: that names the file, for messages.

    Raises:
        OutputError: if nothing can be written there, or another process works on the file.
    """
    with _parents(path, parameter) as refusal:
        folder = work_folder_of(path)
        try:
            with suppress(FileExistsError):
                folder.mkdir(mode=0o755)  # for others to read, where umask lets them
            if fault := foreign(folder):
                raise OutputError(f"{folder} {fault}; remove it, or give another `{parameter}`.")
        except OSError as error:
            raise refusal(error) from None
        with _locked(folder) as mine:
            if not mine:
                raise OutputError(
                    f"Another process is writing {path}; wait for it, or give another "
                    f"`{parameter}`."
                )
            complete = False
            try:
                yield folder
                complete = True
            finally:
                if complete or not keep():
                    shutil.rmtree(folder, ignore_errors=True)


def work_folder_of(path: Path) -> Path:
    """Path of :func:`work_folder`, whether it exists or not."""
    name = os.fsencode(path.name)
    if len(name) + len(_UNFINISHED) + 1 > LONGEST_NAME:
        name = hashlib.sha256(name).hexdigest().encode()
    return path.with_name(f".{os.fsdecode(name)}{_UNFINISHED}")


@contextmanager
def _parents(path: Path, parameter: str | None) -> Iterator[Callable[[OSError], OutputError]]:
    """Makes the folders above a file, and removes them where the block ends in an exception.

    Gives the error for what cannot be written there.
    """
    remedy = f"another `{parameter}`" if parameter else f"another place for {path.name}"

    def refusal(error: OSError) -> OutputError:
        return OutputError(
            f"Nothing can be written to {path.parent} ({error.strerror}); give {remedy}."
        )

    missing = [folder for folder in path.absolute().parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refusal(error) from None
    _remove_dead(path.parent)
    complete = False
    try:
        yield refusal
        complete = True
    finally:
        with suppress(OSError):  # something else is there
            for made in () if complete else missing:
                made.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold a folder of unfinished work while the block lasts; gives whether it could be had.

    The system lets go of it when the process ends, however it ends.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _remove_dead(parent: Path) -> None:
    """Remove what processes that were killed have left in a folder, unless it can be continued."""
    for folder in parent.glob(f".*{_UNFINISHED}"):
        with suppress(OSError):
            if (folder / JOURNAL).exists() or not (folder / LOCK).exists():
                continue
            if folder.is_symlink() or time.time() - folder.stat().st_mtime < _YOUNG:
                continue
            with _locked(folder) as dead:
                if dead:
                    shutil.rmtree(folder, ignore_errors=True)
