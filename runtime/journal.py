"""Which parts of a long piece of work are finished, on the disk, so that it can be continued."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssdiff_trt.runtime.files import json_of, sha256_of
from ssdiff_trt.runtime.scratch import JOURNAL, LOCK

_SHOWN = 40
"""Characters of a value that is shown; hashes are longer."""


@dataclass(frozen=True)
class Part:
    """A finished part."""

    file: str
    """Name of its file, in the folder of the journal."""
    size: int
    """Bytes of the file."""
    sha256: str
    """Of the file."""
    counts: Mapping[str, float]
    """What was counted while it was made."""


class Journal:
    """The finished parts of a piece of work: files in a folder, and a line of JSON for each.

    The first line says what the work depends on. The line of a part is written when its file is on
    the disk, so every part that is listed is there, whenever the process or the machine stops.

    Args:
        folder: of the files, which one process uses at a time. Files in it that are no finished
            parts of this work are removed.
        work: what the work depends on, by name. None where that is not known: then no part is
            listed, and none can be used by a later process.

    Attributes:
        listed: whether finished parts are listed.
        parts: finished parts, by the name of their file.
        changed: what the parts that were found depend on and this work does not, in words; empty if
            they are its own, or there were none.
    """

    def __init__(self, folder: Path, work: Mapping[str, str] | None) -> None:
        self._folder, self._path = folder, folder / JOURNAL
        self.listed = work is not None
        head, found = read_journal(folder)
        self.changed = _difference(head, work or {}) if found and work else ""
        usable = found if head == work else ()
        self.parts = {part.file: part for part in usable if self._is_whole(part)}
        for file in folder.iterdir():
            if file.is_file() and file.name not in (*self.parts, LOCK, JOURNAL):
                file.unlink()
        if work is None:
            self._path.unlink(missing_ok=True)
            return
        fresh = self._path.with_suffix(".new")
        fresh.write_bytes(b"".join(map(_line, (work, *map(asdict, self.parts.values())))))
        _to_disk(fresh)
        os.replace(fresh, self._path)
        _to_disk(folder)

    def add(self, file: str, counts: Mapping[str, float]) -> None:
        """Finish a part, whose file is written and closed.

        Raises:
            OSError: if it cannot be brought to the disk.
        """
        if not self.listed:
            self.parts[file] = Part(file, 0, "", counts)
            return
        path = self._folder / file
        part = Part(file, path.stat().st_size, sha256_of(path), dict(counts))
        _to_disk(path)
        _to_disk(self._folder)
        with self._path.open("ab") as journal:
            journal.write(_line(asdict(part)))
        _to_disk(self._path)
        self.parts[file] = part

    def _is_whole(self, part: Part) -> bool:
        path = self._folder / part.file
        try:
            return path.stat().st_size == part.size and sha256_of(path) == part.sha256
        except OSError:
            return False


def read_journal(folder: Path) -> tuple[dict[str, str], list[Part]]:
    """What the parts in a folder depend on, and those that are listed; nothing if none are."""
    lines: list[Any] = []
    with suppress(OSError, ValueError):  # of a line whose writing was cut off
        for line in (folder / JOURNAL).read_bytes().splitlines():
            lines.append(json_of(line))
    try:
        head = {name: str(value) for name, value in lines[0].items()}
        return head, [Part(**line) for line in lines[1:]]
    except (AttributeError, IndexError, TypeError):
        return {}, []


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs, in words."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    words = []
    for name in names:
        values = before.get(name, "none"), now.get(name, "none")
        short = max(map(len, values)) <= _SHOWN
        words.append(f"{name} ({values[0]}, now {values[1]})" if short else name)
    return " and ".join(words)


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(dict(content)).encode() + b"\n"


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if sys.platform == "win32" and path.is_dir():  # which cannot be opened there
        return
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
