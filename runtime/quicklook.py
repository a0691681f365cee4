"""A picture of a run: PAN, upsampled MS, the result and its uncertainty, side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from ssdiff_trt.runtime.errors import OutputError, counted, install
from ssdiff_trt.runtime.files import atomic_write, check_target
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.plan.plan import Plan
from ssdiff_trt.runtime.raster.fingerprint import every_file
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.tiles.inputs import fill

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NO_DATA = np.array([0.45, 0.6, 0.8])[:, None, None]
"""Colour of pixels without data."""
_SIDE = 512  # pixels of the scene that a picture shows at full resolution


def colour_bands(names: tuple[str, ...]) -> list[int]:
    """Which bands to show as red, green and blue, counted from 0; the first if there are none."""
    wanted = ("red", "green", "blue")
    return [names.index(name) for name in wanted] if set(wanted) <= set(names) else [0, 0, 0]


def stretch(
    images: list[NDArray[np.floating]], valid: NDArray[np.bool_]
) -> list[NDArray[np.floating]]:
    """Map images ``[B, h, w]`` to 0..1 alike, per band from the 2nd to the 98th percentile.

    Percentiles are of the valid pixels of the last image.
    """
    if not valid.any():
        return [np.zeros_like(image) for image in images]
    low, high = np.percentile(images[-1][:, valid], (2, 98), axis=1)[..., None, None]
    return [((image - low) / np.maximum(high - low, 1e-9)).clip(0, 1) for image in images]


def require_matplotlib() -> None:
    """Say how to get matplotlib if it is not there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise OutputError(f"Pictures need matplotlib; {install('picture')}.") from None


def check_picture(path: Path) -> None:
    """That a picture can be drawn, and in the format that its name asks for."""
    require_matplotlib()
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise OutputError(
            f"A picture cannot be drawn as {path.name}, expected a name that ends in .png; the "
            f"endings that work are {', '.join(sorted(known))}."
        )


def figure(
    columns: int, height: int, width: int, *, rows: int = 1, right: int = 0
) -> tuple[Figure, list[Axes]]:
    """Panels that show images of that size pixel by pixel, row by row, with room for titles.

    ``right`` is the width in pixels of a margin on that side.
    """
    from matplotlib.figure import Figure

    dpi, gap, title = 100, 8, 28
    across, down = columns * (width + gap) + gap + right, rows * (height + title) + gap
    drawing = Figure(figsize=(across / dpi, down / dpi), dpi=dpi)
    axes = []
    for row in reversed(range(rows)):
        for column in range(columns):
            left, bottom = gap + column * (width + gap), gap + row * (height + title)
            box = (left / across, bottom / down, width / across, height / down)
            panel = drawing.add_axes(box)
            panel.set_axis_off()
            axes.append(panel)
    return drawing, axes


def show(panel: Axes, image: NDArray[np.floating], title: str) -> None:
    """Show ``[1, h, w]`` in grey or ``[3, h, w]`` in colour, values 0..1."""
    pixels = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)
    panel.imshow(pixels, interpolation="nearest")
    panel.set_title(title, fontsize=10, pad=4)


def quicklook_path(output: Path, scene: Scene, overwrite: bool) -> Path:
    """Where the quicklook of a run goes, checked before the run.

    Raises:
        SSDiffError: if it cannot be drawn, or exists and may not be replaced.
    """
    require_matplotlib()
    path = output.with_suffix(".png")
    check_target(path, every_file(scene.pan, scene.ms), overwrite)
    return path


def draw_quicklook(plan: Plan, path: Path) -> None:
    """Draw PAN, interpolated MS, the result and its uncertainty, if any, while the pair is open.

    It shows the part of the scene with the most valid pixels among nine, at full resolution. The
    uncertainty is the mean of the bands, from black for 0 to white for its 98th percentile.
    """
    source, names = plan.source, plan.bundle.manifest.sensor.bands
    assert plan.output is not None
    rows, cols = plan.extent
    with rasterio.open(plan.output) as fused:
        window, valid = _best_window(fused)
        shown = colour_bands(names)
        places = [1 + source.file_order.index(band) for band in shown]
        image = fused.read(places, window=window, out_dtype=np.float32)
    top, left = rows.start + window.row_off, cols.start + window.col_off
    # The source is read on its own grid: begin at a whole MS pixel and cut what is too much.
    skip_row, skip_col = (top - source.rows.start) % RATIO, (left - source.cols.start) % RATIO
    read_rows, read_cols = (
        range(start - skip, start - skip + -(-(size + skip) // RATIO) * RATIO)
        for start, skip, size in (
            (top, skip_row, window.height),
            (left, skip_col, window.width),
        )
    )
    pixels = source.read(read_rows, read_cols)
    cut = np.s_[..., skip_row : skip_row + window.height, skip_col : skip_col + window.width]
    lms = replace(pixels, ms=fill(pixels.ms[shown], pixels.ms_valid)).lms()[cut]
    (pan,) = stretch([pixels.pan[cut][None]], valid)
    lms, image = stretch([lms, image], valid)
    no_data = "" if valid.all() else "; blue: no data"
    pictures = {
        f"PAN{no_data}": pan,
        "MS, interpolated": lms,
        f"SSDiff, {counted(len(plan.schedule.steps), 'step')}": image,
    }
    if plan.uncertainty:
        with rasterio.open(plan.uncertainty) as file:
            error = file.read(window=window).mean(axis=0, keepdims=True)
        most = float(np.percentile(error[:, valid], 98)) if valid.any() else 1.0
        title = f"Uncertainty, white = {most:.3g} or more"
        pictures[title] = (error / most).clip(0, 1)
    drawing, panels = figure(len(pictures), window.height, window.width)
    for panel, (title, picture) in zip(panels, pictures.items(), strict=True):
        in_colour = np.broadcast_to(picture, (3, *valid.shape))
        show(panel, np.where(valid, in_colour, _NO_DATA), title)
    with atomic_write(path) as unfinished:
        drawing.savefig(unfinished)


def _best_window(image: rasterio.DatasetReader) -> tuple[Window, NDArray[np.bool_]]:
    """The most valid of nine windows over an image, the central one if they tie."""
    height, width = min(_SIDE, image.height), min(_SIDE, image.width)
    places = [(0.5, 0.5), *((r, c) for r in (0.0, 0.5, 1.0) for c in (0.0, 0.5, 1.0))]
    best: tuple[Window, NDArray[np.bool_]] | None = None
    for down, across in places:
        row, col = int(down * (image.height - height)), int(across * (image.width - width))
        window = Window(col, row, width, height)
        valid = image.dataset_mask(window=window) > 0
        if best is None or valid.mean() > best[1].mean():
            best = window, valid
    assert best is not None
    return best
