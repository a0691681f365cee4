"""Figure of an evaluation: a detail of each fused image and its error map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from ssdiff_ref.quality.checks import Image, Mask, as_mask
from ssdiff_trt.runtime.files import atomic_write
from ssdiff_trt.runtime.quicklook import colour_bands, figure, show, stretch
from ssdiff_trt.runtime.sensors import Sensor

_SIDES = (128, 96, 64, 48, 32)
"""Preferred sides of the detail shown, in pixels of the reference; the first possible is used."""
_PANEL = 256
"""Approximate side of a panel, in pixels of the figure."""
_COLUMNS = 6
_MARGIN = 90
"""Width of the colour bar's column, in pixels of the figure."""
_LONGEST_NAME = 22
"""Characters of a method name in a title."""


class Gallery:
    """Collects details of fused images during an evaluation, and draws them.

    Args:
        sensor: sensor that acquired the imagery; determines the bands shown as red, green, blue.

    Attributes:
        window: rows and columns of the reference that are shown.
    """

    window: tuple[slice, slice]

    def __init__(self, sensor: Sensor) -> None:
        self._bands = colour_bands(sensor.bands)
        self._images: list[tuple[str, Image, Image]] = []

    def set_reference(
        self,
        reference: Image,
        crop: int,
        *,
        pan: Image | None = None,
        valid: Mask | None = None,
    ) -> None:
        """Set the reference and choose the window: the most textured valid one.

        Args:
            reference: ``[C, H, W]``, ground truth.
            crop: pixels at the edges that are not evaluated; they are not shown either.
            pan: ``[H, W]``, the methods' input, if known.
            valid: ``[H, W]``, true where all images are valid.
        """
        mask = as_mask(valid, reference.shape)
        self.window = _textured(reference, mask, crop)
        self._reference, self._valid = reference[(slice(None), *self.window)], mask[self.window]
        self._pan = None if pan is None else pan[self.window]

    def add(self, name: str, fused: Image, ergas: float) -> None:
        """Add a fused image ``[C, H, W]``; ``ergas`` is its score over the whole evaluated area."""
        detail = fused[(slice(None), *self.window)]
        error = np.sqrt(((detail - self._reference) ** 2).mean(axis=0))
        title = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
        self._images.append((f"{title}, ERGAS {ergas:.3f}", detail[self._bands], error))

    def draw(self, path: Path) -> None:
        """Write the figure.

        All images share the contrast stretch of the reference. Below each fused image is its error
        map, all on one scale; below the reference is PAN.
        """
        valid = self._valid
        details = [detail for _, detail, _ in self._images]
        *stretched, reference = stretch([*details, self._reference[self._bands]], valid)
        count = len(stretched) + 1
        panel_rows = -(-count // _COLUMNS)
        columns = -(-count // panel_rows)
        height, width = valid.shape
        zoom = max(1, round(_PANEL / max(height, width)))
        drawing, panels = figure(
            columns, zoom * height, zoom * width, rows=2 * panel_rows, right=_MARGIN
        )
        for panel in panels:
            panel.set_anchor("N")
        show(panels[0], np.where(valid, reference, 1), "reference")
        if self._pan is not None:
            (pan,) = stretch([self._pan[None]], valid)
            show(panels[columns], np.where(valid, pan, 1), "PAN")
        errors = [np.where(valid, error, np.nan) for *_, error in self._images]
        largest_error = float(np.nanpercentile(errors, 99)) or 1.0
        error_map = None
        for index, ((title, *_), image, error) in enumerate(
            zip(self._images, stretched, errors, strict=True), start=1
        ):
            position = 2 * columns * (index // columns) + index % columns
            show(panels[position], np.where(valid, image, 1), title)
            below = panels[position + columns]
            error_map = below.imshow(
                error, cmap="magma", vmin=0, vmax=largest_error, interpolation="nearest"
            )
            rms = np.sqrt(np.nanmean(error**2))
            below.set_title(f"error shown: {rms:.1f} RMS", fontsize=10, pad=4)
        assert error_map is not None
        width_pixels = drawing.get_figwidth() * drawing.dpi
        axis = drawing.add_axes((1 - (_MARGIN - 12) / width_pixels, 0.1, 16 / width_pixels, 0.8))
        drawing.colorbar(error_map, cax=axis, extend="max", label="RMS error of the bands, in DN")
        with atomic_write(path) as unfinished:
            drawing.savefig(unfinished)


def _textured(reference: Image, valid: Mask, crop: int) -> tuple[slice, slice]:
    """Rows and columns of the square with the steepest mean gradient.

    Takes the largest of the preferred sides that fits without nodata.
    """
    margin = crop if min(valid.shape) > 2 * crop else 0
    height, width = (size - 2 * margin for size in valid.shape)
    inside = np.s_[margin : margin + height, margin : margin + width]
    mask = valid[inside]
    grey = np.where(mask, reference.mean(axis=0)[inside], 0)
    slope = np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1))
    # Gradients at the edge of a hole are not texture.
    slope[~ndimage.binary_erosion(mask, np.ones((3, 3)), border_value=1)] = 0

    def means(image: Image) -> Image:
        """Means over all squares of ``side`` pixels, by their top left corner."""
        before = side // 2
        rows, cols = (slice(before, size - side + before + 1) for size in (height, width))
        averages: Image = ndimage.uniform_filter(image, side)[rows, cols]
        return averages

    for side in _SIDES:
        side = min(side, height, width)
        share = means(mask.astype(np.float64))
        if share.max() > 1 - 1e-9:
            break
    texture = np.where(share > share.max() - 1e-9, means(slope), -1)
    row, col = np.unravel_index(int(np.argmax(texture)), texture.shape)
    top, left = margin + int(row), margin + int(col)
    return slice(top, top + side), slice(left, left + side)
