"""Cost of INT8 for each group of layers, and the choice of groups that stay within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ssdiff_ref.quality.metrics import ergas, sam
from ssdiff_trt.calibration.quantisation import quantisable, quantise
from ssdiff_trt.calibration.ranges import Method, Ranges, measure_ranges
from ssdiff_trt.calibration.samples import EvaluationTiles, Samples
from ssdiff_trt.runtime.backends.onnxruntime import open_session
from ssdiff_trt.runtime.bundle.measured import Budget, Strict, Verdict
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.parity.ladder import deviation
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.schedule import Schedule, sample
from ssdiff_trt.runtime.tiles.batch import Array, Tiles

if TYPE_CHECKING:
    import onnx

BUDGET_SHARE = 0.5
"""Share of the allowed loss that a plan may use on the selection tiles.

The rest is a margin for the held-out tiles, on which the loss may be larger.
"""
PSNR_MARGIN = 1.0
"""dB by which the PSNR on the selection tiles must exceed the budget's, for the same reason."""


class Cost(Strict):
    """Scores of a graph in which a single group is quantised."""

    group: str
    layers: int
    """Number of layers in the group."""
    verdict: Verdict


class Evaluator:
    """Scores the images of quantised graphs against the FP32 graph and the reference images.

    Args:
        evaluation: tiles with reference images.
        schedule: of the sampling.
        fp32: graph of the FP32 denoiser.
    """

    def __init__(
        self, evaluation: EvaluationTiles, schedule: Schedule, fp32: onnx.ModelProto
    ) -> None:
        self._evaluation, self._schedule = evaluation, schedule
        self._fp32_images = self.images(fp32)
        self._fp32_scores = self._scores(self._fp32_images)

    def images(self, model: onnx.ModelProto) -> Array:
        """Fused images ``[M, C, tile, tile]`` of the tiles, sampled with a denoiser graph."""
        session = open_session(model.SerializeToString(), integers=False)
        images = []
        for k in range(len(self._evaluation.truth)):
            tile = self._evaluation.tiles.part(slice(k, k + 1))

            def denoise(x: Array, t: float, tile: Tiles = tile) -> Array:
                inputs = {"x_t": x, "pan": tile.pan, "lms": tile.lms, "ms": tile.ms}
                inputs["t"] = np.full(1, t, np.float32)
                (residual,) = session.run(None, inputs)
                return residual

            images.append(sample(denoise, tile.lms, tile.noise, self._schedule))
        return np.concatenate(images)

    def _scores(self, images: Array) -> tuple[float, float]:
        """ERGAS and SAM (degrees) of all tiles stacked into one image."""
        image, truth = (
            stack.transpose(1, 0, 2, 3).reshape(stack.shape[1], -1, stack.shape[-1])
            for stack in (images, self._evaluation.truth)
        )
        return ergas(image, truth), sam(image, truth)

    def __call__(self, model: onnx.ModelProto) -> Verdict:
        """The scores of a graph beside those of the FP32 graph."""
        images = self.images(model)
        ergas_fp32, sam_fp32 = self._fp32_scores
        ergas_int8, sam_int8 = self._scores(images)
        return Verdict(
            tiles=len(images),
            ergas_fp32=ergas_fp32,
            ergas=ergas_int8,
            sam_fp32=sam_fp32,
            sam=sam_int8,
            psnr=deviation(images, self._fp32_images).psnr,
        )


def measure_costs(
    model: onnx.ModelProto, ranges: Ranges, evaluator: Evaluator, progress: Progress
) -> tuple[Cost, ...]:
    """Quantise one group at a time and score the result.

    Args:
        model: graph of the FP32 denoiser, with its constants loaded.
        ranges: of the layers' inputs.
        evaluator: scores the graphs.
        progress: receives progress updates.

    Returns:
        The cost of each group, in ascending order of PSNR: the most expensive group first.
    """
    groups = quantisable(model)
    costs = []
    with progress:
        progress.start("Sensitivity", len(groups))
        for group, nodes in groups.items():
            verdict = evaluator(quantise(model, ranges.largest, [group]))
            costs.append(Cost(group=group, layers=len(nodes), verdict=verdict))
            progress.advance(1)
    return tuple(sorted(costs, key=lambda cost: cost.verdict.psnr))


def choose_plan(
    model: onnx.ModelProto,
    ranges: Ranges,
    evaluator: Evaluator,
    costs: Sequence[Cost],
    budget: Budget,
    progress: Progress,
) -> tuple[str, ...]:
    """Choose the groups to quantise, excluding the most expensive ones until the budget is met.

    Args:
        model, ranges, evaluator: as in :func:`measure_costs`.
        costs: of all groups, the most expensive first.
        budget: of which the plan may use :data:`BUDGET_SHARE` and must keep :data:`PSNR_MARGIN`.
        progress: receives the scores of each plan that was tried.

    Returns:
        The groups in the order of the graph; empty if no plan meets the budget.
    """
    stricter = Budget(loss=budget.loss * BUDGET_SHARE, psnr=budget.psnr + PSNR_MARGIN)
    order = list(quantisable(model))
    for count in range(len(costs)):
        excluded = {cost.group for cost in costs[:count]}
        plan = tuple(group for group in order if group not in excluded)
        verdict = evaluator(quantise(model, ranges.largest, plan))
        progress.detail(f"{len(plan)} of {len(order)} groups in INT8: {verdict}")
        if not list(stricter.faults(verdict)):
            return plan
    return ()


class Study(Strict):
    """Result of a sensitivity study: cost of INT8 for each group, and the plan within a budget."""

    ranges: Ranges
    costs: tuple[Cost, ...]
    """Of all groups, the most expensive first."""
    budget: Budget
    plan: tuple[str, ...]
    """Groups to quantise, in the order of the graph."""

    @property
    def excluded(self) -> tuple[str, ...]:
        """Groups that are not quantised, the most expensive first."""
        return tuple(cost.group for cost in self.costs if cost.group not in self.plan)


def study(
    model: onnx.ModelProto, samples: Samples, method: Method, budget: Budget, progress: Progress
) -> Study:
    """Measure the ranges, measure the cost of each group, and choose a plan.

    Args:
        model: graph of the FP32 denoiser, with its constants loaded.
        samples: collected with the same weights.
        method: to find the ranges; see :func:`ssdiff_trt.calibration.ranges.measure_ranges`.
        budget: for the plan.
        progress: receives progress updates.

    Raises:
        SSDiffError: if the nodes of the graph are not named by layers, or no plan meets the budget.
    """
    if not quantisable(model):
        raise InputError(
            "The graphs of the bundle have no nodes named by layers, expected a bundle exported by "
            "this version; export it again."
        )
    ranges = measure_ranges(model, samples, method, progress)
    evaluator = Evaluator(samples.for_selection, samples.about.schedule, model)
    costs = measure_costs(model, ranges, evaluator, progress)
    plan = choose_plan(model, ranges, evaluator, costs, budget, progress)
    if not plan:
        raise InputError(
            f"No group of layers can be quantised within a loss of {budget.loss:.2%} and a PSNR of "
            f"{budget.psnr:g} dB; allow a larger loss with `max_ergas_loss`."
        )
    return Study(ranges=ranges, costs=costs, budget=budget, plan=plan)
