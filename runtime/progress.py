"""Progress: a bar with the time left on a terminal, plain lines elsewhere; standard streams."""

from __future__ import annotations

import io
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ssdiff_trt.runtime.errors import SSDiffWarning

if TYPE_CHECKING:
    from rich.console import Console

_PAUSE = 0.5
"""Least seconds between two objects that only say how much is done."""
_UNLIMITED = 1 << 20
"""Columns where lines may have any length."""


class KeptStream(io.FileIO):
    """A standard stream that drops what nobody can receive, instead of ending the program.

    Attributes:
        error: why something was dropped; None if nothing was.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:  # a closed pipe or terminal, a full disk
            self.error = error
            return len(data)


def keep_streams() -> KeptStream | None:
    """Let the program outlive its standard output and standard error.

    Characters that their encoding lacks are escaped. Descriptors that are closed lead nowhere, as
    files that are opened would take their numbers.

    Returns:
        Standard output, where it was replaced.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, this one
    if sys.platform == "win32":  # whose consoles take no bytes
        return None
    kept = KeptStream(1, "w", closefd=False), KeptStream(2, "w", closefd=False)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=former.encoding if former else "utf-8",
            errors="backslashreplace",
            line_buffering=raw.isatty() or raw.fileno() == 2,
        )
        for raw, former in zip(kept, (sys.stdout, sys.stderr), strict=True)
    )
    return kept[0]


def plain_console(**options: Any) -> Console:
    """A console of rich that shows names as they are, whatever brackets and colons they contain.

    Args:
        options: further ones of ``rich.console.Console``.
    """
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, **options)


def print_text(*parts: Any) -> None:
    """Print text and tables of ``rich`` on standard output.

    They fit a terminal; elsewhere no line is wrapped or cut, so that programs can read them.
    """
    from rich.table import Table

    console = plain_console(width=None if sys.stdout.isatty() else _UNLIMITED)
    with console.capture() as text:
        for part in parts:
            if isinstance(part, Table) and part.title:
                console.print(part.title, style="table.title")
                part.title = None  # which would be wrapped to the width of the table
            console.print(part)
    print("\n".join(line.rstrip() for line in text.get().splitlines()))


class Progress:
    """Receives progress updates and messages. This one shows nothing; subclasses print."""

    def note(self, text: str) -> None:
        """Show a line of information."""

    def detail(self, text: str) -> None:
        """Show a line of information to those who asked for more."""

    def warn(self, text: str) -> None:
        """Show a warning; here, issue a Python warning."""
        warnings.warn(text, SSDiffWarning, stacklevel=3)

    def start(self, what: str, total: int) -> None:
        """Begin work of ``total`` pieces."""

    def advance(self, pieces: int) -> None:
        """Count pieces that are done."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        """End the work."""


class Printed(Progress):
    """Prints messages on standard error.

    Args:
        verbose: whether to show details.
        words: turns a message of the library into that of a command.
    """

    def __init__(self, verbose: bool = False, words: Callable[[str], str] = str) -> None:
        self.verbose, self._words = verbose, words

    def note(self, text: str) -> None:
        self._print(self._words(text))

    def detail(self, text: str) -> None:
        if self.verbose:
            self.note(text)

    def warn(self, text: str) -> None:
        self._print(f"Warning: {self._words(text)}")

    def fail(self, text: str) -> None:
        """Show why the command fails."""
        self._print(f"Error: {text}")

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class Warnings(Printed):
    """Prints warnings alone."""

    def note(self, text: str) -> None:
        """Show nothing."""


class Lines(Printed):
    """Prints plain lines, one for every tenth of the work."""

    def start(self, what: str, total: int) -> None:
        self._what, self._total, self._done, self._began = what, max(total, 1), 0, time.monotonic()

    def advance(self, pieces: int) -> None:
        before, self._done = self._done, self._done + pieces
        if self._done * 10 // self._total > before * 10 // self._total:
            spent = time.monotonic() - self._began
            left = math.ceil(spent / self._done * (self._total - self._done))
            share = 100 * self._done // self._total
            self._print(f"{self._what}: {self._done}/{self._total} ({share} %), {left} s left")


class JsonLines(Printed):
    """Prints one JSON object a line, for programs that drive this one.

    Each has ``stage`` (what is being done), ``done``, ``total``, ``eta`` (seconds left; null if
    unknown), ``message`` (null if it is about progress alone) and ``level`` (info, warning or
    error).
    """

    _stage: str | None = None
    _done = _total = 0
    _began = _shown = 0.0

    def note(self, text: str) -> None:
        self._object(self._words(text), "info")

    def warn(self, text: str) -> None:
        self._object(self._words(text), "warning")

    def fail(self, text: str) -> None:
        self._object(text, "error")

    def start(self, what: str, total: int) -> None:
        self._stage, self._done, self._total, self._began = what, 0, total, time.monotonic()
        self._object()

    def advance(self, pieces: int) -> None:
        self._done += pieces
        if pieces and (self._done >= self._total or time.monotonic() - self._shown > _PAUSE):
            self._object()

    def _object(self, message: str | None = None, level: str = "info") -> None:
        self._shown = time.monotonic()
        left = None
        if self._done:
            left = (self._shown - self._began) / self._done * (self._total - self._done)
        fields = {
            "stage": self._stage,
            "done": self._done,
            "total": self._total,
            "eta": None if left is None else round(left, 1),
            "message": message,
            "level": level,
        }
        self._print(json.dumps(fields))


class Bar(Printed):
    """Shows a bar on the terminal."""

    def __init__(self, verbose: bool = False, words: Callable[[str], str] = str) -> None:
        super().__init__(verbose, words)
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        self._console = plain_console(stderr=True)
        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)

    def start(self, what: str, total: int) -> None:
        self._task = self._bar.add_task(what, total=total)
        self._bar.start()

    def advance(self, pieces: int) -> None:
        self._bar.advance(self._task, pieces)

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()


KINDS = {"bar": Bar, "lines": Lines, "json": JsonLines}


def choose(
    quiet: bool = False,
    verbose: bool = False,
    words: Callable[[str], str] = str,
    kind: str = "auto",
) -> Printed:
    """A way to show progress on standard error.

    Args:
        quiet: whether to show warnings only; JSON is not affected.
        verbose: see :class:`Printed`.
        words: likewise.
        kind: one of ``KINDS``, or auto for what fits where standard error goes.
    """
    if kind == "auto":
        kind = "bar" if sys.stderr.isatty() else "lines"
    if quiet and kind != "json":
        return Warnings(words=words)
    return KINDS[kind](verbose, words)
