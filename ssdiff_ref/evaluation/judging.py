"""Judging fusion methods by the protocols of the field: imagery in, scores out.

At reduced resolution a method gets a pair whose truth is known; at full resolution it gets what
the sensor took, and is judged by what went into it. Both keep to the geometry of the protocol at
both resolutions: ``lms`` is what the 23-tap interpolator makes of MS, wrapping around at the
edges, unless a file brings its own, and pixel n of MS lies on pixel 4 n + 2 of PAN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ssdiff_ref.evaluation.candidates import Method
from ssdiff_ref.evaluation.picture import Gallery
from ssdiff_ref.evaluation.products import Products
from ssdiff_ref.protocol.datasets import Dataset, Sample
from ssdiff_ref.protocol.pair import Pair
from ssdiff_ref.protocol.simulation import decimation_phase
from ssdiff_ref.quality.checks import Image, check_finite
from ssdiff_ref.quality.metrics import full_resolution_scores, reduced_resolution_scores
from ssdiff_ref.quality.quality_index import BLOCK
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.raster.radiometry import Scale
from ssdiff_trt.runtime.sensors import Sensor

Resolution = Literal["reduced", "full"]
Scores = dict[str, float]


@dataclass
class Evaluation:
    """The scores of methods, scene by scene."""

    sensor: Sensor
    scale: Scale
    crop: int
    """The ``dim_cut`` at reduced resolution."""
    rows: range
    """Of PAN that were judged, or of the reference where there was no PAN."""
    cols: range
    scenes: int
    scores: dict[Resolution, dict[str, list[Scores]]] = field(
        default_factory=lambda: {"reduced": {}, "full": {}}
    )
    """By resolution and method, one for each scene. Empty where nothing could be judged."""
    settings: dict[str, Any] = field(default_factory=dict)
    """How the scores came about, for their file."""
    displaced: int = 0
    """Scenes whose MS was decimated at another phase than (2, 2)."""

    def add(self, resolution: Resolution, method: str, scores: Scores) -> None:
        """Add those of the next scene."""
        self.scores[resolution].setdefault(method, []).append(scores)

    def mean(self, resolution: Resolution) -> dict[str, Scores]:
        """Over the scenes, by method."""
        return self._over_scenes(resolution, 0)

    def std(self, resolution: Resolution) -> dict[str, Scores]:
        """Standard deviation over the scenes, with N - 1, by method; empty if there is one."""
        return self._over_scenes(resolution, 1) if self.scenes > 1 else {}

    def _over_scenes(self, resolution: Resolution, moment: int) -> dict[str, Scores]:
        def moment_of(values: list[float]) -> float:
            with np.errstate(invalid="ignore"):  # images without any error have an infinite PSNR
                return float(np.std(values, ddof=1) if moment else np.mean(values))

        return {
            method: {name: moment_of([scores[name] for scores in scenes]) for name in scenes[0]}
            for method, scenes in self.scores[resolution].items()
        }


def judge(
    dataset: Dataset,
    methods: Mapping[str, Method],
    *,
    crop: int = 21,
    gallery: Gallery | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Let methods fuse every scene of a dataset, and score what they make of it.

    Pairs are degraded by Wald's protocol and judged at both resolutions, simulated scenes at the
    reduced one alone, which is what they are.

    Args:
        dataset: imagery.
        methods: by name.
        crop: the ``dim_cut`` of :func:`ssdiff_ref.quality.metrics.reduced_resolution_scores`.
        gallery: gets the images of the first scene at reduced resolution.
        progress: told how work goes.

    Raises:
        SSDiffError: if the scenes are too small, have values that are not finite, or a method
            makes nothing of one.
    """
    progress = progress or Progress()
    check_imagery(len(dataset.sensor.bands), dataset.truth_size, crop)
    evaluation = Evaluation(
        dataset.sensor, dataset.scale, crop, dataset.rows, dataset.cols, dataset.count
    )
    evaluation.displaced = _survey(dataset)
    if evaluation.displaced:
        progress.warn(
            f"{evaluation.displaced} of {dataset.count} scenes have MS that was decimated at "
            "another phase than (2, 2), so it is displaced against the reference by up to a "
            "pixel, as in PanCollection's QuickBird training files; make their ms and lms anew "
            "from gt"
        )
    resolutions = 1 if dataset.simulated else 2
    with progress:
        progress.start("Judging", dataset.count * len(methods) * resolutions)
        for index in range(dataset.count):
            sample = dataset.read(index)
            for trial in _trials(sample, dataset.sensor):
                shown = gallery if index == 0 else None
                if shown and trial.truth is not None:
                    shown.set_reference(trial.truth, crop, pan=trial.pair.pan)
                for name, method in methods.items():
                    with _translate_errors(name, trial.resolution, index, dataset):
                        fused = method(trial.pair)
                        scores = trial.score(fused, dataset.scale.value, crop)
                    evaluation.add(trial.resolution, name, scores)
                    if shown and trial.truth is not None:
                        shown.add(name, fused, scores["ERGAS"])
                    progress.advance(1)
    return evaluation


@dataclass(frozen=True)
class _Trial:
    """What methods get, and the truth if it is known."""

    pair: Pair
    truth: Image | None = None

    @property
    def resolution(self) -> Resolution:
        return "full" if self.truth is None else "reduced"

    def score(self, fused: Image, full_scale: float, crop: int) -> Scores:
        if self.truth is None:
            pair = self.pair
            return full_resolution_scores(fused, pair.pan, pair.lms, pair.sensor)
        return reduced_resolution_scores(fused, self.truth, full_scale, crop)


def _trials(sample: Sample, sensor: Sensor) -> Iterator[_Trial]:
    yield _Trial(*sample.reduced(sensor))
    if sample.truth is None:
        yield _Trial(sample.as_given(sensor))


def judge_products(
    products: Products, *, crop: int = 21, gallery: Gallery | None = None
) -> Evaluation:
    """Score images that are there already against their reference.

    Args:
        products: the images.
        crop: as in :func:`judge`; scores are of what is valid in the rest.
        gallery: gets the images.

    Raises:
        SSDiffError: if they are too small, or too little of them is valid.
    """
    reference = products.reference
    bands, height, width = reference.shape
    check_imagery(bands, (height, width), crop)
    evaluation = Evaluation(
        products.sensor, products.scale, crop, range(height), range(width), scenes=1
    )
    if gallery:
        gallery.set_reference(reference, crop, valid=products.valid)
    for name, fused in products.fused.items():
        scores = reduced_resolution_scores(
            fused, reference, products.scale.value, crop, products.valid
        )
        evaluation.add("reduced", name, scores)
        if gallery:
            gallery.add(name, fused, scores["ERGAS"])
    return evaluation


def smallest_size(crop: int) -> int:
    """Pixels on a side of the truth, so that the crop leaves a block."""
    return BLOCK + max(2 * crop - 1, 0)


def check_imagery(bands: int, size: tuple[int, int], crop: int) -> None:
    """That there are bands to compare, and that the crop leaves a block of the truth."""
    if bands < 2:
        raise SSDiffError(
            "The imagery has 1 band, expected 2 or more, for the scores compare bands; give more "
            "with --bands."
        )
    if crop < 0:
        raise SSDiffError(f"A crop of {crop} does not work; give 0 or more.")
    needed = smallest_size(crop)
    if min(size) < needed:
        largest = (min(size) - BLOCK + 1) // 2
        less = " or less" if largest else ""
        remedy = f"pass --crop {largest}{less}, or " if min(size) >= BLOCK else ""
        raise SSDiffError(
            f"At reduced resolution the imagery is {size[1]} x {size[0]} pixels, expected {needed} "
            f"x {needed} or more for a crop of {crop}; {remedy}give a larger scene."
        )


def _survey(dataset: Dataset) -> int:
    """Check the values of all scenes before any is fused; how many have a displaced MS."""
    displaced = 0
    for index in range(dataset.count):
        sample = dataset.read(index)
        for name, image in (
            ("PAN", sample.pan),
            ("MS", sample.ms),
            ("LMS", sample.lms),
            ("reference", sample.truth),
        ):
            if image is not None:
                check_finite(image, f"{name} of scene {index + 1} of {dataset.name}")
        if sample.truth is not None:
            phase = decimation_phase(sample.ms, sample.truth, dataset.sensor)
            displaced += phase != (2, 2)
    return displaced


@contextmanager
def _translate_errors(
    method: str, resolution: Resolution, index: int, dataset: Dataset
) -> Iterator[None]:
    """Say in errors who was judged, and on what."""
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            yield
    except SSDiffError as error:
        scene = f", scene {index + 1}" if dataset.count > 1 else ""
        raise SSDiffError(f"{method} at {resolution} resolution{scene}: {error}") from error
