"""Scores of the shipped bundles and of classical methods: ``quality.json`` and tables.

    python -m benchmarks.quality -o docs \\
        --scene "GeoEye-1" ge1 21 imgGE1.mat --scene "Rotterdam, tanks" generic 21 pan.tif,ms.tif

Each ``--scene`` is a name, and sensor, crop and inputs of ``ssdiff-ref evaluate``: PAN and MS with
a comma between them, or one ``.mat`` or ``.h5``. Methods get the pair as it is delivered, and with
``--aligned`` a pair that was aligned for all of them. ``--bundle`` judges others than the shipped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from benchmarks.output import output_option
from benchmarks.weights import number
from ssdiff_ref.evaluation.candidates import SHIPPED
from ssdiff_ref.evaluation.evaluate import evaluate
from ssdiff_ref.evaluation.judging import Resolution, Scores
from ssdiff_trt.runtime.options import ShiftChoice

COLUMNS: dict[Resolution, tuple[str, ...]] = {
    "reduced": ("SAM", "ERGAS", "Q2n", "SCC"),
    "full": (
        *("HQNR", "RQNR", "R-ERGAS", "R-SAM", "R-Q2n", "consistency"),
        *("D_rho", "detail", "period 4", "overshoot"),
    ),
}
"""Columns of the table of each resolution."""

Scene = dict[Resolution, dict[str, Scores]]


def judge(
    inputs: list[str],
    sensor: str,
    crop: int,
    *,
    aligned: bool = False,
    bundles: Sequence[str] = (SHIPPED,),
    methods: Sequence[str] | None = None,
) -> Scene:
    """Scores of all methods at both resolutions; 0 means no data in rasters.

    Files that contain their ground truth need no alignment.
    """
    nodata = 0.0 if len(inputs) == 2 else None
    shift: ShiftChoice = "auto" if aligned and not inputs[0].endswith(".h5") else "none"
    evaluation = evaluate(
        inputs,
        sensor=sensor,
        bundles=bundles,
        methods=methods,
        crop=crop,
        nodata=nodata,
        shift=shift,
    )
    return {resolution: evaluation.mean(resolution) for resolution in COLUMNS}


def table(scenes: dict[str, Scene], resolution: Resolution) -> str:
    """The scores of one resolution as a Markdown table."""
    columns = COLUMNS[resolution]
    lines = [f"| scene | method | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    for name, scene in scenes.items():
        for method, scores in scene[resolution].items():
            cells = " | ".join(number(scores[column]) for column in columns)
            lines.append(f"| {name} | {method} | {cells} |")
            name = ""
    return "\n".join(lines)


def null_for_nan(content: Any) -> Any:
    """The same for JSON, which has no NaN."""
    if isinstance(content, dict):
        return {key: null_for_nan(value) for key, value in content.items()}
    return None if isinstance(content, float) and math.isnan(content) else content


scene_option = click.option(
    "--scene",
    "given",
    type=(str, str, int, str),
    multiple=True,
    metavar="NAME SENSOR CROP PAN,MS",
)


@click.command()
@output_option
@scene_option
@click.option("--aligned", is_flag=True, help="Align the pair for all methods.")
@click.option("--bundle", "bundles", multiple=True, default=[SHIPPED], help="Bundle to judge.")
@click.option("--name", default="quality", help="Name of the file to write, without its suffix.")
def main(
    output: Path,
    given: tuple[tuple[str, str, int, str], ...],
    aligned: bool,
    bundles: tuple[str, ...],
    name: str,
) -> None:
    """Judge scenes, write the scores and print the tables."""
    scenes = {
        scene: judge(files.split(","), sensor, crop, aligned=aligned, bundles=bundles)
        for scene, sensor, crop, files in given
    }
    shift = "auto" if aligned else "none"
    content = {"version": version("ssdiff-trt"), "shift": shift, "scenes": scenes}
    path = output / f"{name}.json"
    path.write_text(json.dumps(null_for_nan(content), indent=1) + "\n")
    for resolution in COLUMNS:
        click.echo(table(scenes, resolution) + "\n")


if __name__ == "__main__":
    main()
