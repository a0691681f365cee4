"""The figures of a report: images as PNG, diagrams as SVG."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ssdiff_ref.report.measures import Overview, QualityMaps
from ssdiff_trt.runtime.quicklook import stretch
from ssdiff_trt.runtime.raster.registration import Shift

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _TALLEST = 7.0, 7.5
"""Width and largest height of a figure of the scene, inches."""
_LENGTH = 0.07
"""Length of the longest arrow, in widths of the scene."""
_NO_DATA = "#cccccc"


def draw_arrows(overview: Overview, shift: Shift, origin: tuple[int, int]) -> bytes:
    """The shifts of the parts of the scene as arrows over PAN.

    Args:
        overview: the scene.
        shift: with parts.
        origin: row and column of the first pixel that is shown, counted as the places of the parts
            are.
    """
    figure, axes = _scene_figure(overview.pan.shape)
    (pan,) = stretch([overview.pan[None]], overview.valid)
    axes.imshow(np.where(overview.valid, pan[0], 0.5), cmap="gray", vmin=0, vmax=1)
    rows, cols = (
        np.array([(part.place[axis] - origin[axis]) / overview.factor for part in shift.parts])
        for axis in (0, 1)
    )
    down, right = (
        np.array([getattr(part, name) for part in shift.parts]) for name in ("rows", "cols")
    )
    longest = max(float(np.hypot(down, right).max()), 0.1)
    width = overview.pan.shape[1]
    axes.quiver(
        cols,
        rows,
        right,
        down,
        angles="xy",
        scale_units="xy",
        scale=longest / (_LENGTH * width),
        width=0.005,
        color="#ffb000",
        edgecolor="black",
        linewidth=0.5,
    )
    axes.plot(cols, rows, "o", color="#ffb000", markeredgecolor="black", markersize=3)
    return _drawn(figure, "png")


def draw_uncertainty(overview: Overview) -> bytes:
    """The expected error over the scene, the mean of the bands."""
    assert overview.uncertainty is not None
    figure, axes = _scene_figure(overview.pan.shape)
    shown = np.where(overview.valid, overview.uncertainty, np.nan)
    most = float(np.nanpercentile(shown, 98)) if overview.valid.any() else 1.0
    image = axes.imshow(shown, cmap="magma", vmin=0, vmax=most or 1.0)
    axes.set_facecolor(_NO_DATA)
    label = "expected absolute error, digital numbers of MS"
    figure.colorbar(image, ax=axes, extend="max", shrink=0.7, label=label)
    return _drawn(figure, "png")


def draw_map(maps: QualityMaps, measure: str, size: tuple[int, int], label: str) -> bytes:
    """A measure in blocks, with its values.

    Args:
        maps: measured.
        measure: of them.
        size: height and width of the scene in pixels.
        label: of the scale.
    """
    figure, axes = _scene_figure(size, width=5.2)
    values = maps.values[measure]
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    edges = [
        _edges(starts, maps.side, length)
        for starts, length in zip((maps.rows, maps.cols), size, strict=True)
    ]
    mesh = axes.pcolormesh(
        edges[1], edges[0], values, cmap="viridis", vmin=low, vmax=max(high, low + 1e-9)
    )
    for i, row in enumerate(maps.rows):
        for j, col in enumerate(maps.cols):
            value = values[i, j]
            if np.isfinite(value):
                colour = "white" if value < (low + high) / 2 else "black"
                middle = col + maps.side / 2, row + maps.side / 2
                text = f"{value:.2g}"
                axes.text(*middle, text, color=colour, fontsize=8, ha="center", va="center")
    axes.set(xlim=(0, size[1]), ylim=(size[0], 0), facecolor=_NO_DATA)
    figure.colorbar(mesh, ax=axes, shrink=0.7, label=label)
    return _drawn(figure, "svg")


def _edges(starts: list[int], side: int, size: int) -> NDArray[Any]:
    """Edges between blocks, half way where they do not touch."""
    between = [(one + side + other) / 2 for one, other in pairwise(starts)]
    return np.array([starts[0], *between, starts[-1] + side])


def _scene_figure(size: tuple[int, ...], width: float = _WIDTH) -> tuple[Figure, Axes]:
    """A figure for an image of that height and width."""
    tall = min(max(width * 0.85 * size[0] / size[1], 1.5), _TALLEST)
    figure = Figure(figsize=(width, tall + 0.5), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.set_aspect("equal")
    axes.set(xticks=[], yticks=[])
    return figure, axes


def _drawn(figure: Figure, kind: str) -> bytes:
    """A figure as PNG or SVG."""
    file = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else None
    with rc_context({"svg.hashsalt": "report"}):  # the same names in the SVG every time
        figure.savefig(file, format=kind, metadata=metadata, bbox_inches="tight", pad_inches=0.05)
    return file.getvalue()
