"""Calling commands in a process of their own."""

from __future__ import annotations

import subprocess
import sys


def call(*words, cwd=None, module="ssdiff_trt.cli.trt"):
    """Run a command in a process of its own."""
    code = f"from {module} import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
