"""What INT8 costs, group of layers by group of layers, and which groups a budget allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from ssdiff_ref.quality.metrics import ergas, sam
from ssdiff_trt.calibration.quantisation import quantisable, quantise
from ssdiff_trt.calibration.ranges import Method, Ranges, measure_ranges
from ssdiff_trt.calibration.samples import Judged, Samples
from ssdiff_trt.runtime.backends.onnxruntime import open_session
from ssdiff_trt.runtime.bundle.manifest import Budget, Verdict
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.parity.ladder import deviation
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.schedule import Schedule, sample
from ssdiff_trt.runtime.tiles.batch import Array, Tiles

if TYPE_CHECKING:
    import onnx

MARGIN = 0.5
"""Share of the budget that a plan may use on the tiles it is chosen by: others may cost more."""
SPARE_DB = 1.0
"""dB above the budget's, likewise."""


class Cost(BaseModel):
    """What it costs to quantise one group and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: str
    layers: int
    verdict: Verdict


class Judge:
    """Compares the images of graphs with those of the graph in FP32, and with the truth.

    Args:
        judged: tiles whose truth is known.
        schedule: of the trajectories.
        reference: the denoiser's graph in FP32.
    """

    def __init__(self, judged: Judged, schedule: Schedule, reference: onnx.ModelProto) -> None:
        self._judged, self._schedule = judged, schedule
        self._expected = self.images(reference)
        self._before = self._scores(self._expected)

    def images(self, model: onnx.ModelProto) -> Array:
        """What a denoiser makes of the tiles, ``[M, C, tile, tile]``."""
        session = open_session(model.SerializeToString(), integers=False)
        images = []
        for k in range(len(self._judged.truth)):
            tile = self._judged.tiles.part(slice(k, k + 1))

            def denoise(x: Array, t: float, tile: Tiles = tile) -> Array:
                told = np.full(1, t, np.float32)
                inputs = {"x_t": x, "pan": tile.pan, "lms": tile.lms, "ms": tile.ms, "t": told}
                (residual,) = session.run(None, inputs)
                return residual

            images.append(sample(denoise, tile.lms, tile.noise, self._schedule))
        return np.concatenate(images)

    def _scores(self, images: Array) -> tuple[float, float]:
        """ERGAS and SAM over all tiles, as if they were one image."""
        image, truth = (
            stack.transpose(1, 0, 2, 3).reshape(stack.shape[1], -1, stack.shape[-1])
            for stack in (images, self._judged.truth)
        )
        return ergas(image, truth), sam(image, truth)

    def __call__(self, model: onnx.ModelProto) -> Verdict:
        """Judge a graph."""
        images = self.images(model)
        after = self._scores(images)
        return Verdict(
            tiles=len(images),
            ergas_fp32=self._before[0],
            ergas=after[0],
            sam_fp32=self._before[1],
            sam=after[1],
            psnr=deviation(images, self._expected).psnr,
        )


def measure_costs(
    model: onnx.ModelProto, ranges: Ranges, judge: Judge, progress: Progress
) -> tuple[Cost, ...]:
    """Quantise one group at a time; the groups, from the one that changes the image most.

    Args:
        model: the denoiser's graph in FP32, its constants inside.
        ranges: of its layers.
        judge: of the images.
        progress: told how work goes.
    """
    groups = quantisable(model)
    costs = []
    with progress:
        progress.start("Sensitivity", len(groups))
        for group, nodes in groups.items():
            verdict = judge(quantise(model, ranges.largest, [group]))
            costs.append(Cost(group=group, layers=len(nodes), verdict=verdict))
            progress.advance(1)
    return tuple(sorted(costs, key=lambda cost: cost.verdict.psnr))


def choose_plan(
    model: onnx.ModelProto,
    ranges: Ranges,
    judge: Judge,
    costs: Sequence[Cost],
    budget: Budget,
    progress: Progress,
) -> tuple[str, ...]:
    """The groups to quantise: all but the dearest, as many of these as the budget wants out.

    Args:
        model, ranges, judge: as in :func:`measure_costs`.
        costs: of each group, from the dearest.
        budget: of which :data:`MARGIN` may be used here.
        progress: told what each attempt came to.

    Returns:
        Groups in the order of the network; none if the budget allows none.
    """
    stricter = Budget(loss=budget.loss * MARGIN, psnr=budget.psnr + SPARE_DB)
    order = list(quantisable(model))
    for out in range(len(costs)):
        dropped = {cost.group for cost in costs[:out]}
        kept = tuple(group for group in order if group not in dropped)
        verdict = judge(quantise(model, ranges.largest, kept))
        progress.detail(f"{len(kept)} of {len(order)} groups in INT8: {verdict}")
        if not list(stricter.faults(verdict)):
            return kept
    return ()


class Study(BaseModel):
    """What INT8 costs a bundle on its samples, and what to quantise within a budget."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ranges: Ranges
    costs: tuple[Cost, ...]
    """From the group that changes the image most."""
    budget: Budget
    plan: tuple[str, ...]
    """Groups to quantise, in the order of the network."""

    @property
    def excluded(self) -> tuple[str, ...]:
        """Groups that stay as they are, from the dearest."""
        return tuple(cost.group for cost in self.costs if cost.group not in self.plan)


def study(
    model: onnx.ModelProto, samples: Samples, method: Method, budget: Budget, progress: Progress
) -> Study:
    """Find the ranges, the costs, and a plan.

    Args:
        model: a denoiser's graph in FP32, its constants inside.
        samples: of its bundle.
        method: of :func:`ssdiff_trt.calibration.ranges.measure_ranges`.
        budget: for the plan.
        progress: told how work goes.

    Raises:
        SSDiffError: if the graph has no layers that are known by name, or none can be afforded.
    """
    if not quantisable(model):
        raise SSDiffError(
            "The nodes of the bundle's graphs are not named by layers, expected those of a bundle "
            "exported by this version; export it again."
        )
    ranges = measure_ranges(model, samples, method, progress)
    judge = Judge(samples.for_choice, samples.about.schedule, model)
    costs = measure_costs(model, ranges, judge, progress)
    plan = choose_plan(model, ranges, judge, costs, budget, progress)
    if not plan:
        raise SSDiffError(
            f"No group of layers can be in INT8 at a loss of {budget.loss:.2%} and "
            f"{budget.psnr:g} dB; allow more with --max-ergas-loss."
        )
    return Study(ranges=ranges, costs=costs, budget=budget, plan=plan)
