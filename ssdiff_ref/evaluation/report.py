"""Reports of an evaluation: tables on the terminal, JSON and CSV files."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from ssdiff_ref.evaluation.judging import Evaluation, Resolution, Scores
from ssdiff_trt.runtime.files import atomic_write
from ssdiff_trt.runtime.progress import print_text

RESOLUTIONS: tuple[Resolution, ...] = ("reduced", "full")
_LOWER_IS_BETTER = (
    *("SAM", "ERGAS", "D_lambda", "D_s"),
    *("R-SAM", "R-ERGAS", "consistency", "D_rho"),
)
_WITHOUT_ORDER = ("period 4", "overshoot")
"""Metrics whose best value is neither the highest nor the lowest."""
_DECIMALS = {
    **{"SAM": 3, "ERGAS": 3, "PSNR": 2},
    **{"R-SAM": 3, "R-ERGAS": 3, "consistency": 2, "period 4": 2, "overshoot": 3, "detail": 3},
}
_TABLES: tuple[tuple[str, Resolution, tuple[str, ...]], ...] = (
    (
        "Reduced resolution, against the reference",
        "reduced",
        ("SAM", "ERGAS", "Q2n", "SCC", "PSNR", "SSIM"),
    ),
    (
        "Full resolution, without a reference (HQNR alone rewards soft images)",
        "full",
        ("D_lambda", "D_s", "HQNR", "QNR", "RQNR"),
    ),
    (
        "Full resolution, fidelity to MS",
        "full",
        ("R-SAM", "R-ERGAS", "R-Q2n", "consistency"),
    ),
    (
        "Full resolution, fidelity to PAN (PAN itself: 0, 1, 1, 0)",
        "full",
        ("D_rho", "detail", "period 4", "overshoot"),
    ),
)


def print_tables(evaluation: Evaluation) -> None:
    """Print mean scores on standard output, with standard deviations for several scenes."""
    for title, resolution, metrics in _TABLES:
        if mean := evaluation.mean(resolution):
            print_text(_table(title, metrics, mean, evaluation.std(resolution)))
    deviation_note = (
        f" Mean ± standard deviation of {evaluation.scenes} scenes."
        if evaluation.scenes > 1
        else ""
    )
    print_text(
        "* is best: the lowest SAM (degrees), ERGAS, D_lambda, D_s, D_rho, and RMSE of consistency "
        "with MS (in the unit of MS); the highest of the others (PSNR in dB). Of power at a period "
        f"of 4 pixels and overshoot, 1 and 0 are best.{deviation_note}"
    )


def _table(
    title: str, metrics: Sequence[str], mean: Mapping[str, Scores], std: Mapping[str, Scores]
) -> Table:
    best = {
        metric: (min if metric in _LOWER_IS_BETTER else max)(
            scores[metric] for scores in mean.values()
        )
        for metric in metrics
        if metric not in _WITHOUT_ORDER
    }
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", overflow="fold")
    for metric in metrics:
        table.add_column(f"{metric} ", justify="right", no_wrap=True)
    for method, scores in mean.items():
        cells = []
        for metric in metrics:
            is_best = len(mean) > 1 and scores[metric] == best.get(metric)
            cell = Text(_number(metric, scores[metric]) + ("*" if is_best else " "))
            if is_best:
                cell.stylize("bold")
            if std:
                cell.append(f"\n±{_number(metric, std[method][metric])} ", "not bold")
            cells.append(cell)
        table.add_row(method, *cells)
    return table


def _number(metric: str, value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.{_DECIMALS.get(metric, 4)}f}"


def as_json(evaluation: Evaluation) -> str:
    """Mean scores by resolution, method and metric, and the settings of the evaluation.

    Non-finite scores, such as the infinite PSNR of an image without error, are written as null.
    """
    content: dict[str, Any] = {
        **{resolution: evaluation.mean(resolution) for resolution in RESOLUTIONS},
        "std": {resolution: evaluation.std(resolution) for resolution in RESOLUTIONS},
        "scenes": evaluation.scenes,
        "displaced_scenes": evaluation.displaced,
        "sensor": evaluation.sensor.name,
        "full_scale": evaluation.scale.value,
        "crop": evaluation.crop,
        "area": {
            "rows": [evaluation.rows.start, evaluation.rows.stop],
            "columns": [evaluation.cols.start, evaluation.cols.stop],
        },
        "settings": evaluation.settings,
        "version": version("ssdiff-trt"),
    }
    return json.dumps(_null_for_non_finite(content), indent=2, allow_nan=False)


def _null_for_non_finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _null_for_non_finite(value) for key, value in content.items()}
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_csv(evaluation: Evaluation, path: Path) -> None:
    """Write every score of every scene, one per line: scene, resolution, method, metric, value."""
    with (
        atomic_write(path) as unfinished,
        unfinished.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(("scene", "resolution", "method", "metric", "value"))
        for resolution in RESOLUTIONS:
            for method, scenes in evaluation.scores[resolution].items():
                for scene, scores in enumerate(scenes, start=1):
                    for metric, value in scores.items():
                        writer.writerow((scene, resolution, method, metric, value))
