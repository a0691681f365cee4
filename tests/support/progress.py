"""Recorder of progress updates."""

from __future__ import annotations

from ssdiff_trt.runtime.progress import Progress


class RecordingProgress(Progress):
    """Records notes and warnings, and the amounts of work started and done."""

    def __init__(self, verbose=False):
        self.verbose, self.notes, self.warnings = verbose, [], []
        self.total = self.done = 0

    def note(self, text):
        self.notes.append(text)

    def detail(self, text):
        if self.verbose:
            self.note(text)

    def warn(self, text):
        self.warnings.append(text)

    def start(self, what, total):
        self.total += total

    def advance(self, pieces):
        self.done += pieces
