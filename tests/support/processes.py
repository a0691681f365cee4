"""Processes that are forked from a test, to be limited or killed."""

from __future__ import annotations

import multiprocessing
import sys

import pytest

needs_fork = pytest.mark.skipif(
    sys.platform != "linux", reason="forks, and limits by the system, as on Linux"
)


def start(function, *arguments):
    """A process that runs a function of the test; its exit status is 1 if that raises."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process
