"""Peak memory of pansharpening by scene size: ``memory.png`` and ``memory.json``.

    python -m benchmarks.memory -o docs [--size 2500 --size 5000 ...] [--bands 4 --bands 8]

A backend that only adds PAN to the interpolated MS replaces the network, so that the memory of
everything else is measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window

from benchmarks.output import output_option
from ssdiff_trt.runtime.raster.affine import product

SIZES = (2000, 4000, 10000, 20000)
"""Of blocks of 2000 x 2000 pixels, 1 to 100."""
BANDS = (4, 8)
DOCUMENTED_LIMIT = 700
"""Documented limit in MB, for the largest of ``SIZES`` with 4 bands."""
GRID = Affine(0.5, 0, 500_000, 0, -0.5, 5_700_000)
RUN = r"""
import re, sys
from pathlib import Path
from ssdiff_trt.cli.process import share_cores_and_memory
share_cores_and_memory()
from ssdiff_trt import pansharpen

class Interpolation:
    # The interpolated MS and a little of PAN, in place of the network.

    batch, precision, device = 5, "fp32", "cpu"

    def sample(self, batches, schedule):
        for tiles in batches:
            yield (tiles.lms + 0.2 * tiles.pan).clip(0, 1)

    def describe(self):
        return "interpolation"

pansharpen(*sys.argv[1:4], backend=Interpolation())
# Not getrusage: its peak includes the memory of the parent process before exec.
print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6)
"""


def write_large(path: Path, size: int, bands: int, grid: Affine) -> Path:
    """Write a square raster of uint16 noise that repeats every 512 pixels."""
    rng = np.random.default_rng(0)
    block = rng.integers(300, 900, (bands, 512, 512), np.uint16)
    profile = {"driver": "GTiff", "height": size, "width": size, "count": bands, "dtype": "uint16"}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512}
    georeference = {"crs": "EPSG:32631", "transform": grid}
    with rasterio.open(path, "w", **profile, **layout, **georeference) as file:
        for row in range(0, size, 512):
            for col in range(0, size, 512):
                height, width = min(512, size - row), min(512, size - col)
                window = Window(col, row, width, height)
                file.write(block[:, :height, :width], window=window)
    return path


def peak(size: int, bands: int = 4) -> float:
    """Peak resident memory in MB of a process that pansharpens a scene.

    Args:
        size: height and width of PAN in pixels.
        bands: of MS.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pan = write_large(folder / "pan.tif", size, 1, GRID)
        ms = write_large(folder / "ms.tif", size // 4, bands, product(GRID, Affine.scale(4)))
        completed = subprocess.run(
            [sys.executable, "-c", RUN, pan, ms, folder / "sharp.tif"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return float(completed.stdout)


def draw(rows: Sequence[dict[str, float]], path: Path) -> None:
    """Draw peak memory by scene size, a line for each number of bands, and the limit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for bands in sorted({row["bands"] for row in rows}):
        line = [row for row in rows if row["bands"] == bands]
        sizes, peaks = [row["size"] for row in line], [row["peak_mb"] for row in line]
        axes.plot(sizes, peaks, "-o", markersize=4, label=f"{bands} bands")
    axes.axhline(DOCUMENTED_LIMIT, color="grey", linestyle="--", label="documented limit, 4 bands")
    axes.set(xlabel="width of PAN, pixels", ylabel="peak resident memory, MB", ylim=(0, None))
    axes.set_xticks(sorted({row["size"] for row in rows}))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def table(rows: Sequence[Mapping[str, float]]) -> str:
    """Peaks by size and bands as a Markdown table."""
    bands = sorted({row["bands"] for row in rows})
    lines = [f"| PAN | {' | '.join(f'{count} bands' for count in bands)} |"]
    lines.append("|---" * (1 + len(bands)) + "|")
    for size in sorted({row["size"] for row in rows}):
        peaks = {row["bands"]: f"{row['peak_mb']} MB" for row in rows if row["size"] == size}
        cells = [peaks.get(count, "") for count in bands]
        lines.append(f"| {' | '.join([f'{size} x {size}', *cells])} |")
    return "\n".join(lines)


@click.command()
@click.option(
    "--size",
    "sizes",
    type=int,
    multiple=True,
    default=SIZES,
    show_default=True,
    help="Width and height of PAN in pixels.",
)
@click.option(
    "--bands", type=int, multiple=True, default=BANDS, show_default=True, help="Bands of MS."
)
@output_option
def main(sizes: tuple[int, ...], bands: tuple[int, ...], output: Path) -> None:
    """Measure peak memory, write memory.json, draw memory.png and print the results."""
    rows: list[dict[str, float]] = []
    for count in bands:
        for size in sizes:
            began = time.monotonic()
            rows.append({"size": size, "bands": count, "peak_mb": round(peak(size, count))})
            print(
                rows[-1],
                f"{time.monotonic() - began:.0f} s including writing the images",
                flush=True,
            )
    (output / "memory.json").write_text(json.dumps(rows, indent=1) + "\n")
    draw(rows, output / "memory.png")
    print(table(rows))


if __name__ == "__main__":
    main()
