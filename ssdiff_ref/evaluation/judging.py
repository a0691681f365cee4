"""Scores fusion methods by the standard reduced- and full-resolution protocols.

At reduced resolution a method gets a pair with known ground truth; at full resolution it gets the
pair as acquired, and the result is compared with that pair. Both use the geometry of the protocol:
``lms`` is MS interpolated with 23 taps, wrapping at the edges, unless a file contains its own, and
pixel n of MS is centred on pixel 4 n + 2 of PAN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from ssdiff_ref.evaluation.candidates import Method
from ssdiff_ref.evaluation.fused import FusedRasters
from ssdiff_ref.evaluation.picture import Gallery
from ssdiff_ref.protocol.datasets import Dataset, Sample
from ssdiff_ref.protocol.pair import Pair
from ssdiff_ref.protocol.simulation import decimation_phase
from ssdiff_ref.quality.checks import Image, check_finite
from ssdiff_ref.quality.full_resolution import Phases, fidelity_scores, sampling_phases
from ssdiff_ref.quality.metrics import full_resolution_scores, reduced_resolution_scores
from ssdiff_ref.quality.quality_index import BLOCK
from ssdiff_trt.runtime.errors import InputError, SSDiffError
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.raster.radiometry import Scale
from ssdiff_trt.runtime.sensors import Sensor

Resolution = Literal["reduced", "full"]
Scores = dict[str, float]


@dataclass
class Evaluation:
    """Scores of methods on all scenes, and the settings they depend on."""

    sensor: Sensor
    scale: Scale
    crop: int
    """The toolbox's ``dim_cut`` at reduced resolution, in pixels."""
    rows: range
    """Rows that were evaluated, of PAN or, where there is none, of the reference."""
    cols: range
    """Columns that were evaluated, likewise."""
    scenes: int
    """Number of scenes."""
    scores: dict[Resolution, dict[str, list[Scores]]] = field(
        default_factory=lambda: {"reduced": {}, "full": {}}
    )
    """Scores by resolution and method, one per scene; empty at a resolution not evaluated."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the evaluation, for its JSON file."""
    displaced: int = 0
    """Number of scenes whose MS was decimated at a phase other than (2, 2)."""

    def add(self, resolution: Resolution, method: str, scores: Scores) -> None:
        """Append the scores of a method on the next scene."""
        self.scores[resolution].setdefault(method, []).append(scores)

    def mean(self, resolution: Resolution) -> dict[str, Scores]:
        """Mean scores over the scenes, by method."""
        return self._over_scenes(resolution, 0)

    def std(self, resolution: Resolution) -> dict[str, Scores]:
        """Standard deviation (N - 1) over the scenes, by method; empty if there is one scene."""
        return self._over_scenes(resolution, 1) if self.scenes > 1 else {}

    def _over_scenes(self, resolution: Resolution, moment: int) -> dict[str, Scores]:
        """Mean (moment 0) or standard deviation (moment 1) over the scenes."""

        def moment_of(values: list[float]) -> float:
            with np.errstate(invalid="ignore"):  # the PSNR of an image without error is infinite
                return float(np.std(values, ddof=1) if moment else np.mean(values))

        return {
            method: {name: moment_of([scores[name] for scores in scenes]) for name in scenes[0]}
            for method, scenes in self.scores[resolution].items()
        }


def score_methods(
    dataset: Dataset,
    methods: Mapping[str, Method],
    *,
    crop: int = 21,
    gallery: Gallery | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Fuse every scene of a dataset with all methods, and score the results.

    Acquired pairs are scored at both resolutions, degraded by Wald's protocol for the reduced one;
    simulated scenes only at reduced resolution.

    Args:
        dataset: scenes to fuse.
        methods: methods by name.
        crop: the ``cut`` of :func:`ssdiff_ref.quality.metrics.reduced_resolution_scores`.
        gallery: receives the images of the first scene at reduced resolution.
        progress: receives progress updates.

    Raises:
        SSDiffError: if scenes are too small or have non-finite values, or a result cannot be
            scored.
    """
    progress = progress or Progress()
    check_imagery(len(dataset.sensor.bands), dataset.truth_size, crop)
    evaluation = Evaluation(
        dataset.sensor, dataset.scale, crop, dataset.rows, dataset.cols, dataset.count
    )
    evaluation.displaced = _count_displaced(dataset)
    if evaluation.displaced:
        progress.warn(
            f"{evaluation.displaced} of {dataset.count} scenes have MS that was decimated at a "
            "phase other than (2, 2), so it is displaced by up to a pixel relative to the "
            "reference, as in PanCollection's QuickBird training files; recompute their ms and lms "
            "from gt"
        )
    resolutions = 1 if dataset.simulated else 2
    with progress:
        progress.start("Evaluating", dataset.count * len(methods) * resolutions)
        for index in range(dataset.count):
            sample = dataset.read(index)
            for case in _cases(sample, dataset.sensor):
                target_gallery = gallery if index == 0 else None
                if target_gallery and case.truth is not None:
                    target_gallery.set_reference(case.truth, crop, pan=case.pair.pan)
                for name, method in methods.items():
                    with _translate_errors(name, case.resolution, index, dataset):
                        fused = method(case.pair)
                        scores = case.score(fused, dataset.scale.value, crop)
                    evaluation.add(case.resolution, name, scores)
                    if target_gallery and case.truth is not None:
                        target_gallery.add(name, fused, scores["ERGAS"])
                    progress.advance(1)
    for warning in _negative(evaluation):
        progress.warn(warning)
    return evaluation


def _negative(evaluation: Evaluation) -> Iterator[str]:
    """A sentence for each method whose indexes left the range that they were made for."""
    for method, scores in evaluation.mean("full").items():
        below = [name for name in ("HQNR", "QNR", "RQNR") if scores[name] < 0]
        above = [name for name in ("D_lambda", "D_s") if scores[name] > 1]
        if below:
            yield (
                f"{method}: {' and '.join(below)} below 0, because {' and '.join(above)} is above "
                "1: the image is further from PAN or MS than an unrelated one. Common causes are "
                "bands in another order, another full scale, MS in the place of another scene, or "
                "blocks that are nearly flat, such as water"
            )


@dataclass(frozen=True)
class _Case:
    """The pair that methods fuse, and its ground truth at reduced resolution."""

    pair: Pair
    truth: Image | None = None

    @property
    def resolution(self) -> Resolution:
        return "full" if self.truth is None else "reduced"

    @cached_property
    def _phases(self) -> Phases:
        """Where MS was sampled: a property of the pair, measured once for all methods."""
        return sampling_phases(self.pair.ms, self.pair.pan, self.pair.sensor)

    def score(self, fused: Image, full_scale: float, crop: int) -> Scores:
        if self.truth is None:
            pan, ms, lms, sensor = self.pair.pan, self.pair.ms, self.pair.lms, self.pair.sensor
            scores = full_resolution_scores(fused, pan, lms, sensor)
            spectral = scores["D_lambda"]
            return scores | fidelity_scores(fused, pan, ms, spectral, sensor, self._phases)
        return reduced_resolution_scores(fused, self.truth, full_scale, crop)


def _cases(sample: Sample, sensor: Sensor) -> Iterator[_Case]:
    yield _Case(*sample.reduced(sensor))
    if sample.truth is None:
        yield _Case(sample.full(sensor))


def score_fused(
    rasters: FusedRasters, *, crop: int = 21, gallery: Gallery | None = None
) -> Evaluation:
    """Score existing fused images against their reference.

    Args:
        rasters: fused images and reference.
        crop: as in :func:`score_methods`; only valid pixels inside the crop count.
        gallery: receives the images.

    Raises:
        SSDiffError: if the images are too small, or have too few valid pixels.
    """
    reference = rasters.reference
    bands, height, width = reference.shape
    check_imagery(bands, (height, width), crop)
    evaluation = Evaluation(
        rasters.sensor, rasters.scale, crop, range(height), range(width), scenes=1
    )
    if gallery:
        gallery.set_reference(reference, crop, valid=rasters.valid)
    for name, fused in rasters.fused.items():
        scores = reduced_resolution_scores(
            fused, reference, rasters.scale.value, crop, rasters.valid
        )
        evaluation.add("reduced", name, scores)
        if gallery:
            gallery.add(name, fused, scores["ERGAS"])
    return evaluation


def smallest_size(crop: int) -> int:
    """Smallest side of the ground truth, in pixels, that leaves a block inside the crop."""
    return BLOCK + max(2 * crop - 1, 0)


def check_imagery(bands: int, size: tuple[int, int], crop: int) -> None:
    """Raise an SSDiffError on fewer than 2 bands, or if the crop leaves no block.

    ``size`` is height and width of the ground truth in pixels.
    """
    if bands < 2:
        raise InputError(
            "The imagery has 1 band, expected 2 or more because the metrics compare bands; "
            "select more with `bands`."
        )
    if crop < 0:
        raise InputError(f"The crop is {crop}, expected 0 or more; change `crop`.")
    required = smallest_size(crop)
    if min(size) < required:
        largest = (min(size) - BLOCK + 1) // 2
        less = " or less" if largest else ""
        remedy = f"pass `crop={largest}`{less}, or " if min(size) >= BLOCK else ""
        raise InputError(
            f"At reduced resolution the imagery is {size[1]} x {size[0]} pixels, expected "
            f"{required} x {required} or more for a crop of {crop}; {remedy}give a larger scene."
        )


def _count_displaced(dataset: Dataset) -> int:
    """Number of scenes with a displaced MS; also checks that all values are finite."""
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
    """Prefix errors with the method, the resolution and the scene."""
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            yield
    except SSDiffError as error:
        scene = f", scene {index + 1}" if dataset.count > 1 else ""
        raise InputError(f"{method} at {resolution} resolution{scene}: {error}") from error
