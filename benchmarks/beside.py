"""This project beside what else fuses a pair on a CPU: ``beside.json`` and a table.

    python -m benchmarks.beside pan.tif ms.tif --sensor generic -o docs

Each method fuses the same files into a GeoTIFF, in rounds in which all have their turn, in one
process; what opens a network is not counted. Scores are of the pair degraded by Wald's protocol,
whose MS is the truth. orthority is left out where it is not installed.

``--command`` adds any program, such as another version of this one; it is a process of its own,
and its start counts:

    --command "now" "ssdiff-trt run {pan} {ms} -o {output} --overwrite"
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
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

from benchmarks.output import output_option
from benchmarks.weights import number
from ssdiff_ref.classical.fusion import fuse
from ssdiff_ref.network.backend import open_torch
from ssdiff_ref.protocol.wald import simulate
from ssdiff_ref.quality.metrics import ergas, sam
from ssdiff_trt import Pansharpener
from ssdiff_trt.runtime.backends.protocol import Backend
from ssdiff_trt.runtime.backends.registry import open_backend
from ssdiff_trt.runtime.benchmark.environment import environment
from ssdiff_trt.runtime.benchmark.worker import TimedBackend
from ssdiff_trt.runtime.bundle.store import Bundle, bundle_for, open_bundle
from ssdiff_trt.runtime.cpus import computes_in_bf16
from ssdiff_trt.runtime.options import Precision

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


class Network:
    """A network, opened now.

    Attributes:
        outside: share of the last run in which nothing waited for the network.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, full_scale: float | None, **options: Any
    ) -> None:
        self._backend = TimedBackend(backend)
        self._sharpener = Pansharpener(bundle, backend=self._backend)
        self._options = options if full_scale is None else {**options, "full_scale": full_scale}
        self.outside = 0.0

    def __call__(self, pan: Path, ms: Path, output: Path) -> None:
        before = self._backend.seconds
        result = self._sharpener(pan, ms, output, overwrite=True, **self._options)
        self.outside = 1 - (self._backend.seconds - before) / result.seconds


def by_command(command: str) -> Method:
    """The program that a command line starts."""

    def run(pan: Path, ms: Path, output: Path) -> None:
        words = [word.format(pan=pan, ms=ms, output=output) for word in shlex.split(command)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return run


def methods(
    bands: int, sensor: str, full_scale: float | None, int8: str | None = None
) -> dict[str, Method]:
    """Methods by name; networks are opened now."""
    bundle = bundle_for(bands)

    def network(name: str, precision: Precision = "fp32", **options: Any) -> Method:
        backend = open_backend(name, bundle, precision=precision)
        return Network(bundle, backend, full_scale, **options)

    def eager(**form: Any) -> Method:
        return Network(bundle, open_torch("reference", bundle, batch=8, **form), full_scale)

    def classical(method: str) -> Method:
        return lambda pan, ms, output: fuse(
            pan, ms, output, method=method, sensor=sensor, shift="auto", overwrite=True
        )

    fast = {"fmim": "matmul", "attention": "fused"}
    found: dict[str, Method] = {
        "ONNX Runtime, FP32 (default)": network("onnxruntime"),
        "the same, `--tile-overlap 4`": network("onnxruntime", tile_overlap=4),
    }
    if int8:
        calibrated = open_bundle(int8)
        backend = open_backend("onnxruntime", calibrated, precision="int8")
        found["ONNX Runtime, INT8"] = Network(calibrated, backend, full_scale)
    if find_spec("openvino"):
        found["OpenVINO, FP32"] = network("openvino")
        if computes_in_bf16():
            found["OpenVINO, BF16"] = network("openvino", "bf16")
            found["OpenVINO, BF16, `--tile-overlap 4`"] = network(
                "openvino", "bf16", tile_overlap=4
            )
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
    before, began = sum(os.times()[:4]), time.perf_counter()
    method(pan, ms, output)
    return time.perf_counter() - began, sum(os.times()[:4]) - before


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
        "| method | s a Mpixel of PAN | CPU-s a Mpixel | speed | not in network | ERGAS | SAM |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = report["methods"]
    released = next(row for name, row in rows.items() if name.startswith("released"))
    for name, row in rows.items():
        faster = f"{released['s'] / row['s']:.1f} x"
        outside = f"{row['not in network']:.0%}" if "not in network" in row else ""
        cells = [number(row[key]) for key in ("s", "CPU-s", "ERGAS", "SAM")]
        lines.append(f"| {' | '.join([name, *cells[:2], faster, outside, *cells[2:]])} |")
    return "\n".join(lines)


@click.command()
@click.argument("pan", type=click.Path(path_type=Path))
@click.argument("ms", type=click.Path(path_type=Path))
@click.option("--sensor", default="generic", show_default=True)
@click.option("--full-scale", type=float, help="Of PAN and MS, where the files do not say.")
@click.option("--int8", metavar="BUNDLE", help="A bundle with graphs in INT8.")
@click.option("--command", "commands", type=(str, str), multiple=True, metavar="NAME LINE")
@click.option("--rounds", default=3, show_default=True)
@output_option
@click.option("--name", default="beside", help="Name of the file to write, without its suffix.")
def main(
    pan: Path,
    ms: Path,
    sensor: str,
    full_scale: float | None,
    int8: str | None,
    commands: tuple[tuple[str, str], ...],
    rounds: int,
    output: Path,
    name: str,
) -> None:
    """Measure, write the report and print its table."""
    with rasterio.open(ms) as file:
        bands = file.count
    with rasterio.open(pan) as file:
        size = file.height * file.width / 1e6
    found = methods(bands, sensor, full_scale, int8)
    found |= {label: by_command(line) for label, line in commands}
    times: dict[str, list[tuple[float, float]]] = {method: [] for method in found}
    outside: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        result = folder / "result.tif"
        simulate(pan, ms, folder / "reduced", sensor=sensor)
        judged = {
            label: scores(method, folder / "reduced", result) for label, method in found.items()
        }
        for index in range(rounds):
            for label, method in found.items():
                times[label].append(timed(method, pan, ms, result))
                if isinstance(method, Network):
                    outside.setdefault(label, []).append(method.outside)
                click.echo(f"round {index + 1}, {label}: {times[label][-1][0]:.1f} s", err=True)
    rows = {
        label: {
            "s": median(wall for wall, _ in times[label]) / size,
            "CPU-s": median(cpu for _, cpu in times[label]) / size,
            **({"not in network": median(outside[label])} if label in outside else {}),
            **judged[label],
        }
        for label in found
    }
    report = {
        "environment": environment().model_dump(mode="json"),
        "Mpixel of PAN": size,
        "bands": bands,
        "rounds": rounds,
        "commands": dict(commands),
        "methods": rows,
    }
    (output / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))


if __name__ == "__main__":
    main()
