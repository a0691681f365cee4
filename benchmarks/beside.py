"""This project beside what else fuses a pair on a CPU: ``beside.json`` and a table.

    python -m benchmarks.beside pan.tif ms.tif --sensor generic -o docs

Each method fuses the same files into a GeoTIFF, in rounds in which all have their turn, in one
process; what opens a network is not counted. Scores are of the pair degraded by Wald's protocol,
whose MS is the truth. orthority is left out where it is not installed.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import rasterio
import rasterio.shutil

from benchmarks.weights import number
from ssdiff_ref.classical.fusion import fuse
from ssdiff_ref.network.backend import open_torch
from ssdiff_ref.protocol.wald import simulate
from ssdiff_ref.quality.metrics import ergas, sam
from ssdiff_trt import Pansharpener
from ssdiff_trt.runtime.benchmark.environment import environment
from ssdiff_trt.runtime.bundle.store import bundle_for
from ssdiff_trt.runtime.cpus import computes_in_bf16

CROP = 21
"""Pixels at the edge that do not count in scores."""
Method = Callable[[Path, Path, Path], object]
"""Fuses PAN and MS into a file."""
BROVEY = """<VRTDataset subClass="VRTPansharpenedDataset"><PansharpeningOptions>
<NumThreads>ALL_CPUS</NumThreads>
<PanchroBand><SourceFilename>{pan}</SourceFilename><SourceBand>1</SourceBand></PanchroBand>
{bands}</PansharpeningOptions></VRTDataset>"""


def by_gdal(pan: Path, ms: Path, output: Path) -> None:
    """As ``gdal_pansharpen`` does: weighted Brovey, cubic, equal weights."""
    with rasterio.open(ms) as file:
        numbers = file.indexes
    bands = "".join(
        f'<SpectralBand dstBand="{band}"><SourceFilename>{ms}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand></SpectralBand>"
        for band in numbers
    )
    vrt = output.with_suffix(".vrt")
    vrt.write_text(BROVEY.format(pan=pan, bands=bands))
    rasterio.shutil.copy(vrt, output, driver="GTiff")


def by_orthority(pan: Path, ms: Path, output: Path) -> None:
    """Gram-Schmidt of orthority."""
    from orthority.pan_sharp import PanSharpen

    PanSharpen(pan, ms).process(output, write_mask=False, overwrite=True)


def methods(bands: int, sensor: str, full_scale: float | None) -> dict[str, Method]:
    """Methods by name; networks are opened now."""
    stated: Any = {} if full_scale is None else {"full_scale": full_scale}
    bundle = bundle_for(bands)

    def network(**options: Any) -> Method:
        sharpener = Pansharpener(bundle, bands=bands, **options)
        return lambda pan, ms, output: sharpener(pan, ms, output, overwrite=True, **stated)

    def eager(**form: Any) -> Method:
        return network(backend=open_torch("reference", bundle, batch=8, **form))

    def classical(method: str) -> Method:
        return lambda pan, ms, output: fuse(
            pan, ms, output, method=method, sensor=sensor, shift="auto", overwrite=True
        )

    fast = {"fmim": "matmul", "attention": "fused"}
    found: dict[str, Method] = {"ONNX Runtime, FP32 (default)": network(backend="onnxruntime")}
    if find_spec("openvino"):
        found["OpenVINO, FP32"] = network(backend="openvino", precision="fp32")
        if computes_in_bf16():
            found["OpenVINO, BF16"] = network(backend="openvino", precision="bf16")
    found |= {
        "released computation (PyTorch, FFT)": eager(fmim="fft", attention="materialised"),
        "PyTorch, eager": eager(**fast),
        "PyTorch, compiled": eager(**fast, compiled=True),
        "MTF-GLP-FS": classical("mtf-glp-fs"),
        "GSA": classical("gsa"),
        "GDAL, weighted Brovey": by_gdal,
    }
    if find_spec("orthority"):
        found["orthority, Gram-Schmidt"] = by_orthority
    return found


def timed(method: Method, pan: Path, ms: Path, output: Path) -> tuple[float, float]:
    """Seconds of wall time and of the CPU."""
    before, began = os.times(), time.perf_counter()
    method(pan, ms, output)
    wall, after = time.perf_counter() - began, os.times()
    return wall, after.user + after.system - before.user - before.system


def scores(method: Method, folder: Path, output: Path) -> dict[str, float]:
    """ERGAS and SAM on a pair with a reference."""
    method(folder / "pan.tif", folder / "ms.tif", output)
    images = []
    for path in (output, folder / "reference.tif"):
        with rasterio.open(path) as file:
            images.append(file.read().astype(np.float64)[:, CROP:-CROP, CROP:-CROP])
    fused, truth = images
    return {"ERGAS": ergas(fused, truth), "SAM": sam(fused, truth)}


def table(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    lines = [
        "| method | s a Mpixel of PAN | CPU-s a Mpixel | speed | ERGAS | SAM |",
        "|---|---|---|---|---|---|",
    ]
    rows = report["methods"]
    released = next(row for name, row in rows.items() if name.startswith("released"))
    for name, row in rows.items():
        faster = f"{released['s'] / row['s']:.1f} x"
        cells = (number(row[key]) for key in ("s", "CPU-s"))
        lines.append(
            f"| {name} | {' | '.join(cells)} | {faster} | {number(row['ERGAS'])} | "
            f"{number(row['SAM'])} |"
        )
    return "\n".join(lines)


@click.command()
@click.argument("pan", type=click.Path(path_type=Path))
@click.argument("ms", type=click.Path(path_type=Path))
@click.option("--sensor", default="generic", show_default=True)
@click.option("--full-scale", type=float, help="Of PAN and MS, where the files do not say.")
@click.option("--rounds", default=3, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("docs"))
def main(
    pan: Path, ms: Path, sensor: str, full_scale: float | None, rounds: int, output: Path
) -> None:
    """Measure, write beside.json and print the table."""
    with rasterio.open(ms) as file:
        bands = file.count
    with rasterio.open(pan) as file:
        size = file.height * file.width / 1e6
    found = methods(bands, sensor, full_scale)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        result = folder / "result.tif"
        simulate(pan, ms, folder / "reduced", sensor=sensor)
        judged = {
            name: scores(method, folder / "reduced", result) for name, method in found.items()
        }
        for index in range(rounds):
            for name, method in found.items():
                times[name].append(timed(method, pan, ms, result))
                click.echo(f"round {index + 1}, {name}: {times[name][-1][0]:.1f} s", err=True)
    rows = {
        name: {
            "s": median(wall for wall, _ in times[name]) / size,
            "CPU-s": median(cpu for _, cpu in times[name]) / size,
            **judged[name],
        }
        for name in found
    }
    report = {
        "environment": environment().model_dump(mode="json"),
        "Mpixel of PAN": size,
        "bands": bands,
        "rounds": rounds,
        "methods": rows,
    }
    (output / "beside.json").write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))


if __name__ == "__main__":
    main()
