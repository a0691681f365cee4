"""Files that are damaged, and files that appear when they are complete, or not at all."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

from ssdiff_trt.runtime.errors import InputError, OutputError, SSDiffError
from ssdiff_trt.runtime.scratch import LONGEST_NAME, scratch_folder

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


def with_suffix(path: str | Path, suffix: str) -> Path:
    """A path with another suffix.

    Raises:
        InputError: if it is none of a file, such as ``.``.
    """
    path = Path(path)
    if not path.name:
        raise InputError(f"{str(path)!r} is no name of a file; give one.")
    return path.with_suffix(suffix)


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


def json_of(text: bytes | str) -> Any:
    """A document in JSON that pydantic can check.

    Raises:
        ValueError: if it is none, is nested too deep, or has what is no character or half of one,
            at which pydantic crashes in a field's name; the message says which.
    """
    try:
        content = json.loads(text)
        json.dumps(content, ensure_ascii=False).encode().decode()
    except RecursionError:
        raise ValueError("its values are nested too deep") from None
    return content


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
        if (size := len(os.fsencode(part))) > LONGEST_NAME:
            raise OutputError(
                f"The name {part} has {size} bytes, expected {LONGEST_NAME} at most; give a "
                "shorter one."
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
        ) from None
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
