"""What adaptation gains on blocks that it has not seen: ``adaptation.json``, a table, a picture.

    python -m benchmarks.adaptation -o docs --minutes 10 \\
        --scene "GeoEye-1" ge1 pan.tif,ms.tif --scene "QuickBird" qb p1.tif,m1.tif,p2.tif,m2.tif

Each ``--scene`` is adapted to on its own, as by ``ssdiff-ref adapt``, export included; more than
one pair of PAN and MS are scenes of one sensor that are adapted to together. The picture shows a
held-out block of the first ``--scene`` at full resolution.
"""

from __future__ import annotations

import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.output import output_option
from benchmarks.weights import number
from ssdiff_ref.network.checkpoint import load_checkpoint
from ssdiff_ref.training.adaptation import adapt_weights, open_scenes
from ssdiff_ref.training.held_out import FULL, MEASURES, HeldOut, means
from ssdiff_ref.training.scene_pairs import split_blocks
from ssdiff_trt.export.adaptation import EXPORT_TILES, export_adaptation
from ssdiff_trt.runtime.progress import Printed, Progress
from ssdiff_trt.runtime.scenes import SceneEntry


def measure(
    entries: list[SceneEntry], sensor: str, minutes: float, weights: Path, threads: int
) -> dict[str, Any]:
    """Adapt to scenes of a sensor; returns what JSON keeps of it."""
    import torch

    torch.set_num_threads(threads)
    began = time.monotonic()
    result = adapt_weights(
        entries, weights, sensor=sensor, minutes=minutes, reserve=EXPORT_TILES, progress=Printed()
    )
    trained = time.monotonic()
    if result.pays:
        bundle = weights.with_suffix(".ssdiff")
        export_adaptation(result, bundle, entries, overwrite=True)
    verdict = result.verdict
    names = [measure.name for measure in MEASURES]

    def by_name(values: Any) -> dict[str, float | None]:
        """JSON has no NaN."""
        numbers = (None if np.isnan(value) else float(value) for value in values)
        return dict(zip(names, numbers, strict=True))

    return {
        "sensor": sensor,
        "pairs": len(entries),
        "blocks": len(verdict.before),
        "reserves of early stopping": {each.name: each.reserve for each in FULL},
        "iterations": result.iterations,
        "threads": threads,
        "minutes given": minutes,
        "minutes taken": (time.monotonic() - began) / 60,
        "of which export": (time.monotonic() - trained) / 60,
        "before": by_name(means(verdict.before)),
        "after": by_name(means(verdict.after)),
        "standard error of the gain": by_name(verdict.errors),
        "worse": list(verdict.worse),
        "verdict": verdict.certainty,
    }


def table(scenes: dict[str, dict[str, Any]]) -> str:
    """The measures before and after as a Markdown table."""
    names = [measure.name for measure in MEASURES]
    lines = [
        f"| scene | blocks | {' | '.join(names)} | change of ERGAS |",
        "|---|---|" + "---|" * (len(names) + 1),
    ]
    for scene, kept in scenes.items():
        before, after = kept["before"], kept["after"]
        cells = [f"{number(before[name])} → {number(after[name])}" for name in names]
        change = f"{after['ERGAS'] / before['ERGAS'] - 1:+.1%}"
        written = "" if not kept["worse"] else f"; not written: {', '.join(kept['worse'])}"
        lines.append(f"| {scene} | {kept['blocks']} | {' | '.join(cells)} | {change}{written} |")
    return "\n".join(lines)


def draw(entries: list[SceneEntry], sensor: str, weights: Path, block: int, path: Path) -> None:
    """PAN and the images before and after of a held-out block at full resolution."""
    from matplotlib.figure import Figure

    opened, optics, scenes = open_scenes(entries, None, sensor, {}, Progress())
    blocks = split_blocks([scene.valid for scene in scenes]).test
    held_out = HeldOut(scenes, blocks, optics, opened)
    nets = [load_checkpoint(place).net for place in (opened.path, weights)]
    images = [held_out.images(net, block % len(blocks)) for net in nets]
    pan = images[0][1]
    red_green_blue = [2, 1, 0] if len(images[0][0]) == 4 else [4, 2, 1]
    colours = [np.moveaxis(image[red_green_blue], 0, -1) for image, _ in images]
    low, high = np.percentile(colours[0], (1, 99), axis=(0, 1))
    limits = dict(zip(("vmin", "vmax"), np.percentile(pan, (1, 99)), strict=True))
    figure = Figure(figsize=(12, 4.3), layout="constrained")
    axes = figure.subplots(1, 3)
    axes[0].imshow(pan, cmap="gray", interpolation="nearest", **limits)
    for panel, image in zip(axes[1:], colours, strict=True):
        panel.imshow(((image - low) / (high - low)).clip(0, 1), interpolation="nearest")
    titles = "PAN", f"before: {opened.manifest.name}", "after adaptation"
    for panel, title in zip(axes, titles, strict=True):
        panel.set_title(title)
        panel.set_axis_off()
    figure.savefig(path, dpi=90)


@click.command()
@output_option
@click.option(
    "--scene",
    "given",
    type=(str, str, str),
    multiple=True,
    required=True,
    metavar="NAME SENSOR PAN,MS[,PAN,MS]",
)
@click.option("--minutes", type=float, default=10, help="For each scene, export included.")
@click.option("--nodata", type=float, help="Value that means no data in the scenes.")
@click.option("--block", type=int, default=0, help="Held-out block to draw, counted from 0.")
@click.option("--threads", type=int, default=2, help="CPU threads of each adaptation.")
@click.option("--at-once", type=int, default=1, help="Adaptations that run at the same time.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for weights and bundles.")
def main(
    output: Path,
    given: tuple[tuple[str, str, str], ...],
    minutes: float,
    nodata: float | None,
    block: int,
    threads: int,
    at_once: int,
    keep: Path | None,
) -> None:
    """Adapt to scenes, write what it came to and print the table."""
    options = {} if nodata is None else {"nodata": nodata}
    pairs = {}
    for name, _, files in given:
        paths = files.split(",")
        couples = zip(paths[::2], paths[1::2], strict=True)
        pairs[name] = [SceneEntry(pan, (ms,), None, options) for pan, ms in couples]
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        sensors = {name: sensor for name, sensor, _ in given}
        weights = {
            name: folder / f"{name.lower().replace(' ', '-')}.safetensors" for name in sensors
        }
        with ProcessPoolExecutor(at_once, get_context("spawn")) as pool:
            running = {
                name: pool.submit(measure, pairs[name], sensor, minutes, weights[name], threads)
                for name, sensor in sensors.items()
            }
            scenes = {name: future.result() for name, future in running.items()}
        first = given[0][0]
        draw(pairs[first], sensors[first], weights[first], block, output / "adaptation.png")
    content = {"version": version("ssdiff-trt"), "at once": at_once, "scenes": scenes}
    (output / "adaptation.json").write_text(json.dumps(content, indent=1) + "\n")
    click.echo(table(scenes))


if __name__ == "__main__":
    main()
