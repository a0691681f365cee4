"""What blocks cost and save: ``resume.json``.

    python -m benchmarks.resume -o docs [--size 2304] [--block 1152]

Pansharpens one scene with ``generic4`` in one step, file to file. Each run is a process of its own:
one is uninterrupted, one keeps no blocks, one is killed (SIGKILL) after half of its blocks and
continued, others have blocks of other sizes.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import rasterio
from rasterio.transform import Affine

from benchmarks.memory import GRID, write_large
from benchmarks.output import output_option
from ssdiff_trt.runtime.raster.affine import product
from ssdiff_trt.runtime.scratch import JOURNAL, work_folder_of

CODE = "from ssdiff_trt.cli.trt import main; main()"
BLOCKS = (384, 1152, 4000)
"""Sizes whose results are compared."""


def pixels_of(path: Path) -> str:
    """sha256 of all pixels of a raster."""
    digest = hashlib.sha256()
    with rasterio.open(path) as file:
        for _, window in file.block_windows(1):
            digest.update(file.read(window=window).tobytes())
    return digest.hexdigest()


def disk_of(folder: Path) -> int:
    """Bytes of all files in a folder, those that disappear meanwhile left out."""

    def sizes() -> Iterator[int]:
        for parent, _, names in os.walk(folder):
            for name in names:
                try:
                    yield os.stat(os.path.join(parent, name)).st_size
                except OSError:
                    continue

    return sum(sizes())


def measure(
    output: Path,
    *words: str | Path,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Run to an output in a folder of its own.

    Args:
        output: of the run.
        words: the command line, without the output.
        stop: asked ten times a second; the process is killed when it says so.

    Returns:
        Seconds, peak resident memory in MB, and peak of the folder in MB.
    """
    output.parent.mkdir(exist_ok=True)
    began, disk = time.monotonic(), 0
    command = [sys.executable, "-c", CODE, "run", *words, "-o", output, "-q", "--overwrite"]
    process = subprocess.Popen(list(map(str, command)), cwd=output.parent)
    while True:
        found, status, usage = os.wait4(process.pid, os.WNOHANG)
        if found:
            break
        disk = max(disk, disk_of(output.parent))
        if stop():
            process.kill()
        time.sleep(0.1)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, -9):
        raise click.ClickException(f"{' '.join(map(str, words))} ends with {process.returncode}")
    return {
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(usage.ru_maxrss / 1000),
        "disk_mb": round(disk / 1e6, 1),
    }


def finished_blocks(output: Path) -> int:
    """Number of finished blocks of an unfinished output."""
    try:
        lines = (work_folder_of(output) / JOURNAL).read_bytes().count(b"\n")
    except OSError:
        return 0
    return max(lines - 1, 0)


@click.command()
@click.option("--size", default=2304, show_default=True, help="Width and height of PAN in pixels.")
@click.option("--block", default=1152, show_default=True, help="Pixels on a side of a block.")
@output_option
def main(size: int, block: int, output: Path) -> None:
    """Measure, write resume.json and print the results."""
    results: dict[str, Any] = {"size": size, "block": block, "runs": {}, "pixels": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pan = write_large(folder / "pan.tif", size, 1, GRID)
        ms = write_large(folder / "ms.tif", size // 4, 4, product(GRID, Affine.scale(4)))
        words = pan, ms, "--steps", 1, "--shift", "none"
        blocks = *words, "--block", block

        def add(name: str, *words: Any, **more: Any) -> None:
            target = folder / name.replace(" ", "-") / "out.tif"
            results["runs"][name] = measure(target, *words, **more)
            print(name, results["runs"][name], flush=True)
            if target.exists():
                results["pixels"][name] = pixels_of(target)

        half = (size // block) ** 2 // 2
        killed = folder / "killed" / "out.tif"
        add("uninterrupted", *blocks)
        add("without resume", *blocks, "--no-resume")
        add("killed", *blocks, stop=lambda: finished_blocks(killed) >= half)
        results["finished_when_killed"] = finished_blocks(killed)
        killed.parent.rename(folder / "continued")
        add("continued", *blocks)
        for pixels in BLOCKS:
            add(f"blocks of {pixels}", *words, "--block", pixels)
    alike = len(set(results["pixels"].values()))
    print(f"{len(results['pixels'])} results, {alike} different")
    (output / "resume.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
