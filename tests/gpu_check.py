"""Everything that only a GPU can show, in one go: ``make gpu-check``.

Finds what is installed, builds engines, proves every backend step by step, and measures it beside
PyTorch on the same tiles in the same process. Writes one JSON, prints one table. It is meant to
take less than 8 minutes, and has not been timed on a GPU.

    python -m tests.gpu_check [--bundle generic4] [-o gpu-check.json]
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import click
import numpy as np

from runtime.backends import Tiles, open_backend
from runtime.backends.tensorrt import TensorRT
from runtime.bundle import open_bundle
from runtime.cuda import open_cuda, why_no_cuda
from runtime.parity import real_tiles
from runtime.progress import Lines
from runtime.schedule import make_schedule
from runtime.verification import verify

BATCHES = (1, 8, 32, 128)
PACKAGES = (
    "torch",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "pycuda",
    "cuda-bindings",
)
GPU_BACKENDS = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda")
GFLOP = 6.48
"""Of a patch and step, 64 pixels (matrix products and convolutions)."""
ONE = make_schedule((999,))


def installed() -> dict[str, str]:
    """Versions of what is there."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def attempt(what, call):
    """The result, or what went wrong; the check goes on."""
    print(f"[{time.strftime('%H:%M:%S')}] {what}", flush=True)
    try:
        return call()
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


def tiles_of(bands, count):
    """Real tiles, repeated."""
    one = real_tiles(bands, 64)
    rng = np.random.default_rng(3)
    many = Tiles(*(np.repeat(part, count, axis=0) for part in one))
    return many._replace(noise=rng.standard_normal(many.noise.shape, np.float32))


def measure_backend(bundle, name, precision):
    """Parity, graphs, and time by batch."""
    result = {}
    began = time.monotonic()
    proof = verify(str(bundle.path), name, precision, Lines())
    result["seconds to build and verify"] = round(time.monotonic() - began, 1)
    result["backend"], result["passed"] = proof.backend, proof.passed
    result["faults"] = list(proof.faults)
    steps = [s for t in proof.parity.trajectories for s in t.steps]
    found = [d for s in steps for d in s.deviations.values()]
    result["worst rmse"] = max(d.rmse for d in found)
    result["worst difference"] = max(d.max for d in found)
    result["image psnr"] = min(
        d.psnr for t in proof.parity.trajectories for d in t.steps[-1].deviations.values()
    )
    result["by batch"] = {}
    for batch in BATCHES:
        result["by batch"][batch] = attempt(
            f"{name} {precision} batch {batch}",
            lambda batch=batch: time_backend(bundle, name, precision, batch),
        )
    return result


def time_backend(bundle, name, precision, batch):
    """Milliseconds of a step on the GPU, and tiles per second with copies."""
    backend = open_backend(name, bundle, precision=precision, batch=batch, progress=Lines())
    tiles = tiles_of(bundle.manifest.model.bands, batch)
    found = {}
    if isinstance(backend, TensorRT):
        times = backend.milliseconds(tiles, ONE, 30)
        found["ms a step"] = median(times)
        found["patch-steps/s"] = 1000 * batch / median(times)
        ten = make_schedule(range(0, 1000, 100))
        found["ms of 10 steps"] = median(backend.milliseconds(tiles, ten, 10))
        found["graph and loop agree"] = same_bytes(backend, tiles, ten)
        found["keeps what is not finite"] = keeps_nan(backend, tiles)
    many = [tiles] * max(3, 256 // batch)
    list(backend.sample(many[:3], ONE))
    walls = []
    for _ in range(3):
        began = time.perf_counter()
        list(backend.sample(many, ONE))
        walls.append(time.perf_counter() - began)
    found["tiles/s, copies and host included"] = batch * len(many) / median(walls)
    return found


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


def measure_torch(bundle):
    """PyTorch on the same tiles: as released, and as good as it gets."""
    import torch

    from ssdiff_ref.checkpoint import load_checkpoint
    from ssdiff_ref.network import SSNet

    net = load_checkpoint(bundle.path).net
    results = {}
    kinds = {
        "eager as released, fp32": ("fft", "materialised", torch.float32, False),
        "eager, fused, fp32": ("matmul", "fused", torch.float32, False),
        "compiled, fp32": ("matmul", "fused", torch.float32, True),
        "eager as released, fp16": ("matmul", "materialised", torch.float16, False),
        "compiled, fp16": ("matmul", "fused", torch.float16, True),
    }
    for name, (fmim, attention, dtype, compiled) in kinds.items():
        twin = SSNet(net.bands, fmim=fmim, attention=attention).eval()
        twin.load_state_dict(net.state_dict())
        twin = twin.cuda().to(dtype)
        # The frequencies of the time embedding lose their digits in half precision; time does not.
        model = torch.compile(twin, dynamic=False) if compiled else twin
        results[name] = {}
        for batch in BATCHES if not compiled else (8, 32):
            results[name][batch] = attempt(
                f"torch {name}, batch {batch}",
                lambda batch=batch, model=model, dtype=dtype: time_torch(model, dtype, batch, net),
            )
    return results


def time_torch(model, dtype, batch, net):
    """Milliseconds of a step by CUDA events, median of 20."""
    import torch

    tiles = tiles_of(net.bands, batch)
    inputs = [torch.from_numpy(part).cuda().to(dtype) for part in tiles]
    t = torch.full((batch,), 999.0, device="cuda", dtype=dtype)
    times = []
    with torch.inference_mode():
        for index in range(25):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            model(*inputs, t)
            stop.record()
            torch.cuda.synchronize()
            if index >= 5:
                times.append(start.elapsed_time(stop))
    return {"ms a step": median(times), "patch-steps/s": 1000 * batch / median(times)}


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


def table(report):
    """Patch-steps per second by backend and batch."""
    lines = [f"{'patch-steps/s':34}" + "".join(f"{batch:>12}" for batch in BATCHES)]
    rows = {
        f"{name}, {precision}": part.get("by batch", {})
        for name, precisions in report["backends"].items()
        for precision, part in precisions.items()
    }
    rows |= {f"torch {name}": part for name, part in report.get("torch", {}).items()}
    for name, by_batch in rows.items():
        if not isinstance(by_batch, dict):
            continue
        cells = []
        for batch in BATCHES:
            part = by_batch.get(batch) or {}
            value = part.get("patch-steps/s", part.get("tiles/s, copies and host included"))
            cells.append(f"{value:12.0f}" if value else f"{'-':>12}")
        lines.append(f"{name:34}" + "".join(cells))
    return "\n".join(lines)


@click.command()
@click.option("--bundle", default="generic4", show_default=True, help="With graphs in fp16.")
@click.option("-o", "--output", default="gpu-check.json", show_default=True)
def main(bundle: str, output: str) -> None:
    """Prove and measure every backend on this machine's GPU."""
    if lack := why_no_cuda():
        raise click.ClickException(f"There is no GPU to check: {lack}.")
    opened = open_bundle(bundle)
    report: dict = {
        "when": time.strftime("%Y-%m-%d"),
        "python": sys.version.split()[0],
        "machine": platform.machine(),
        "packages": installed(),
        "bundle": opened.manifest.name,
        "precisions": opened.precisions,
    }
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
                lambda name=name, precision=precision: measure_backend(opened, name, precision),
            )
            for precision in opened.precisions
            if precision != "bf16" or name != "onnxruntime-cuda"
        }
        for name in GPU_BACKENDS
    }
    report["torch"] = attempt("torch", lambda: measure_torch(opened))
    Path(output).write_text(json.dumps(report, indent=1, default=str) + "\n")
    print(table(report))


if __name__ == "__main__":
    main()
