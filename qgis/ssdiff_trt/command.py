"""Running ssdiff-trt in its own environment; nothing here needs QGIS."""

import json
import os
import shutil
import signal
import subprocess
import threading

SETTING, VARIABLE, DEFAULT = "SSDIFF_TRT_COMMAND", "SSDIFF_TRT_COMMAND", "ssdiff-trt"
_OF_QGIS = ("PYTHON", "QGIS", "QT_", "GDAL_", "PROJ_", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
"""Beginnings of variables that QGIS sets for itself, and that would mislead another Python."""


class CommandError(Exception):
    """The command is missing, or has failed; the message is a sentence for the user."""


def find(command):
    """Full path of the command.

    Args:
        command: name or path, as the setting has it; the environment's overrides it.

    Raises:
        CommandError: if there is none.
    """
    command = os.environ.get(VARIABLE) or command or DEFAULT
    if found := shutil.which(os.path.expanduser(command)):
        return found
    raise CommandError(
        f"The command {command} was not found; install ssdiff-trt in a virtual environment "
        "(python3 -m venv, then pip install '.[cpu]' in a clone of its repository), and name its "
        "bin/ssdiff-trt in Settings, Options, Processing, Providers, ssdiff-trt."
    )


def environment():
    """The variables of this process without those that QGIS sets for itself."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OF_QGIS)}


def run(words, progress, message, canceled, poll=0.2):
    """Run the command until it ends.

    Args:
        words: the command and its arguments, without ``--progress``.
        progress: called with the percentage that is done.
        message: called with each message.
        canceled: whether the user has cancelled; asked every ``poll`` seconds.
        poll: seconds.

    Returns:
        Whether it has succeeded; False if it was cancelled.

    Raises:
        CommandError: if it has failed; with its own message.
    """
    process = subprocess.Popen(
        [*words, "--progress", "json"],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    last = []

    def read():
        for line in process.stderr:
            try:
                event = json.loads(line)
            except ValueError:
                last.append(line.strip())
                continue
            if event.get("message"):
                message(event["message"])
                last.append(event["message"])
            if event.get("total"):
                progress(100 * event["done"] / event["total"])

    reader = threading.Thread(target=read)
    reader.start()
    cancelled = False
    while True:
        try:
            code = process.wait(poll)
            break
        except subprocess.TimeoutExpired:
            if canceled() and not cancelled:
                cancelled = True
                process.send_signal(signal.SIGTERM)
    reader.join()
    process.stderr.close()
    if code and not cancelled:
        raise CommandError(last[-1] if last else f"ssdiff-trt ended with status {code}.")
    return not cancelled
