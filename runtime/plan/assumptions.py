"""What is assumed of a pair before anything is computed: bundle, full scales, shift."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from ssdiff_trt.runtime.bundle.store import Bundle, bundle_for
from ssdiff_trt.runtime.interpolator import GROUND_POSITION
from ssdiff_trt.runtime.options import PairOptions
from ssdiff_trt.runtime.raster.checks import check_band_order, check_values
from ssdiff_trt.runtime.raster.radiometry import Scale, choose_scales
from ssdiff_trt.runtime.raster.registration import Shift, choose_shift, shift_warnings
from ssdiff_trt.runtime.sources import Source

AnySource = TypeVar("AnySource", bound=Source)


@dataclass(frozen=True)
class Assumptions(Generic[AnySource]):
    """How the places and values of a pair are understood."""

    source: AnySource
    """The pair, MS moved where that was measured or stated."""
    bundle: Bundle
    pan_scale: Scale
    ms_scale: Scale
    shift: tuple[float, float]
    """Rows and columns of PAN by which MS is moved."""
    measured_shift: Shift | None
    """Shift between MS and PAN, if it was measured."""
    warnings: tuple[str, ...]
    """One sentence for each assumption that a sample of the pixels contradicts."""


def sensor_scale(bundle: Bundle) -> Scale:
    """Full scale of a bundle's sensor."""
    sensor = bundle.manifest.sensor
    return Scale(sensor.full_scale, f"that of the bundle's sensor, {sensor.name}")


def assume(
    source: AnySource, bundle: str | Path | Bundle | None, options: PairOptions
) -> Assumptions[AnySource]:
    """Choose bundle and full scales, measure the shift, and check a sample of the values.

    Args:
        source: the pair, not moved yet.
        bundle: directory, name of a shipped bundle, or an opened one; None for the shipped one
            that fits the number of bands.
        options: see :class:`ssdiff_trt.runtime.options.PairOptions`.

    Raises:
        SSDiffError: when bundle and pair do not fit, or the values need a stated full scale.
    """
    opened = bundle_for(len(source.bands), bundle)
    pan_scale, ms_scale = choose_scales(source, options, sensor_scale(opened))
    shift, measured = choose_shift(options.shift, source)
    if any(shift):
        source = source.moved(*shift)
    warnings = [
        *source.warnings,
        *check_band_order(source, opened.manifest.sensor.bands),
        *check_values(source, pan_scale, ms_scale),
        *shift_warnings(shift, measured),
    ]
    return Assumptions(source, opened, pan_scale, ms_scale, shift, measured, tuple(warnings))


def misfit(source: Source) -> tuple[float, float]:
    """Rows and columns of PAN by which MS lies off PAN's grid, without any shift."""
    row, col = (position - GROUND_POSITION for position in source.position)
    return row, col
