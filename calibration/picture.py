"""Figures of a calibration: the chosen tiles, and the cost of each group of layers."""

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

_COLUMNS, _ROWS = 12, 4
_MAX_SHOWN = _COLUMNS * _ROWS


def draw_samples(
    samples: Samples,
    features: NDArray[np.float64],
    chosen: Sequence[int],
    bands: tuple[str, ...],
    path: Path,
) -> None:
    """Draw the calibration tiles, their features among all candidates, and the input states.

    Args:
        samples: to draw.
        features: of all candidate tiles, from
            :func:`ssdiff_trt.calibration.diversity.tile_features`.
        chosen: indices of the candidates that became calibration tiles.
        bands: names of the MS bands.
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
    # The square root brightens dark tiles, such as water, so that their content is visible.
    displayed = ((colours - low) / np.maximum(high - low, 1e-9)).clip(0, 1) ** 0.5
    order = np.argsort(samples.tiles.pan.mean(axis=(1, 2, 3)))
    shown = order[np.linspace(0, len(order) - 1, min(len(order), _MAX_SHOWN)).astype(int)]
    for panel, index in zip(panels, shown, strict=False):
        panel.imshow(displayed[index].transpose(1, 2, 0), interpolation="nearest")
    about = samples.about
    top.suptitle(
        f"{about.bundle}: {len(shown)} of {len(order)} calibration tiles, dark to bright "
        "(interpolated MS)",
        fontsize=11,
    )
    scatter, histogram = bottom.subplots(1, 2)
    scatter.scatter(features[:, 0], np.exp(features[:, 3]), s=8, c="#bbbbbb", label="candidates")
    scatter.scatter(
        features[list(chosen), 0],
        np.exp(features[list(chosen), 3]),
        s=14,
        c="#c44e52",
        label="chosen",
    )
    scatter.set(
        xlabel="mean of PAN, fraction of full scale",
        ylabel="mean difference of adjacent pixels,\nfraction of full scale",
        yscale="log",
        title="candidates and chosen tiles",
    )
    scatter.legend(fontsize=8)
    bins = np.linspace(-4.5, 4.5, 120)
    for t, state in zip(about.timesteps, samples.states, strict=True):
        histogram.hist(state.ravel(), bins, density=True, histtype="step", label=f"t = {t}")
    histogram.set(xlabel="value", yscale="log", title="input state of the network, by timestep")
    histogram.legend(fontsize=8, ncols=2)
    with atomic_write(path) as unfinished:
        figure.savefig(unfinished)


def draw_study(study: Study, title: str, path: Path) -> None:
    """Draw the cost of quantising each group of layers alone, and which groups the plan excludes.

    Args:
        study: to draw.
        title: of the figure.
        path: to write; its suffix is a format that matplotlib supports.
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
    error.set(xlabel="RMS difference to FP32, 1e-4 of full scale")
    error.set_yticks(rows, [f"{cost.group} ({cost.layers})" for cost in costs], fontsize=8)
    error.barh([0], [0], color="#4c72b0", label="in INT8")
    error.barh([0], [0], color="#c44e52", label="excluded by the plan")
    error.legend(fontsize=8, loc="lower right")
    change.plot([100 * c.verdict.ergas_loss for c in costs], rows, "o", label="ERGAS", ms=5)
    change.plot([100 * c.verdict.sam_loss for c in costs], rows, "x", label="SAM", ms=5)
    change.axvline(0, color="#888888", lw=0.8)
    change.axvline(100 * study.budget.loss, color="#c44e52", lw=0.8, ls="--", label="budget")
    change.set(xlabel="change relative to FP32, %")
    change.legend(fontsize=8)
    for step, t in enumerate(study.ranges.timesteps):
        magnitudes = [largest_input(study, cost.group, step) for cost in costs]
        inputs.plot(magnitudes, rows, "|" if step else "o", ms=6, label=f"t = {t}")
    inputs.set(xlabel="largest magnitude of the inputs", xscale="log")
    inputs.legend(fontsize=8)
    for panel in (error, change, inputs):
        panel.grid(alpha=0.3, axis="x")
    with atomic_write(path) as unfinished:
        figure.savefig(unfinished)


def largest_input(study: Study, group: str, step: int) -> float:
    """Largest magnitude among the inputs of a group's layers at a timestep."""
    return max(
        magnitudes[step]
        for name, magnitudes in study.ranges.by_timestep.items()
        if group_name(name) == group
    )
