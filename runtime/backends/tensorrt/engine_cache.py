"""Cache of built engines.

::

    engines/
        KEY.engine       the serialised engine
        KEY.json         its key, sha256, layers and build time
        KEY.lock         lock file of the process that builds it
        timing.*.cache   TensorRT's timing cache

An engine is native code, so it is only loaded if its sha256 is the recorded one. A bundle may
contain engines in a folder of its own; engines built during a run go to the user's cache.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ssdiff_trt.runtime.backends.tensorrt.engine import EngineKey
from ssdiff_trt.runtime.files import atomic_write, make_cache
from ssdiff_trt.runtime.progress import Progress


class Record(BaseModel):
    """Metadata of an engine, stored beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: EngineKey
    sha256: str
    layers: dict[str, int]
    """Number of layers of the network by kind and type."""
    seconds: float
    """Build time."""


class EngineCache:
    """Cache of engines in a folder, with further folders that are only read.

    Args:
        folder: folder to store new engines in.
        read_only: folders to search first.
    """

    def __init__(self, folder: Path, read_only: Sequence[Path] = ()) -> None:
        self.folder = folder
        self._folders = (*read_only, folder)

    def find(self, key: EngineKey, progress: Progress) -> bytes | None:
        """The engine with this key, if there is one whose sha256 is right."""
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
                f"The engine {folder / key.digest}.engine has changed since it was built (its "
                "sha256 differs); it is not loaded but rebuilt"
            )
        return None

    def get(
        self,
        key: EngineKey,
        build: Callable[[Path], tuple[bytes, dict[str, int]]],
        progress: Progress,
    ) -> bytes:
        """The engine with this key, built if it is not cached, by one process at a time.

        Args:
            key: key of the engine.
            build: builds the engine, given the path of the timing cache; returns it with the
                number of its layers by kind and type.
            progress: receives the reason for a build.

        Raises:
            SSDiffError: if the cache cannot be written to.
        """
        if engine := self.find(key, progress):
            return engine
        make_cache(self.folder)
        with _locked(self.folder / f"{key.digest}.lock", progress):
            if engine := self.find(key, progress):  # another process has built it meanwhile
                return engine
            progress.note(self._reason(key))
            began = time.monotonic()
            engine, layers = build(self.folder / f"timing.{key.flavour}-{key.version}.cache")
            self.put(key, engine, layers, time.monotonic() - began)
        return engine

    def build_seconds(self, key: EngineKey) -> float | None:
        """Build time of the engine with this key; None if it is not cached."""
        records = (_read(folder / f"{key.digest}.json") for folder in self._folders)
        return next((r.seconds for r in records if r is not None and r.key == key), None)

    def put(self, key: EngineKey, engine: bytes, layers: dict[str, int], seconds: float) -> None:
        """Store an engine, then its record, which makes it visible to readers."""
        sha256 = hashlib.sha256(engine).hexdigest()
        record = Record(key=key, sha256=sha256, layers=layers, seconds=round(seconds, 2))
        with atomic_write(self.folder / f"{key.digest}.engine") as path:
            path.write_bytes(engine)
        with atomic_write(self.folder / f"{key.digest}.json") as path:
            path.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def _reason(self, key: EngineKey) -> str:
        """Message about a build, with the differences from the most similar cached engine."""
        cached = [
            record.key
            for folder in self._folders
            for path in sorted(folder.glob("*.json"))
            if (record := _read(path))
        ]
        message = f"Building an engine in {key.precision} for {key.gpu}, to be cached"
        differences = sorted((key.differences(other) for other in cached), key=len)
        if not differences or not differences[0] or len(differences[0]) > 3:
            return message
        return f"{message} (most similar cached engine: {'; '.join(differences[0])})"


def _read(path: Path) -> Record | None:
    try:
        return Record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    """Hold a lock file, which the system releases if the process dies; others wait."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.note(f"Waiting for another process that is building this engine ({path})")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
