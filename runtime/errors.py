"""Errors that a user can cause, warnings, and words for their sentences.

A message says what was found, what was expected and what to do. Where it names a parameter, it
puts it into backquotes: ```nodata``` or ```nodata=0```; the commands show that as ``--nodata 0``.
"""

from __future__ import annotations


class SSDiffError(Exception):
    """A mistake in what the user gave, or a machine that cannot do what was asked.

    Commands print the message without a traceback and exit with status 2. Anything else that is
    raised is a defect of the program.
    """


class InputError(SSDiffError, ValueError):
    """Imagery or an argument cannot be used.

    Attributes:
        parameter: name of the parameter whose value is wrong, if it is one.
    """

    def __init__(self, message: str, *, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class BundleError(SSDiffError):
    """A bundle is missing, damaged or made for something else."""


class ParityError(SSDiffError):
    """Two computations that should agree do not."""


class BackendError(SSDiffError):
    """A backend or a device is missing, refuses, or gives no finite values."""


class OutputError(SSDiffError):
    """A result cannot be written."""


class SSDiffWarning(UserWarning):
    """Something about the imagery or the machine that may make the result wrong."""


def install(extra: str) -> str:
    """The command that adds an extra to this installation, for a message.

    pip finds the extras of a package that is installed in its own metadata, so this works in any
    folder, also where the package was installed from a clone.
    """
    return f"pip install 'ssdiff-trt[{extra}]'"


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 band", "4 bands"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
