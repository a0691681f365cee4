"""Files that are damaged, files that appear when they are complete, and folders of work between."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import stat
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError
from zipfile import BadZipFile

from ssdiff_trt.runtime.errors import InputError, OutputError, SSDiffError

_LONGEST = 255
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
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_WEB_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html|head|body|\?xml|!--)", re.IGNORECASE
)

DAMAGED: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BadZipFile,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TokenError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What readers of numpy, SciPy, h5py, PyTorch and Python raise of a damaged file."""
_LONGEST_REASON = 300
"""Characters of a library's message that are shown."""


@contextmanager
def reading(what: str, remedy: str, *more: type[Exception]) -> Iterator[None]:
    """Context manager that turns what a library raises of a damaged file into one sentence.

    Args:
        what: its beginning, such as "a.mat cannot be read as a MATLAB file".
        remedy: its end, what to do.
        more: what the library raises besides :data:`DAMAGED`.

    Raises:
        InputError: if the block raises one of them. Errors of this project pass.
    """
    try:
        yield
    except SSDiffError:
        raise
    except (*DAMAGED, *more) as error:
        raise InputError(f"{what} ({reason_of(error)}); {remedy}.") from error


def reason_of(error: Exception) -> str:
    """Why a file cannot be read, in a few words, of what a library raised."""
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if callable(faults := getattr(error, "errors", None)):  # of pydantic, whose text has many lines
        first = faults()[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg']}" if place else first["msg"]
    stated = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(stated.split())[:_LONGEST_REASON] or type(error).__name__


def not_fetched(path: Path) -> str | None:
    """What a file is that lies in place of another one, and what to do, by its first bytes.

    Returns:
        The end of a sentence that begins with the path; None if the file is none of these: empty,
        a Git LFS pointer, a web page.

    Raises:
        OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "is empty; fetch it again"
    if head.startswith(_LFS_POINTER):
        return "is a Git LFS pointer, not the file that it stands for; fetch that with git lfs pull"
    if _WEB_PAGE.match(head):
        return "is a web page, not the file itself; fetch the file again, from its own address"
    return None


def sha256_of(path: Path) -> str:
    """sha256 of a file, as hex digits."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        return digest.hexdigest()


def check_parent(path: Path) -> None:
    """That a file can be made there; folders that are missing can be made too.

    Raises:
        OutputError: if not.
    """
    for part in path.parts:
        if len(os.fsencode(part)) > _LONGEST:
            raise OutputError(
                f"The name {part} has {len(os.fsencode(part))} bytes, expected {_LONGEST} at most; "
                "give a shorter one."
            )
    parent = path.absolute().parent
    while not os.path.exists(parent):
        parent = parent.parent
    if not (os.path.isdir(parent) and os.access(parent, os.W_OK)):
        raise OutputError(f"{parent} is not a directory that can be written to.")


def check_target(
    path: Path, sources: Iterable[str | Path], overwrite: bool, parameter: str = "output"
) -> None:
    """That a file can be written there, and is none that it is made from.

    Folders above it are made when it is written.

    Raises:
        OutputError: if not.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise OutputError(
            f"{path} cannot be a file ({error.strerror}); give another `{parameter}`."
        ) from error
    if path.is_dir():
        raise OutputError(f"{path} is a directory; name a file for the result.")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is a device or a pipe; give another `{parameter}`.")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; give another `{parameter}` or pass `overwrite`.")
    for source in sources:
        if path.exists() and Path(source).exists() and path.samefile(source):
            raise OutputError(f"{path} is one of the inputs; give another `{parameter}`.")
    check_parent(path)


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
            raise refusal(error) from error
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
                folder.mkdir(mode=0o700)
            if fault := foreign(folder):
                raise OutputError(f"{folder} {fault}; remove it, or give another `{parameter}`.")
        except OSError as error:
            raise refusal(error) from error
        with _locked(folder) as mine:
            if not mine:
                raise OutputError(
                    f"Another process is writing {path}; wait for it, or give another "
                    f"`{parameter}`."
                )
            kept = False
            try:
                yield folder
            except BaseException:
                kept = keep()
                raise
            finally:
                if not kept:
                    shutil.rmtree(folder, ignore_errors=True)


def work_folder_of(path: Path) -> Path:
    """Path of :func:`work_folder`, whether it exists or not."""
    name = os.fsencode(path.name)
    if len(name) + len(_UNFINISHED) + 1 > _LONGEST:
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
        raise refusal(error) from error
    _remove_dead(path.parent)
    try:
        yield refusal
    except BaseException:
        with suppress(OSError):  # something else is there
            for made in missing:
                made.rmdir()
        raise


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


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Context manager that gives a temporary path; it is renamed to ``path`` after the block.

    If the block raises, ``path`` is left as it was. If it is a link, what it leads to is replaced.

    Raises:
        OutputError: if the folder of ``path`` cannot be written to.
    """
    path = behind_link(path)
    with scratch_folder(path) as scratch:
        unfinished = scratch / path.name
        yield unfinished
        os.replace(unfinished, path)


def behind_link(path: Path) -> Path:
    """What a link leads to, whether it exists or not; any other path itself."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path


def replace_folder(new: Path, path: Path) -> None:
    """Move a folder to ``path``, in one step even if there is a folder already.

    Where the system can exchange two names (Linux, on most file systems), the folder that was there
    is at ``new`` afterwards. Elsewhere it is moved aside first, to a name beside ``new``, and moved
    back if its place cannot be taken.

    Args:
        new: the folder, in a scratch folder of ``path``, which removes what is left there.
        path: its name from then on.

    Raises:
        OSError: if the folder cannot be moved; what was at ``path`` is still there.
    """
    if not os.path.exists(path):
        new.rename(path)
    elif not _exchange(new, path):
        aside = path.rename(new.with_name(f"replaced-{new.name}"))
        try:
            new.rename(path)
        except OSError:
            aside.rename(path)
            raise


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step, as renameat2(2) with RENAME_EXCHANGE does, if possible."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)  # not every C library has it
    at_working_directory, exchange = -100, 2
    return rename is not None and not rename(
        at_working_directory, os.fsencode(one), at_working_directory, os.fsencode(other), exchange
    )
