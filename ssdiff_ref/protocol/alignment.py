"""Co-registration of PAN with MS for evaluation.

Fusion for a user aligns MS with PAN, because the output is on PAN's grid. In Wald's protocol MS is
the ground truth, so here PAN is aligned with MS.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from ssdiff_ref.protocol.datasets import Dataset, Sample
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.options import ShiftChoice
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.raster.registration import measure_arrays, offset


def align(dataset: Dataset, shift: ShiftChoice, progress: Progress) -> Dataset:
    """The dataset with PAN aligned with MS in all scenes, identically for all methods.

    At reduced resolution PAN is shrunk onto the actual position of MS. At full resolution PAN is
    resampled so that MS lies where the protocol assumes it.

    Args:
        dataset: pairs as the sensor acquired them.
        shift: ``auto`` measures the shift of each scene and aligns those where the measurement is
            reliable; rows and columns of PAN apply to all scenes; ``none`` returns the dataset
            unchanged.
        progress: receives the shifts.

    Raises:
        SSDiffError: if the dataset is simulated and contains its ground truth: its pairs need no
            alignment.
    """
    if shift == "none":
        return dataset
    if dataset.simulated:
        raise InputError(
            f"`shift` has no effect on {dataset.name}, which contains its ground truth; "
            "leave it out."
        )

    @cache  # scenes are read more than once; each shift is measured and reported once
    def shift_of(index: int) -> tuple[float, float] | None:
        scene = f"Scene {index + 1}: " if dataset.count > 1 else ""
        if shift != "auto":
            rows, cols = shift
            progress.note(
                f"{scene}MS is shifted by {offset((rows, cols))}, as stated; PAN is moved"
            )
            return shift
        sample = dataset.read(index)
        measured = measure_arrays(sample.pan, sample.ms, sample.position)
        rows, cols = measured.rounded
        description = f"{offset((rows, cols))} (measured, ±{measured.error:.2f})"
        if measured.reliable:
            progress.note(f"{scene}MS is shifted by {description}; PAN is moved")
            return rows, cols
        progress.note(
            f"{scene}MS seems shifted by {description}, too small, too large or "
            "too uncertain; PAN is not moved"
        )
        return None

    def read(index: int) -> Sample:
        sample = dataset.read(index)
        if (applied := shift_of(index)) is None:
            return sample
        row, col = sample.position
        return replace(sample, position=(row + applied[0], col + applied[1]), aligned=True)

    return replace(dataset, read=read)
