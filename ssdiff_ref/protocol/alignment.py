"""Bringing PAN onto MS, where the field has the truth and all methods have their geometry.

A run moves MS onto PAN, for a user wants PAN's grid. In Wald's protocol MS is what results are
compared with, and stays where it is.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from ssdiff_ref.protocol.datasets import Dataset, Sample
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.options import ShiftChoice
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.raster.registration import measure_arrays, offset


def align(dataset: Dataset, shift: ShiftChoice, progress: Progress) -> Dataset:
    """The dataset with PAN and MS of its scenes aligned, the same for all methods.

    At reduced resolution PAN is shrunk onto MS where MS really lies. At full resolution PAN is
    brought to where the protocol has MS.

    Args:
        dataset: pairs as the sensor took them.
        shift: ``auto`` to measure that of each scene, and align those where it is reliable; rows
            and columns of PAN for all of them; ``none`` for the dataset as it is.
        progress: told the shifts.

    Raises:
        SSDiffError: where the truth comes along, for then nothing is displaced but by intent.
    """
    if shift == "none":
        return dataset
    if dataset.simulated:
        raise SSDiffError(
            f"--shift does nothing with {dataset.name}, which has its truth with it; leave it out."
        )

    @cache  # scenes are read more than once, and told about once
    def found(index: int) -> tuple[float, float] | None:
        scene = f"Scene {index + 1}: " if dataset.count > 1 else ""
        if shift != "auto":
            rows, cols = shift
            progress.note(f"{scene}MS lies {offset((rows, cols))} off, as stated; PAN is moved")
            return shift
        sample = dataset.read(index)
        measured = measure_arrays(sample.pan, sample.ms, sample.position)
        rows, cols = measured.rounded
        told = f"{offset((rows, cols))} off (measured, ±{measured.error:.2f})"
        if measured.reliable:
            progress.note(f"{scene}MS lies {told}; PAN is moved")
            return rows, cols
        progress.note(f"{scene}MS seems to lie {told}, too little or uncertain; nothing is moved")
        return None

    def read(index: int) -> Sample:
        sample = dataset.read(index)
        if (moved := found(index)) is None:
            return sample
        row, col = sample.position
        return replace(sample, position=(row + moved[0], col + moved[1]), aligned=True)

    return replace(dataset, read=read)
