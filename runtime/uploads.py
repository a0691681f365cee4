"""Results at a URL: written on this machine, and uploaded when they are complete."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from ssdiff_trt.runtime.errors import OutputError, install
from ssdiff_trt.runtime.files import reason_of
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.user_folders import cache_folder, make_cache

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_OF_GDAL = {"/vsis3/": "s3://", "/vsigs/": "gs://", "/vsiaz/": "az://"}
"""Names that GDAL has for places, and those that fsspec has."""
_APPEARS_WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "memory"}
"""Protocols of stores in which an object appears when it is complete."""


def is_url(output: str | Path | None) -> bool:
    """Whether an output is not on a disk of this machine."""
    name = str(output)
    return bool(_URL.match(name)) or name.startswith(tuple(_OF_GDAL))


class Upload:
    """Where a result goes, and where it is until it is complete: in the user's cache.

    Args:
        url: of the result, in a place that fsspec writes to.
        overwrite: whether to replace what is there.

    Attributes:
        url: of the result.
        local: file to write, the same for the same URL, so that a run can be continued.

    Raises:
        OutputError: if fsspec or what it needs for the protocol is missing, there is something at
            the URL, or it cannot be asked.
    """

    def __init__(self, url: str, overwrite: bool) -> None:
        for prefix, protocol in _OF_GDAL.items():
            if url.startswith(prefix):
                url = protocol + url.removeprefix(prefix)
        self.url = url
        self._files, self._path = self._open()
        try:
            there = self._files.exists(self._path)
        except Exception as error:  # those of any store's library
            raise OutputError(f"{url} cannot be reached ({reason_of(error)}).") from error
        if there and not overwrite:
            raise OutputError(f"{url} exists; give another `output` or pass `overwrite`.")
        digest = hashlib.sha256(url.encode()).hexdigest()[:16]
        self.local = cache_folder() / "uploads" / digest / PurePosixPath(self._path).name
        make_cache(self.local.parent)

    def _open(self) -> tuple[Any, str]:
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise OutputError(
                f"{self.url} is written by fsspec, which is missing; "
                f"{install('cloud')}, or give a file."
            ) from None
        try:
            files, path = url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise OutputError(
                f"{self.url} cannot be written to ({reason_of(error)}); install what its protocol "
                "needs, or give a file."
            ) from error
        return files, str(path)

    def send(self, files: Sequence[Path], progress: Progress) -> None:
        """Upload files, those beside the result to beside its URL, and delete them here.

        Each appears at its final name when it is complete.

        Raises:
            OutputError: if that fails; the files stay here.
        """
        folder = self._path.rpartition("/")[0]
        for file in files:
            target = self._path if file == self.local else f"{folder}/{file.name}"
            progress.note(f"Uploading {self.beside(file)}")
            try:
                self._put(file, target)
            except Exception as error:
                raise OutputError(
                    f"{self.url} cannot be written ({reason_of(error)}); the result is {file}, "
                    "which is complete: upload it yourself, or run the same command again."
                ) from error
        for file in files:
            file.unlink()
        with suppress(OSError):  # another run to the URL may use it
            self.local.parent.rmdir()

    def beside(self, file: Path) -> str:
        """URL of a file that is beside the result."""
        return f"{self.url.rpartition('/')[0]}/{file.name}"

    def _put(self, file: Path, target: str) -> None:
        protocols = self._files.protocol
        names = {protocols} if isinstance(protocols, str) else set(protocols)
        if names & _APPEARS_WHOLE:
            self._files.put_file(str(file), target)
            return
        unfinished = f"{target}.unfinished"
        self._files.put_file(str(file), unfinished)
        self._files.mv(unfinished, target)
