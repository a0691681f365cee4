"""Telling how work goes: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time


class Progress:
    """Says nothing. The other kinds say the same things, aloud.

    Args:
        verbose: whether :meth:`detail` counts.
    """

    def __init__(self, verbose: bool = False) -> None:
        self.verbose = verbose
        self._total = 0

    def note(self, text: str) -> None:
        """Something to know."""

    def detail(self, text: str) -> None:
        """Something to know for those who asked for more."""
        if self.verbose:
            self.note(text)

    def warn(self, text: str) -> None:
        """Something that may be wrong."""
        self.note(f"Warning: {text}")

    def start(self, what: str, total: int) -> None:
        """Work of ``total`` pieces begins."""

    def advance(self, pieces: int) -> None:
        """So many more are done."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        """The work is over."""


class Warnings(Progress):
    """Warnings alone, on standard error."""

    def warn(self, text: str) -> None:
        print(f"Warning: {text}", file=sys.stderr, flush=True)


class Lines(Progress):
    """Plain lines on standard error, one for every tenth of the work."""

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def start(self, what: str, total: int) -> None:
        self._what, self._total, self._done, self._began = what, total, 0, time.monotonic()

    def advance(self, pieces: int) -> None:
        before, self._done = self._done, self._done + pieces
        if self._done * 10 // self._total > before * 10 // self._total:
            spent = time.monotonic() - self._began
            left = spent / self._done * (self._total - self._done)
            share = 100 * self._done // self._total
            self.note(f"{self._what}: {self._done}/{self._total} ({share} %), {left:.0f} s left")


class Bar(Progress):
    """A bar on the terminal."""

    def __init__(self, verbose: bool = False) -> None:
        super().__init__(verbose)
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        self._console = Console(stderr=True, highlight=False)
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def start(self, what: str, total: int) -> None:
        self._task = self._bar.add_task(what, total=total)
        self._bar.start()

    def advance(self, pieces: int) -> None:
        self._bar.advance(self._task, pieces)

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()


def choose(quiet: bool = False, verbose: bool = False) -> Progress:
    """The kind that fits where standard error goes."""
    if quiet:
        return Warnings()
    return Bar(verbose) if sys.stderr.isatty() else Lines(verbose)
