"""Everything that only a GPU can show, in one go: ``make gpu-check``.

Finds what is installed, builds engines, proves every backend step by step, compares CUDA graph and
plain loop, and lets the benchmark measure all of them beside PyTorch, eager and compiled. Writes
one JSON, prints the benchmark's tables. It is meant to take less than 8 minutes, and has not been
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
GFLOP = 6.48
"""Of a patch and step, 64 pixels (matrix products and convolutions)."""
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


def attempt(what, call):
    """The result, or what went wrong; the check goes on."""
    print(f"[{time.strftime('%H:%M:%S')}] {what}", flush=True)
    try:
        return call()
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


def open_variant(name, bundle, **options):
    """Another PyTorch than the reference."""
    from ssdiff_ref.network.backend import open_torch

    return open_torch(name, bundle, **options | (EAGER | COMPILED)[name])


def check_backend(bundle, name, precision):
    """Parity, and what CUDA graphs and clamps could spoil."""
    proof = verify(str(bundle.path), name, precision, Lines())
    steps = [s for t in proof.parity.trajectories for s in t.steps]
    found = [d for s in steps for d in s.deviations.values()]
    result = {
        "backend": proof.backend,
        "passed": proof.passed,
        "faults": list(proof.faults),
        "worst rmse": max(d.rmse for d in found),
        "worst difference": max(d.max for d in found),
        "image psnr": min(
            d.psnr for t in proof.parity.trajectories for d in t.steps[-1].deviations.values()
        ),
    }
    backend = open_backend(name, bundle, precision=precision, batch=8, progress=Lines())
    if isinstance(backend, TensorRT):
        tiles = real_tiles(bundle.manifest.model.bands, 64, 8)
        ten = make_schedule(range(0, 1000, 100))
        result["graph and loop agree"] = same_bytes(backend, tiles, ten)
        result["keeps what is not finite"] = keeps_nan(backend, tiles)
    return result


def same_bytes(backend, tiles, schedule):
    """Whether a CUDA graph and a plain loop give the same."""
    (by_graph,) = backend.sample([tiles], schedule)
    for slot in backend._slots:
        slot.graph = None
    (plain,) = backend.sample([tiles], schedule)
    return bool(np.array_equal(by_graph, plain))


def keeps_nan(backend, tiles):
    """Whether a NaN in the inputs comes out as one, not clamped away."""
    lms = tiles.lms.copy()
    lms[0, 0, 5, 5] = np.nan
    (image,) = backend.sample([tiles._replace(lms=lms)], ONE)
    return bool(np.isnan(image[0]).any() and np.isfinite(image[1:]).all())


def floors():
    """What the GPU could do: rate of matrix products, and bandwidth."""
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

    found = {}
    for name, dtype in (("fp16", torch.float16), ("fp32", torch.float32)):
        a = torch.randn(8192, 8192, device="cuda", dtype=dtype)
        rate = 2 * 8192**3 / best(lambda a=a: a @ a)
        found[f"{name} TFLOP/s"] = rate / 1e12
        found[f"floor of a patch-step in {name}, us"] = GFLOP * 1e9 / rate * 1e6
    block = torch.empty(1 << 28, device="cuda")
    copy = torch.empty_like(block)
    found["GB/s"] = 2 * block.nbytes / best(lambda: copy.copy_(block)) / 1e9
    return found


def measure(bundle, others, batches=(1, 8, 32, 128), **contenders):
    """The benchmark, short; its tables are printed, too."""
    found = bench(
        str(bundle.path),
        batches=batches,
        steps=(1, 10),
        rounds=1,
        repeats=10,
        seconds=0.2,
        others=dict.fromkeys(others, "tests.gpu_check:open_variant"),
        progress=Lines(),
        **contenders,
    )
    print_tables(found)
    return found.model_dump(mode="json")


@click.command()
@click.option("--bundle", default="generic4", show_default=True, help="With graphs in fp16.")
@click.option("-o", "--output", default="gpu-check.json", show_default=True)
def main(bundle: str, output: str) -> None:
    """Prove and measure every backend on this machine's GPU."""
    if lack := why_no_cuda():
        raise click.ClickException(f"There is no GPU to check: {lack}.")
    opened = open_bundle(bundle)
    report: dict = {"when": time.strftime("%Y-%m-%d"), "precisions": opened.precisions}
    smi = subprocess.run(["nvidia-smi"], capture_output=True, text=True)
    report["nvidia-smi"] = smi.stdout.splitlines()[2:4]

    def device():
        cuda = open_cuda()
        return vars(cuda.device) | {"by": cuda.package, "memory": cuda.memory()}

    report["device"] = attempt("device", device)
    report["floors"] = attempt("floors", floors)
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
            reference=True,
            others=EAGER,
        ),
    )
    report["compiled"] = attempt(
        "PyTorch, compiled",
        lambda: measure(opened, batches=(8, 32), backends=(), others=COMPILED),
    )
    Path(output).write_text(json.dumps(report, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
