"""Pictures of a calibration: the tiles it was made by, and what each group of layers costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.calibration.quantisation import group_name
from ssdiff_trt.runtime.files import atomic_write
from ssdiff_trt.runtime.quicklook import colour_bands

if TYPE_CHECKING:
    from ssdiff_trt.calibration.samples import Samples
    from ssdiff_trt.calibration.sensitivity import Study

_SHOWN, _COLUMNS, _ROWS = 48, 12, 4


def draw_samples(
    samples: Samples,
    features: NDArray[np.float64],
    chosen: Sequence[int],
    bands: tuple[str, ...],
    path: Path,
) -> None:
    """The tiles that were chosen, in colour, and where they lie among all that were looked at.

    Args:
        samples: to show.
        features: of all candidates, from :func:`ssdiff_trt.calibration.diversity.traits`.
        chosen: which candidates the samples have.
        bands: what they are called.
        path: PNG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8.4), dpi=100, layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(3, 2))
    top, bottom = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    colours = samples.tiles.lms[:, colour_bands(bands)]
    low, high = np.percentile(colours, (2, 98), axis=(0, 2, 3))[..., None, None]
    panels = top.subplots(_ROWS, _COLUMNS).ravel()
    for panel in panels:
        panel.set_axis_off()
    # The square root shows dark tiles, water among them, beside bright ones.
    bright = ((colours - low) / np.maximum(high - low, 1e-9)).clip(0, 1) ** 0.5
    order = np.argsort(samples.tiles.pan.mean(axis=(1, 2, 3)))
    shown = order[np.linspace(0, len(order) - 1, min(len(order), _SHOWN)).astype(int)]
    for panel, index in zip(panels, shown, strict=False):
        panel.imshow(bright[index].transpose(1, 2, 0), interpolation="nearest")
    about = samples.about
    top.suptitle(
        f"{about.bundle}: {len(shown)} of {len(order)} tiles to calibrate by, dark to bright "
        "(interpolated MS)",
        fontsize=11,
    )
    places, states = bottom.subplots(1, 2)
    places.scatter(features[:, 0], np.exp(features[:, 3]), s=8, c="#bbbbbb", label="looked at")
    places.scatter(
        features[list(chosen), 0],
        np.exp(features[list(chosen), 3]),
        s=14,
        c="#c44e52",
        label="taken",
    )
    places.set(
        xlabel="brightness of PAN, of full scale",
        ylabel="difference of neighbours, of full scale",
        yscale="log",
        title="what they are like",
    )
    places.legend(fontsize=8)
    bins = np.linspace(-4.5, 4.5, 120)
    for t, state in zip(about.timesteps, samples.states, strict=True):
        states.hist(state.ravel(), bins, density=True, histtype="step", label=f"t = {t}")
    states.set(xlabel="state that the network is given", yscale="log", title="at each timestep")
    states.legend(fontsize=8, ncols=2)
    with atomic_write(path) as unfinished:
        figure.savefig(unfinished)


def draw_study(study: Study, title: str, path: Path) -> None:
    """What each group of layers costs by itself, and which the plan leaves out.

    Args:
        study: to show.
        title: of the picture.
        path: to write, in a format of matplotlib's.
    """
    from matplotlib.figure import Figure

    costs = study.costs[::-1]
    figure = Figure(figsize=(12, 0.28 * len(costs) + 1.8), dpi=100, layout="constrained")
    figure.suptitle(title, fontsize=11)
    error, change, inputs = figure.subplots(1, 3, sharey=True)
    rows = np.arange(len(costs))
    colours = ["#4c72b0" if cost.group in study.plan else "#c44e52" for cost in costs]
    rms = [1e4 * 10 ** (-cost.verdict.psnr / 20) for cost in costs]
    error.barh(rows, rms, color=colours)
    error.set(xlabel="RMS change of the image, 1e-4 of full scale")
    error.set_yticks(rows, [f"{cost.group} ({cost.layers})" for cost in costs], fontsize=8)
    error.barh([0], [0], color="#4c72b0", label="in INT8")
    error.barh([0], [0], color="#c44e52", label="left out by the plan")
    error.legend(fontsize=8, loc="lower right")
    change.plot([100 * c.verdict.ergas_loss for c in costs], rows, "o", label="ERGAS", ms=5)
    change.plot([100 * c.verdict.sam_loss for c in costs], rows, "x", label="SAM", ms=5)
    change.axvline(0, color="#888888", lw=0.8)
    change.axvline(100 * study.budget.loss, color="#c44e52", lw=0.8, ls="--", label="budget")
    change.set(xlabel="change against FP32, %")
    change.legend(fontsize=8)
    for step, t in enumerate(study.ranges.timesteps):
        found = [reach(study, cost.group, step) for cost in costs]
        inputs.plot(found, rows, "|" if step else "o", ms=6, label=f"t = {t}")
    inputs.set(xlabel="largest input of the group", xscale="log")
    inputs.legend(fontsize=8)
    for panel in (error, change, inputs):
        panel.grid(alpha=0.3, axis="x")
    with atomic_write(path) as unfinished:
        figure.savefig(unfinished)


def reach(study: Study, group: str, step: int) -> float:
    """The largest magnitude that the layers of a group are given at a timestep."""
    return max(
        found[step] for name, found in study.ranges.by_timestep.items() if group_name(name) == group
    )
