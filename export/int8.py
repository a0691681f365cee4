"""Graphs in INT8 for a bundle that is being made, and the verdict without which there are none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ssdiff_trt.calibration.quantisation import KEPT, pairs, quantise
from ssdiff_trt.calibration.ranges import Method
from ssdiff_trt.calibration.samples import load
from ssdiff_trt.calibration.sensitivity import Judge, study
from ssdiff_trt.runtime.bundle.manifest import Budget, Graph, Quantisation, kinds
from ssdiff_trt.runtime.bundle.store import Bundle, sha256_of
from ssdiff_trt.runtime.errors import SSDiffError, counted
from ssdiff_trt.runtime.progress import Progress

if TYPE_CHECKING:
    import onnx


def add_int8(
    bundle: Bundle, calibration: str | Path, method: Method, budget: Budget, progress: Progress
) -> tuple[tuple[Graph, ...], Quantisation]:
    """Write graphs in INT8 beside those that they are made from, and judge them.

    Their constants are those of the graphs they are made from, in the same files.

    Args:
        bundle: with graphs in FP32 and FP16.
        calibration: samples of the same weights.
        method: of finding ranges.
        budget: that the verdict must keep to.
        progress: told what was chosen and what it costs.

    Raises:
        SSDiffError: if the samples do not fit, or the graphs are over budget on the tiles held out.
    """
    import onnx

    samples = load(calibration, bundle)
    plain = onnx.load(bundle.path / bundle.graph("denoiser", "fp32", "fused").file)
    found = study(plain, samples, method, budget, progress)
    progress.note(f"In INT8: {', '.join(found.plan)}")
    progress.detail(f"Never in INT8: {'; '.join(f'{part} ({why})' for part, why in KEPT.items())}")
    progress.note(f"Left in FP16 for the budget: {', '.join(found.excluded) or 'nothing'}")
    graphs, models = [], {}
    for role, form in kinds("int8"):
        # On the CPU, FP16 is emulated: there, what is not in INT8 stays in FP32.
        source = bundle.graph(role, "fp32" if form == "contrib" else "fp16", form)
        model = quantise(onnx.load(bundle.path / source.file), found.ranges.largest, found.plan)
        models[role, form] = model
        graph = source.model_copy(update={"precision": "int8", "file": f"{role}.int8.{form}.onnx"})
        _save(model, bundle.path / source.file, bundle.path / graph.file)
        graphs.append(graph)
    progress.note(f"{pairs(models['denoiser', 'fused'])} pairs of Q/DQ in each graph")
    judge = Judge(samples.held_out, samples.about.schedule, plain)
    verdict = judge(models["denoiser", "fused"])
    progress.note(f"On {counted(verdict.tiles, 'tile')} held out: {verdict}")
    for fault in budget.faults(verdict):
        raise SSDiffError(
            f"INT8 is over budget on tiles that were held out: {fault}; collect more samples, or "
            "allow more with --max-ergas-loss."
        )
    about = samples.about
    return tuple(graphs), Quantisation(
        samples=sha256_of(Path(calibration)),
        sources=about.sources,
        timesteps=about.timesteps,
        tiles=len(samples.tiles.pan),
        method=method,
        groups=found.plan,
        excluded=found.excluded,
        budget=budget,
        verdict=verdict,
    )


def _save(model: onnx.ModelProto, source: Path, path: Path) -> None:
    """Write a graph whose large constants stay in the file where those of its source are."""
    import onnx

    placed = {
        tensor.name: tensor
        for tensor in onnx.load(source, load_external_data=False).graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    linked = onnx.ModelProto()
    linked.CopyFrom(model)
    for tensor in linked.graph.initializer:
        if tensor.name in placed:
            tensor.CopyFrom(placed[tensor.name])
    onnx.save(linked, path)
    onnx.checker.check_model(path, full_check=True)
