"""Quality of INT8 on whole scenes at reduced resolution: ``int8.json`` and a table.

    python -m benchmarks.int8 --bundle BUNDLE [--pair NAME SENSOR PAN MS]
        [--array NAME SENSOR FILE]

A bundle with graphs in both precisions fuses each scene in FP32 and in INT8, with its default
timesteps and the same seed. The results are scored against the reference as by
``ssdiff-ref evaluate``. The JSON also has what the bundle states of its quantisation: samples,
groups of layers, and the scores that it was exported with.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np

from benchmarks.output import output_option
from ssdiff_ref.evaluation.candidates import BundleMethod
from ssdiff_ref.protocol.array_files import open_arrays
from ssdiff_ref.protocol.datasets import Dataset, open_pair
from ssdiff_ref.quality.metrics import ergas, q2n, sam
from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.options import ExecutionOptions, PairOptions, PrecisionChoice
from ssdiff_trt.runtime.parity.ladder import deviation
from ssdiff_trt.runtime.progress import Progress

PRECISIONS: tuple[PrecisionChoice, ...] = ("fp32", "int8")


def compare(name: str, dataset: Dataset, bundle: str, crop: int) -> dict[str, object]:
    """The scores of a scene in both precisions, and the PSNR of INT8 relative to FP32 in dB."""
    pair, truth = dataset.read(0).reduced(dataset.sensor)
    opened, scale = open_bundle(bundle), dataset.scale.value
    inside = np.s_[:, crop - 1 : -crop, crop - 1 : -crop] if crop else np.s_[:, :, :]
    row: dict[str, object] = {"scene": name, "bundle": opened.manifest.name}
    images = {}
    for precision in PRECISIONS:
        method = BundleMethod(opened, scale, Progress(), ExecutionOptions(precision=precision))
        images[precision] = method(pair)[inside]
        scores = [metric(images[precision], truth[inside]) for metric in (ergas, sam, q2n)]
        row[precision] = dict(zip(("ergas", "sam", "q2n"), np.round(scores, 5), strict=True))
    low, full = (images[precision] / scale for precision in ("int8", "fp32"))
    row["psnr"] = round(deviation(low.astype(np.float32), full.astype(np.float32)).psnr, 2)
    return row


def table(rows: list[dict[str, object]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| scene | bundle | ERGAS: FP32, INT8 | SAM: FP32, INT8 | Q2n: FP32, INT8 | PSNR to FP32 |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        full, low = row["fp32"], row["int8"]
        assert isinstance(full, dict)
        assert isinstance(low, dict)
        cells = [
            f"{full[name]:.4f}, {low[name]:.4f} ({low[name] / full[name] - 1:+.2%})"
            for name in ("ergas", "sam", "q2n")
        ]
        lines.append(
            f"| {row['scene']} | {row['bundle']} | {' | '.join(cells)} | {row['psnr']} dB |"
        )
    return "\n".join(lines)


@click.command()
@click.option("--bundle", required=True, help="Bundle with graphs in INT8.")
@click.option(
    "--pair", "pairs", nargs=4, multiple=True, help="Scene as rasters: name, sensor, PAN, MS."
)
@click.option(
    "--array", "arrays", nargs=3, multiple=True, help="Scene as an array file: name, sensor, file."
)
@click.option("--nodata", type=float, help="Value that marks pixels without data.")
@click.option(
    "--crop", type=int, default=21, show_default=True, help="Pixels at the border to exclude."
)
@output_option
def main(
    bundle: str,
    pairs: tuple[tuple[str, ...], ...],
    arrays: tuple[tuple[str, ...], ...],
    nodata: float | None,
    crop: int,
    output: Path,
) -> None:
    """Score scenes in FP32 and INT8, add the scores to int8.json and print the table."""
    scenes = [(name, open_arrays(path, sensor)) for name, sensor, path in arrays]
    for name, sensor, pan, ms in pairs:
        scenes.append(
            (name, open_pair(pan, ms, sensor, PairOptions(nodata=nodata), progress=Progress()))
        )
    results = output / "int8.json"
    report = json.loads(results.read_text()) if results.exists() else {"bundles": {}, "scenes": []}
    manifest = open_bundle(bundle).manifest
    assert manifest.quantisation
    report["bundles"][manifest.name] = manifest.quantisation.model_dump(mode="json")
    for name, dataset in scenes:
        rows = [row for row in report["scenes"] if row["scene"] != name]
        report["scenes"] = [*rows, compare(name, dataset, bundle, crop)]
    results.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report["scenes"]))


if __name__ == "__main__":
    main()
