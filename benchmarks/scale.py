"""A scene on one process, on workers, and on workers that are killed: ``scale.json``.

    python -m benchmarks.scale -o docs [--size 1728] [--block 288] [--every 20]

Pansharpens one scene with ``generic4`` in one step, file to file, by the command. The runs are one
process, two workers, two workers of which one is killed (SIGKILL) again and again, and two workers
that continue a run of one process that was killed. Prints a table for docs/scale.md.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rasterio.transform import Affine

from benchmarks.memory import GRID, write_large
from benchmarks.output import output_option
from benchmarks.resume import CODE, finished_blocks, pixels_of
from ssdiff_trt.runtime.raster.affine import product

WORKERS = 2
COMPUTING = 150
"""Peak memory in MB from which on a process computes, and does not only watch others."""


def processes_of(process: int) -> list[int]:
    """A process, and all that it and its own have started."""
    found = [process]
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += processes_of(int(child))
    except OSError:  # it has ended
        pass
    return found


def peak_of(process: int) -> float:
    """Peak resident memory in MB; 0 of a process that has ended."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+)", text)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def measure(
    output: Path, words: list[Any], act: Callable[[int], int] = lambda process: 0
) -> dict[str, Any]:
    """Run the command to an output.

    Args:
        output: of the run.
        words: the command line, without the output.
        act: called with the process ten times a second; returns the processes that it has killed.

    Returns:
        Seconds, killed processes, and peak resident memory in MB of the command and of its workers.
    """
    output.parent.mkdir(exist_ok=True)
    began, killed, peaks = time.monotonic(), 0, dict[int, float]()
    command = [sys.executable, "-c", CODE, "run", *words, "-o", output, "-q"]
    with subprocess.Popen(list(map(str, command)), cwd=output.parent) as process:
        while process.poll() is None:
            for one in processes_of(process.pid):
                peaks[one] = max(peaks.get(one, 0), peak_of(one))
            killed += act(process.pid)
            time.sleep(0.1)
    if process.returncode not in (0, -signal.SIGKILL):
        raise click.ClickException(f"{words} ends with {process.returncode}")
    own = peaks.pop(process.pid)
    computing = [round(peak) for peak in peaks.values() if peak > COMPUTING]
    seconds = round(time.monotonic() - began, 1)
    return {"seconds": seconds, "killed": killed, "peak_mb": round(own), "workers_mb": computing}


def killing(every: float) -> Callable[[int], int]:
    """Kills a worker each time that so many seconds are over."""
    last, number = time.monotonic(), 0

    def act(process: int) -> int:
        nonlocal last, number
        if time.monotonic() - last < every:
            return 0
        workers = [one for one in processes_of(process)[1:] if peak_of(one) > COMPUTING]
        last = time.monotonic()
        if not workers:
            return 0
        number += 1
        os.kill(workers[number % len(workers)], signal.SIGKILL)
        return 1

    return act


def stopping(output: Path, blocks: int) -> Callable[[int], int]:
    """Kills the command once so many blocks are finished."""

    def act(process: int) -> int:
        if finished_blocks(output) < blocks:
            return 0
        os.kill(process, signal.SIGKILL)
        return 1

    return act


def table(runs: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "| run | seconds | killed | peak of the command, MB | peaks of the workers, MB |",
        "|---|---|---|---|---|",
    ]
    for name, run in runs.items():
        workers = ", ".join(map(str, run["workers_mb"])) or "-"
        row = name, f"{run['seconds']:.1f}", run["killed"], run["peak_mb"], workers
        lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(lines)


@click.command()
@click.option("--size", default=1728, show_default=True, help="Width and height of PAN in pixels.")
@click.option("--block", default=288, show_default=True, help="Pixels on a side of a block.")
@click.option("--every", default=20.0, show_default=True, help="Seconds between two kills.")
@output_option
def main(size: int, block: int, every: float, output: Path) -> None:
    """Measure, write scale.json and print the results."""
    results: dict[str, Any] = {"size": size, "block": block, "every": every, "runs": {}}
    results |= {"cpus": len(os.sched_getaffinity(0)), "pixels": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pan = write_large(folder / "pan.tif", size, 1, GRID)
        ms = write_large(folder / "ms.tif", size // 4, 4, product(GRID, Affine.scale(4)))
        words = [pan, ms, "--steps", 1, "--shift", "none", "--block", block]
        cluster = [*words, "--workers", WORKERS]

        def add(name: str, words: list[Any], folder_name: str = "", **more: Any) -> None:
            target = folder / (folder_name or name.replace(" ", "-")) / "out.tif"
            results["runs"][name] = measure(target, words, **more)
            print(name, results["runs"][name], flush=True)
            if target.exists():
                results["pixels"][name] = pixels_of(target)

        half = (size // block) ** 2 // 2
        add("1 process", words)
        add(f"{WORKERS} workers", cluster)
        name = f"{WORKERS} workers, one killed every {every:g} s"
        add(name, cluster, "killed", act=killing(every))
        stopped = folder / "stopped" / "out.tif"
        add("1 process, killed half-way", words, "stopped", act=stopping(stopped, half))
        add(f"{WORKERS} workers continue that", cluster, "stopped")
    (output / "scale.json").write_text(json.dumps(results, indent=1) + "\n")
    print(table(results["runs"]))
    alike = len(set(results["pixels"].values())) == 1
    print(f"{len(results['pixels'])} results, {'the same' if alike else 'different'} pixels")


if __name__ == "__main__":
    main()
