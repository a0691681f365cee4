"""Quality by cost of tile size and number of steps: ``tiles.json``, ``tiles.png`` and a table.

    python -m benchmarks.tiles --bundle tile32.ssdiff --bundle tile64.ssdiff --scene ... -o docs
    python -m benchmarks.tiles --bundle ... --bundle ... --scores docs/tiles.json -o docs

Each bundle, the same weights exported with another ``--tile``, judges the scenes of
:mod:`benchmarks.quality` in one step and in two. Time is that of an array of 512 x 512 pixels of
PAN, in alternating rounds. The second command measures the times again.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean, mean, median
from typing import Any

import click
import numpy as np
from matplotlib.figure import Figure

from benchmarks.output import output_option
from benchmarks.quality import Scene, judge, null_for_nan, scene_option
from ssdiff_trt.runtime.bundle.manifest import SamplerDefaults
from ssdiff_trt.runtime.bundle.store import MANIFEST, Bundle, open_bundle
from ssdiff_trt.runtime.pansharpener import Pansharpener

TIMESTEPS: tuple[tuple[int, ...], ...] = ((999,), (999, 68))
SIDE = 512
ROUNDS = 5


def variants(paths: Sequence[str], folder: Path) -> list[Bundle]:
    """Copies of bundles with other default timesteps, named by tile and steps."""
    copies = []
    for path in paths:
        manifest = open_bundle(path).manifest
        for timesteps in TIMESTEPS:
            name = f"{manifest.model.tile} pixels, {len(timesteps)} step{'s' * len(timesteps[1:])}"
            copy = folder / f"{name}.ssdiff"
            shutil.copytree(open_bundle(path).path, copy)
            sampler = SamplerDefaults.model_validate(
                manifest.sampler.model_dump() | {"timesteps": timesteps}
            )
            changed = manifest.model_copy(update={"name": name, "sampler": sampler})
            (copy / MANIFEST).write_text(changed.model_dump_json(), encoding="utf-8")
            copies.append(open_bundle(copy))
    return copies


def seconds_per_mpixel(bundles: Sequence[Bundle]) -> list[float]:
    """Median of alternating rounds, with the networks open."""
    rng = np.random.default_rng(0)
    pan = rng.integers(100, 1000, (SIDE, SIDE), np.uint16)
    ms = rng.integers(100, 1000, (bundles[0].manifest.model.bands, SIDE // 4, SIDE // 4), np.uint16)
    sharpeners = [Pansharpener(bundle, bands=len(ms)) for bundle in bundles]
    runs: list[list[float]] = [[] for _ in bundles]
    for _ in range(1 + ROUNDS):
        for sharpener, seconds in zip(sharpeners, runs, strict=True):
            began = time.perf_counter()
            sharpener(pan, ms, full_scale=2047, shift="none")
            seconds.append(time.perf_counter() - began)
    return [median(seconds[1:]) * 1e6 / SIDE**2 for seconds in runs]


def rows(scenes: dict[str, Scene], bundles: Sequence[Bundle]) -> list[dict[str, Any]]:
    """Cost and mean scores of each bundle; ERGAS relative to that of the last one."""
    names = [bundle.manifest.name for bundle in bundles]
    costs = seconds_per_mpixel(bundles)

    def scores(name: str, resolution: Any, measure: str) -> list[float]:
        judged = [scene[resolution].get(f"ssdiff:{name}") for scene in scenes.values()]
        return [each[measure] for each in judged if each]

    last = scores(names[-1], "reduced", "ERGAS")
    return [
        {
            "name": name,
            "seconds per Mpixel": round(cost, 2),
            "ERGAS, relative": geometric_mean(
                [a / b for a, b in zip(scores(name, "reduced", "ERGAS"), last, strict=True)]
            ),
            "SAM": mean(scores(name, "reduced", "SAM")),
            "Q2n": mean(scores(name, "reduced", "Q2n")),
            "R-ERGAS": mean(scores(name, "full", "R-ERGAS")),
            "D_rho": mean(scores(name, "full", "D_rho")),
            "detail": mean(scores(name, "full", "detail")),
            "period 4": mean(scores(name, "full", "period 4")),
        }
        for name, cost in zip(names, costs, strict=True)
    ]


def draw(table: list[dict[str, Any]], path: Path) -> None:
    """Draw ERGAS and D_rho by cost."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, measure in zip(panels, ("ERGAS, relative", "D_rho"), strict=True):
        for row in table:
            point = row["seconds per Mpixel"], row[measure]
            panel.plot(*point, "o", color="#4c72b0")
            panel.annotate(row["name"], point, (5, 4), textcoords="offset points", fontsize=8)
        panel.set(xlabel="s per Mpixel of PAN", ylabel=f"{measure}; lower is better")
        panel.set_xlim(0, 1.5 * max(row["seconds per Mpixel"] for row in table))
        panel.margins(y=0.15)
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def markdown(table: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    columns = list(table[0])[1:]
    lines = [f"| tile, steps | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in table:
        cells = " | ".join(f"{row[column]:.3f}" for column in columns)
        lines.append(f"| {row['name']} | {cells} |")
    return "\n".join(lines)


@click.command()
@output_option
@click.option("--bundle", "paths", multiple=True, required=True, help="One for each tile size.")
@click.option(
    "--scores",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="tiles.json of the same weights, whose scores are kept.",
)
@scene_option
def main(
    output: Path,
    paths: tuple[str, ...],
    scores: Path | None,
    given: tuple[tuple[str, str, int, str], ...],
) -> None:
    """Judge and time all variants, write them, draw them and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        bundles = variants(paths, Path(folder))
        places = [str(bundle.path) for bundle in bundles]
        scenes = json.loads(scores.read_text())["scenes"] if scores else {}
        scenes |= {
            name: judge(files.split(","), sensor, crop, aligned=True, bundles=places, methods=())
            for name, sensor, crop, files in given
        }
        table = rows(scenes, bundles)
    content = null_for_nan({"table": table, "scenes": scenes})
    (output / "tiles.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draw(table, output / "tiles.png")
    click.echo(markdown(table))


if __name__ == "__main__":
    main()
