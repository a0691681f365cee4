"""INT8 graphs for a bundle during its export, and their evaluation on held-out tiles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ssdiff_trt.calibration.quantisation import NEVER_QUANTISED, count_qdq_pairs, quantise
from ssdiff_trt.calibration.ranges import Method
from ssdiff_trt.calibration.samples import load
from ssdiff_trt.calibration.sensitivity import Evaluator, study
from ssdiff_trt.runtime.bundle.manifest import Graph, kinds
from ssdiff_trt.runtime.bundle.measured import Budget, Quantisation
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import InputError, counted
from ssdiff_trt.runtime.files import sha256_of
from ssdiff_trt.runtime.progress import Progress

if TYPE_CHECKING:
    import onnx


def add_int8(
    bundle: Bundle, calibration: str | Path, method: Method, budget: Budget, progress: Progress
) -> tuple[tuple[Graph, ...], Quantisation]:
    """Write INT8 graphs beside the graphs they are made from, and evaluate them.

    Their large constants are references to the weights files of the graphs they are made from.

    Args:
        bundle: with graphs in FP32 and FP16.
        calibration: file of samples, collected with the same weights.
        method: to find the quantisation ranges.
        budget: limits that the scores on the held-out tiles must meet.
        progress: receives the groups that are quantised and their cost.

    Returns:
        The INT8 graphs and their record for the manifest.

    Raises:
        SSDiffError: if the samples do not match the bundle, or the graphs exceed the budget.
    """
    import onnx

    samples = load(calibration, bundle)
    reference = onnx.load(bundle.path / bundle.graph("denoiser", "fp32", "fused").file)
    result = study(reference, samples, method, budget, progress)
    progress.note(f"In INT8: {', '.join(result.plan)}")
    reasons = "; ".join(f"{layers} ({reason})" for layers, reason in NEVER_QUANTISED.items())
    progress.detail(f"Never in INT8: {reasons}")
    progress.note(f"Left in FP16 to stay within the budget: {', '.join(result.excluded) or 'none'}")
    graphs, models = [], {}
    for role, form in kinds("int8"):
        # CPUs emulate FP16, so the graph for the CPU has FP32 where it is not in INT8.
        source = bundle.graph(role, "fp32" if form == "contrib" else "fp16", form)
        model = quantise(onnx.load(bundle.path / source.file), result.ranges.largest, result.plan)
        models[role, form] = model
        graph = source.model_copy(update={"precision": "int8", "file": f"{role}.int8.{form}.onnx"})
        _save(model, bundle.path / source.file, bundle.path / graph.file)
        graphs.append(graph)
    progress.note(f"{count_qdq_pairs(models['denoiser', 'fused'])} Q/DQ pairs in each graph")
    evaluator = Evaluator(samples.held_out, samples.about.schedule, reference)
    verdict = evaluator(models["denoiser", "fused"])
    progress.note(f"On {counted(verdict.tiles, 'held-out tile')}: {verdict}")
    for fault in budget.faults(verdict):
        raise InputError(
            f"INT8 exceeds its budget on the held-out tiles: {fault}; collect more samples, or "
            "allow a larger loss with `max_ergas_loss`."
        )
    about = samples.about
    return tuple(graphs), Quantisation(
        samples=sha256_of(Path(calibration)),
        sources=about.sources,
        timesteps=about.timesteps,
        tiles=len(samples.tiles.pan),
        method=method,
        groups=result.plan,
        excluded=result.excluded,
        budget=budget,
        verdict=verdict,
    )


def _save(model: onnx.ModelProto, source: Path, path: Path) -> None:
    """Write a graph whose large constants refer to the weights file of its source graph."""
    import onnx

    external = {
        tensor.name: tensor
        for tensor in onnx.load(source, load_external_data=False).graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in external:
            tensor.CopyFrom(external[tensor.name])
    onnx.save(copy, path)
    onnx.checker.check_model(path, full_check=True)
