"""The uncertainty of results beside their true error: ``uncertainty.json``, a picture and a table.

    python -m benchmarks.uncertainty -o docs --fit \\
        --scene "GeoEye-1" ge1 21 imgGE1.mat --scene "Rotterdam, tanks" wv2 5 pan.tif,ms.tif

Scenes are those of :mod:`benchmarks.quality`, rasters of four bands, aligned, at reduced
resolution, where the truth is known. ``--fit`` also fits the constants of
:mod:`ssdiff_trt.runtime.tiles.uncertainty` again, on every other scene from the first on, as if
each error had a Laplace distribution of that mean magnitude. The picture shows the first scene.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import spearmanr

from benchmarks.output import output_option
from benchmarks.quality import scene_option
from ssdiff_ref.evaluation.candidates import BundleMethod
from ssdiff_ref.protocol.alignment import align
from ssdiff_ref.protocol.array_files import open_arrays
from ssdiff_ref.protocol.datasets import open_pair
from ssdiff_ref.quality.checks import fit_sensor
from ssdiff_trt.runtime.bundle.store import bundle_for
from ssdiff_trt.runtime.interpolator import PROTOCOL_POSITION
from ssdiff_trt.runtime.options import PairOptions
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.quicklook import colour_bands, stretch
from ssdiff_trt.runtime.tiles.uncertainty import (
    DETAIL,
    FLOOR,
    UNEXPLAINED,
    Parts,
    combined,
    formula,
    parts,
)

TIMES = (0.5, 1, 2, 3)
"""Multiples of the uncertainty within which errors are counted."""
LAPLACE = tuple(1 - float(np.exp(-times)) for times in TIMES)
"""Shares within them of a Laplace distribution whose mean magnitude is the uncertainty."""

Image = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Judged:
    """A scene without its edge, all ``[C, h, w]`` in digital numbers but where stated."""

    image: Image
    uncertainty: Image
    error: Image
    """Magnitude of the difference between result and truth."""
    measured: Parts
    """What the uncertainty is made of, of the whole image at once, in units of full scale."""
    full_scale: float
    names: tuple[str, ...]
    """Of the bands."""


def judge(sensor: str, crop: int, files: list[str]) -> Judged:
    """Pansharpen a scene at reduced resolution by the shipped bundle."""
    progress = Progress()
    if len(files) == 2:
        pan, ms = files
        options = PairOptions(nodata=0.0, bands=(1, 2, 3, 4))
        dataset = open_pair(pan, ms, sensor, options, progress=progress)
    else:
        dataset = open_arrays(files[0], sensor)
    if not dataset.simulated:
        dataset = align(dataset, "auto", progress)
    pair, truth = dataset.read(0).reduced(dataset.sensor)
    scale = dataset.scale.value
    bundle = bundle_for(len(pair.ms))
    method = BundleMethod(bundle, scale, progress)
    image, estimate = method.with_uncertainty(pair)
    inside = np.s_[:, crop : image.shape[1] - crop, crop : image.shape[2] - crop]
    arrays = image, method.aligned(pair)[None], pair.ms
    fine, sharp, coarse = ((array / scale).astype(np.float32) for array in arrays)
    gains = fit_sensor(bundle.manifest.sensor.name, len(image)).mtf_ms
    measured = parts(fine, sharp, coarse, (PROTOCOL_POSITION, PROTOCOL_POSITION), gains)
    return Judged(
        image[inside],
        estimate[inside],
        np.abs(image - truth)[inside],
        Parts(*(part[inside] for part in measured)),
        scale,
        bundle.manifest.sensor.bands,
    )


def scores(scene: Judged) -> dict[str, Any]:
    """Rank correlation and calibration of a scene."""
    estimate, error = scene.uncertainty, scene.error
    flat = estimate.ravel(), error.ravel()
    tenths = np.array_split(np.argsort(flat[0]), 10)
    return {
        "rank correlation": float(spearmanr(*flat)[0]),
        "rank correlation of the parts": {
            name: float(spearmanr(part.ravel(), flat[1])[0])
            for name, part in scene.measured._asdict().items()
        },
        "rank correlation, mean of bands": float(
            np.mean(
                [spearmanr(*map(np.ravel, bands))[0] for bands in zip(estimate, error, strict=True)]
            )
        ),
        "mean error, % of full scale": 100 * float(error.mean()) / scene.full_scale,
        "mean error / mean uncertainty": float(error.mean() / estimate.mean()),
        "shares within": {
            f"{times:g}": float((error <= times * estimate).mean()) for times in TIMES
        },
        "tenths": [
            [float(values[part].mean()) / scene.full_scale for values in flat] for part in tenths
        ],
    }


def fit(scenes: list[Judged]) -> dict[str, float]:
    """Floor, share of the detail and share of the unexplained detail of the greatest likelihood;
    each scene counts alike."""
    start = np.array([FLOOR, DETAIL, UNEXPLAINED])

    def cost(change: NDArray[np.float64]) -> float:
        total = 0.0
        for scene in scenes:
            thin = np.s_[:, ::2, ::2]
            measured = Parts(*(part[thin] for part in scene.measured))
            error = scene.error[thin] / scene.full_scale
            estimate = combined(measured, *(start * np.exp(change)))
            total += float(np.mean(np.log(estimate) + error / estimate))
        return total / len(scenes)

    simplex = np.vstack([np.zeros(3), np.eye(3) / 2])
    settings = {"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-6}
    found = minimize(cost, np.zeros(3), method="Nelder-Mead", options=settings)
    names = "floor", "detail", "unexplained"
    return dict(zip(names, map(float, start * np.exp(found.x)), strict=True))


def draw(scene: Judged, table: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw a scene, its uncertainty and its error, and the tenths of all scenes."""
    figure = Figure(figsize=(15, 4.2), layout="constrained")
    panels = figure.subplots(1, 4)
    (colour,) = stretch(
        [scene.image[colour_bands(scene.names)]], np.ones(scene.image[0].shape, bool)
    )
    panels[0].imshow(colour.transpose(1, 2, 0))
    panels[0].set_title("SSDiff")
    most = float(np.percentile(scene.error.mean(axis=0), 99))
    for panel, values, title in (
        (panels[1], scene.uncertainty, "uncertainty, mean of the bands"),
        (panels[2], scene.error, "error, mean of the bands"),
    ):
        shown = panel.imshow(values.mean(axis=0), cmap="magma", vmin=0, vmax=most)
        panel.set_title(title)
    figure.colorbar(shown, ax=panels[1:3], shrink=0.8, label="digital numbers")
    for panel in panels[:3]:
        panel.set_axis_off()
    for number, (name, row) in enumerate(table.items()):
        style = {"marker": ".", "linewidth": 0.8, "color": f"C{number % 10}"}
        style["linestyle"] = "-" if row["fitted"] else ":"
        panels[3].loglog(*(100 * np.array(row["tenths"]).T), label=name, **style)
    ends = 100 * np.array([row["tenths"] for row in table.values()])
    line = ends.min(), ends.max()
    panels[3].loglog(line, line, "k--", linewidth=0.8)
    panels[3].set(
        xlabel="uncertainty, mean of a tenth, % of full scale",
        ylabel="error, mean of the same values, % of full scale",
        title="tenths of the values by uncertainty",
    )
    panels[3].legend(fontsize=6)
    panels[3].grid(alpha=0.3)
    figure.savefig(path, dpi=80)


def markdown(table: dict[str, dict[str, Any]]) -> str:
    """The scores as a Markdown table."""
    within = [f"within {times:g} x" for times in TIMES]
    columns = ["scene", "fitted", "rank correlation", "in a band", "error / uncertainty", *within]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, row in table.items():
        cells = [
            name,
            "yes" if row["fitted"] else "",
            *(
                f"{row[key]:.2f}"
                for key in (
                    "rank correlation",
                    "rank correlation, mean of bands",
                    "mean error / mean uncertainty",
                )
            ),
            *(f"{share:.0%}" for share in row["shares within"].values()),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    of_parts = [row["rank correlation of the parts"] for row in table.values()]
    alone = [f"{name} {np.mean([row[name] for row in of_parts]):.2f}" for name in Parts._fields]
    ideal = [f"{share:.0%}" for share in LAPLACE]
    lines.append(f"| {' | '.join(['*Laplace distribution*', '', '', '', '1.00', *ideal])} |")
    return "\n".join([*lines, "", f"Mean rank correlation of each part: {', '.join(alone)}"])


@click.command()
@output_option
@scene_option
@click.option("--fit", "fits", is_flag=True, help="Fit the constants again.")
def main(output: Path, given: tuple[tuple[str, str, int, str], ...], fits: bool) -> None:
    """Judge scenes, write the scores, draw them and print the table."""
    scenes = {name: judge(sensor, crop, files.split(",")) for name, sensor, crop, files in given}
    table = {
        name: {"fitted": number % 2 == 0, **scores(scene)}
        for number, (name, scene) in enumerate(scenes.items())
    }
    content: dict[str, Any] = {"formula": formula(), "scenes": table}
    if fits:
        content["fit"] = fit(list(scenes.values())[::2])
        click.echo(content["fit"])
    (output / "uncertainty.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draw(next(iter(scenes.values())), table, output / "uncertainty.png")
    click.echo(markdown(table))


if __name__ == "__main__":
    main()
