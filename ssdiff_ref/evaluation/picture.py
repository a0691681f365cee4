"""A picture of an evaluation: what each method makes of one place, and where it is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from ssdiff_ref.quality.checks import Image, Mask, as_mask
from ssdiff_trt.runtime.files import atomic_write
from ssdiff_trt.runtime.quicklook import colour_bands, figure, show, stretch
from ssdiff_trt.runtime.sensors import Sensor

_SIDES = (128, 96, 64, 48, 32)
"""Pixels of the reference that are shown on a side, by preference."""
_PANEL = 256
"""Pixels of the picture that they get, about."""
_COLUMNS = 6
_MARGIN = 90
_LONGEST_NAME = 22


class Gallery:
    """Collects crops while methods are judged, and draws them.

    Args:
        sensor: that took the imagery; says which bands to show in colour.

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
        """Choose the place: the most textured one that is valid.

        Args:
            reference: ``[C, H, W]``, the truth.
            crop: pixels at the edges that are not judged, nor shown.
            pan: ``[H, W]`` that the methods get, if they do.
            valid: ``[H, W]``.
        """
        mask = as_mask(valid, reference.shape)
        self.window = _textured(reference, mask, crop)
        self._reference, self._valid = reference[(slice(None), *self.window)], mask[self.window]
        self._pan = None if pan is None else pan[self.window]

    def add(self, name: str, fused: Image, ergas: float) -> None:
        """Add the image ``[C, H, W]`` of a method, and its score over all that was judged."""
        crop = fused[(slice(None), *self.window)]
        error = np.sqrt(((crop - self._reference) ** 2).mean(axis=0))
        title = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
        self._images.append((f"{title}, ERGAS {ergas:.3f}", crop[self._bands], error))

    def draw(self, path: Path) -> None:
        """Write the picture.

        The reference and the methods are stretched alike, by the reference; below each method is
        its error, all on one scale; below the reference, PAN.
        """
        valid = self._valid
        crops = [crop for _, crop, _ in self._images]
        *shown, reference = stretch([*crops, self._reference[self._bands]], valid)
        count = len(shown) + 1
        bands = -(-count // _COLUMNS)
        columns = -(-count // bands)
        height, width = valid.shape
        zoom = max(1, round(_PANEL / max(height, width)))
        drawing, panels = figure(
            columns, zoom * height, zoom * width, rows=2 * bands, right=_MARGIN
        )
        for panel in panels:
            panel.set_anchor("N")
        show(panels[0], np.where(valid, reference, 1), "reference")
        if self._pan is not None:
            (pan,) = stretch([self._pan[None]], valid)
            show(panels[columns], np.where(valid, pan, 1), "PAN")
        errors = [np.where(valid, error, np.nan) for *_, error in self._images]
        worst = float(np.nanpercentile(errors, 99)) or 1.0
        maps = None
        for index, ((title, *_), image, error) in enumerate(
            zip(self._images, shown, errors, strict=True), start=1
        ):
            place = 2 * columns * (index // columns) + index % columns
            show(panels[place], np.where(valid, image, 1), title)
            below = panels[place + columns]
            maps = below.imshow(error, cmap="magma", vmin=0, vmax=worst, interpolation="nearest")
            here = np.sqrt(np.nanmean(error**2))
            below.set_title(f"error here: {here:.1f} RMS", fontsize=10, pad=4)
        assert maps is not None
        across = drawing.get_figwidth() * drawing.dpi
        axis = drawing.add_axes((1 - (_MARGIN - 12) / across, 0.1, 16 / across, 0.8))
        drawing.colorbar(maps, cax=axis, extend="max", label="RMS error of the bands, in DN")
        with atomic_write(path) as part:
            drawing.savefig(part)


def _textured(reference: Image, valid: Mask, crop: int) -> tuple[slice, slice]:
    """The square with the steepest gradients; where holes leave no room for it, a smaller one."""
    margin = crop if min(valid.shape) > 2 * crop else 0
    height, width = (size - 2 * margin for size in valid.shape)
    inside = np.s_[margin : margin + height, margin : margin + width]
    mask = valid[inside]
    grey = np.where(mask, reference.mean(axis=0)[inside], 0)
    slope = np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1))
    # Slopes into a hole are its edge and no texture.
    slope[~ndimage.binary_erosion(mask, np.ones((3, 3)), border_value=1)] = 0

    def means(image: Image) -> Image:
        before = side // 2
        rows, cols = (slice(before, size - side + before + 1) for size in (height, width))
        part: Image = ndimage.uniform_filter(image, side)[rows, cols]
        return part

    for side in _SIDES:
        side = min(side, height, width)
        share = means(mask.astype(np.float64))
        if share.max() > 1 - 1e-9:
            break
    texture = np.where(share > share.max() - 1e-9, means(slope), -1)
    row, col = np.unravel_index(int(np.argmax(texture)), texture.shape)
    top, left = margin + int(row), margin + int(col)
    return slice(top, top + side), slice(left, left + side)
