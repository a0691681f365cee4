"""Quality by number and placement of sampling steps: ``steps.json``, ``steps.png`` and a table.

    python -m benchmarks.steps --pair NAME SENSOR PAN MS [--pair ...]
        [--array NAME SENSOR FILE] -o docs

Every scene is degraded by Wald's protocol (Wald et al., 1997), fused by the shipped bundle for its
number of bands, and scored against the original MS.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from matplotlib.figure import Figure

from benchmarks.output import output_option
from ssdiff_ref.evaluation.candidates import BundleMethod
from ssdiff_ref.protocol.array_files import open_arrays
from ssdiff_ref.protocol.datasets import Dataset, open_pair
from ssdiff_ref.protocol.pair import Pair
from ssdiff_ref.quality.checks import Image
from ssdiff_ref.quality.metrics import ergas, q2n, sam
from ssdiff_trt.runtime.bundle.store import bundle_for
from ssdiff_trt.runtime.options import SAMPLERS, PairOptions, Sampler, SamplingOptions
from ssdiff_trt.runtime.progress import Progress, choose
from ssdiff_trt.runtime.schedule import alphas_cumprod, spaced_timesteps

STEPS = (1, 2, 3, 5, 10, 25)
SEEDS = (0, 1, 2)
RESIDUAL = 0.03
"""Standard deviation of the residual, as a fraction of full scale; typical of the scenes used."""
MAX_SIZE = 96
"""Largest height and width of the scored part, at the centre of the scene, in pixels of MS."""


def placed_timesteps(steps: int) -> tuple[int, ...]:
    """Timesteps at given ratios of noise to residual: 999, then geometrically from 4 to 1/4."""
    a = alphas_cumprod()
    ratios = np.sqrt((1 - a) / a) / RESIDUAL
    targets = np.geomspace(4, 0.25, max(steps - 1, 1))[: steps - 1]
    later = [int(np.abs(np.log(ratios / target)).argmin()) for target in targets]
    return tuple(sorted({999, *later}, reverse=True))


PLACEMENTS = {"evenly spaced": spaced_timesteps, "by signal to noise": placed_timesteps}


def schedules() -> Iterator[tuple[str, Sampler, int, tuple[int, ...]]]:
    """Placement, sampler, number of steps and timesteps of every schedule to score."""
    for placement, place in PLACEMENTS.items():
        for sampler in SAMPLERS:
            for steps in STEPS:
                yield placement, sampler, steps, place(steps)


def reduced(dataset: Dataset) -> tuple[Pair, Image]:
    """The centre of the first scene of a data set at reduced resolution, and its reference."""
    pair, truth = dataset.read(0).reduced(dataset.sensor)
    rows, cols = (
        slice(start, start + extent)
        for size in truth.shape[-2:]
        for extent in [min(size, MAX_SIZE) // 32 * 32]
        for start in [(size - extent) // 8 * 4]
    )
    coarse = np.s_[:, rows.start // 4 : rows.stop // 4, cols.start // 4 : cols.stop // 4]
    fine = np.s_[:, rows, cols]
    centre = Pair(pair.pan[fine[1:]], pair.ms[coarse], pair.lms[fine], pair.sensor, pair.has_truth)
    return centre, truth[fine]


def scores(image: Image, truth: Image, crop: int = 8) -> list[float]:
    """ERGAS, SAM (degrees) and Q2n, without ``crop`` pixels at each border."""
    inner = np.s_[:, crop : image.shape[1] - crop, crop : image.shape[2] - crop]
    x, y = image[inner], truth[inner]
    return [ergas(x, y), sam(x, y), q2n(x, y)]


def study(name: str, dataset: Dataset, progress: Progress) -> list[dict[str, object]]:
    """Score all schedules and seeds on one scene."""
    pair, truth = reduced(dataset)
    bundle = bundle_for(len(truth))
    crop = 8 if min(truth.shape[-2:]) >= 48 else 0
    rows = []
    to_score = list(schedules())
    progress.start(name, len(to_score))
    for placement, sampler, steps, timesteps in to_score:
        images = [
            BundleMethod(
                bundle,
                dataset.scale.value,
                Progress(),
                sampling=SamplingOptions(timesteps=timesteps, sampler=sampler, seed=seed),
            )(pair)
            for seed in (SEEDS if steps <= 5 else SEEDS[:1])
        ]
        by_seed = np.array([scores(image, truth, crop) for image in images])
        rows.append(
            {
                "scene": name,
                "placement": placement,
                "sampler": sampler,
                "steps": steps,
                "timesteps": list(timesteps),
                "scores": by_seed.round(5).tolist(),
                "mean of seeds": np.round(scores(np.mean(images, 0), truth, crop), 5).tolist(),
            }
        )
        progress.advance(1)
    return rows


def draw(rows: list[dict[str, object]], path: Path) -> None:
    """Draw ERGAS by number of steps, a panel for each scene; bars span the seeds."""
    names = list(dict.fromkeys(str(row["scene"]) for row in rows))
    figure = Figure(figsize=(4.2 * len(names), 4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(names)))
    for panel, name in zip(panels, names, strict=True):
        of_scene = [row for row in rows if row["scene"] == name]
        for placement in PLACEMENTS:
            for sampler, style in zip(SAMPLERS, ("-o", "--s"), strict=True):
                line = [
                    r for r in of_scene if (r["placement"], r["sampler"]) == (placement, sampler)
                ]
                values = [np.array(row["scores"])[:, 0] for row in line]
                panel.errorbar(
                    [int(str(row["steps"])) for row in line],
                    [value.mean() for value in values],
                    [np.ptp(value) / 2 for value in values],
                    fmt=style,
                    markersize=4,
                    label=f"{sampler}, {placement}",
                )
        panel.set(title=name, xlabel="steps", xscale="log")
        panel.set_xticks(STEPS, [str(step) for step in STEPS])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("ERGAS, lower is better")
    panels[-1].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def table(rows: list[dict[str, object]]) -> str:
    """The mean scores over seeds as a Markdown table."""
    names = list(dict.fromkeys(str(row["scene"]) for row in rows))
    lines = [
        "| sampler | placement | steps | timesteps | "
        + " | ".join(f"{name}: ERGAS, SAM, Q2n" for name in names)
        + " |",
        "|---|---|---|---|" + "---|" * len(names),
    ]
    for placement, sampler, steps, timesteps in schedules():
        cells = []
        for name in names:
            (row,) = (
                r
                for r in rows
                if (r["scene"], r["placement"], r["sampler"], r["steps"])
                == (name, placement, sampler, steps)
            )
            mean = np.array(row["scores"]).mean(0)
            cells.append(f"{mean[0]:.3f}, {mean[1]:.3f}, {mean[2]:.4f}")
        shown = ", ".join(map(str, timesteps)) if steps <= 5 else f"{steps} timesteps"
        lines.append(f"| {sampler} | {placement} | {steps} | {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command()
@click.option(
    "--pair", "pairs", nargs=4, multiple=True, help="Scene as rasters: name, sensor, PAN, MS."
)
@click.option(
    "--array", "arrays", nargs=3, multiple=True, help="Scene as an array file: name, sensor, file."
)
@click.option("--nodata", type=float, help="Value that marks pixels without data.")
@output_option
def main(
    pairs: tuple[tuple[str, ...], ...],
    arrays: tuple[tuple[str, ...], ...],
    nodata: float | None,
    output: Path,
) -> None:
    """Score schedules by number and placement of steps, draw them and print the table."""
    progress = choose()
    scenes = [(name, open_arrays(path, sensor)) for name, sensor, path in arrays]
    for name, sensor, pan, ms in pairs:
        scenes.append(
            (name, open_pair(pan, ms, sensor, PairOptions(nodata=nodata), progress=Progress()))
        )
    results = output / "steps.json"
    rows = json.loads(results.read_text()) if results.exists() else []
    for name, dataset in scenes:
        if name not in {row["scene"] for row in rows}:  # else scored before an interruption
            rows += study(name, dataset, progress)
            results.write_text(json.dumps(rows, indent=1) + "\n")
    draw(rows, output / "steps.png")
    print(table(rows))


if __name__ == "__main__":
    main()
