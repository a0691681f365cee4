"""Engines that were built already.

::

    engines/
        KEY.engine       the serialised engine
        KEY.json         what it depends on, and its sha256
        KEY.lock         held while one process builds it
        timing.*.cache   what TensorRT measured of kernels

An engine is native code: only one whose sha256 is the recorded one is loaded. A bundle may bring
engines in its own folder; what is built at a run goes to the user's cache.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ssdiff_trt.runtime.backends.tensorrt.engine import EngineKey
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.files import atomic_write
from ssdiff_trt.runtime.progress import Progress


class Record(BaseModel):
    """What is kept beside an engine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: EngineKey
    sha256: str
    layers: dict[str, int]
    seconds: float
    """That building took."""


class EngineCache:
    """Engines in a folder, and in others that are only read.

    Args:
        folder: to keep new ones in.
        others: to look in too, first.
    """

    def __init__(self, folder: Path, others: Sequence[Path] = ()) -> None:
        self.folder = folder
        self._folders = (*others, folder)

    def find(self, key: EngineKey, progress: Progress) -> bytes | None:
        """The engine, if there is a sound one."""
        for folder in self._folders:
            record = _read(folder / f"{key.digest}.json")
            if record is None or record.key != key:
                continue
            try:
                engine = (folder / f"{key.digest}.engine").read_bytes()
            except OSError:
                continue
            if hashlib.sha256(engine).hexdigest() == record.sha256:
                return engine
            progress.warn(
                f"The engine {folder / key.digest}.engine is not the one that was built (its "
                "sha256 differs); it is not loaded, and built anew"
            )
        return None

    def get(
        self,
        key: EngineKey,
        build: Callable[[Path], tuple[bytes, dict[str, int]]],
        progress: Progress,
    ) -> bytes:
        """The engine, built if need be, by one process at a time.

        Args:
            key: of the engine.
            build: makes it, given the file of timings: the engine and its layers.
            progress: told why it is built.
        """
        if engine := self.find(key, progress):
            return engine
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SSDiffError(f"{self.folder} cannot be written to ({error.strerror}).") from error
        with _locked(self.folder / f"{key.digest}.lock", progress):
            if engine := self.find(key, progress):  # by another process, meanwhile
                return engine
            progress.note(self._reason(key))
            began = time.monotonic()
            engine, layers = build(self.folder / f"timing.{key.flavour}-{key.version}.cache")
            self.put(key, engine, layers, time.monotonic() - began)
        return engine

    def build_seconds(self, key: EngineKey) -> float | None:
        """What building an engine took that is kept here."""
        records = (_read(folder / f"{key.digest}.json") for folder in self._folders)
        return next((r.seconds for r in records if r is not None and r.key == key), None)

    def put(self, key: EngineKey, engine: bytes, layers: dict[str, int], seconds: float) -> None:
        """Keep an engine; the record appears last."""
        sha256 = hashlib.sha256(engine).hexdigest()
        record = Record(key=key, sha256=sha256, layers=layers, seconds=round(seconds, 2))
        with atomic_write(self.folder / f"{key.digest}.engine") as path:
            path.write_bytes(engine)
        with atomic_write(self.folder / f"{key.digest}.json") as path:
            path.write_text(record.model_dump_json(indent=1) + "\n")

    def _reason(self, key: EngineKey) -> str:
        """Why an engine has to be built: what is nearest to it, and what differs."""
        known = [
            record.key
            for folder in self._folders
            for path in sorted(folder.glob("*.json"))
            if (record := _read(path))
        ]
        what = f"Building an engine in {key.precision} for {key.gpu}; it is kept for next time"
        differing = sorted((key.differences(other) for other in known), key=len)
        if not differing or not differing[0] or len(differing[0]) > 3:
            return what
        return f"{what} (the nearest one there is: {'; '.join(differing[0])})"


def _read(path: Path) -> Record | None:
    try:
        return Record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    """One process at a time; the others wait. The lock goes with the process that holds it."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.note(f"Waiting for another process that builds this engine ({path})")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
