"""Checks that need a GPU, in one command: ``make gpu-check``.

Builds engines, verifies every backend step by step, compares CUDA graphs with step-by-step
execution, and benchmarks all backends and PyTorch, eager and compiled. Writes a JSON report and
prints the tables of the benchmark. It is intended to take less than 8 minutes, but has not been
timed on a GPU.

    python -m tests.gpu_check [--bundle generic4] [-o gpu-check.json]
"""

from __future__ import annotations

import json
import subprocess
import time
import traceback
from pathlib import Path
from statistics import median

import click
import numpy as np

from ssdiff_trt.runtime.backends.registry import open_backend
from ssdiff_trt.runtime.backends.tensorrt.backend import TensorRT
from ssdiff_trt.runtime.backends.tensorrt.cuda import open_cuda, why_no_cuda
from ssdiff_trt.runtime.benchmark.rounds import bench
from ssdiff_trt.runtime.benchmark.tables import print_tables
from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.parity.ladder import real_tiles
from ssdiff_trt.runtime.parity.verification import verify
from ssdiff_trt.runtime.progress import Lines
from ssdiff_trt.runtime.schedule import make_schedule

GPU_BACKENDS = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda")
GFLOP = {32: 0.71, 64: 6.48}
"""GFLOP per tile and step, by pixels of a tile (matrix products and convolutions)."""
REFERENCE = "ssdiff_ref.network.backend:open_torch"
ONE = make_schedule((999,))
EAGER = {
    "eager fused": {"fmim": "matmul", "attention": "fused"},
    "eager half": {"fmim": "matmul", "precision": "fp16"},
}
COMPILED = {
    "compiled": {"fmim": "matmul", "attention": "fused", "compiled": True},
    "compiled half": {
        "fmim": "matmul",
        "attention": "fused",
        "compiled": True,
        "precision": "fp16",
    },
}


def attempt(title, call):
    """Result of a call, or its error, so that the other checks still run."""
    print(f"[{time.strftime('%H:%M:%S')}] {title}", flush=True)
    try:
        return call()
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


def open_variant(name, bundle, **options):
    """Open a variant of the PyTorch reference, by its name in EAGER or COMPILED."""
    from ssdiff_ref.network.backend import open_torch

    return open_torch(name, bundle, **options | (EAGER | COMPILED)[name])


def check_backend(bundle, name, precision):
    """Parity; for TensorRT also agreement of graph and loop, and propagation of NaN."""
    verification = verify(str(bundle.path), name, precision, progress=Lines())
    trajectories = verification.parity.trajectories
    steps = [step for trajectory in trajectories for step in trajectory.steps]
    deviations = [deviation for step in steps for deviation in step.deviations.values()]
    result = {
        "backend": verification.backend,
        "passed": verification.passed,
        "faults": list(verification.faults),
        "worst rmse": max(d.rmse for d in deviations),
        "worst difference": max(d.max for d in deviations),
        "image psnr": min(d.psnr for t in trajectories for d in t.steps[-1].deviations.values()),
    }
    backend = open_backend(name, bundle, precision=precision, batch=8, progress=Lines())
    if isinstance(backend, TensorRT):
        model = bundle.manifest.model
        tiles = real_tiles(model.bands, model.tile, 8)
        ten = make_schedule(range(0, 1000, 100))
        result["graph and loop agree"] = same_bytes(backend, tiles, ten)
        result["keeps what is not finite"] = keeps_nan(backend, tiles)
    return result


def same_bytes(backend, tiles, schedule):
    """Whether CUDA graphs and step-by-step execution give the same bytes."""
    (by_graph,) = backend.sample([tiles], schedule)
    for slot in backend._slots:
        slot.graph = None
    (step_by_step,) = backend.sample([tiles], schedule)
    return bool(np.array_equal(by_graph, step_by_step))


def keeps_nan(backend, tiles):
    """Whether a NaN in PAN gives NaN in the image of its tile, and in no other image.

    PAN reaches the image through the network alone, so nothing but the network and the check at the
    end of a step can pass the NaN on.
    """
    pan = tiles.pan.copy()
    pan[0, 0, 5, 5] = np.nan
    (image,) = backend.sample([tiles._replace(pan=pan)], ONE)
    return bool(np.isnan(image[0]).any() and np.isfinite(image[1:]).all())


def floors(tile):
    """Rate of matrix products and memory bandwidth of the GPU, and lower bounds of a step."""
    import torch

    def best(call, repeats=10):
        times = []
        for _ in range(repeats):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            stop.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(stop) / 1000)
        return median(times)

    rates = {}
    for name, dtype in (("fp16", torch.float16), ("fp32", torch.float32)):
        a = torch.randn(8192, 8192, device="cuda", dtype=dtype)
        rate = 2 * 8192**3 / best(lambda a=a: a @ a)
        rates[f"{name} TFLOP/s"] = rate / 1e12
        rates[f"floor of a patch-step in {name}, us"] = GFLOP[tile] * 1e9 / rate * 1e6
    block = torch.empty(1 << 28, device="cuda")
    copy = torch.empty_like(block)
    rates["GB/s"] = 2 * block.nbytes / best(lambda: copy.copy_(block)) / 1e9
    return rates


def measure(bundle, variants, batches=(1, 8, 32, 128), **candidates):
    """Run a short benchmark with variants of PyTorch, and print its tables."""
    benchmark = bench(
        str(bundle.path),
        batches=batches,
        steps=(1, 10),
        rounds=1,
        repeats=10,
        seconds=0.2,
        openers=dict.fromkeys(variants, "tests.gpu_check:open_variant"),
        progress=Lines(),
        **candidates,
    )
    print_tables(benchmark)
    return benchmark.model_dump(mode="json")


@click.command()
@click.option("--bundle", default="generic4", show_default=True, help="Bundle, with fp16 graphs.")
@click.option("-o", "--output", default="gpu-check.json", show_default=True)
def main(bundle: str, output: str) -> None:
    """Verify and benchmark every backend on this machine's GPU."""
    if reason := why_no_cuda():
        raise click.ClickException(f"There is no GPU to check: {reason}.")
    opened = open_bundle(bundle)
    report: dict = {"when": time.strftime("%Y-%m-%d"), "precisions": opened.precisions}
    smi = subprocess.run(["nvidia-smi"], capture_output=True, text=True)
    report["nvidia-smi"] = smi.stdout.splitlines()[2:4]

    def device():
        cuda = open_cuda()
        with cuda.current():
            return vars(cuda.device) | {"by": cuda.package, "memory": cuda.memory()}

    report["device"] = attempt("device", device)
    report["floors"] = attempt("floors", lambda: floors(opened.manifest.model.tile))
    report["backends"] = {
        name: {
            precision: attempt(
                f"{name} {precision}",
                lambda name=name, precision=precision: check_backend(opened, name, precision),
            )
            for precision in opened.precisions
            if precision != "bf16" or name != "onnxruntime-cuda"
        }
        for name in GPU_BACKENDS
    }
    report["benchmark"] = attempt(
        "benchmark",
        lambda: measure(
            opened,
            backends=GPU_BACKENDS,
            precisions=opened.precisions,
            reference=REFERENCE,
            variants=EAGER,
        ),
    )
    report["compiled"] = attempt(
        "PyTorch, compiled",
        lambda: measure(opened, batches=(8, 32), backends=(), variants=COMPILED),
    )
    Path(output).write_text(json.dumps(report, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
