"""What a newcomer waits for, from a clone to the first result: ``newcomer.json``.

    python -m benchmarks.newcomer -o docs

Clones the repository as it is committed, and gives the commands of the first pages in the clone.
Most of the time is that of pip, so it depends on how near the packages are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.output import output_option

ROOT = Path(__file__).parent.parent
EXAMPLE = "examples/sentinel2/pan.tif examples/sentinel2/ms.tif --full-scale 10000 --quicklook"
STEPS = {
    "clone": f"git clone --quiet '{ROOT}' .",
    "make demo": "make demo",
    "install": "{python} -m venv fresh && fresh/bin/pip install --quiet '.[cpu,picture]'",
    "dry run": f"fresh/bin/ssdiff-trt run {EXAMPLE} --dry-run",
    "run": f"fresh/bin/ssdiff-trt run {EXAMPLE} -o out/example.tif",
    "doctor": "fresh/bin/ssdiff-trt doctor",
}
"""Name and command of each step."""


@click.command()
@output_option
def main(output: Path) -> None:
    """Time each step, write newcomer.json and print it."""
    seconds = {}
    output = output.resolve()
    with tempfile.TemporaryDirectory() as folder:
        for name, command in STEPS.items():
            began = time.monotonic()
            line = command.format(python=sys.executable)
            subprocess.run(line, shell=True, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            seconds[name] = round(time.monotonic() - began, 1)
            click.echo(f"{name}: {seconds[name]} s")
    content = {"seconds": seconds, "python": sys.version.split()[0], "cpus": os.cpu_count()}
    (output / "newcomer.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
