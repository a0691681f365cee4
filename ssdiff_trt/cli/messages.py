"""What the commands print of a plan and of a result, and how they name parameters."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from ssdiff_trt.runtime.errors import SSDiffError, counted

if TYPE_CHECKING:
    from ssdiff_trt.runtime.estimate import Estimate
    from ssdiff_trt.runtime.plan.assumptions import Assumptions
    from ssdiff_trt.runtime.plan.plan import Plan
    from ssdiff_trt.runtime.plan.result import Result
    from ssdiff_trt.runtime.progress import Progress

_FLAGS = {"creation_options": "--co"}
"""Parameters whose option has another name."""


def flag(parameter: str) -> str:
    """The option of a parameter: ``--pan-band`` of ``pan_band``."""
    return _FLAGS.get(parameter, f"--{parameter.replace('_', '-')}")


def as_flags(text: str) -> str:
    """A message of the library with options in place of parameters: ```nodata=0``` becomes
    ``--nodata 0``."""
    return re.sub(
        r"`([a-z][a-z0-9_]*)(?:=([^`]*))?`",
        lambda match: flag(match[1]) + (f" {match[2]}" if match[2] else ""),
        text,
    )


def sentence(error: SSDiffError) -> str:
    """What a command prints of an error, in click's words where an option is wrong."""
    parameter = getattr(error, "parameter", None)
    where = f"Invalid value for '{flag(parameter)}': " if parameter else ""
    return as_flags(f"{where}{error}")


def print_plan(plan: Plan, progress: Progress) -> None:
    """Print what a run assumes and does, before it begins."""
    from ssdiff_trt.runtime.bundle.store import SHIPPED
    from ssdiff_trt.runtime.memory import in_words

    height, width = plan.size
    progress.note(f"{plan.source.describe()}; output {width} x {height}")
    print_bands(plan, progress)
    print_assumptions(plan.assumptions, progress)
    schedule = plan.schedule
    steps = counted(len(schedule.steps), "step")
    visited = ", ".join(map(str, schedule.timesteps[:12]))
    more = ", ..." if len(schedule.steps) > 12 else ""
    shipped = plan.bundle.path.parent == SHIPPED
    place = "" if shipped else f" ({plan.bundle.path})"
    progress.note(
        f"Bundle {plan.bundle.manifest.name}{place}: {schedule.sampler} sampler, {steps} at t = "
        f"{visited}{more}"
    )
    progress.detail(f"Seed {plan.seeds[0]}")
    if (runs := len(plan.seeds)) > 1:
        progress.note(
            f"The uncertainty counts the spread of {runs} seeds: {runs} runs of the network"
        )
    if (blocks := len(plan.blocks)) > 1 and (extra := plan.disk.until_complete):
        progress.note(
            f"{counted(blocks, 'block')}; until the result is complete they take up to "
            f"{in_words(extra)} of disk beside it"
        )
    files = (plan.uncertainty,) if plan.upload else (plan.output, plan.uncertainty)
    for folder in dict.fromkeys(file.parent for file in files if file):
        if not folder.exists():
            progress.note(f"The folder {folder} does not exist; the run creates it")
    for warning in plan.warnings:
        progress.warn(warning)


def print_assumptions(assumptions: Assumptions[Any], progress: Progress) -> None:
    """Print full scales and the shift; warnings are left to the caller."""
    from ssdiff_trt.runtime.plan.assumptions import misfit
    from ssdiff_trt.runtime.raster.registration import LEAST_SHARE, moved_by, offset

    progress.note(f"Full scale: PAN {assumptions.pan_scale}, MS {assumptions.ms_scale}")
    measured, shift = assumptions.measured_shift, assumptions.shift
    if assumptions.source.resampled:
        progress.note("MS is warped onto PAN's grid (Lanczos)")
    elif not any(shift) and max(map(abs, off := misfit(assumptions.source))) > 0.05:
        progress.note(
            f"By the georeferencing, MS lies {offset(off)} off PAN's grid; the interpolation "
            "allows for that"
        )
    if any(shift):
        progress.note(moved_by(shift, measured))
    elif measured is None:
        progress.note("MS is not moved, as stated")
    elif math.isinf(measured.error):
        progress.note(
            "MS is not moved: its shift cannot be measured, there is too little structure"
        )
    elif measured.share > LEAST_SHARE and measured.length <= 1:
        progress.note(
            f"MS is not moved: it lies {offset(measured.rounded)} off its georeferencing "
            f"(measured, ±{measured.error:.2f})"
        )
    if measured and measured.spread:
        progress.detail(f"The shifts of parts of the scene differ by {measured.spread:.2f} pixels")


def print_bands(plan: Plan, progress: Progress) -> None:
    """Print which bands are taken as which, unless the files say so."""
    found = plan.source.identified
    if not found or not found.complete:
        numbers = ", ".join(map(str, plan.source.bands))
        names = ", ".join(plan.bundle.manifest.sensor.bands)
        reason = (
            "as stated" if plan.pair.bands else "in this order; the file does not identify them"
        )
        progress.note(f"Bands {numbers} are taken as {names}, {reason}")


def print_understood(plan: Plan, progress: Progress) -> None:
    """Print which images declare pixels without data, for a dry run."""
    source = plan.source
    holes = (
        f"{values.role} {'declares which pixels have none' if values.holes_declared else 'none'}"
        for values in (source.pan_values, source.ms_values)
    )
    progress.note(f"No data: {', '.join(holes)}")


def print_estimate(estimate: Estimate, progress: Progress) -> None:
    """Print what a run would cost."""
    from ssdiff_trt.runtime.memory import in_words

    blocks = counted(estimate.blocks, "block")
    time = "; no tile has data, so its time is not known"
    if estimate.seconds is not None and estimate.seconds_per_tile is not None:
        each = estimate.seconds_per_tile
        time = f": up to {_duration(estimate.seconds)} here ({each:.3g} s a tile, measured)"
    finished = f", {estimate.finished_blocks} of them finished" if estimate.finished_blocks else ""
    progress.note(f"{counted(estimate.tiles, 'tile')} in {blocks}{finished}{time}")
    progress.note(f"Memory: up to {in_words(estimate.memory)}")
    beside = ""
    if estimate.disk_until_complete:
        beside = f", and {in_words(estimate.disk_until_complete)} beside it until it is complete"
    progress.note(f"Disk: up to {in_words(estimate.disk)} for the result{beside}")
    progress.note("Nothing was written (--dry-run)")


def print_total(estimates: list[dict[str, Any]], progress: Progress) -> None:
    """Print what the runs of many scenes would cost, given as summaries of estimates."""
    from ssdiff_trt.runtime.memory import in_words

    seconds = sum(estimate["seconds"] or 0 for estimate in estimates)
    disk = sum(estimate["disk"] for estimate in estimates)
    progress.note(f"All of them: up to {_duration(seconds)} here; up to {in_words(disk)} of disk")


def _duration(seconds: float) -> str:
    """A time in words: 45 s, 3 min, 2.5 h, 12 days."""
    for limit, unit, length in ((100, "s", 1), (6000, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            number = seconds / length
            return f"{number:.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def print_result(result: Result, progress: Progress) -> None:
    """Print what a run did, and warn of values that did not fit."""
    counts, (height, width) = result.counts, result.size
    for warning in result.run_warnings():
        progress.warn(warning)
    empty = f", {counted(counts.empty_tiles, 'empty tile')} skipped" if counts.empty_tiles else ""
    share = counts.invalid_pixels / (height * width)
    holes = f", {share:.1%} without data" if counts.invalid_pixels else ""
    before = f", {result.finished_before} finished before" if result.finished_before else ""
    progress.note(f"{counted(counts.tiles, 'tile')}{before}{empty}; {result.seconds:.1f} s")
    if (rmse := result.consistency.rmse) is not None:
        scale, optics = result.plan.assumptions.ms_scale.value, result.plan.optics.name
        progress.note(
            f"Reduced to the resolution of MS (with the MTF of sensor {optics}), the result "
            f"differs from MS by {rmse:.3g} (RMS), {rmse / scale:.2%} of full scale"
        )
    progress.note(f"{result.plan.destination}: {width} x {height}{holes}")
    if result.uncertainty:
        progress.note(f"{result.uncertainty}: expected absolute error of each value")
    if picture := result.quicklook:
        upload = result.plan.upload
        progress.note(f"{upload.beside(picture) if upload else picture}: quicklook")
