"""Sensitivity study of a bundle, reported as a table, a figure and a JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ssdiff_trt.calibration.picture import draw_study, largest_input
from ssdiff_trt.calibration.ranges import Method
from ssdiff_trt.calibration.samples import load, read_about
from ssdiff_trt.calibration.sensitivity import BUDGET_SHARE, Study, study
from ssdiff_trt.runtime.backends.onnxruntime import check_graph, open_session
from ssdiff_trt.runtime.bundle.measured import Budget
from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.files import atomic_write, check_target, reading
from ssdiff_trt.runtime.progress import Progress, print_text
from ssdiff_trt.runtime.quicklook import check_picture

if TYPE_CHECKING:
    import onnx


def study_bundle(
    samples: str | Path,
    *,
    bundle: str | None = None,
    ranges: Method = "minmax",
    max_ergas_loss: float = 0.01,
    json: str | None = None,
    picture: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Study:
    """Rank the groups of a bundle's layers by the cost of INT8, and choose a plan.

    Args:
        samples: file from :func:`ssdiff_trt.calibration.collection.collect`.
        bundle: to study; by default the one that the samples were collected with.
        ranges: method to find the ranges; see
            :func:`ssdiff_trt.calibration.ranges.measure_ranges`.
        max_ergas_loss: largest relative increase of ERGAS and of SAM that the plan may cause.
        json: file to write the whole study to.
        picture: file to write a figure to.
        overwrite: replace these files if they exist.
        progress: receives progress updates.

    Raises:
        SSDiffError: if the samples or the bundle cannot be used, or no plan meets the budget.
    """
    progress = progress or Progress()
    budget = Budget.allowing(max_ergas_loss)
    for option, target in (("json", json), ("picture", picture)):
        if target is not None:
            check_target(Path(target), [samples], overwrite, option)
    if picture is not None and picture == json:
        raise InputError(f"`json` and `picture` are both {json}; give them different names.")
    if picture is not None:
        check_picture(Path(picture))
    opened = open_bundle(bundle or read_about(samples).bundle)
    loaded = load(samples, opened)
    graph = opened.graph("denoiser", "fp32", "fused")
    file = opened.path / graph.file
    check_graph(open_session(file), graph, file)
    result = study(_read_graph(file), loaded, ranges, budget, progress)
    if json is not None:
        with atomic_write(Path(json)) as unfinished:
            unfinished.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if picture is not None:
        about = loaded.about
        title = f"{about.bundle} in INT8, one group at a time, on {', '.join(about.sources)}"
        draw_study(result, title, Path(picture))
    return result


def _read_graph(file: Path) -> onnx.ModelProto:
    """A graph with its constants loaded.

    Raises:
        InputError: if it is none that can be quantised.
    """
    import onnx
    from google.protobuf.message import DecodeError

    refusals = (DecodeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError)
    remedy = "fetch the bundle again, or export it again"
    with reading(f"The graph {file} cannot be read", remedy, *refusals):
        onnx.checker.check_model(file, full_check=True)
        model = onnx.load(file)
        if [stated.domain for stated in model.opset_import].count("") != 1:
            raise ValueError("it does not state one version of the operators of ONNX")
        for node in model.graph.node:
            for name in (node.name, *node.input, *node.output):
                name.encode()  # one that is not UTF-8 has the type bytes
    return model


def print_study(result: Study) -> None:
    """Print the ranking and the plan on standard output."""
    from rich.table import Table

    table = Table("group", "layers", box=None, padding=(0, 2, 0, 0))
    for name in (
        "PSNR to FP32",
        "ERGAS",
        "SAM",
        *(f"|x| t={t}" for t in result.ranges.timesteps),
        "",
    ):
        table.add_column(name, justify="right")
    for cost in result.costs:
        verdict = cost.verdict
        table.add_row(
            cost.group,
            str(cost.layers),
            f"{verdict.psnr:.1f} dB",
            f"{verdict.ergas_loss:+.2%}",
            f"{verdict.sam_loss:+.2%}",
            *(
                f"{largest_input(result, cost.group, k):.3g}"
                for k in range(len(result.ranges.timesteps))
            ),
            "" if cost.group in result.plan else "excluded",
        )
    print_text(table)
    print_text(
        f"\n{len(result.plan)} of {len(result.costs)} groups can be quantised within a loss of "
        f"{result.budget.loss:.2%}, of which {BUDGET_SHARE:.0%} may be used on these tiles; "
        f"excluded: {', '.join(result.excluded) or 'none'}"
    )
