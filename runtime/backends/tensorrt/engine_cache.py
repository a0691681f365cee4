"""The user's cache of built engines.

::

    engines/
        KEY.engine       the serialised engine
        KEY.json         its key, sha256, layers and build time
        KEY.kernels      what TensorRT-RTX compiled for it on this GPU
        KEY.lock         lock file of the process that builds it
        timing.*.cache   TensorRT's timing cache of a GPU

An engine is native code. It is only loaded if nobody else could have written it, neither folder nor
file, and if its sha256 is the recorded one. Engines of bundles are never taken from here; see
:meth:`ssdiff_trt.runtime.bundle.store.Bundle.engine`.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from ssdiff_trt.runtime.backends.tensorrt.engine import EngineKey
from ssdiff_trt.runtime.bundle.measured import Strict
from ssdiff_trt.runtime.files import atomic_write
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.scratch import foreign
from ssdiff_trt.runtime.user_folders import cache_folder, make_cache

_ELSEWHERE = {"tensorrt-rtx": "elsewhere it took 3 to 12 s, on two CPU cores"}
"""How long builds took, by flavour; docs/engines.json. No engine of TensorRT has been timed."""


class Record(Strict):
    """Metadata of an engine, stored beside it."""

    key: EngineKey
    sha256: str
    layers: dict[str, int]
    """Number of layers of the network by kind and type."""
    seconds: float
    """Build time."""


class EngineCache:
    """Cache of engines in a folder.

    Args:
        folder: of this user alone; default: the one in the user's cache folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder() / "engines"

    @property
    def _place(self) -> Path:
        """Where the folder is, which may be a link."""
        return Path(os.path.realpath(self.folder))

    def get(
        self,
        key: EngineKey,
        build: Callable[[Path | None], tuple[bytes, dict[str, int]]],
        progress: Progress,
    ) -> bytes:
        """The engine with this key, built if it is not cached, by one process at a time.

        If others can write to the folder, nothing in it is used, and the engine is not stored.

        Args:
            key: key of the engine.
            build: builds the engine, given the path of the timing cache, if there may be one;
                returns it with the number of its layers by kind and type.
            progress: receives the reason for a build, and a warning if an engine is not loaded.

        Raises:
            SSDiffError: if the cache cannot be written to.
        """
        engine, fault = self._look_up(key)
        if engine is not None:
            return engine
        if fault:
            progress.warn(fault)
        make_cache(self.folder)
        if foreign(self._place):
            return build(None)[0]
        with _locked(self.folder / f"{key.digest}.lock", progress):
            engine, _ = self._look_up(key)
            if engine is not None:  # another process has built it meanwhile
                return engine
            progress.note(self._reason(key))
            began = time.monotonic()
            engine, layers = build(self.folder / timing_file(key))
            self.put(key, engine, layers, time.monotonic() - began)
        return engine

    def _look_up(self, key: EngineKey) -> tuple[bytes | None, str | None]:
        """The engine with this key, if it can be loaded, or else why not, if it is there."""
        path = self.folder / engine_file(key)
        try:
            if fault := foreign(self._place):
                return None, (
                    f"No engine is loaded from or stored in {self.folder}, which {fault}; delete "
                    "it, and the next run makes one for this user alone, or set SSDIFF_CACHE to "
                    "another folder"
                )
            record = _read(path.with_suffix(".json"))
            if record is None or record.key != key:
                return None, None
            fault = foreign(path)
            engine = None if fault else path.read_bytes()
        except OSError:
            return None, None
        if engine is not None and hashlib.sha256(engine).hexdigest() == record.sha256:
            return engine, None
        fault = fault or "has changed since it was built (its sha256 differs)"
        return None, f"The engine {path} {fault}; it is not loaded but rebuilt"

    def build_seconds(self, key: EngineKey) -> float | None:
        """Build time of the engine with this key; None if it is not cached."""
        record = _read(self.folder / f"{key.digest}.json")
        return record.seconds if record is not None and record.key == key else None

    def put(self, key: EngineKey, engine: bytes, layers: dict[str, int], seconds: float) -> None:
        """Store an engine, then its record, which makes it visible to readers."""
        sha256 = hashlib.sha256(engine).hexdigest()
        record = Record(key=key, sha256=sha256, layers=layers, seconds=round(seconds, 2))
        text = record.model_dump_json(indent=1) + "\n"
        _write(self.folder / engine_file(key), engine)
        _write(self.folder / f"{key.digest}.json", text.encode())

    def kernels(self, key: EngineKey) -> bytes:
        """What TensorRT-RTX compiled for the engine with a key; empty if it is not kept.

        It is native code too, and not loaded if others could have written it.
        """
        path = self.folder / _kernels_file(key)
        try:
            return b"" if foreign(self._place) or foreign(path) else path.read_bytes()
        except OSError:
            return b""

    def put_kernels(self, key: EngineKey, kernels: bytes) -> None:
        """Store what TensorRT-RTX compiled for the engine with a key, for later runs."""
        make_cache(self.folder)
        if not foreign(self._place):
            _write(self.folder / _kernels_file(key), kernels)

    def _reason(self, key: EngineKey) -> str:
        """Message about a build: the most similar cached engine, and how long such builds took."""
        message = (
            f"Building an engine in {key.precision} for batches of {key.batch} on {key.gpu}, to be "
            "cached"
        )
        records = [record for path in sorted(self.folder.glob("*.json")) if (record := _read(path))]
        similar = min(
            records,
            key=lambda each: (each.key.flavour != key.flavour, len(key.differences(each.key))),
            default=None,
        )
        if similar is not None:
            differences = key.differences(similar.key)
            if 0 < len(differences) <= 3:
                message += f" (most similar cached engine: {'; '.join(differences)})"
            if similar.key.flavour == key.flavour:
                return f"{message}; that one took {similar.seconds:.0f} s"
        if elsewhere := _ELSEWHERE.get(key.flavour):
            return f"{message}; {elsewhere}"
        return f"{message}; nobody has timed that yet"


def engine_file(key: EngineKey) -> str:
    """File name of the engine with a key, in the cache and in a bundle."""
    return f"{key.digest}.engine"


def timing_file(key: EngineKey) -> str:
    """File name of TensorRT's timing cache, one for each version and GPU."""
    gpu = re.sub(r"\W+", "-", key.gpu)
    return f"timing.{key.flavour}-{key.version}.{gpu}.cache"


def _kernels_file(key: EngineKey) -> str:
    return f"{key.digest}.kernels"


def _write(path: Path, content: bytes) -> None:
    """Write a file of this user alone."""
    path.unlink(missing_ok=True)  # a link would be followed
    with atomic_write(path) as unfinished:
        unfinished.write_bytes(content)
        unfinished.chmod(0o600)


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
