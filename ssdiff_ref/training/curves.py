"""Plots of the loss and the validation scores of a run."""

from __future__ import annotations

import csv
from pathlib import Path

from ssdiff_ref.training.trainer import LOSSES, VALIDATION
from ssdiff_trt.runtime.files import atomic_write

PICTURE = "curves.png"


def _columns(path: Path) -> dict[str, list[float]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else {})}


def draw_curves(folder: Path) -> None:
    """Plot the loss and the validation scores of a run as ``curves.png`` in its folder."""
    if not (folder / LOSSES).exists():
        return
    from matplotlib.figure import Figure

    losses = _columns(folder / LOSSES)
    scores = _columns(folder / VALIDATION) if (folder / VALIDATION).exists() else {}
    figure = Figure(figsize=(10, 6), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True).ravel()
    panels[0].plot(losses["iteration"], losses["loss"], linewidth=0.8)
    panels[0].set(title="Loss", yscale="log")
    for panel, (name, title) in zip(
        panels[1:],
        (
            ("ergas", "ERGAS, lower is better"),
            ("sam", "SAM, degrees, lower is better"),
            ("q2n", "Q2n, higher is better"),
        ),
        strict=True,
    ):
        if scores:
            panel.plot(scores["iteration"], scores[name], marker="o", markersize=3)
        panel.set(title=f"Validation: {title}")
    for panel in panels[2:]:
        panel.set_xlabel("iteration")
    for panel in panels:
        panel.grid(alpha=0.3)
    with atomic_write(folder / PICTURE) as unfinished:
        figure.savefig(unfinished, dpi=110)
