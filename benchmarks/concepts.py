"""The pictures of docs/concepts.md: ``concepts-pair.png`` and ``concepts-tiles.png``.

python -m benchmarks.concepts [-o docs]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import rasterio
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from benchmarks.output import output_option
from ssdiff_trt import pansharpen
from ssdiff_trt.runtime.interpolator import RATIO, interpolate

SCENE = Path(__file__).parent.parent / "examples" / "sentinel2"
PART = np.s_[160:288, 224:352]
"""Rows and columns of PAN that are shown."""
RED_GREEN_BLUE = [2, 1, 0]


def show(axes: Axes, image: NDArray[Any], title: str, limits: NDArray[Any]) -> None:
    """Draw an image ``[C, H, W]``, of three bands or of one, between two limits."""
    low, high = limits
    scaled = ((image - low) / (high - low)).clip(0, 1)
    shown = np.moveaxis(scaled, 0, -1) if len(image) == 3 else scaled[0]
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()


def draw_pair(path: Path) -> None:
    """PAN, MS, interpolated MS, what the network adds to it, and their sum."""
    with rasterio.open(SCENE / "pan.tif") as file:
        pan = file.read()
    with rasterio.open(SCENE / "ms.tif") as file:
        ms = file.read()
    fused = np.asarray(pansharpen(pan[0], ms, full_scale=10000), np.float64)[RED_GREEN_BLUE]
    lms = interpolate(ms[None].astype(np.float32))[0][RED_GREEN_BLUE]
    rows, cols = PART
    coarse = tuple(slice(part.start // RATIO, part.stop // RATIO) for part in (rows, cols))
    limits = np.percentile(fused[:, rows, cols], (1, 99))
    added = fused - lms
    spread = np.percentile(np.abs(added[:, rows, cols]), 99) * np.array([-1, 1])
    figure = Figure(figsize=(12, 2.9), layout="constrained")
    panels: Any = figure.subplots(1, 5)
    show(panels[0], pan[:, rows, cols], "PAN", np.percentile(pan[:, rows, cols], (1, 99)))
    show(panels[1], ms[RED_GREEN_BLUE][:, coarse[0], coarse[1]], "MS", limits)
    show(panels[2], lms[:, rows, cols], "lms: MS, interpolated", limits)
    show(panels[3], added[:, rows, cols], "what is added to it", spread)
    show(panels[4], fused[:, rows, cols], "result", limits)
    figure.savefig(path, dpi=90)


def draw_tiles(path: Path) -> None:
    """Blocks of a scene, and tiles of a block with their overlap."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    side, block = 5000, 1680
    for top in range(0, side, block):
        for start in range(0, side, block):
            size = min(block, side - start), min(block, side - top)
            done = top == 0 or (top == block and start == 0)
            left.add_patch(
                Rectangle((start, top), *size, facecolor="#9ecae1" if done else "none", ec="black")
            )
    left.set(xlim=(0, side), ylim=(side, 0), aspect="equal", xlabel="pixels of PAN")
    left.set_title("a scene in blocks; finished ones are kept", fontsize=10)
    tile, step = 32, 24
    for top in range(0, 96, step):
        for start in range(0, 96, step):
            right.add_patch(Rectangle((start, top), tile, tile, alpha=0.25, fc="#4c72b0"))
            right.add_patch(Rectangle((start, top), tile, tile, fill=False, ec="#4c72b0", lw=0.8))
    right.set(xlim=(-2, 106), ylim=(106, -2), aspect="equal", xlabel="pixels of PAN")
    right.set_title("tiles of 32 pixels that overlap by 8, blended there", fontsize=10)
    figure.savefig(path, dpi=90)


@click.command()
@output_option
def main(output: Path) -> None:
    """Draw the pictures."""
    draw_pair(output / "concepts-pair.png")
    draw_tiles(output / "concepts-tiles.png")


if __name__ == "__main__":
    main()
