"""Running a command as a program: defaults, errors, signals, exit status."""

from __future__ import annotations

import os
import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ssdiff_trt.cli.messages import as_flags, sentence
from ssdiff_trt.cli.options import chosen_progress
from ssdiff_trt.runtime.errors import InputError, SSDiffError, SSDiffWarning, install
from ssdiff_trt.runtime.user_folders import user_folder

if TYPE_CHECKING:
    from ssdiff_trt.runtime.progress import Progress

INTERRUPTED = 130
_EXTRAS = {
    "distributed": "dask",
    "h5py": "evaluate",
    "matplotlib": "picture",
    "onnx": "calibrate",
    "onnxruntime": "cpu",
    "onnxscript": "export",
    "openvino": "openvino",
    "safetensors": "calibrate",
    "scipy": "evaluate",
    "tomli": "train",
    "torch": "export",
}
"""Packages that not every installation has, and the extra that brings them."""
_TRAINING = dict.fromkeys(("onnx", "onnxscript", "safetensors", "tomli", "torch"), "train")
"""The same for ``ssdiff-ref``."""
_KINDS_OF_NUMBERS = {
    "is not a valid float": "is no number",
    "is not a valid integer": "is no whole number",
}
"""Words of click for programmers, and those that are shown."""
_LIBRARIES = {"libexpat.so.1": "libexpat1"}
"""Libraries that wheels leave to the system and small systems lack, and the package of Debian."""


def progress_for(quiet: bool, verbose: bool) -> Progress:
    """The progress of a command."""
    from ssdiff_trt.runtime.progress import choose

    return choose(quiet, verbose, as_flags, chosen_progress["kind"])


def config_file() -> Path:
    """The file with a user's defaults: ``SSDIFF_CONFIG``, or the system's place for it."""
    if path := os.environ.get("SSDIFF_CONFIG"):
        return Path(path)
    return user_folder("XDG_CONFIG_HOME", "~/.config", "APPDATA") / "config.toml"


def read_defaults(program: str) -> Any:
    """Defaults of a program's options: its table of the configuration file.

    ::

        [ssdiff-trt.run]
        full-scale = 10000
        co = ["COMPRESS=ZSTD"]

    Raises:
        InputError: if the file cannot be read.
    """
    path = config_file()
    if not os.path.exists(path):  # or it may not be looked for
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"The configuration {path} cannot be read ({reason}).") from error
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        table = tomllib.loads(text).get(program, {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"The configuration {path} is not valid TOML ({error}); correct it."
        ) from error
    return table


def defaults_of(command: click.Command, table: Any, program: str) -> dict[str, Any]:
    """A table of the configuration as click's ``default_map``, every name checked.

    Raises:
        InputError: on a name that is no command or option.
    """
    if not isinstance(table, dict):
        raise InputError(
            f"[{program}] of the configuration {config_file()} is not a table; correct it."
        )
    if isinstance(command, click.Group):
        unknown = [name for name in table if name not in command.commands]
        nested = {
            name: defaults_of(command.commands[name], value, f"{program}.{name}")
            for name, value in table.items()
            if name not in unknown
        }
    else:
        options = {
            flag.lstrip("-"): param
            for param in command.params
            if isinstance(param, click.Option)
            for flag in (*param.opts, *param.secondary_opts)
        }
        unknown = [name for name in table if name not in options]
        nested = {
            options[name].name or name: _as_typed(options[name], value, f"[{program}] {name}")
            for name, value in table.items()
            if name not in unknown
        }
    if unknown:
        raise InputError(
            f"[{program}] of the configuration {config_file()} has {unknown[0]!r}, which is no "
            "option there; use the option's name without the dashes."
        )
    return nested


def _as_typed(option: click.Option, value: Any, place: str) -> Any:
    """A value of the configuration as it would be typed.

    Raises:
        InputError: if it is no value of such an option; ``place`` says where it is.
    """
    values = value if isinstance(value, list) else [value]
    no_values = (dict, list) if option.is_flag else (dict, list, bool)
    if any(isinstance(one, no_values) for one in values):
        raise InputError(
            f"{place} of the configuration {config_file()} is {str(value)[:40]}, expected a text "
            "or a number; correct it."
        )
    if option.multiple:
        return tuple(map(str, values))
    if isinstance(value, list):
        return ",".join(map(str, value))
    return value if isinstance(value, bool) else str(value)


def run(command: click.Command, program: str) -> NoReturn:
    """Run a command as a program.

    A user's mistake prints one sentence and exits with 2, an interruption exits with 130; other
    errors keep their traceback.
    """
    warnings.showwarning = _show_warning
    if re.search("--progress[ =]json", " ".join(sys.argv)):  # also if another option is wrong
        chosen_progress["kind"] = "json"
    try:
        defaults = defaults_of(command, read_defaults(program), program)
        status = command.main(prog_name=program, standalone_mode=False, default_map=defaults)
        sys.exit(status if isinstance(status, int) else 0)
    except (click.Abort, KeyboardInterrupt) as error:
        if isinstance(error.__cause__, EOFError):  # click takes every one for the end of input
            raise error.__cause__ from None
        progress_for(quiet=False, verbose=False).note(
            "Interrupted; what was not complete was not written."
        )
        sys.exit(INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        message = error.format_message()
        for theirs, ours in _KINDS_OF_NUMBERS.items():
            message = message.replace(theirs, ours)
        _fail(message, error.exit_code)
    except SSDiffError as error:
        _fail(sentence(error), 2)
    except MemoryError as error:
        stated = f" ({error})" if str(error) else ""
        _fail(f"There is not enough memory{stated}; free some, or give smaller files.", 2)
    except ModuleNotFoundError as error:
        extras = _EXTRAS | (_TRAINING if program == "ssdiff-ref" else {})
        if (extra := extras.get(error.name or "")) is None:
            raise
        _fail(f"{error.name} is not installed; {install(extra)}.", 2)
    except ImportError as error:
        if (missing := re.match(r"(lib\S+?\.so\S*): cannot open", str(error))) is None:
            raise
        library, needs = missing[1], (error.name or "a package").partition(".")[0]
        package = _LIBRARIES.get(library)
        hint = f", with apt install {package} on Debian and Ubuntu" if package else ""
        _fail(f"{needs} needs {library}, which this system lacks; install it{hint}.", 2)


def _show_warning(
    message: Warning | str, category: type[Warning], *place: object, **more: object
) -> None:
    """Print a warning as a command does: one line, and none of Python's own."""
    if issubclass(category, SSDiffWarning):
        progress_for(quiet=True, verbose=False).warn(str(message))


def _fail(message: str, status: int) -> NoReturn:
    from ssdiff_trt.runtime.progress import choose

    choose(quiet=True, kind=chosen_progress["kind"]).fail(" ".join(message.split()))
    sys.exit(status)
