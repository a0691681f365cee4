"""What INT8 costs on whole scenes at reduced resolution: ``int8.json`` and a table.

    python -m docs.int8 --bundle BUNDLE [--pair NAME SENSOR PAN MS] [--array NAME SENSOR FILE]

Each scene is fused in FP32 and in INT8 by a bundle that has both, by the bundle's own steps and one
seed, and judged by its truth as in ``ssdiff-ref evaluate``.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np

from ssdiff_ref.evaluation.candidates import BundleMethod
from ssdiff_ref.protocol.array_files import open_arrays
from ssdiff_ref.protocol.datasets import Dataset, open_pair
from ssdiff_ref.quality.metrics import ergas, q2n, sam
from ssdiff_trt.runtime.backends.protocol import PrecisionChoice
from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.parity.ladder import deviation
from ssdiff_trt.runtime.progress import Progress

PRECISIONS: tuple[PrecisionChoice, ...] = ("fp32", "int8")


def compare(name: str, dataset: Dataset, bundle: str, crop: int) -> dict[str, object]:
    """The scores of a scene in both precisions, and the PSNR between the two."""
    pair, truth = dataset.read(0).reduced(dataset.sensor)
    opened, scale = open_bundle(bundle), dataset.scale.value
    inside = np.s_[:, crop - 1 : -crop, crop - 1 : -crop] if crop else np.s_[:, :, :]
    row: dict[str, object] = {"scene": name, "bundle": opened.manifest.name}
    images = {}
    for precision in PRECISIONS:
        method = BundleMethod(opened, scale, Progress(), precision)
        images[precision] = method(pair)[inside]
        measured = [f(images[precision], truth[inside]) for f in (ergas, sam, q2n)]
        row[precision] = dict(zip(("ergas", "sam", "q2n"), np.round(measured, 5), strict=True))
    low, full = (images[precision] / scale for precision in ("int8", "fp32"))
    row["psnr"] = round(deviation(low, full).psnr, 2)
    return row


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| scene | bundle | ERGAS: FP32, INT8 | SAM: FP32, INT8 | Q2n: FP32, INT8 | to FP32 |",
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
@click.option("--bundle", required=True, help="With graphs in INT8.")
@click.option("--pair", "pairs", nargs=4, multiple=True, help="Name, sensor, PAN, MS.")
@click.option("--array", "arrays", nargs=3, multiple=True, help="Name, sensor, file.")
@click.option("--nodata", type=float)
@click.option("--crop", type=int, default=21, show_default=True)
@click.option("-o", "--output", default="docs", type=click.Path(file_okay=False, path_type=Path))
def main(
    bundle: str,
    pairs: tuple[tuple[str, ...], ...],
    arrays: tuple[tuple[str, ...], ...],
    nodata: float | None,
    crop: int,
    output: Path,
) -> None:
    """Measure, keep and print."""
    scenes = [(name, open_arrays(path, sensor)) for name, sensor, path in arrays]
    for name, sensor, pan, ms in pairs:
        scenes.append((name, open_pair(pan, ms, sensor, nodata=nodata, progress=Progress())))
    kept = output / "int8.json"
    rows = json.loads(kept.read_text()) if kept.exists() else []
    for name, dataset in scenes:
        rows = [row for row in rows if row["scene"] != name]
        rows.append(compare(name, dataset, bundle, crop))
    kept.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
