"""Time of the network on the CPU: ``performance.json`` and ``performance.png``.

    python -m benchmarks.performance [--bundle generic4] [--name performance] [-o docs]

The released computation (FFT, materialised attention, PyTorch eager) and the graphs of a bundle in
ONNX Runtime and OpenVINO are timed in one process, on the same eight tiles, with the same number of
threads, in alternating rounds. Also measured are the rate of matrix products on this processor, the
time of each kind of operator in both engines, and the rate of the interpolation of MS.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import torch
from scipy import ndimage

from benchmarks.gpu.references import GFLOP
from benchmarks.output import output_option
from ssdiff_ref.network.checkpoint import load_checkpoint
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_trt.export.parity import torch_denoiser
from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime, import_onnxruntime
from ssdiff_trt.runtime.backends.openvino import OpenVino
from ssdiff_trt.runtime.bundle.manifest import Form
from ssdiff_trt.runtime.bundle.store import Bundle, open_bundle
from ssdiff_trt.runtime.cpus import computes_in_bf16
from ssdiff_trt.runtime.interpolator import HALO, interpolate_with_halo
from ssdiff_trt.runtime.options import Precision
from ssdiff_trt.runtime.parity.ladder import real_tiles

FORMS: tuple[Form, ...] = ("contrib", "fused", "portable")
OPERATOR_KINDS = {
    "MultiHeadAttention": "attention between pixels",
    "Attention": "attention between pixels",
    "Conv": "convolutions",
    "MatMul": "projections",
    "FusedMatMul": "projections",
    "Gemm": "projections",
    "LayerNormalization": "norms",
}
ROUNDS = 3
TILES = 8
"""Tiles of a batch."""


def times(call: Callable[[], object], runs: int) -> list[float]:
    """Milliseconds of each run, after two warm-up runs."""
    milliseconds = []
    for index in range(runs + 2):
        began = time.perf_counter()
        call()
        if index > 1:
            milliseconds.append(1000 * (time.perf_counter() - began))
    return milliseconds


def step_times(bundle: Bundle, threads: int) -> dict[str, float]:
    """Median milliseconds for a tile of a batch and a step, by computation."""
    bands = bundle.manifest.model.bands
    tiles = real_tiles(bands, bundle.manifest.model.tile, TILES)
    reference = SSNet(bands, fmim="fft", attention="materialised").eval()
    reference.load_state_dict(load_checkpoint(bundle.path).net.state_dict())
    released = torch_denoiser(reference)
    calls: dict[str, Callable[[], object]] = {
        "released": lambda: released(tiles, tiles.noise, 999.0)
    }
    for form in FORMS:
        backend = OnnxRuntime(bundle, threads=threads, form=form)
        calls[form] = partial(backend.denoise, tiles, tiles.noise, 999.0)
    for precision in openvino_precisions():
        in_openvino = OpenVino(bundle, threads=threads, precision=precision)
        calls[f"openvino {precision}"] = partial(in_openvino.denoise, tiles, tiles.noise, 999.0)
    runs: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            runs[name] += times(call, 7)
    return {name: round(median(times) / TILES, 2) for name, times in runs.items()}


def openvino_precisions() -> tuple[Precision, ...]:
    """Precisions that OpenVINO can be timed in here."""
    if not find_spec("openvino"):
        return ()
    return ("fp32", "bf16") if computes_in_bf16() else ("fp32",)


def operators_in_openvino(bundle: Bundle, precision: Precision) -> dict[str, float]:
    """Milliseconds of one step of a tile on one thread by kind of layer, from its own counters."""
    import openvino

    core = openvino.Core()
    path = bundle.path / bundle.graph("denoiser", "fp32", "portable").file
    hint = "bf16" if precision == "bf16" else "f32"
    options = {"INFERENCE_PRECISION_HINT": hint, "PERF_COUNT": True, "INFERENCE_NUM_THREADS": 1}
    request = core.compile_model(core.read_model(path), "CPU", options).create_infer_request()
    tiles = real_tiles(bundle.manifest.model.bands, bundle.manifest.model.tile)
    inputs = {"x_t": tiles.noise, "pan": tiles.pan, "lms": tiles.lms, "ms": tiles.ms}
    inputs["t"] = np.full(1, 999, np.float32)
    runs: dict[str, list[float]] = {}
    for _ in range(12):
        request.infer(inputs)
        once: dict[str, float] = {}
        for layer in request.profiling_info:
            kind = layer.node_type
            once[kind] = once.get(kind, 0) + layer.real_time.total_seconds() * 1000
        for kind, time_of in once.items():
            runs.setdefault(kind, []).append(time_of)
    totals = {kind: median(times[2:]) for kind, times in runs.items()}
    return {
        kind: round(total, 2)
        for kind, total in sorted(totals.items(), key=lambda item: -item[1])
        if total >= 0.05
    }


def product_rate(dtype: torch.dtype) -> float:
    """GFLOP/s of a product of two 2048 x 2048 matrices in PyTorch."""
    a = torch.randn(2048, 2048).to(dtype)
    return 2 * 2048**3 / median(times(lambda: a @ a, 7)) / 1e6


def operators(bundle: Bundle, threads: int) -> dict[str, float]:
    """Milliseconds of one step by kind of operator, from the profiler of ONNX Runtime."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    tiles = real_tiles(bundle.manifest.model.bands, bundle.manifest.model.tile)
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/profile"
        path = bundle.path / bundle.graph("denoiser", "fp32", "contrib").file
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        inputs = {"x_t": tiles.noise, "pan": tiles.pan, "lms": tiles.lms, "ms": tiles.ms}
        inputs["t"] = np.full(1, 999, np.float32)
        for _ in range(12):
            session.run(None, inputs)
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    by_node: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            by_node.setdefault((event["args"]["op_name"], event["name"]), []).append(event["dur"])
    totals: dict[str, float] = {}
    for (operator, _), microseconds in by_node.items():
        # The first two of the 12 runs are warm-up runs.
        kind = OPERATOR_KINDS.get(operator, "layout and elementwise")
        totals[kind] = totals.get(kind, 0) + median(microseconds[2:]) / 1000
    return {name: round(totals[name], 2) for name in sorted(totals, key=totals.__getitem__)[::-1]}


def lms_rate() -> dict[str, float]:
    """Rate of interpolation by 4 on tiles with halo, in 10^6 pixels x bands per second."""
    rng = np.random.default_rng(0)
    side = 16 + 2 * HALO
    ms = rng.random((64, 8, side, side), np.float32)
    inner = np.ascontiguousarray(ms[..., HALO:-HALO, HALO:-HALO]).reshape(-1, 16, 16)
    amount = 64 * 8 * 64 * 64 / 1e3  # 10^3 pixels x bands; divided by ms, 10^6 per second
    ours = median(times(lambda: interpolate_with_halo(ms, (1.5, 1.5)), 15))
    spline = median(times(lambda: ndimage.zoom(inner, (1, 4, 4), order=3), 5))
    return {
        "23 taps, here": round(amount / ours, 1),
        "scipy.ndimage.zoom, cubic": round(amount / spline, 1),
    }


NAMES = {
    "released": "released",
    "portable": "ONNX Runtime, portable graph",
    "fused": "ONNX Runtime, fused graph",
    "contrib": "ONNX Runtime, contrib graph, the default",
    "openvino fp32": "OpenVINO, FP32",
    "openvino bf16": "OpenVINO, BF16",
}
"""Computations as documents call them."""


def table(reports: list[dict[str, Any]]) -> str:
    """Times of reports of one or more tile sizes as a Markdown table."""
    heads = [f"tile of {report['tile']} | speed" for report in reports]
    lines = [f"| a tile and step | {' | '.join(heads)} |", "|---" * (1 + 2 * len(heads)) + "|"]
    for key, name in NAMES.items():
        cells = [
            f"{report['ms'][key]} ms | {report['ms']['released'] / report['ms'][key]:.1f} x"
            for report in reports
            if key in report["ms"]
        ]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw the times of all computations, and the times of operators in the contrib graph."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = {"released, PyTorch": report["ms"]["released"]} | {
        f"ONNX Runtime, {form}": report["ms"][form] for form in reversed(FORMS)
    }
    rows |= {
        name.replace("openvino", "OpenVINO,"): each
        for name, each in report["ms"].items()
        if name.startswith("openvino")
    }
    left.barh(list(rows), list(rows.values()), color=["#888888", *["#4c72b0"] * (len(rows) - 1)])
    left.axvline(
        report["floor_ms"], color="#c44e52", ls="--", label="lower bound: matrix products, FP32"
    )
    left.set(xlabel="ms per tile and step")
    left.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1))
    by_kind = report["operators_ms"]
    right.barh(list(by_kind)[::-1], list(by_kind.values())[::-1], color="#4c72b0")
    right.set(xlabel="ms per tile and step, contrib graph")
    for panel in (left, right):
        panel.grid(alpha=0.3, axis="x")
    figure.savefig(path, dpi=110)


@click.command()
@click.option(
    "--bundle", "bundle_name", default="generic4", show_default=True, help="Bundle to time."
)
@click.option("--threads", type=int, help="Threads of the CPU; default: all cores.")
@output_option
@click.option("--name", default="performance", help="Name of the files, without their suffixes.")
def main(bundle_name: str, threads: int | None, output: Path, name: str) -> None:
    """Measure, write the JSON, draw the picture and print the results."""
    threads = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    bundle = open_bundle(bundle_name)
    milliseconds = step_times(bundle, threads)
    products = {"fp32": product_rate(torch.float32), "bf16": product_rate(torch.bfloat16)}
    report = {
        "bundle": bundle.manifest.name,
        "tile": bundle.manifest.model.tile,
        "threads": threads,
        "ms": milliseconds,
        "times_faster": {
            computation: round(milliseconds["released"] / each, 2)
            for computation, each in milliseconds.items()
            if computation != "released"
        },
        "GFLOP/s": {precision: round(rate) for precision, rate in products.items()},
        "floor_ms": round(1000 * GFLOP[bundle.manifest.model.tile] / products["fp32"], 1),
        "operators_ms": operators(bundle, threads),
        "openvino_operators_ms": {
            precision: operators_in_openvino(bundle, precision)
            for precision in openvino_precisions()
        },
        "lms_mpixel_bands_per_s": lms_rate(),
    }
    (output / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    draw(report, output / f"{name}.png")
    print(json.dumps(report, indent=1))
    print(table([report]))


if __name__ == "__main__":
    main()
