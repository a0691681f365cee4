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
from ssdiff_trt.runtime.pairs import default_output

SEPARATOR = "|"
"""Between several values in one cell of a table."""
_PLACES = ("pan", "ms", "output")
"""Columns that name files and are no options."""
_UNCERTAINTY = "uncertainty"
"""The option that names a file of its own for each scene."""


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


def read_scenes(
    path: str | Path, convert: Callable[[str, str], tuple[str, Any]], *, results: bool = True
) -> list[SceneEntry]:
    """The scenes of a CSV file, whose first line names the columns.

    ``pan`` is needed; ``ms`` and ``output`` name the other files, and any other column is an
    option. An empty cell stands for the default, a line of empty cells for nothing. Relative names
    count from the folder of the file.

    Args:
        path: of the file, UTF-8, with commas, semicolons or tabs between its columns.
        convert: makes of an option's name and text its name and value in Python; raises InputError.
        results: whether the scenes are to be pansharpened, so that their outputs must differ.

    Raises:
        InputError: if the file cannot be read, or an option does not work; names the line.
    """
    path = Path(path)
    remedy = "give a CSV file, saved as UTF-8"
    with reading(f"{path} cannot be read as a table of scenes", remedy, csv.Error):
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise ValueError("it has the character NUL, which no name can have")
        head = text.partition("\n")[0]
        delimiter = next((mark for mark in ",;\t" if mark in head), ",")
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows = [(table.line_num, row) for row in table]
        columns = [name.strip().lower() for name in table.fieldnames or ()]
    if "pan" not in columns:
        raise InputError(
            f"{path} has no column pan, only {', '.join(columns) or 'nothing'}; name the columns "
            "in its first line, with commas between them."
        )
    if len(set(columns)) < len(columns):
        raise InputError(f"{path} has columns of the same name: {', '.join(columns)}; rename them.")
    entries = []
    for line, row in rows:
        if not any(value.strip() for value in row.values() if isinstance(value, str)):
            continue
        if None in row or None in row.values():
            raise InputError(
                f"{path} has {len(list(row))} columns and another number of values in line "
                f"{line}; write each value that has a comma in quotes."
            )
        cells = zip(columns, map(str.strip, row.values()), strict=True)
        values = {name: value for name, value in cells if value}
        if "pan" not in values:
            raise InputError(f"{path} names no pan in line {line}; fill in its path.")
        try:
            options = dict(
                convert(name, value) for name, value in values.items() if name not in _PLACES
            )
        except InputError as error:
            raise InputError(f"{path}, line {line}: {error}") from None
        ms = tuple(
            _found(path.parent, name.strip())
            for name in values.get("ms", "").split(SEPARATOR)
            if name
        )
        output = values.get("output")
        placed = str(path.parent / output) if output else None
        if _UNCERTAINTY in options:
            options[_UNCERTAINTY] = str(path.parent / options[_UNCERTAINTY])
        entries.append(SceneEntry(_found(path.parent, values["pan"]), ms, placed, options))
    return _checked(entries, str(path), results)


def match_scenes(
    pattern: str,
    ms: Sequence[str] = (),
    output: str | None = None,
    uncertainty: str | None = None,
) -> list[SceneEntry]:
    """The scenes whose PAN, or product, matches a pattern.

    Args:
        pattern: of paths, with one ``*``.
        ms: pattern of MS, or of the files of its bands, where ``*`` stands for what it matched.
        output: pattern of the results, likewise.
        uncertainty: pattern of the files of their uncertainty, likewise.

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
        options = {_UNCERTAINTY: uncertainty.replace("*", match[1])} if uncertainty else {}
        entries.append(SceneEntry(path, tuple(named), target, options))
    return _checked(entries, pattern)


def _found(folder: Path, name: str) -> str:
    """A name in a table: relative to its folder if there is such a file, else as GDAL takes it."""
    return str(folder / name) if os.path.exists(folder / name) else name


def _checked(entries: list[SceneEntry], where: str, results: bool = True) -> list[SceneEntry]:
    """Scenes that there are, whose files to write are neither those nor inputs of others."""
    if not entries:
        raise InputError(
            f"No scene was found in {where}, expected one or more; check the path or the pattern."
        )
    if not results:
        return entries
    taken: dict[str, str] = {}
    for entry in entries:
        for name in (entry.pan, *entry.ms):
            taken.setdefault(os.path.realpath(name), f"an input of {entry.pan}")
    for entry in entries:
        written = {
            "output": entry.output or (default_output(entry.ms[0]) if entry.ms else None),
            _UNCERTAINTY: entry.options.get(_UNCERTAINTY),
        }
        for what, path in written.items():
            if path is None:
                continue
            if (other := taken.get(place := os.path.realpath(path))) is not None:
                raise InputError(
                    f"The {what} of {entry.pan}, {path}, is {other}; give each scene its own, such "
                    "as 'results/*.tif' for a pattern."
                )
            taken[place] = f"{'that' if what == 'output' else 'the uncertainty'} of {entry.pan} too"
    return entries
