"""Telling what a run takes for granted, before it begins, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssdiff_trt.runtime.errors import counted
from ssdiff_trt.runtime.interpolator import GROUND_POSITION
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.raster.checks import check_values
from ssdiff_trt.runtime.raster.registration import LEAST_SHARE, offset
from ssdiff_trt.runtime.raster.scene import Scene

if TYPE_CHECKING:
    from ssdiff_trt.runtime.result import Result


def tell_assumptions(scene: Scene, result: Result, progress: Progress) -> None:
    """Print what is taken for granted, and warn of what looks wrong in a sample of the images.

    Raises:
        SSDiffError: if the images are reflectance in 0..1 and nobody said so.
    """
    pan, ms, manifest = scene.pan, scene.ms, result.bundle.manifest
    height, width = result.size
    bands = ",".join(map(str, scene.bands))
    progress.note(
        f"PAN {pan.width} x {pan.height}, MS {ms.width} x {ms.height} with bands {bands}; "
        f"output {width} x {height}"
    )
    progress.note(f"Full scale: PAN {result.pan_scale}, MS {result.ms_scale}")
    off = [position - GROUND_POSITION for position in scene.position]
    if scene.resampled:
        progress.note("MS is warped onto PAN's grid (cubic)")
    elif max(map(abs, off)) > 0.05 and not any(result.shift):
        progress.note(
            f"MS lies {offset((off[0], off[1]))} off its grid; the interpolator makes up for it"
        )
    _tell_shift(scene, result, progress)
    schedule = result.schedule
    steps = counted(len(schedule.steps), "step")
    visited = ", ".join(map(str, schedule.timesteps[:12]))
    more = ", ..." if len(schedule.steps) > 12 else ""
    progress.note(
        f"Bundle {manifest.name}: {schedule.sampler} sampler, {steps} at t = {visited}{more}"
    )
    progress.note(f"Backend: {result.backend}")
    progress.detail(f"Seed {result.seed}")
    made = manifest.quantisation
    if result.precision == "int8" and made and not set(schedule.timesteps) <= set(made.timesteps):
        known = ", ".join(map(str, made.timesteps))
        progress.warn(
            f"int8 is calibrated for t = {known} and this run visits others; collect samples with "
            "--timesteps, or choose another --precision"
        )
    _warn_of_band_order(scene, manifest.sensor.bands, progress)
    check_values(scene, result.pan_scale, result.ms_scale, progress)


def _tell_shift(scene: Scene, result: Result, progress: Progress) -> None:
    """Whether MS is moved, or would have to be."""
    measured, moved = result.measured_shift, result.shift
    expected = "its corners are" if scene.ms.transform.is_identity else "its georeferencing says"
    if any(moved):
        how = f"measured, ±{measured.error:.2f}" if measured else "as stated"
        progress.note(f"MS lies {offset(moved)} off where {expected} ({how}); it is moved onto PAN")
    elif measured is None:
        return
    elif measured.share <= LEAST_SHARE:
        progress.detail(
            f"The shift between PAN and MS cannot be measured: MS explains {measured.share:.0%} of "
            "blurred PAN"
        )
    elif measured.length > 1:
        reason = "too far to be sure" if measured.seen else "too uncertain"
        progress.warn(
            f"MS seems to lie {offset(measured.rounded)} off where {expected} "
            f"(±{measured.error:.2f}), {reason} to move it; where that is so, state it with "
            "--shift ROWS,COLS, else expect coloured fringes"
        )
    else:
        progress.detail(
            f"MS lies {offset(measured.rounded)} off where {expected} (±{measured.error:.2f}); "
            "it is left there"
        )


def _warn_of_band_order(scene: Scene, expected: tuple[str, ...], progress: Progress) -> None:
    """Where both the file and the bundle name their bands, compare."""
    names = [(scene.ms.descriptions[band - 1] or "").lower() for band in scene.bands]
    if set(names) == set(expected) and names != list(expected):
        progress.warn(
            f"the bands of MS are called {', '.join(names)} and the bundle expects "
            f"{', '.join(expected)}; order them with --bands"
        )


def tell_result(result: Result, progress: Progress) -> None:
    """Print what was done, and warn of values that did not fit."""
    pixels = result.size[0] * result.size[1]
    for role, beyond, scale in (
        ("PAN", result.beyond_pan, result.pan_scale),
        ("MS", result.beyond_ms, result.ms_scale),
    ):
        if beyond:
            progress.warn(
                f"{counted(beyond, 'valid pixel')} of {role} not within 0 and full scale "
                f"{scale.value:g}, which the result is; if the data goes higher, pass --full-scale"
            )
    if result.clipped:
        progress.warn(
            f"{counted(result.clipped, 'value')} did not fit into the type of the result and came "
            "out as its limit; choose another --dtype"
        )
    if result.redone:
        progress.warn(
            f"{counted(result.redone, 'tile')} not finite in {result.precision}, computed again in "
            "fp32; if that is many of them, choose --precision fp32"
        )
    if result.invalid_pixels == pixels:
        progress.warn("no pixel is valid in both PAN and MS, so the result is empty")
    skipped = f", {counted(result.empty_tiles, 'empty one')} skipped" if result.empty_tiles else ""
    share = result.invalid_pixels / pixels
    holes = f", {share:.1%} without data" if result.invalid_pixels else ""
    progress.note(f"{counted(result.tiles, 'tile')}{skipped}; {result.seconds:.1f} s")
    progress.note(f"{result.output}: {result.size[1]} x {result.size[0]}{holes}")
    if result.quicklook:
        progress.note(f"{result.quicklook}: quicklook")
