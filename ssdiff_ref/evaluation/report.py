"""Reports of an evaluation: tables on the terminal, JSON and CSV files."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ssdiff_ref.evaluation.judging import Evaluation, Resolution, Scores
from ssdiff_trt.runtime.files import atomic_write

RESOLUTIONS: tuple[Resolution, ...] = ("reduced", "full")
_LOWER_IS_BETTER = ("SAM", "ERGAS", "D_lambda", "D_s")
_DECIMALS = {"SAM": 3, "ERGAS": 3, "PSNR": 2}
_TITLES = {
    "reduced": "Reduced resolution, against the reference",
    "full": "Full resolution, without a reference",
}
_WIDTH = 80


def print_tables(evaluation: Evaluation) -> None:
    """Print mean scores on standard output, with standard deviations for several scenes."""
    console = Console(width=_WIDTH, highlight=False)
    for resolution in RESOLUTIONS:
        if mean := evaluation.mean(resolution):
            console.print(_table(_TITLES[resolution], mean, evaluation.std(resolution)))
    deviation_note = (
        f" Mean ± standard deviation of {evaluation.scenes} scenes."
        if evaluation.scenes > 1
        else ""
    )
    console.print(
        f"* is best: the lowest SAM (degrees), ERGAS, D_lambda, D_s; the highest of the others "
        f"(PSNR in dB).{deviation_note}"
    )


def _table(title: str, mean: Mapping[str, Scores], std: Mapping[str, Scores]) -> Table:
    metrics = list(next(iter(mean.values())))
    best = {
        metric: (min if metric in _LOWER_IS_BETTER else max)(
            scores[metric] for scores in mean.values()
        )
        for metric in metrics
    }
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", overflow="fold")
    for metric in metrics:
        table.add_column(f"{metric} ", justify="right", no_wrap=True)
    for method, scores in mean.items():
        cells = []
        for metric in metrics:
            is_best = len(mean) > 1 and scores[metric] == best[metric]
            cell = Text(_number(metric, scores[metric]) + ("*" if is_best else " "))
            if is_best:
                cell.stylize("bold")
            if std:
                cell.append(f"\n±{_number(metric, std[method][metric])} ", "not bold")
            cells.append(cell)
        table.add_row(method, *cells)
    return table


def _number(metric: str, value: float) -> str:
    return f"{value:.{_DECIMALS.get(metric, 4)}f}"


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
    with atomic_write(path) as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("scene", "resolution", "method", "metric", "value"))
        for resolution in RESOLUTIONS:
            for method, scenes in evaluation.scores[resolution].items():
                for scene, scores in enumerate(scenes, start=1):
                    for metric, value in scores.items():
                        writer.writerow((scene, resolution, method, metric, value))
