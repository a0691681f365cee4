"""Many scenes: a table of them, or names that follow a pattern."""

from __future__ import annotations

import csv
import glob
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.files import reading

SEPARATOR = "|"
"""Between several values in one cell of a table."""
_PLACES = ("pan", "ms", "output")
"""Columns that name files."""


@dataclass(frozen=True)
class SceneEntry:
    """One of many scenes."""

    pan: str
    """PAN, or a product that has both."""
    ms: tuple[str, ...] = ()
    """MS, or the files of its bands; empty for a product."""
    output: str | None = None
    """Result; None for the default name."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of this scene alone, by name."""


def read_scenes(path: str | Path, convert: Callable[[str, str], Any]) -> list[SceneEntry]:
    """The scenes of a CSV file, whose first line names the columns.

    ``pan`` is needed; ``ms`` and ``output`` name the other files, and any other column is an
    option. An empty cell stands for the default. Relative names count from the folder of the file.

    Args:
        path: of the file, UTF-8, with commas or semicolons between its columns.
        convert: makes the value of an option of its name and its text; raises InputError.

    Raises:
        InputError: if the file cannot be read, or an option does not work; names the line.
    """
    path = Path(path)
    with reading(f"{path} cannot be read as a table of scenes", "give a CSV file", csv.Error):
        text = path.read_text(encoding="utf-8-sig")
        head = text.partition("\n")[0]
        delimiter = ";" if ";" in head and "," not in head else ","
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows = [(table.line_num, row) for row in table]
        columns = [name.strip() for name in table.fieldnames or ()]
    if "pan" not in columns or len(set(columns)) < len(columns):
        raise InputError(
            f"{path} has the columns {', '.join(columns) or 'none'}, expected pan, and each once; "
            "name the columns in the first line."
        )
    entries = []
    for line, row in rows:
        if None in row or None in row.values():
            raise InputError(
                f"{path} has {len(list(row))} columns and another number of values in line "
                f"{line}; write each value that has a comma in quotes."
            )
        values = {name.strip(): value.strip() for name, value in row.items() if value.strip()}
        if "pan" not in values:
            raise InputError(f"{path} names no pan in line {line}; fill in its path.")
        try:
            options = {
                name: convert(name, value) for name, value in values.items() if name not in _PLACES
            }
        except InputError as error:
            raise InputError(f"{path}, line {line}: {error}") from error
        ms = tuple(
            _found(path.parent, name.strip())
            for name in values.get("ms", "").split(SEPARATOR)
            if name
        )
        output = values.get("output")
        placed = str(path.parent / output) if output else None
        entries.append(SceneEntry(_found(path.parent, values["pan"]), ms, placed, options))
    return _checked(entries, str(path))


def match_scenes(
    pattern: str, ms: Sequence[str] = (), output: str | None = None
) -> list[SceneEntry]:
    """The scenes whose PAN, or product, matches a pattern.

    Args:
        pattern: of paths, with one ``*``.
        ms: pattern of MS, or of the files of its bands, where ``*`` stands for what it matched.
        output: pattern of the results, likewise.

    Raises:
        InputError: if there are none, or two have the same output.
    """
    if pattern.count("*") != 1:
        raise InputError(
            f"The pattern {pattern} has {pattern.count('*')} *, expected one; or give a table that "
            "ends in .csv."
        )
    before, after = pattern.split("*")
    matches = re.compile(f"{re.escape(before)}([^/]*){re.escape(after)}", re.DOTALL)
    entries = []
    for path in sorted(glob.glob(f"{glob.escape(before)}*{glob.escape(after)}")):
        if (match := matches.fullmatch(path)) is None:
            continue
        named = [name.replace("*", match[1]) for name in ms]
        target = output.replace("*", match[1]) if output else None
        entries.append(SceneEntry(path, tuple(named), target))
    return _checked(entries, pattern)


def _found(folder: Path, name: str) -> str:
    """A name in a table: relative to its folder if there is such a file, else as GDAL takes it."""
    return str(folder / name) if os.path.exists(folder / name) else name


def _checked(entries: list[SceneEntry], where: str) -> list[SceneEntry]:
    """Scenes that there are, with outputs of their own."""
    if not entries:
        raise InputError(f"{where} has no scenes, expected one or more; check it.")
    seen: dict[str, str] = {}
    for entry in entries:
        if entry.output is None:
            continue
        target = os.path.abspath(entry.output)
        if target in seen:
            raise InputError(
                f"{seen[target]} and {entry.pan} have the same output {entry.output}; give each "
                "its own, such as 'results/*.tif' for a pattern."
            )
        seen[target] = entry.pan
    return entries
